"""Pages of docs/ that the code writes, so that they say what it does."""

import argparse
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand


class PageCommand(BaseCommand):
    """Prints a page as the code has it now, or writes it to its file."""

    path: Path
    # Such a page is about code: it needs no database and no settings of a deployment.
    requires_system_checks = []

    def page(self) -> str:
        """The whole of the page."""
        raise NotImplementedError

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """One option, which `make docs` gives."""
        parser.add_argument("--write", action="store_true", help="write the file (`make docs`)")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Print or write it."""
        if options["write"]:
            self.path.write_text(self.page())
            self.stdout.write(f"Wrote {self.path.relative_to(settings.BASE_DIR)}")
        else:
            self.stdout.write(self.page(), ending="")
