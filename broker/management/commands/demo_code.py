import argparse
import base64
import binascii
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django_otp.oath import totp


class Command(BaseCommand):
    help = "What an authenticator app shows for this secret: to try a demo without a phone."
    requires_system_checks = []
    requires_migrations_checks = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "secret", nargs="+", help="as the page shows it, with spaces or without"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        text = "".join(options["secret"]).replace(" ", "").upper()
        try:
            secret = base64.b32decode(text)
        except binascii.Error as error:
            raise CommandError("This is no secret as the page shows it.") from error
        left = 30 - int(time.time()) % 30
        self.stdout.write(f"{totp(secret):06}  (for {left} more seconds)")
