from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from broker.demo import data


class Command(BaseCommand):
    help = "Make the demo's people, groups, endpoints and profiles, as far as they aren't there."

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002
        if not settings.KEYTURN_DEMO_UPSTREAM_KEY:
            raise CommandError(
                "KEYTURN_DEMO_UPSTREAM_KEY is not set: the key that the demo upstream takes. "
                "`manage.py up` makes one."
            )
        data.create()
        self.stdout.write("Demo data is there.")
