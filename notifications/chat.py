"""Chat: a person's own messages at Slack, Teams or another service that apprise knows."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import apprise
from django.conf import settings

from notifications.models import Delivery, Notification, Preference
from notifications.text import passage
from notifications.undelivered import Refused, Undelivered

QUOTED = 300  # characters; the rest is on the page
# What chats read as a mention of everybody, a link under other words, or formatting.
_PLAIN = str.maketrans({"<": "‹", ">": "›", "@": "＠", "[": "［", "]": "］", "`": "’"})  # noqa: RUF001


def text(row: Notification) -> str:
    """What stands below the sentence: facts, what was written, the link."""
    parts = [f"{label}: {value}" for label, value in row.facts]
    if row.quote:
        parts.append(f"“{passage(row.quote, QUOTED)}”")
    return "\n".join([*(part.translate(_PLAIN) for part in parts), row.url])


@contextlib.contextmanager
def carrier() -> Iterator[Callable[[Sequence[Delivery]], None]]:
    """What sends by chat. Raises Refused and Undelivered."""
    yield _send


def _send(rows: Sequence[Delivery]) -> None:
    [row] = rows
    chosen = Preference.objects.filter(person=row.notification.person).first()
    if chosen is None or not chosen.chat_handle:
        raise Refused("its person has no name there any more")
    asset = apprise.AppriseAsset(
        app_id="Keyturn", app_desc="Keyturn", app_url=settings.KEYTURN_BASE_URL, async_mode=False
    )
    service = apprise.Apprise(asset=asset)
    if not service.add(settings.KEYTURN_CHAT_URL.replace("{handle}", chosen.chat_handle)):
        raise Undelivered("apprise doesn't know such a KEYTURN_CHAT_URL")
    try:
        # Its own time-outs hold: 4 s to connect and 4 s to answer, unless the URL says otherwise.
        sent = service.notify(
            title=str(row.notification).translate(_PLAIN),
            body=text(row.notification),
            body_format=apprise.NotifyFormat.TEXT,
        )
    except Exception as error:  # noqa: BLE001 -- each service raises its own
        # Without its words and its cause: they may have the address that was called, a secret.
        raise Undelivered(type(error).__name__) from None
    if not sent:
        raise Undelivered("the chat service can't be reached or refused it")
