"""Audit rows as people read them: one sentence each, with what was said."""

import datetime as dt
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from audit.events import Event
from audit.models import AuditEvent
from audit.templatetags.keyturn import duration

# Icon and kind (good, bad, wait) of what stands out; all else is quiet.
LOOKS: dict[str, tuple[str, str]] = {
    Event.REQUEST_FILED: ("message-circle", ""),
    Event.REQUEST_REVIEWED: ("check", "good"),
    Event.REQUEST_COMMENTED: ("message-circle", ""),
    Event.REQUEST_QUESTIONED: ("message-circle", "wait"),
    Event.REQUEST_HANDED_OVER: ("arrow-right", ""),
    Event.REQUEST_ESCALATED: ("arrow-right", "wait"),
    Event.REQUEST_ROUTED: ("arrow-right", ""),
    Event.BREAK_GLASS_TAKEN: ("flame", "bad"),
    Event.BREAK_GLASS_REVIEWED: ("checklist", ""),
    Event.REQUEST_APPROVED: ("check", "good"),
    Event.REQUEST_DENIED: ("x", "bad"),
    Event.REQUEST_CANCELLED: ("corner-up-left", ""),
    Event.REQUEST_EXPIRED: ("hourglass", ""),
    Event.GRANT_STARTED: ("clock-hour-3", "good"),
    Event.GRANT_RAISED: ("plus", "good"),
    Event.GRANT_ENDED: ("player-stop", ""),
    Event.CREDENTIAL_ISSUING: ("circle-dashed", ""),
    Event.CREDENTIAL_ISSUED: ("key", "good"),
    Event.CREDENTIAL_REVOKING: ("hourglass", "wait"),
    Event.CREDENTIAL_REVOKED: ("shield-check", "good"),
    Event.CREDENTIAL_STUCK: ("alert-triangle", "bad"),
    Event.CREDENTIAL_TRIED: ("rotate", ""),
    Event.ORPHAN_FOUND: ("alert-triangle", "bad"),
    Event.ORPHAN_ENDED: ("shield-check", "good"),
    Event.SECRET_EXPOSED: ("key", "wait"),
    Event.SECRET_LEAKED: ("flame", "bad"),
    Event.ROTATION_DUE: ("rotate", "wait"),
    Event.ROTATION_CREATED: ("plus", ""),
    Event.ROTATION_PUBLISHED: ("arrow-right", ""),
    Event.ROTATION_RETIRED: ("shield-check", "good"),
    Event.ROTATION_STUCK: ("alert-triangle", "bad"),
    Event.ACCESS_REFUSED: ("ban", "bad"),
    Event.SIGN_IN_REFUSED: ("ban", "bad"),
    Event.STEP_UP_REFUSED: ("ban", "bad"),
    Event.STEP_UP_PROVED: ("shield-check", ""),
    Event.FACTOR_ADDED: ("lock", ""),
    Event.FACTOR_REMOVED: ("lock", "wait"),
    Event.STOP_DECLARED: ("alert-octagon", "bad"),
    Event.ALL_ENDED: ("player-stop", "bad"),
    Event.STOP_LIFTED: ("circle-check", "good"),
    Event.SIGNED_IN: ("user", ""),
    Event.SIGNED_OUT: ("logout", ""),
}
ENDINGS = {
    "expired": "Access ended: its time was up",
    "requester_deactivated": "Access ended: its holder was deactivated",
    "group_lost": "Access ended: its holder left the group that may ask",
    "endpoint_retired": "Access ended: the endpoint was retired",
    "emergency_stop": "Access ended by an emergency stop",
    "budget_exhausted": "Access ended: its budget was used up",
}
REVOKING = {
    "grant_ended": "its grant ended",
    "superseded": "it was replaced by a newer check-out",
    "doubt": "nobody knows whether it was minted",
    "expired": "its own time was up",
    "vanished": "it was found to be missing",
    "taken_back": "its holder revoked it",
}


@dataclass(frozen=True)
class Step:
    """One entry of a timeline or of the record."""

    id: int
    at: dt.datetime
    icon: str
    kind: str
    text: str
    said: str = ""


