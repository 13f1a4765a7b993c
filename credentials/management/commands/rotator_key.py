import argparse
import getpass
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from broker.errors import InvalidInput, Unavailable
from credentials.actions import store_rotator_key
from endpoints.models import Endpoint


class Command(BaseCommand):
    help = (
        "Put into Vault what an endpoint's rotator manages keys with at its provider. "
        "Asked for, or one line on standard input."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("endpoint", help="the endpoint's slug")

    def handle(self, *_args: Any, **options: Any) -> None:
        endpoint = Endpoint.objects.filter(slug=options["endpoint"]).first()
        if endpoint is None:
            raise CommandError(f"There is no endpoint {options['endpoint']!r}.")
        # Never as an argument: those are in the shell's history and in everybody's `ps`.
        key = getpass.getpass("Admin key: ") if sys.stdin.isatty() else sys.stdin.readline()
        try:
            version = store_rotator_key(by=None, endpoint=endpoint, key=key.strip())
        except InvalidInput as error:
            raise CommandError(f"key: {error.errors['key']}") from error
        except Unavailable as error:
            raise CommandError(error.detail) from error
        self.stdout.write(f"Stored as version {version}.")
