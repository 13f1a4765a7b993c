import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection, transaction

from accounts.actions import create_user
from accounts.invitations import FIRST_LASTS, invite
from accounts.models import User
from broker.errors import Conflict, InvalidInput


class Command(BaseCommand):
    help = "The first administrator: make the account, print a link that lets them in once."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("email")
        parser.add_argument("--name", default="Administrator", help="full name (%(default)s)")
        parser.add_argument(
            "--another",
            action="store_true",
            help="although there is an administrator; that is on record",
        )

    @transaction.atomic
    def handle(self, *_args: Any, **options: Any) -> None:
        # Of two at once, the second finds the first one's.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('administrator', 1))")
        email = User.objects.normalize_email(options["email"])
        user = User.objects.filter(email=email).first()
        there = User.objects.active().filter(is_administrator=True)
        if there.exclude(email=email).exists() and not options["another"]:
            raise CommandError(
                "There is an administrator already. They name others in the portal; --another "
                "makes one all the same."
            )
        try:
            if user is None:
                user = create_user(
                    by=None, email=email, full_name=options["name"], is_administrator=True
                )
            elif not user.is_administrator:
                raise CommandError(
                    f"{email} is somebody already, who isn't an administrator. Administrators "
                    "give that role in the portal."
                )
            self.stdout.write(invite(by=None, person=user, lasts=FIRST_LASTS))
        except InvalidInput as error:
            lines = [f"{field}: {message}" for field, message in error.errors.items()]
            raise CommandError("\n".join(lines)) from error
        except Conflict as error:
            raise CommandError(error.detail) from error
