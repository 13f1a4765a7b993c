import argparse
import getpass
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from broker.errors import Conflict, InvalidInput, Unavailable
from credentials.actions import store_upstream_key
from credentials.models import Use
from endpoints.models import Endpoint


class Command(BaseCommand):
    help = "Put an endpoint's own key into Vault. Asked for, or one line on standard input."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("endpoint", help="the endpoint's slug")
        parser.add_argument(
            "--handed-out",
            action="store_true",
            help="the static key that grants hand out, not the one that gateways use",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        endpoint = Endpoint.objects.filter(slug=options["endpoint"]).first()
        if endpoint is None:
            raise CommandError(f"There is no endpoint {options['endpoint']!r}.")
        # Never as an argument: those are in the shell's history and in everybody's `ps`.
        key = getpass.getpass("Upstream key: ") if sys.stdin.isatty() else sys.stdin.readline()
        try:
            use = Use.HANDED_OUT if options["handed_out"] else Use.UPSTREAM
            version = store_upstream_key(by=None, endpoint=endpoint, key=key.strip(), use=use)
        except InvalidInput as error:
            raise CommandError(f"key: {error.errors['key']}") from error
        except (Conflict, Unavailable) as error:
            raise CommandError(error.detail) from error
        self.stdout.write(f"Stored as version {version}.")
