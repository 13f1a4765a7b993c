"""What every page of the portal needs, looked up only where a page asks for it."""

import functools
from typing import Any

from django.conf import settings
from django.http import HttpRequest

from accessrequests import desk
from accessrequests.models import Grant
from accounts.models import Change, User
from gateway.presence import may_look
from notifications.models import Notification


def portal(request: HttpRequest) -> dict[str, Any]:
    """`waiting_count`, `unread_count`, `change_count`, `live_grants`, `sees_live`, `demo`,
    `demo_sign_ins`."""
    user = getattr(request, "user", None)

    @functools.cache
    def waiting_count() -> int:
        """At most 100."""
        if not isinstance(user, User):
            return 0
        return desk.count(user)

    @functools.cache
    def unread_count() -> int:
        """At most 100: a count of everything would be as slow as there is much of it."""
        if not isinstance(user, User):
            return 0
        return Notification.objects.filter(person=user).unread()[:100].count()

    @functools.cache
    def change_count() -> int:
        """Changes of others that wait, for administrators; at most 100."""
        if not isinstance(user, User) or not user.is_administrator:
            return 0
        return Change.objects.waiting().exclude(proposed_by=user)[:100].count()

    @functools.cache
    def live_grants() -> list[Grant]:
        if not isinstance(user, User):
            return []
        rows = Grant.objects.filter(holder=user).live().order_by("ends_at")
        return list(rows.select_related("request__profile__endpoint")[:4])

    @functools.cache
    def sees_live() -> bool:
        return isinstance(user, User) and may_look(user)

    def demo_sign_ins() -> list[tuple[str, str, str]]:
        if not settings.KEYTURN_DEMO:
            return []
        from broker.demo.data import SIGN_INS

        return list(SIGN_INS)

    return {
        "waiting_count": waiting_count,
        "unread_count": unread_count,
        "change_count": change_count,
        "live_grants": live_grants,
        "sees_live": sees_live,
        "demo": settings.KEYTURN_DEMO,
        "demo_sign_ins": demo_sign_ins,
    }
