"""The OpenID providers that people may come from, as KEYTURN_SSO_FILE says.

They are the deployment's: nobody who administers the app, or writes to its database, adds one.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from accounts.plain_yaml import data_of, located, nodes
from accounts.published import safe_url
from broker.errors import InvalidInput

# How a person came in otherwise: `how` of a session couldn't tell a provider of that name apart.
TAKEN = frozenset({"password", "passkey", "totp", "recovery", "invitation"})


def _issuer(url: str) -> str:
    parts = urlsplit(url)
    if not safe_url(url) or parts.query or parts.fragment or parts.username:
        raise ValueError("Give the issuer's https URL, exactly as its discovery document has it")
    return url


def _domain(text: str) -> str:
    text = text.lower()
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", text) or "." not in text:
        raise ValueError("Give a domain of e-mail addresses, such as acme.example")
    return text


def _slug(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", text) or text in TAKEN:
        raise ValueError("Use up to 40 lower-case letters, digits and hyphens, such as acme")
    return text


Text = Annotated[str, StringConstraints(min_length=1, max_length=300, strict=True)]
Flag = Annotated[bool, Field(strict=True)]


class Part(BaseModel):
    """Keys that nobody knows are refused: a misspelt one would leave a door open."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Groups(Part):
    """Which groups a provider governs, by the values of one claim."""

    claim: Text = "groups"
    members: dict[Text, Text] = Field(min_length=1)

    @property
    def governed(self) -> frozenset[str]:
        """Slugs of the groups whose membership it says of those who come by it."""
        return frozenset(self.members.values())

    def of(self, claims: Mapping[str, Any]) -> frozenset[str]:
        """Slugs of those that these claims put somebody in."""
        said = claims.get(self.claim)
        values = said if isinstance(said, list) else [said]
        return frozenset(
            self.members[v] for v in values if isinstance(v, str) and v in self.members
        )


class Provider(Part):
    """One OpenID provider."""

    slug: Annotated[Text, AfterValidator(_slug)]
    name: Annotated[Text, StringConstraints(max_length=40)]
    issuer: Annotated[Text, AfterValidator(_issuer)]
    client_id: Text
    client_secret: SecretStr = SecretStr("")
    client_secret_file: Path | None = None
    scopes: list[Text] = ["openid", "profile", "email"]
    domains: list[Annotated[Text, AfterValidator(_domain)]] = Field(min_length=1)
    vouches_for_email: Flag = False
    new_accounts: Flag = False
    groups: Groups | None = None
    backchannel_logout: Flag = True

    @model_validator(mode="after")
    def _has_secret(self) -> Self:
        if bool(self.client_secret.get_secret_value()) == (self.client_secret_file is not None):
            raise ValueError("Give client_secret_file or client_secret, and not both")
        if "openid" not in self.scopes:
            raise ValueError("Have openid among the scopes")
        return self

    @property
    def secret(self) -> str:
        """Its client secret."""
        if self.client_secret_file is not None:
            return self.client_secret_file.read_text().strip()
        return self.client_secret.get_secret_value()

    def speaks_for(self, email: str) -> bool:
        """Whether it may say who owns this address."""
        return email.rpartition("@")[2] in self.domains


class File(Part):
    """The whole of KEYTURN_SSO_FILE."""

    providers: list[Provider]


def read(text: str) -> tuple[Provider, ...]:
    """The providers in this YAML. Raises InvalidInput by line and key."""
    found = nodes(text)
    if len(found) != 1:
        raise InvalidInput({"file": "Must be one YAML document with the key `providers`."})
    try:
        providers = File.model_validate(data_of(found[0])).providers
    except ValidationError as error:
        errors = {
            ".".join(str(part) for part in item["loc"]): item["msg"].removeprefix("Value error, ")
            + "."
            for item in error.errors(include_url=False, include_input=False)
        }
        raise InvalidInput(located(errors, found[0])) from None
    errors = {}
    for number, each in enumerate(providers):
        if each.slug in {other.slug for other in providers[:number]}:
            errors[f"providers.{number}.slug"] = "Another provider here has this slug."
        if each.issuer in {other.issuer for other in providers[:number]}:
            errors[f"providers.{number}.issuer"] = "Another provider here has this issuer."
        try:
            unreadable = not each.secret
        except OSError:
            unreadable = True
        if unreadable:
            errors[f"providers.{number}.client_secret_file"] = "This file has no secret in it."
    if errors:
        raise InvalidInput(located(errors, found[0]))
    return tuple(providers)


@cache
def _read(path: str) -> tuple[Provider, ...]:
    if not path:
        return ()
    try:
        return read(Path(path).read_text())
    except OSError as error:
        raise ImproperlyConfigured(f"KEYTURN_SSO_FILE can't be read: {error}") from None
    except InvalidInput as error:
        wrong = "".join(f"\n  {key}: {what}" for key, what in error.errors.items())
        raise ImproperlyConfigured(f"KEYTURN_SSO_FILE ({path}) is wrong:{wrong}") from None


def providers() -> tuple[Provider, ...]:
    """All of them, in the order of the file. Raises ImproperlyConfigured with line and key."""
    return _read(settings.KEYTURN_SSO_FILE)


def provider(slug: str) -> Provider | None:
    """The one with this slug."""
    return next((each for each in providers() if each.slug == slug), None)
