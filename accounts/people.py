"""Finding people among thousands, a page at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.db.models import (
    BooleanField,
    Count,
    Exists,
    ExpressionWrapper,
    OuterRef,
    Q,
    QuerySet,
)
from django.db.models.functions import Lower
from django_otp_webauthn.models import WebAuthnCredential

from accounts.door import fetch
from accounts.models import Group, Totp, User
from broker.errors import NotFound

PAGE = 50
STATES = {
    "active": "Active",
    "deactivated": "Deactivated",
    "administrators": "Administrators",
    "auditors": "Auditors",
    "without": "Without a second factor",
    "never": "Never signed in",
}


def _has_factor() -> Q:
    app = Totp.objects.filter(person=OuterRef("pk"))
    passkey = WebAuthnCredential.objects.filter(user=OuterRef("pk"))
    return Q(Exists(app)) | Q(Exists(passkey))


@dataclass(frozen=True)
class Filters:
    """What is looked for, as the address of the page says it."""

    words: str = ""
    state: str = "active"
    after: str = ""

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> "Filters":
        """What cannot be meant is left out."""
        state = query.get("state", "active")
        words = query.get("q", "").replace("\x00", "").strip()[:200]
        after = query.get("after", "").replace("\x00", "")[:300]
        return cls(words, state if state in {*STATES, "all"} else "active", after)

    def query(self, **more: str) -> str:
        """The same as part of an address."""
        found = {"q": self.words, "state": self.state} | more
        return urlencode({key: value for key, value in found.items() if value})


def with_factor(rows: QuerySet[User]) -> QuerySet[User]:
    """These, with whether each has a second factor as `factor`."""
    return rows.annotate(factor=ExpressionWrapper(_has_factor(), output_field=BooleanField()))


def find(rows: QuerySet[User], filters: Filters) -> tuple[list[Any], str]:
    """A page of these, by name, with `factor` and `group_count`; and where the next one begins,
    empty at the end."""
    rows = rows.annotate(sort=Lower("full_name"))
    for word in filters.words.split()[:8]:
        rows = rows.filter(Q(full_name__icontains=word) | Q(email__icontains=word))
    match filters.state:
        case "active":
            rows = rows.filter(is_active=True)
        case "deactivated":
            rows = rows.filter(is_active=False)
        case "administrators":
            rows = rows.filter(is_active=True, is_administrator=True)
        case "auditors":
            rows = rows.filter(is_active=True, is_auditor=True)
        case "without":
            rows = rows.filter(~_has_factor(), is_active=True)
        case "never":
            rows = rows.filter(is_active=True, last_login=None)
    name, _, email = filters.after.rpartition("\n")
    if email:
        rows = rows.filter(Q(sort__gt=name) | Q(sort=name, email__gt=email))
    # Who is on the page first, by one table: with all that is shown of them joined to thousands,
    # PostgreSQL needs to know how many there are, which it learns minutes after they came.
    ids = list(rows.order_by("sort", "email").values_list("pk", flat=True)[: PAGE + 1])
    shown = with_factor(User.objects.filter(pk__in=ids)).annotate(
        group_count=Count("memberships"), sort=Lower("full_name")
    )
    page = list(shown.select_related("owner", "manager").order_by("sort", "email"))
    more = len(page) > PAGE
    last = page[PAGE - 1] if more else None
    after = f"{last.sort}\n{last.email}" if last else ""
    return page[:PAGE], after


def in_words(reader: User, about: str) -> str:
    """What is to be proved, to whoever changes people, groups or service accounts."""
    if not about:
        return "Add people and service accounts"
    try:
        return f"Change the account of {fetch(User.objects.visible_to(reader), about)}"
    except NotFound:
        return f"Change the group {fetch(Group.objects.visible_to(reader), about)}"
