"""What people are told of requests and grants: who, and in which words."""

import datetime as dt
from collections.abc import Iterable

from django.urls import reverse

from accessrequests.models import AccessRequest, Comment, Grant, HandOver, Review, Route
from accessrequests.routing import may_decide, reviewers_of, told_for
from accessrequests.states import EndReason, GrantState
from accounts.models import User
from audit.templatetags.keyturn import and_list, duration
from endpoints.models import EmergencyStop
from endpoints.scope import Scope
from endpoints.wording import budgets_in_words, in_words, left_out
from notifications.kinds import Kind
from notifications.outbox import Notice, notify, notify_many, withdraw

WAITING = (Kind.REVIEW_WANTED, Kind.REVIEW_REMINDER, Kind.ESCALATED, Kind.HANDED_OVER)


def _path(row: AccessRequest | Grant) -> str:
    return reverse("grant" if isinstance(row, Grant) else "request", kwargs={"pk": row.pk})


def _ask(request: AccessRequest) -> str:
    return f"{request.wanted} on {request.profile.endpoint}"


def _when(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _scope(scope: Scope) -> list[tuple[str, str]]:
    parts = in_words(scope)
    found = [(part.label, ", ".join(part.names)) for part in parts if part.names]
    limits = [part.text for part in parts if part.text]
    return [*found, ("At most", and_list(limits))] if limits else found


def _facts(request: AccessRequest) -> list[tuple[str, str]]:
    endpoint = request.profile.endpoint
    facts = [
        ("Profile", request.profile.name),
        *_scope(request.asked),
        ("Endpoint", f"{endpoint.get_environment_display()}, {endpoint.get_risk_display()} risk"),
    ]
    if endpoint.connected_systems:
        facts.append(("Reaches", ", ".join(endpoint.connected_systems)))
    if request.ticket:
        facts.append(("Ticket", request.ticket))
    return facts + _said_of(request)


def _said_of(request: AccessRequest) -> list[tuple[str, str]]:
    """What an agent said of itself."""
    return [(name, text) for name, text in (("Run", request.run), ("Task", request.task)) if text]


def _asked_people(request: AccessRequest) -> list[User]:
    """Those for whom it waits and who haven't decided."""
    done = set(request.reviews.values_list("reviewer", flat=True))
    return [person for person in reviewers_of([request])[request.pk] if person.pk not in done]


def _tell_reviewers(
    kind: Kind, request: AccessRequest, people: Iterable[User], sentence: str, occasion: str
) -> None:
    done = set(request.reviews.values_list("reviewer", flat=True))
    told = told_for(
        people,
        lambda person: (
            person.pk not in done
            and not request.is_own(person)
            and may_decide(person, request, request.step)
        ),
    )
    together: dict[User | None, list[User]] = {}
    for person, instead_of in told.items():
        together.setdefault(instead_of, []).append(person)
    for instead_of, to in together.items():
        note = [("In place of", f"{instead_of}, who is away")] if instead_of else []
        notify(
            kind,
            to=to,
            about=request,
            path=_path(request),
            sentence=sentence,
            facts=[*note, *_facts(request), ("Decide by", _when(request.decide_by))],
            quote=request.justification,
            occasion=occasion,
        )


def review_wanted(request: AccessRequest) -> None:
    """Ask those whom the current step reaches; nobody is asked twice for one step."""
    _tell_reviewers(
        Kind.REVIEW_WANTED,
        request,
        _asked_people(request),
        f"{request.asker} asks for {_ask(request)}",
        f"step {request.step} since {request.step_since.isoformat()}",
    )


def taken_a_step(request: AccessRequest, by: User | None = None) -> None:
    """Whoever approved needs to do nothing more, nor anybody of a step that is complete."""
    withdraw(about=request, kinds=WAITING, of=by)


def escalated(request: AccessRequest) -> None:
    """Ask those whom the escalation reached, in whose hands it wasn't before."""
    _tell_reviewers(
        Kind.ESCALATED,
        request,
        _asked_people(request),
        f"Nobody has decided on the request of {request.asker} for {_ask(request)}"
        if request.on_behalf_of
        else f"Nobody has decided on {request.requester}’s request for {_ask(request)}",
        f"step {request.step}, {request.escalations}",
    )


def reminder(request: AccessRequest, now: dt.datetime) -> None:
    """Remind those for whom it waits; the endpoint's owner too once a review is overdue."""
    people = _asked_people(request)
    if request.break_glass:
        sentence = (
            f"{request.requester}’s break-glass access to {_ask(request)} is not reviewed yet"
        )
        if request.decide_by <= now:
            people.append(request.profile.endpoint.owner)
        kind = Kind.REVIEW_OWED
    else:
        sentence = f"{request.asker} still waits for {_ask(request)}"
        kind = Kind.REVIEW_REMINDER
    _tell_reviewers(kind, request, people, sentence, now.isoformat(timespec="seconds"))


def break_glass(request: AccessRequest) -> None:
    """Tell every reviewer whom the requester went past, and the endpoint's owner."""
    everybody = {
        person.pk: person
        for at in {route.step for route in request.routes.all()}
        for person in _routed(request, at)
    }
    owner = request.profile.endpoint.owner
    if owner.pk != request.requester_id:
        everybody.setdefault(owner.pk, owner)
    notify(
        Kind.BREAK_GLASS,
        to=everybody.values(),
        about=request,
        path=_path(request),
        sentence=f"{request.requester} took {_ask(request)} before a review",
        facts=[*_facts(request), ("Review by", _when(request.decide_by))],
        quote=request.justification,
    )


def _routed(request: AccessRequest, step: int) -> list[User]:
    rows = Route.objects.filter(request=request, step=step)
    people = User.objects.active().filter(owner=None).exclude(pk=request.requester_id)
    members = people.filter(memberships__group__in=rows.values("group"))
    return list((members | people.filter(pk__in=rows.values("person"))).distinct())


def reviewed_afterwards(request: AccessRequest, review: Review) -> None:
    """Tell whoever took break-glass access what its review came to."""
    withdraw(about=request, kinds=[Kind.REVIEW_OWED])
    found = "in order" if review.verdict == Review.Verdict.APPROVE else "not in order, and ended it"
    notify(
        Kind.DECIDED,
        to=[request.requester],
        about=request,
        path=_path(request),
        sentence=f"{review.reviewer} found your break-glass access to "
        f"{request.profile.endpoint} {found}",
        quote=review.reason,
        occasion="afterwards",
    )


def asked_for_you(request: AccessRequest) -> None:
    """Tell the person on whose behalf an agent asks."""
    if request.on_behalf_of is None:
        return
    notify(
        Kind.ASKED_FOR_YOU,
        to=[request.on_behalf_of],
        about=request,
        path=_path(request),
        sentence=f"{request.requester} asked for {_ask(request)} on your behalf",
        facts=_facts(request),
        quote=request.justification,
    )


def _begun_for_you(grant: Grant) -> None:
    person = grant.request.on_behalf_of
    if person is None:
        return
    notify(
        Kind.ASKED_FOR_YOU,
        to=[person],
        about=grant,
        path=_path(grant),
        sentence=f"{grant.holder} has access to {grant.request.profile.endpoint} on your behalf",
        facts=[
            ("From", _when(grant.starts_at)),
            ("Until", _when(grant.ends_at)),
            *_said_of(grant.request),
        ],
    )


def decided(request: AccessRequest, grant: Grant) -> None:
    """Tell the requester what they have, and how much less than asked that is."""
    if grant.state == GrantState.ACTIVE:
        _begun_for_you(grant)
    withdraw(about=request, kinds=WAITING)
    window = grant.ends_at - grant.starts_at
    facts = [
        ("From", _when(grant.starts_at)),
        ("Until", _when(grant.ends_at)),
        *_scope(grant.allowed),
    ]
    less = left_out(grant.allowed, request.asked)
    if window < request.duration or less:
        facts.append(("Asked for", "; ".join([_ask(request), *less])))
    reasons = request.reviews.exclude(reason="").values_list("reason", flat=True)
    notify(
        Kind.DECIDED,
        to=[request.requester],
        about=request,
        path=_path(grant),
        sentence=f"You have {duration(window)} on {request.profile.endpoint}",
        facts=[*facts, ("Decided by", request.decided_by)],
        quote="\n".join(reasons),
    )


def raised(request: AccessRequest, grant: Grant) -> None:
    """Tell the requester which budgets their grant has now."""
    withdraw(about=request, kinds=WAITING)
    reasons = request.reviews.exclude(reason="").values_list("reason", flat=True)
    notify(
        Kind.DECIDED,
        to=[request.requester],
        about=request,
        path=_path(grant),
        sentence=f"You have {and_list(budgets_in_words(grant.allowed))} in all on "
        f"{request.profile.endpoint}",
        facts=[("Until", _when(grant.ends_at)), ("Decided by", request.decided_by)],
        quote="\n".join(reasons),
    )


def denied(request: AccessRequest, review: Review) -> None:
    """Tell the requester who denied it and why."""
    withdraw(about=request, kinds=WAITING)
    notify(
        Kind.DECIDED,
        to=[request.requester],
        about=request,
        path=_path(request),
        sentence=f"{review.reviewer} denied your request for {_ask(request)}",
        quote=review.reason,
    )


def expired(request: AccessRequest) -> None:
    """Tell the requester that nobody decided in time."""
    withdraw(about=request, kinds=WAITING)
    notify(
        Kind.EXPIRED,
        to=[request.requester],
        about=request,
        path=_path(request),
        sentence=f"Nobody decided on your request for {_ask(request)} in time",
    )


def cancelled(request: AccessRequest) -> None:
    """Nobody needs to decide it any more."""
    withdraw(about=request, kinds=WAITING)


def commented(request: AccessRequest, comment: Comment) -> None:
    """Tell the other side: the requester, or the reviewers who spoke, else those it waits for."""
    author = comment.author
    people = {request.requester.pk: request.requester}
    for other in request.comments.select_related("author"):
        people[other.author.pk] = other.author
    if author.pk == request.requester_id and len(people) == 1:
        people |= {person.pk: person for person in _asked_people(request)}
    people.pop(author.pk, None)
    asked = comment.kind == Comment.Kind.QUESTION
    whose = "your" if list(people) == [request.requester_id] else "the"
    notify(
        Kind.QUESTION if asked else Kind.COMMENTED,
        to=people.values(),
        about=request,
        path=_path(request),
        sentence=f"{author} {'asks about' if asked else 'commented on'} "
        f"{whose} request for {_ask(request)}",
        quote=comment.text,
        occasion=str(comment.pk),
    )


def handed_over(request: AccessRequest, row: HandOver) -> None:
    """Ask the reviewer to whom it was handed."""
    _tell_reviewers(
        Kind.HANDED_OVER,
        request,
        [row.to],
        f"{row.by} asks you to decide on {request.requester}’s request for {_ask(request)}",
        str(row.pk),
    )


def grant_started(grant: Grant) -> None:
    """Tell the holder, and on whose behalf they hold it, that what was scheduled begins."""
    _begun_for_you(grant)
    notify(
        Kind.GRANT_STARTED,
        to=[grant.holder],
        about=grant,
        path=_path(grant),
        sentence=f"Your access to {grant.request.profile.endpoint} has begun",
        facts=[("Until", _when(grant.ends_at))],
    )


def grant_ending(grant: Grant) -> None:
    """Warn the holder, once."""
    notify(
        Kind.GRANT_ENDING,
        to=[grant.holder],
        about=grant,
        path=_path(grant),
        sentence=f"Your access to {grant.request.profile.endpoint} ends soon",
        facts=[("Until", _when(grant.ends_at))],
    )


def grants_ended(grants: list[Grant], by: User | None) -> None:
    """Tell their holders that these ended, unless they ended it or its time was simply up.

    They ended together, for one reason.
    """
    withdraw(about=[grant.pk for grant in grants], kinds=[Kind.GRANT_ENDING])
    if grants[0].end_reason == EndReason.EXPIRED:
        return
    reasons: dict[object, str] = {}
    if grants[0].end_reason == EndReason.EMERGENCY_STOP:
        # All of them by one person; each endpoint's own stop says more than one of everything.
        for grant in grants:
            endpoint = grant.request.profile.endpoint_id
            if endpoint not in reasons:
                stop = EmergencyStop.objects.against(endpoint, grant.request.decided_at).first()
                reasons[endpoint] = stop.reason if stop else ""
    notify_many(
        Notice(
            Kind.GRANT_ENDED,
            to=[grant.holder],
            about=grant,
            path=_path(grant),
            sentence=f"Your access to {grant.request.profile.endpoint} was ended early",
            facts=[("Why", grant.get_end_reason_display()), ("By", grant.ended_by)],
            quote=reasons.get(grant.request.profile.endpoint_id, ""),
        )
        for grant in grants
        if by is None or by.pk != grant.holder_id
    )
