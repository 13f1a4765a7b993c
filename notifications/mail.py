"""Mail: one message in HTML and text, and the server that takes it."""

import contextlib
import smtplib
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from notifications.models import Delivery
from notifications.undelivered import Refused, Undelivered, Unreachable

SHOWN = 40  # of a digest; the rest is counted
_IDS = uuid.UUID("5fb0c8de-6a4c-4f0e-9d57-0d2f2f9a8a1e")


def compose(rows: Sequence[Delivery]) -> EmailMultiAlternatives:
    """The mail of one delivery, or of all those of a person's digest."""
    first = rows[0]
    person: User = first.notification.person
    news = [row.notification for row in rows]
    base = settings.KEYTURN_BASE_URL
    context: dict[str, Any] = {
        "person": person,
        "base": base,
        "news": news,
        "subject": str(news[0]),
        "settings_url": base + reverse("notification-settings"),
        "all_url": base + reverse("notifications"),
    }
    page = "mail"
    if first.digest:
        page = "digest"
        count = "1 thing" if len(news) == 1 else f"{len(news)} things"
        context["subject"] = f"{count} to catch up on in Keyturn"
        context |= {"news": news[:SHOWN], "more": max(0, len(news) - SHOWN)}
    with timezone.override(ZoneInfo(person.time_zone)):
        text, html = (
            render_to_string(f"notifications/{page}.{form}", context) for form in ("txt", "html")
        )
    message = EmailMultiAlternatives(
        subject=context["subject"],
        body=text,
        to=[person.email],
        headers={
            "Message-ID": f"<{_identity(rows)}@{urlsplit(base).hostname}>",
            # No out-of-office answers this, and none is expected.
            "Auto-Submitted": "auto-generated",
            "X-Auto-Response-Suppress": "All",
        },
    )
    message.attach_alternative(html, "text/html")
    return message


def _identity(rows: Sequence[Delivery]) -> str:
    """The same for the same deliveries, so that one that comes twice can be recognised."""
    if not rows[0].digest:
        return str(rows[0].pk)
    return f"digest-{uuid.uuid5(_IDS, ' '.join(sorted(str(row.pk) for row in rows)))}"


@contextlib.contextmanager
def carrier() -> Iterator[Callable[[Sequence[Delivery]], None]]:
    """A connection to the mail server, and what sends by it. Raises Unreachable, as the sending
    does, which also raises Refused and Undelivered."""
    connection = get_connection()
    try:
        connection.open()
    except (OSError, smtplib.SMTPException) as error:
        raise Unreachable(_words(error)) from error

    def send(rows: Sequence[Delivery]) -> None:
        try:
            message = compose(rows)
            message.connection = connection
            message.send()
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            raise (Refused if min(codes) >= 500 else Undelivered)(_words(error)) from error
        except (smtplib.SMTPNotSupportedError, ValueError) as error:
            # An address or a header that can't be written as the server wants it.
            raise Refused(_words(error)) from error
        except smtplib.SMTPServerDisconnected as error:
            raise Unreachable(_words(error)) from error
        except smtplib.SMTPException as error:
            raise Undelivered(_words(error)) from error
        except OSError as error:
            raise Unreachable(_words(error)) from error

    try:
        yield send
    finally:
        with contextlib.suppress(OSError, smtplib.SMTPException):
            connection.close()


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
