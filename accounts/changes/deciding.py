"""The verbs on changes: propose, approve, reject, withdraw, expire."""

import datetime as dt
from collections.abc import Callable, Iterable
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models import Model

from accounts import stepup
from accounts.changes.kinds import Kind, kind_of
from accounts.door import fetch
from accounts.linked import are_linked
from accounts.models import Change, User
from accounts.preconditions import ANYTHING, Expected
from accounts.stepup import Action, Proofs, Purpose
from audit import clock
from audit.events import Event
from audit.record import record
from broker.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    KeyturnError,
    NotFound,
    SecondPerson,
    StaleChange,
)

VALID = dt.timedelta(days=7)  # how long a change waits
TEXT = 1000  # characters of a reason or a note
_DECIDING = 0x4B45_5943_4847  # "KEYCHG"


def _nobody_told(change: Change, news: str, people: Iterable[User]) -> None:
    """Until `notifications`, a layer above this one, sets `tell`."""


# Tells these people, in the transaction that makes it true, what has become of a change:
# "proposed" to those who could decide it, and the state that it has come to.
tell: Callable[[Change, str, Iterable[User]], None] = _nobody_told


def _one_at_a_time() -> None:
    # Each locks several people and what it changes: in whatever order, two could lock each other.
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_DECIDING])


def _now(*people: User) -> dict[Any, User]:
    """These people as they are at this moment, and stay until this is committed; by id. Those
    whose account is closed are missing."""
    rows = User.objects.active().filter(pk__in={person.pk for person in people}, owner=None)
    return {row.pk: row for row in rows.select_for_update(no_key=True).order_by("pk")}


def _text(field: str, text: str, *, missing: str = "") -> str:
    text = text.strip()
    if missing and not text:
        raise InvalidInput({field: missing})
    if len(text) > TEXT:
        raise InvalidInput({field: f"Must be at most {TEXT} characters."})
    if "\x00" in text:
        raise InvalidInput({field: "Must not contain NUL characters."})
    return text


def propose(
    *,
    by: User,
    kind: str,
    about: Model | None,
    payload: dict[str, Any],
    reason: str = "",
    proofs: Proofs,
    expected: Expected = ANYTHING,
) -> Change | None:
    """Ask for a change, which waits for a second administrator; None if it was done at once,
    because it lets nobody do more than before.

    Raises Forbidden, NotFound, InvalidInput by field, StepUpNeeded, PreconditionFailed, and
    Conflict where another change of the same thing waits already.
    """
    what = kind_of(kind)
    with transaction.atomic():
        _one_at_a_time()
        person = _now(by).get(by.pk)
        if person is None:
            raise Forbidden("Your account is closed.")
        row = what.find(about.pk, lock=True) if about is not None else None
        what.check_may_propose(person, row)
        payload = what.checked(row, payload)
        proofs.check(what.purpose(row, payload))
        expected.check(row)
        if not what.widens(row, payload):
            what.apply(by=person, proposed_by=None, row=row, payload=payload)
            return None
        return _wait(what, person, row, payload, reason)


def _wait(what: Kind, by: User, row: Any, payload: dict[str, Any], reason: str) -> Change:
    reason = _text("reason", reason, missing="Say why: a second administrator decides by this.")
    part = what.part(row, payload)
    about = None if row is None else row.pk
    for other in Change.objects.filter(
        kind=what.name, about=about, part=part, state=Change.State.PENDING
    ):
        if other.expires_at > clock.now() and not _is_stale(other, what, row):
            raise Conflict(
                f"A change of this waits already, proposed by {other.proposed_by}. "
                "Let it be decided or withdrawn first.",
                change=str(other.pk),
            )
        _close(other, Change.State.EXPIRED, by=None)
    change = Change(
        kind=what.name,
        about=about,
        part=part,
        label=what.label(row, payload)[:200],
        payload=payload,
        difference=[line.as_json() for line in what.difference(row, payload)],
        base=what.base(row, payload),
        reason=reason,
        proposed_by=by,
        expires_at=clock.now() + VALID,
        note="",
    )
    try:
        with transaction.atomic():
            change.save(force_insert=True)
    except IntegrityError:
        raise Conflict("A change of this waits already.") from None
    change.refresh_from_db()
    record(
        Event.CHANGE_PROPOSED,
        by=by,
        about=change,
        related=() if about is None else (about,),
        kind=change.kind,
        difference=change.difference,
        reason=reason,
    )
    tell(change, "proposed", deciders(change, row))
    return change


