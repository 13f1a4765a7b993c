import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from broker.errors import KeyturnError
from credentials.actions import rotate
from credentials.models import Use
from endpoints.models import Endpoint


class Command(BaseCommand):
    help = "Make a rotation of an endpoint's key due now; a worker does it."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("endpoint", help="the endpoint's slug")
        parser.add_argument("--use", choices=Use.values, default=Use.UPSTREAM.value)
        parser.add_argument("--reason", default="")

    def handle(self, *_args: Any, **options: Any) -> None:
        endpoint = Endpoint.objects.filter(slug=options["endpoint"]).first()
        if endpoint is None:
            raise CommandError(f"There is no endpoint {options['endpoint']!r}.")
        try:
            rotation = rotate(
                by=None, endpoint=endpoint, use=Use(options["use"]), reason=options["reason"]
            )
        except KeyturnError as error:
            raise CommandError(error.detail) from error
        self.stdout.write(f"{rotation.name} is due.")
