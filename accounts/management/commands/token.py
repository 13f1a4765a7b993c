import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts import scopes, tokens
from accounts.actions import TOKEN_DAYS, create_token, revoke_token
from accounts.models import ApiToken, User
from accounts.scopes import BY_ITSELF, Verb
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

        create.add_argument(
            "--verb",
            action="append",
            choices=Verb.values,
            help=f"what it is for; may be given again (default: {', '.join(BY_ITSELF)})",
        )
        create.add_argument(
            "--endpoint",
            action="append",
            default=[],
            metavar="SLUG",
            help="an endpoint that it is for; may be given again (default: all)",
        )

        revoke = verbs.add_parser("revoke", help="make a token good for nothing")
        revoke.add_argument(
            "id", help="the 12 characters after kt_pat_ or kt_wl_, or the whole token"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        if options["verb"] == "revoke":
            self._revoke(options["id"])
        else:
            self._create(options)

    def _revoke(self, text: str) -> None:
        parsed = tokens.parse(text) or tokens.parse(text, ApiToken.Kind.WORKLOAD)
        token = ApiToken.objects.filter(lookup=parsed.lookup if parsed else text).first()
        if token is None:
            raise CommandError("There is no such API token.")
        revoke_token(by=None, token=token)
        self.stdout.write(f"{token} of {token.owner} is revoked.")

    def _create(self, options: dict[str, Any]) -> None:
        owner = User.objects.filter(email=User.objects.normalize_email(options["owner"])).first()
        if owner is None:
            raise CommandError(f"--owner: there is no person with the e-mail {options['owner']}.")
        try:
            _, text = create_token(
                by=None,
                owner=owner,
                name=options["name"],
                days=options["days"],
                verbs=options["verb"] or BY_ITSELF,
                endpoints=scopes.ids_of(owner, options["endpoint"]),
            )
        except InvalidInput as error:
            lines = [f"--{field}: {message}" for field, message in error.errors.items()]
            raise CommandError("\n".join(lines)) from error
        self.stdout.write(text)
