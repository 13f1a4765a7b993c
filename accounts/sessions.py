"""Sessions in PostgreSQL that know whose they are, so that people see and end their own.

Django's way of extending its database sessions: docs.djangoproject.com/en/5.2/topics/http/sessions,
"Extending database-backed session engines".
"""

import hashlib
from typing import Any, cast

from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from accounts.models import Session, User
from audit.context import origin

AGENT = 300  # characters kept of what a browser says it is
BEGAN = "began"  # in the session: when it was signed in to, in seconds since the epoch
HOW = "how"  # in the session: by what, such as `password`, `passkey` or a provider's name
PROVIDER_SESSION = "provider_session"  # in the session: the `sid` of an OpenID provider
AGENT_KEY = "agent"


class SessionStore(DatabaseStore):
    """What SESSION_ENGINE names this module for."""

    @classmethod
    def get_model_class(cls) -> type[Session]:
        """Where sessions are kept."""
        return Session

    def create_model_instance(self, data: dict[str, Any]) -> Session:
        """The row of this session, with what is asked of sessions beside what is in them."""
        row = cast(Session, super().create_model_instance(data))
        row.person_id = data.get(SESSION_KEY)
        row.how = data.get(HOW, "")
        row.provider_session = data.get(PROVIDER_SESSION, "")
        row.agent = data.get(AGENT_KEY, "")[:AGENT]
        row.began = data.get(BEGAN)
        row.address = origin().address
        return row


def name_of(key: str) -> str:
    """What a session is called where it is shown: its key would let the reader into it."""
    return hashlib.sha256(b"keyturn.session:" + key.encode()).hexdigest()[:32]


def opened(person: User) -> list[Session]:
    """The sessions in which this person is signed in at this moment, the last used first.

    A row whose hash is of an earlier password or epoch opens nothing, and isn't one.
    """
    now = timezone.now()
    rows = Session.objects.filter(person=person, expire_date__gt=now).order_by("-expire_date")
    current = person.get_session_auth_hash()
    return [
        row
        for row in rows
        if (row.began is None or now.timestamp() - row.began <= settings.KEYTURN_SESSION_MAX)
        and constant_time_compare(row.get_decoded().get(HASH_SESSION_KEY, ""), current)
    ]