def deciders(change: Change, row: Any = None) -> list[User]:
    """Who could decide it at this moment."""
    row = row if row is not None else _row(change)
    administrators = User.objects.active().filter(is_administrator=True).order_by("full_name")
    return [person for person in administrators if _refusal(person, change, row) is None]


def _row(change: Change, *, lock: bool = False) -> Any:
    """What it changes; None for something new, or where that is gone."""
    if change.about is None:
        return None
    try:
        return kind_of(change.kind).find(change.about, lock=lock)
    except NotFound:
        return None


def _refusal(person: User, change: Change, row: Any) -> Forbidden | None:
    if not (person.is_active and person.is_administrator):
        return Forbidden("Only administrators decide changes.")
    author = change.proposed_by
    if are_linked(person, author) or are_linked(author, person):
        return SecondPerson()
    if change.about is not None and row is None:
        return None
    if kind_of(change.kind).gains(person, row, change.payload):
        return SecondPerson("It would let you do more than before, so somebody else decides it.")
    return None


def check_decide(person: User, change: Change, row: Any = None) -> None:
    """Raise unless this person may decide this change: Forbidden, or SecondPerson for whoever
    proposed it or gains by it."""
    refused = _refusal(person, change, row if row is not None else _row(change))
    if refused is not None:
        raise refused


def can_decide(person: User, change: Change) -> bool:
    """Whether this person may decide this change."""
    try:
        check_decide(person, change)
    except KeyturnError:
        return False
    return True


def _is_stale(change: Change, what: Kind, row: Any) -> bool:
    if change.about is not None and row is None:
        return True
    try:
        return what.base(row, change.payload) != change.base
    except (KeyturnError, LookupError):
        # Something else that it names is gone.
        return True


def stale(change: Change) -> bool:
    """Whether what it was made from has changed since, so that it can only be proposed anew."""
    return _is_stale(change, kind_of(change.kind), _row(change))


def _open(by: User, change_id: Any) -> Change:
    """The change, if it waits; locked. Raises NotFound and Conflict."""
    change = fetch(
        Change.objects.select_related("proposed_by").visible_to(by), change_id, lock=True
    )
    if change.state_at(clock.now()) != Change.State.PENDING:
        standing = Change.State(change.state_at(clock.now())).label.lower()
        raise Conflict(f"This change is {standing} already; nothing was done.", state=standing)
    return change


def approve(
    *, by: User, change_id: Any, note: str = "", proofs: Proofs, expected: Expected = ANYTHING
) -> Change:
    """Agree to a change, which is done by this.

    Both people are looked at again at this moment, and so is what it was made from. Raises
    NotFound, Forbidden, SecondPerson, StepUpNeeded, PreconditionFailed, Conflict where it's decided
    or can't be done any more, StaleChange where what it was made from has changed since.
    """
    note = _text("note", note)
    with transaction.atomic():
        _one_at_a_time()
        change = _open(by, change_id)
        people = _now(by, change.proposed_by)
        row = _row(change, lock=True)
        if by.pk not in people:
            raise Forbidden("Only administrators decide changes.")
        check_decide(people[by.pk], change, row)
        proofs.check(Purpose(Action.CHANGE, str(change.pk)))
        expected.check(change)
        what = kind_of(change.kind)
        if _is_stale(change, what, row):
            raise StaleChange(difference=_difference_now(what, row, change))
        author = people.get(change.proposed_by_id)
        try:
            if author is None:
                raise Forbidden
            what.check_may_propose(author, row)
        except Forbidden:
            raise Conflict(
                f"{change.proposed_by} may not propose this any more. Propose it yourself."
            ) from None
        try:
            what.apply(by=people[by.pk], proposed_by=author, row=row, payload=change.payload)
        except InvalidInput as error:
            raise Conflict(f"It can't be done any more: {error}") from error
        return _close(change, Change.State.APPLIED, by=people[by.pk], note=note, row=row)