def _asked(data: dict[str, Any]) -> str:
    if "raises" in data:
        return "a larger budget"
    return duration(dt.timedelta(seconds=int(data.get("duration_seconds", 0))))


def _time(text: object) -> str:
    try:
        moment = timezone.localtime(dt.datetime.fromisoformat(str(text)))
    except ValueError:
        return str(text)
    return f"{moment.day} {moment:%b, %H:%M %Z}"


def sentence(row: AuditEvent) -> str:
    """What happened, in one sentence without its full stop."""
    data, actor = row.data, row.actor
    match row.event:
        case Event.REQUEST_FILED:
            what = row.subject.removeprefix(f"{actor} on ")
            return f"{actor} asked for {_asked(data)} on {what}"
        case Event.REQUEST_APPROVED | Event.REQUEST_DENIED | Event.REQUEST_CANCELLED:
            whose = row.subject.removeprefix(f"{actor} on ")
            verb = row.get_event_display().removesuffix(" the request")
            return f"{actor} {verb} the request: {whose}"
        case Event.REQUEST_EXPIRED:
            return f"Nobody decided in time, so the request expired: {row.subject}"
        case Event.GRANT_STARTED:
            return f"Access began: {row.subject}, until {_time(data.get('ends_at'))}"
        case Event.GRANT_RAISED:
            return f"Larger budget, {data.get('to')}: {row.subject}"
        case Event.GRANT_ENDED:
            reason = str(data.get("reason", ""))
            if reason == "given_back":
                return f"{actor} gave access back: {row.subject.removeprefix(f'{actor} on ')}"
            if reason == "revoked":
                return f"{actor} ended access: {row.subject}"
            return f"{ENDINGS.get(reason, 'Access ended')}: {row.subject}"
        case Event.CREDENTIAL_ISSUING:
            return f"{actor} asked Vault for credential {row.subject}"
        case Event.CREDENTIAL_ISSUED:
            return f"{actor} checked out credential {row.subject}"
        case Event.CREDENTIAL_REVOKING:
            why = REVOKING.get(str(data.get("reason")), "it is no longer needed")
            return f"Credential {row.subject} is being taken back: {why}"
        case Event.CREDENTIAL_REVOKED:
            return f"Credential {row.subject} is proven gone: {data.get('proof', '')}"
        case Event.CREDENTIAL_STUCK:
            return f"Credential {row.subject} could not be taken back yet; Keyturn keeps trying"
        case Event.CREDENTIAL_TRIED:
            return f"{actor} had credential {row.subject} tried again at once"
        case Event.ORPHAN_FOUND:
            return f"{data.get('name', 'Something')} was found, and no record accounts for it"
        case Event.ORPHAN_ENDED:
            return f"{data.get('name', 'Something')}, which no record accounted for, was ended"
        case Event.ACCESS_REFUSED:
            return f"{actor} was refused {data.get('method', '')} {data.get('path', '')}".strip()
        case Event.PRICE_SET:
            return (
                f"{actor} set the price of {data.get('model', '')} on {row.subject}: "
                f"${data.get('input_price', '')} in, ${data.get('output_price', '')} out, "
                f"from {data.get('since', '')}"
            )
        case Event.GROUP_JOINED:
            return f"{actor} added {row.subject} to group {data.get('group', '')}"
        case Event.GROUP_LEFT:
            return f"{actor} removed {row.subject} from group {data.get('group', '')}"
        case Event.NOTIFICATIONS_CHANGED:
            return f"{actor} changed what they are told, and how"
        case Event.FACTOR_REMOVED if row.actor_id == row.subject_id:
            return f"{actor} removed their second factor"
        case Event.SIGN_IN_REFUSED:
            return "Somebody failed to sign in"
    return f"{actor} {row.get_event_display()} {row.subject}".strip()


def _less(data: dict[str, Any]) -> str:
    """How much less than asked an approval gave."""
    found = []
    if "duration_seconds" in data:
        found.append(duration(dt.timedelta(seconds=int(data["duration_seconds"]))))
    if "scope" in data:
        found.append(f"only {', '.join(data['scope'].get('models', []))}")
    if "starts_at" in data:
        found.append(f"not before {_time(data['starts_at'])}")
    return f": {'; '.join(found)}" if found else ""


