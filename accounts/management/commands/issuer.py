import argparse
import datetime as dt
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts import scopes
from accounts.models import TrustedIssuer, User, WorkloadRule
from accounts.scopes import BY_ITSELF
from accounts.workloads.actions import add_rule, retire_issuer, retire_rule, trust_issuer
from broker.errors import InvalidInput


class Command(BaseCommand):
    help = "Issuers whose JWTs workloads come in by, and the rules of each (docs/workloads.md)."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        add = verbs.add_parser("add", help="trust an issuer")
        add.add_argument("slug")
        add.add_argument("--name", required=True)
        add.add_argument("--issuer", required=True, help="`iss` of its tokens, to the letter")
        add.add_argument("--audience", required=True, help="`aud` that they must have")
        add.add_argument("--jwks-uri", default="", help="else what its discovery document says")
        rule = verbs.add_parser("rule", help="let workloads of an issuer in")
        rule.add_argument("slug", help="the issuer's")
        rule.add_argument("--name", required=True)
        rule.add_argument("--as", dest="account", required=True, help="a service account's e-mail")
        rule.add_argument(
            "--claim",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="what a token must say; all of them, and of one name one",
        )
        rule.add_argument(
            "--verb", dest="verbs", action="append", choices=[*BY_ITSELF], help="else all of these"
        )
        rule.add_argument("--endpoint", action="append", default=[], help="slug; else all")
        rule.add_argument("--minutes", type=int, default=15, help="of a token (%(default)s)")
        retire = verbs.add_parser("retire", help="trust an issuer or a rule no more")
        retire.add_argument("slug", help="the issuer's")
        retire.add_argument("--rule", help="the name of a rule, which alone is retired")
        verbs.add_parser("list", help="those that are trusted")

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['verb']}")(options)
        except InvalidInput as error:
            lines = [f"{field}: {message}" for field, message in error.errors.items()]
            raise CommandError("\n".join(lines)) from error

    def _add(self, options: dict[str, Any]) -> None:
        names = ("slug", "name", "issuer", "audience", "jwks_uri")
        row = trust_issuer(by=None, **{name: options[name] for name in names})
        self.stdout.write(f"{row} is trusted. It lets nobody in until there is a rule.")

    def _rule(self, options: dict[str, Any]) -> None:
        claims: dict[str, list[str]] = {}
        for each in options["claim"]:
            name, _, value = each.partition("=")
            claims.setdefault(name, []).append(value)
        email = User.objects.normalize_email(options["account"])
        account = User.objects.filter(email=email).first()
        ids = {} if account is None else scopes.endpoints_seen_by(account)
        by_slug = {slug: pk for pk, slug in ids.items()}
        unknown = [slug for slug in options["endpoint"] if slug not in by_slug]
        if unknown:
            raise CommandError(f"--endpoint: {account} sees no endpoint {unknown[0]}.")
        row = add_rule(
            by=None,
            issuer=self._issuer(options["slug"]),
            name=options["name"],
            service_account=account,
            claims=claims,
            verbs=options["verbs"] or BY_ITSELF,
            endpoints=[by_slug[slug] for slug in options["endpoint"]],
            lifetime=dt.timedelta(minutes=options["minutes"]),
        )
        self.stdout.write(f"{row} lets workloads of {row.issuer} in as {account}.")

    def _retire(self, options: dict[str, Any]) -> None:
        issuer = self._issuer(options["slug"])
        if options["rule"] is None:
            retire_issuer(by=None, issuer=issuer)
            self.stdout.write(f"{issuer} is trusted no more.")
            return
        rows = WorkloadRule.objects.filter(issuer=issuer, retired_at=None, name=options["rule"])
        if not rows:
            raise CommandError(f"--rule: {issuer} has no rule {options['rule']}.")
        for rule in rows:
            retire_rule(by=None, rule=rule)
            self.stdout.write(f"{rule} lets nobody in any more.")

    def _list(self, _options: dict[str, Any]) -> None:
        for issuer in TrustedIssuer.objects.filter(retired_at=None):
            self.stdout.write(f"{issuer.slug}  {issuer.issuer}  for {issuer.audience}")
            rules = WorkloadRule.objects.filter(issuer=issuer, retired_at=None)
            for rule in rules.select_related("service_account"):
                claims = ", ".join(f"{name}={'|'.join(v)}" for name, v in rule.claims.items())
                self.stdout.write(f"  {rule.name}  {claims}  as {rule.service_account.email}")

    @staticmethod
    def _issuer(slug: str) -> TrustedIssuer:
        row: TrustedIssuer | None
        row = TrustedIssuer.objects.filter(slug=slug, retired_at=None).first()
        if row is None:
            raise CommandError(f"No issuer {slug} is trusted.")
        return row
