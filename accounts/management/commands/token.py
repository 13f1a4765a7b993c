import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.actions import TOKEN_DAYS, create_token
from accounts.models import User
from broker.errors import InvalidInput


class Command(BaseCommand):
    help = "API tokens."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a token and print it, this once")
        create.add_argument("--owner", required=True, help="e-mail of the person it acts for")
        create.add_argument("--name", required=True, help="what will use it")
        create.add_argument(
            "--days",
            type=int,
            default=30,
            help=f"until it expires, 1 to {TOKEN_DAYS} (%(default)s)",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        owner = User.objects.filter(email=User.objects.normalize_email(options["owner"])).first()
        if owner is None:
            raise CommandError(f"--owner: there is no person with the e-mail {options['owner']}.")
        try:
            _, text = create_token(
                by=owner, owner=owner, name=options["name"], days=options["days"]
            )
        except InvalidInput as error:
            lines = [f"--{field}: {message}" for field, message in error.errors.items()]
            raise CommandError("\n".join(lines)) from error
        self.stdout.write(text)
