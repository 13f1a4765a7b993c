"""What the pages of workloads take."""

import datetime as dt
from typing import Any

from django import forms

from accounts.changes.deciding import TEXT as LONGEST_REASON
from accounts.models import TrustedIssuer, WorkloadRule
from accounts.scopes import BY_ITSELF

TEXT: dict[str, Any] = {"class": "form-control", "autocomplete": "off"}


def _reason() -> forms.CharField:
    return forms.CharField(
        label="Why",
        required=False,
        max_length=LONGEST_REASON,
        help_text="A second administrator decides by this. Narrowing needs nobody else.",
        widget=forms.TextInput(attrs=TEXT),
    )


class ChangeIssuerForm(forms.Form):
    """What may be otherwise of an issuer."""

    name = forms.CharField(label="Name", max_length=100, widget=forms.TextInput(attrs=TEXT))
    audience = forms.CharField(
        label="Audience",
        max_length=300,
        help_text="aud that its tokens must have, and no other: this Keyturn’s own address.",
        widget=forms.TextInput(attrs=TEXT),
    )
    jwks_uri = forms.CharField(
        label="Address of its keys",
        required=False,
        max_length=300,
        help_text="Empty: what its discovery document says.",
        widget=forms.URLInput(attrs=TEXT),
    )
    reason = _reason()

    @staticmethod
    def said(row: TrustedIssuer) -> dict[str, Any]:
        """What stands in it of one that is there."""
        return {name: getattr(row, name) for name in ("name", "audience", "jwks_uri")}


class IssuerForm(ChangeIssuerForm):
    """An issuer to be trusted."""

    issuer = forms.CharField(
        label="Issuer",
        max_length=300,
        help_text="iss of its tokens, to the letter, such as "
        "https://token.actions.githubusercontent.com.",
        widget=forms.URLInput(attrs=TEXT),
    )
    slug = forms.SlugField(
        label="Short name",
        help_text="Small letters, digits and hyphens. It can’t be changed later.",
        widget=forms.TextInput(attrs=TEXT),
    )
    field_order = ("name", "slug", "issuer", "audience", "jwks_uri", "reason")


class RuleForm(forms.Form):
    """Which tokens of an issuer act as which service account."""

    name = forms.CharField(
        label="Name",
        max_length=100,
        help_text="What the tokens that it gives are called, such as “Nightly evaluation”.",
        widget=forms.TextInput(attrs=TEXT),
    )
    claims = forms.CharField(
        label="Whose token says",
        max_length=20_000,
        help_text="A line for each, such as repository_id = 123, or "
        "/kubernetes.io/namespace = evaluation. All must be so; several lines of one name: one "
        "of them. * stands for characters other than / and :.",
        widget=forms.Textarea(attrs=TEXT | {"class": "form-control mono", "rows": 5}),
    )
    service_account = forms.EmailField(
        label="Acts as",
        help_text="E-mail address of a service account. Its owner can’t agree to this.",
        widget=forms.EmailInput(attrs=TEXT),
    )
    verbs = forms.MultipleChoiceField(
        label="To",
        choices=[(verb.value, verb.label) for verb in BY_ITSELF],
        widget=forms.CheckboxSelectMultiple(attrs={"class": "form-check-input"}),
        error_messages={"required": "Say what for."},
    )
    endpoints = forms.CharField(
        label="At",
        required=False,
        max_length=5000,
        help_text="Short names of endpoints, with blanks between. Empty: all that it sees.",
        widget=forms.TextInput(attrs=TEXT),
    )
    minutes = forms.IntegerField(
        label="For how many minutes",
        min_value=1,
        max_value=60,
        initial=15,
        help_text="That a token lasts, at most 60.",
        widget=forms.NumberInput(attrs=TEXT),
    )
    reason = _reason()

    def payload(self, slugs: dict[Any, str]) -> dict[str, Any]:
        """What is proposed, but for the service account. `slugs` are of the endpoints that there
        are, by id. Raises ValidationError."""
        data, ids = self.cleaned_data, {slug: str(pk) for pk, slug in slugs.items()}
        named = data["endpoints"].replace(",", " ").split()
        unknown = [slug for slug in named if slug not in ids]
        if unknown:
            raise forms.ValidationError(
                {"endpoints": f"The service account sees no endpoint {unknown[0]}."}
            )
        return {
            "name": data["name"],
            "claims": _parsed(data["claims"]),
            "verbs": data["verbs"],
            "endpoints": [ids[slug] for slug in named],
            "lifetime": int(dt.timedelta(minutes=data["minutes"]).total_seconds()),
        }

    @staticmethod
    def said(row: WorkloadRule, slugs: dict[Any, str]) -> dict[str, Any]:
        """What stands in it of one that is there."""
        lines = [f"{name} = {each}" for name, patterns in row.claims.items() for each in patterns]
        return {
            "name": row.name,
            "claims": "\n".join(lines),
            "service_account": row.service_account.email,
            "verbs": row.verbs,
            "endpoints": " ".join(slugs.get(each, str(each)) for each in row.endpoints),
            "minutes": int(row.lifetime.total_seconds() / 60),
        }


def _parsed(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if not line.strip():
            continue
        if not equals:
            raise forms.ValidationError({"claims": f"“{line.strip()[:60]}” has no = in it."})
        found.setdefault(name.strip(), []).append(value.strip())
    return found