def _difference_now(what: Kind, row: Any, change: Change) -> list[dict[str, str]]:
    try:
        return [line.as_json() for line in what.difference(row, change.payload)]
    except (KeyturnError, LookupError, AttributeError):
        return []


def reject(
    *, by: User, change_id: Any, note: str, proofs: Proofs, expected: Expected = ANYTHING
) -> Change:
    """Refuse a change. Raises as `approve` does, and InvalidInput without a note."""
    note = _text("note", note, missing="Say why not: whoever proposed it reads this.")
    with transaction.atomic():
        _one_at_a_time()
        change = _open(by, change_id)
        person = _now(by).get(by.pk)
        if person is None:
            raise Forbidden("Only administrators decide changes.")
        check_decide(person, change)
        proofs.check(Purpose(Action.CHANGE, str(change.pk)))
        expected.check(change)
        return _close(change, Change.State.REJECTED, by=person, note=note)


def withdraw(*, by: User, change_id: Any, expected: Expected = ANYTHING) -> Change:
    """Take one's own proposal back. Raises NotFound, Forbidden, PreconditionFailed, and Conflict
    where it's decided."""
    with transaction.atomic():
        _one_at_a_time()
        change = _open(by, change_id)
        if change.proposed_by_id != by.pk:
            raise Forbidden("Only who proposed a change withdraws it; others reject it.")
        expected.check(change)
        return _close(change, Change.State.WITHDRAWN, by=by)


def expire() -> int:
    """Close what waited for too long; how many. It couldn't be decided since anyway."""
    with transaction.atomic():
        due = Change.objects.filter(state=Change.State.PENDING, expires_at__lte=clock.now())
        rows = list(due.select_for_update(skip_locked=True, of=("self",)))
        for change in rows:
            _close(change, Change.State.EXPIRED, by=None)
    return len(rows)


_EVENTS = {
    Change.State.APPLIED: Event.CHANGE_APPROVED,
    Change.State.REJECTED: Event.CHANGE_REJECTED,
    Change.State.WITHDRAWN: Event.CHANGE_WITHDRAWN,
    Change.State.EXPIRED: Event.CHANGE_EXPIRED,
}


def _close(
    change: Change, state: Change.State, *, by: User | None, note: str = "", row: Any = None
) -> Change:
    decided = state in (Change.State.APPLIED, Change.State.REJECTED)
    change.state, change.note = state, note
    change.decided_by, change.decided_at = (by, clock.now()) if decided else (None, clock.now())
    change.save(update_fields=["state", "note", "decided_by", "decided_at"])
    record(
        _EVENTS[state],
        by=by,
        about=change,
        related=tuple(pk for pk in (change.about, change.proposed_by_id) if pk is not None),
        kind=change.kind,
        note=note,
    )
    told = {change.proposed_by}
    if state == Change.State.APPLIED:
        told |= set(User.objects.active().filter(is_administrator=True))
        told |= set(kind_of(change.kind).concerned(row, change.payload))
    tell(change, str(state), told)
    return change


def _in_words(reader: User, about: str) -> str:
    change = fetch(Change.objects.visible_to(reader), about)
    return f"Decide this change: {change.label}"


stepup.in_words_by(Action.CHANGE, _in_words)
