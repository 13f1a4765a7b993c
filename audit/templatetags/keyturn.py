"""How the portal writes times, durations, icons and people, in one place."""

import datetime as dt
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from django import template
from django.http import HttpRequest
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()

UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@register.filter
def duration(value: dt.timedelta) -> str:
    """A duration as people say it, to the minute: `1 hour 30 minutes`."""
    seconds = int(value.total_seconds())
    parts = []
    for noun, size in UNITS:
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(_count(number, noun))
    return " ".join(parts) or "less than a minute"


@register.filter
def figure(value: dt.timedelta) -> str:
    """A countdown's digits, as static/keyturn.js writes them: `47:12`, `3:47:12`, `2 d 03:47`."""
    seconds = max(0, -(-value // dt.timedelta(seconds=1)))
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour:02}:{minute:02}"
    if hours:
        return f"{hour}:{minute:02}:{second:02}"
    return f"{minute}:{second:02}"


@register.filter
def seconds_from(moment: dt.datetime, now: dt.datetime) -> int:
    """How many seconds it is from now until then, at least 0."""
    return max(0, -(-(moment - now) // dt.timedelta(seconds=1)))


@register.filter
def is_web_address(text: str) -> bool:
    """Whether a link to this leads to a web page, and to the host that its text shows."""
    try:
        parts = urlsplit(text)
        known = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False
    # Before an @ anything can stand that looks like another host; browsers read \ as /.
    return known and "@" not in parts.netloc and "\\" not in text and text.isascii()


@register.filter
def thousands(value: float | Decimal | None) -> str:
    """A count as people read it: `1,234,567`."""
    return f"{int(value or 0):,}"


@register.filter
def dollars(value: Decimal | None) -> str:
    """An amount in US dollars as it is, with cents: `$12.50`, `$0.0042`."""
    amount = Decimal(value or 0)
    return f"${amount:,.{2 if amount == round(amount, 2) else 4}f}"


@register.filter
def cents(value: Decimal | None) -> str:
    """An amount in US dollars to the cent, below a dollar to a hundredth of one."""
    amount = Decimal(value or 0)
    return dollars(round(amount, 2) if abs(amount) >= 1 else amount)


@register.filter
def milliseconds(value: float | None) -> str:
    """How long something took: `0.8 ms`, `340 ms`, `12.4 s`."""
    took = float(value or 0)
    if took >= 10_000:
        return f"{took / 1000:,.1f}\u00a0s"
    if took >= 1000:
        return f"{took / 1000:.2f}\u00a0s"
    return f"{took:.0f}\u00a0ms" if took >= 10 else f"{took:.1f}\u00a0ms"


def exact(moment: dt.datetime) -> str:
    """The exact time in the reader's zone: `Sun 22 Nov 2026, 15:30:08 CET`."""
    local = timezone.localtime(moment)
    return f"{local:%a} {local.day} {local:%b %Y, %H:%M:%S %Z}"


def relative(moment: dt.datetime, now: dt.datetime) -> str:
    """How long ago, or until: `3 minutes ago`, `in 2 hours`."""
    distance = moment - now
    seconds = int(abs(distance).total_seconds())
    ahead = distance > dt.timedelta(0)
    if seconds < 60:
        return "in less than a minute" if ahead else "just now"
    noun, size = next((noun, size) for noun, size in UNITS if seconds >= size)
    words = _count(seconds // size, noun)
    return f"in {words}" if ahead else f"{words} ago"


@register.simple_tag
def ago(moment: dt.datetime | None) -> SafeString | str:
    """How long ago, with the exact time on hover and for screen readers."""
    if moment is None:
        return ""
    now = timezone.now()
    return format_html(
        '<time datetime="{}" data-now="{}" data-time="ago" title="{}">'
        '<span data-shown>{}</span><span class="visually-hidden"> ({})</span></time>',
        moment.isoformat(),
        now.isoformat(),
        exact(moment),
        relative(moment, now),
        exact(moment),
    )


@register.filter
def clock(moment: dt.datetime) -> SafeString:
    """The time of day in the reader's zone, with the day unless it is today: `15:30`."""
    local, today = timezone.localtime(moment), timezone.localdate()
    text = f"{local:%H:%M}"
    days = (local.date() - today).days
    if days in {-1, 1}:
        text = f"{'tomorrow' if days == 1 else 'yesterday'} {text}"
    elif days:
        text = f"{local.day} {local:%b}, {text}"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', moment.isoformat(), exact(moment), text
    )


@register.filter
def when(moment: dt.datetime) -> SafeString:
    """The same in a sentence: `today at 15:30 CET`, `tomorrow at 09:00 CET`."""
    local, today = timezone.localtime(moment), timezone.localdate()
    days = (local.date() - today).days
    day = {-1: "yesterday", 0: "today", 1: "tomorrow"}.get(days, f"on {local.day} {local:%B}")
    return format_html(
        '<time datetime="{}" title="{}">{} at {}</time>',
        moment.isoformat(),
        exact(moment),
        day,
        f"{local:%H:%M %Z}",
    )


@register.filter
def stamp(moment: dt.datetime) -> SafeString:
    """The exact time, for tables that are read as a record."""
    local = timezone.localtime(moment)
    return format_html(
        '<time datetime="{}" title="{}">{} {}</time>',
        moment.isoformat(),
        exact(moment),
        f"{local.day} {local:%b}",
        f"{local:%H:%M:%S}",
    )


@register.simple_tag
def icon(name: str, extra: str = "") -> SafeString:
    """One of the outlines in static/icons.svg. Always beside words, so hidden from readers."""
    return format_html(
        '<svg class="icon {}" aria-hidden="true" focusable="false"><use href="{}#{}"/></svg>',
        extra,
        static("icons.svg"),
        name,
    )


@register.filter
def initials(name: object) -> str:
    """Two letters for a person, decoration beside their name."""
    words = str(name).partition("@")[0].replace(".", " ").split()
    return "".join(word[0] for word in (words[:1] + words[1:][-1:])).upper()


@register.filter
def and_list(items: Any) -> str:
    """Names in a sentence: `Ben, Chidi and Dora`."""
    names = [str(item) for item in items]
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


@register.filter
def or_list(items: Any) -> str:
    """The same for alternatives: `Ben, Chidi or Dora`."""
    names = [str(item) for item in items]
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} or {names[-1]}"


@register.inclusion_tag("components/time_left.html")
def time_left(
    starts: dt.datetime, ends: dt.datetime, name: str = "", size: str = "", part: str = "all"
) -> dict[str, Any]:
    """How long a window still lasts: digits, words for screen readers, the ruler.

    `name` makes it speak at sensible moments; give it to one countdown for each grant.
    `part` is `all`, `digits` or `ruler`.
    """
    now = timezone.now()
    whole = max(ends - starts, dt.timedelta(seconds=1))
    left = max(ends - now, dt.timedelta(0))
    passed = min(1.0, max(0.0, 1 - left / whole))
    return {
        "starts": starts,
        "ends": ends,
        "now": now,
        "name": name,
        "size": size,
        "part": part,
        "left": left,
        "x": f"{passed * 1000:.1f}",
        "width": f"{(1 - passed) * 1000:.1f}",
        "low": dt.timedelta(0) < left <= whole / 10,
        "over": left == dt.timedelta(0),
    }


@register.simple_tag(takes_context=True)
def here(context: dict[str, Any], *prefixes: str) -> SafeString | str:
    """`aria-current` for a link of the navigation whose pages begin with one of these paths."""
    request: HttpRequest | None = context.get("request")
    if request is None:
        return ""
    # A page may belong elsewhere than its address says: a request under review, to Approvals.
    path = str(context.get("belongs_to") or request.path)
    inside = any(
        path == prefix or (prefix != "/" and path.startswith(prefix)) for prefix in prefixes
    )
    return SafeString('aria-current="page"') if inside else ""


@register.simple_tag(takes_context=True)
def with_query(context: dict[str, Any], **changes: object) -> str:
    """This page's query string with these parameters changed, or left out where empty."""
    request: HttpRequest = context["request"]
    query = request.GET.copy()
    for key, value in changes.items():
        if value in (None, ""):
            query.pop(key, None)
        else:
            query[key] = str(value)
    return f"?{query.urlencode()}" if query else request.path
