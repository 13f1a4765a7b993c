import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts import tokens
from accounts.models import ScimToken
from accounts.scim.tokens import TOKEN_DAYS, create_token, revoke_token
from broker.errors import InvalidInput


class Command(BaseCommand):
    help = "Tokens with which a company's directory calls /scim/v2/."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a token and print it, this once")
        create.add_argument("--name", required=True, help="which directory will use it")
        create.add_argument(
            "--days",
            type=int,
            default=TOKEN_DAYS,
            help=f"until it expires, 1 to {TOKEN_DAYS} (%(default)s)",
        )
        revoke = verbs.add_parser("revoke", help="make a token good for nothing")
        revoke.add_argument("id", help="the 12 characters after kt_scim_, or the whole token")
        verbs.add_parser("list", help="those that are good for something")

    def handle(self, *_args: Any, **options: Any) -> None:
        match options["verb"]:
            case "create":
                try:
                    _, text = create_token(name=options["name"], days=options["days"])
                except InvalidInput as error:
                    lines = [f"--{field}: {message}" for field, message in error.errors.items()]
                    raise CommandError("\n".join(lines)) from error
                self.stdout.write(text)
            case "revoke":
                parsed = tokens.parse(options["id"], "scim")
                lookup = parsed.lookup if parsed else options["id"]
                token = ScimToken.objects.filter(lookup=lookup).first()
                if token is None:
                    raise CommandError("There is no such token.")
                revoke_token(token=token)
                self.stdout.write(f"{token} is revoked.")
            case "list":
                for row in ScimToken.objects.filter(revoked_at=None):
                    used = row.last_used_at.isoformat() if row.last_used_at else "never"
                    self.stdout.write(
                        f"{row.lookup}  {row.name}  until {row.expires_at.date()}, used {used}"
                    )
