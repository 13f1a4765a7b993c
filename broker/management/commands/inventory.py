import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from broker import inventory
from broker.errors import InvalidInput


class Command(BaseCommand):
    help = "People, groups, endpoints and access profiles from a file."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        apply = verbs.add_parser("apply", help="make what is missing, change what differs")
        apply.add_argument("file", type=argparse.FileType(), help="YAML; - for standard input")

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            applied = inventory.apply(inventory.read(options["file"].read()), by=None)
        except InvalidInput as error:
            lines = [f"{name}: {message}" for name, message in error.errors.items()]
            raise CommandError("Nothing was changed.\n" + "\n".join(lines)) from error
        for line in applied.lines:
            self.stdout.write(line)
        self.stdout.write(f"{len(applied.lines)} changes.")