def short(row: AuditEvent) -> str:
    """The same on the page of the thing itself, which needn't be named again."""
    data, actor = row.data, row.actor
    name = f"…{row.subject[-6:]}"
    match row.event:
        case Event.REQUEST_FILED:
            return f"{actor} asked for {_asked(data)}"
        case Event.REQUEST_APPROVED if data.get("automatic"):
            return "Decided by its policy"
        case Event.REQUEST_APPROVED:
            return f"{actor} approved{_less(data)}"
        case Event.REQUEST_REVIEWED:
            return f"{actor} approved “{data.get('step', '')}”{_less(data)}"
        case Event.REQUEST_COMMENTED:
            return f"{actor} wrote"
        case Event.REQUEST_QUESTIONED:
            return f"{actor} asked"
        case Event.REQUEST_HANDED_OVER:
            return f"{actor} handed it to {data.get('to', '')}"
        case Event.REQUEST_ESCALATED:
            return "Nobody decided yet, so more people were asked"
        case Event.REQUEST_ROUTED:
            return "It now waits for somebody else"
        case Event.BREAK_GLASS_TAKEN:
            return f"{actor} took access before a review"
        case Event.BREAK_GLASS_REVIEWED:
            found = "in order" if data.get("verdict") == "approve" else "not in order"
            return f"{actor} found it {found}"
        case Event.GRANT_SCHEDULED:
            return f"Access is to begin {_time(data.get('starts_at'))}"
        case Event.REQUEST_DENIED:
            return f"{actor} denied"
        case Event.REQUEST_CANCELLED:
            return f"{actor} cancelled"
        case Event.REQUEST_EXPIRED:
            return "Nobody decided in time"
        case Event.GRANT_STARTED:
            return "Access began"
        case Event.GRANT_RAISED:
            return f"It has {data.get('to')} in all now"
        case Event.GRANT_ENDED:
            reason = str(data.get("reason", ""))
            if reason == "given_back":
                return f"{actor} gave it back"
            if reason == "revoked":
                return f"{actor} ended it"
            if reason == "review_denied":
                return f"{actor} ended it by the review afterwards"
            return ENDINGS.get(reason, "Access ended")
        case Event.CREDENTIAL_ISSUED:
            return f"{actor} checked out {name}"
        case Event.CREDENTIAL_REVOKING:
            return f"{name} is being taken back"
        case Event.CREDENTIAL_REVOKED:
            return f"{name} is proven gone"
        case Event.CREDENTIAL_STUCK:
            return f"{name} could not be taken back yet"
        case Event.CREDENTIAL_TRIED:
            return f"{actor} had {name} tried again at once"
    return sentence(row)


def step(row: AuditEvent, *, brief: bool = False) -> Step:
    """A row as an entry of a timeline."""
    icon, kind = LOOKS.get(row.event, ("circle-dot", ""))
    said = row.data.get("reason", "") if row.event in _WITH_REASON else row.data.get("error", "")
    if row.event in _SAID:
        said = row.data.get(_SAID[Event(row.event)], "")
    return Step(row.id, row.at, icon, kind, short(row) if brief else sentence(row), str(said))


_WITH_REASON = {
    Event.REQUEST_REVIEWED,
    Event.REQUEST_APPROVED,
    Event.REQUEST_DENIED,
    Event.BREAK_GLASS_REVIEWED,
    Event.STOP_DECLARED,
    Event.ALL_ENDED,
}
_SAID = {
    Event.ACCESS_REFUSED: "detail",
    Event.REQUEST_COMMENTED: "text",
    Event.REQUEST_QUESTIONED: "text",
    Event.REQUEST_HANDED_OVER: "note",
}


def timeline(*ids: uuid.UUID | str, without: Iterable[Event] = ()) -> list[Step]:
    """All that happened to these, oldest first, but for the events that are shown elsewhere.

    That somebody looked in vain, and that a mint was begun, is for the record, not for this page.
    """
    rows: Iterable[AuditEvent] = (
        AuditEvent.objects.about(*ids)
        .exclude(event__in=[Event.ACCESS_REFUSED, Event.CREDENTIAL_ISSUING, *without])
        .order_by("id")[:200]
    )
    return [step(row, brief=True) for row in rows]
