import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from endpoints.actions import retire_endpoint
from endpoints.models import Endpoint


class Command(BaseCommand):
    help = "One endpoint: retire it."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        retire = verbs.add_parser("retire", help="close it; every grant on it ends")
        retire.add_argument("slug")

    def handle(self, *_args: Any, **options: Any) -> None:
        endpoint = Endpoint.objects.filter(slug=options["slug"]).first()
        if endpoint is None:
            raise CommandError(f"There is no endpoint {options['slug']!r}.")
        retire_endpoint(by=None, endpoint=endpoint)
        self.stdout.write(f"{endpoint} is retired.")
