"""What must hold, judged from rows alone.

Nothing here uses routing, policy or authority: it is written from the design, so that the engine
and this can only agree by both being right.
"""

import datetime as dt
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from accessrequests.models import AccessRequest, Grant, PolicyBinding, PolicyVersion, Review
from accounts.models import Membership, User
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from endpoints.models import AccessProfile

Row = dict[str, Any]
HOUR = dt.timedelta(hours=1)
BUILT_IN = {
    "slug": "default",
    "version": 0,
    "steps": [{"name": "Review", "reviewers": {"profile_reviewers": True}}],
}


@dataclass(frozen=True)
class Ask:
    """What a condition may look at."""

    duration: dt.timedelta
    models: frozenset[str]
    groups: frozenset[str]
    is_service: bool
    on_call: bool
    ticket: str
    extension: bool
    risk: str


# Conditions in CEL, and what each of them means.
CONDITIONS: dict[str, Callable[[Ask], bool]] = {
    "true": lambda _: True,
    "request.duration <= duration('1h')": lambda ask: ask.duration <= HOUR,
    "size(request.models) == 1": lambda ask: len(ask.models) == 1,
    "requester.kind == 'service'": lambda ask: ask.is_service,
    "requester.on_call": lambda ask: ask.on_call,
    "'m-security' in requester.groups": lambda ask: "m-security" in ask.groups,
    "request.ticket != ''": lambda ask: bool(ask.ticket),
    "!request.extension": lambda ask: not ask.extension,
    "endpoint.risk == 'critical'": lambda ask: ask.risk == "critical",
    # Of one model it fails, so it isn't satisfied.
    "request.models[1] == 'm-small'": lambda ask: sorted(ask.models)[1:2] == ["m-small"],
}


def seconds(text: str) -> dt.timedelta:
    """An ISO 8601 duration of days, hours, minutes."""
    found = re.fullmatch(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?", text)
    assert found, text
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return dt.timedelta(days=days, hours=hours, minutes=minutes, seconds=rest)


class Oracle:
    """Looks at the rows before and after each action, and says what must not have happened."""

    def __init__(self, profiles: Iterable[uuid.UUID]) -> None:
        self.profile_ids = list(profiles)
        self.first = self._last_event()
        self.escalated: dict[tuple[uuid.UUID, int], int] = {}
        self.seen: Counter[str] = Counter()
        self.look()

    @staticmethod
    def _last_event() -> int:
        return AuditEvent.objects.order_by("-id").values_list("id", flat=True).first() or 0

    def look(self) -> None:
        """Read all rows."""
        asked = AccessRequest.objects.filter(profile__in=self.profile_ids)
        self.requests: dict[Any, Row] = {
            row["id"]: dict(row) for row in asked.order_by("id").values()
        }
        reviews = Review.objects.filter(request__in=list(self.requests)).order_by("at")
        self.reviews: dict[Any, Row] = {row["id"]: dict(row) for row in reviews.values()}
        grants = Grant.objects.filter(request__in=list(self.requests)).order_by("id")
        self.grants: dict[Any, Row] = {row["id"]: dict(row) for row in grants.values()}
        self.last = self._last_event()

    def state(self) -> Any:
        """All that an action could have changed."""
        return self.requests, self.reviews, self.grants, self.last

    def society(self) -> None:
        """Read who is what at this moment, and what policy says."""
        self.users: dict[Any, Row] = {
            row["id"]: dict(row)
            for row in User.objects.values("id", "email", "is_active", "owner_id", "manager_id")
        }
        members = Membership.objects.values_list("user_id", "group__slug", "group__is_rota")
        self.groups: dict[Any, set[str]] = {}
        self.on_call: set[Any] = set()
        for user, slug, is_rota in members:
            self.groups.setdefault(user, set()).add(slug)
            if is_rota:
                self.on_call.add(user)
        self.profiles: dict[Any, Row] = {
            row["id"]: dict(row)
            for row in AccessProfile.objects.filter(pk__in=self.profile_ids).values(
                "id",
                "scope",
                "max_duration",
                "retired_at",
                "requesters__slug",
                "reviewers__slug",
                "endpoint_id",
                "endpoint__owner_id",
                "endpoint__risk",
                "endpoint__retired_at",
            )
        }
        self.documents: dict[Any, list[Row]] = {}
        bound = PolicyBinding.objects.filter(policy__retired_at=None).values_list(
            "profile_id", "endpoint_id", "policy__current_id"
        )
        versions = {
            row["id"]: row["document"] | {"version": row["number"]}
            for row in PolicyVersion.objects.filter(pk__in=[at for _, _, at in bound]).values()
        }
        for pk, profile in self.profiles.items():
            self.documents[pk] = [
                versions[version]
                for of_profile, of_endpoint, version in bound
                if of_profile == pk or of_endpoint == profile["endpoint_id"]
            ] or [BUILT_IN]

    # ── Who ─────────────────────────────────────────────────────────────────────────────────────

    def names(self, reviewers: Row, person: Any, request: Row) -> bool:
        profile, user = self.profiles[request["profile_id"]], self.users[person]
        requester = self.users[request["requester_id"]]
        groups = set(reviewers.get("groups", ()))
        if reviewers.get("profile_reviewers"):
            groups.add(profile["reviewers__slug"])
        return (
            bool(groups & self.groups.get(person, set()))
            or user["email"] in reviewers.get("people", ())
            or (bool(reviewers.get("endpoint_owner")) and profile["endpoint__owner_id"] == person)
            or (bool(reviewers.get("requester_manager")) and requester["manager_id"] == person)
        )

    def eligible(self, person: Any, request: Row, step: Row, reached: int) -> bool:
        """Whether they may decide this step, of which so many escalations happened."""
        user, requester = self.users[person], self.users[request["requester_id"]]
        if not user["is_active"] or user["owner_id"] is not None:
            return False
        if person == requester["id"] or person == requester["owner_id"]:
            return False
        later = [entry["to"] for entry in step.get("escalation", ())[:reached]]
        return any(self.names(named, person, request) for named in [step["reviewers"], *later])

    def may(self, person: Any, request: Row, at: int) -> bool:
        reached = self.escalated.get((request["id"], at), 0)
        return self.eligible(person, request, request["policy"]["steps"][at], reached)

    # ── What ────────────────────────────────────────────────────────────────────────────────────

    def reviews_of(self, request: Row) -> list[Row]:
        return [row for row in self.reviews.values() if row["request_id"] == request["id"]]

    def terms(self, request: Row, reviews: Iterable[Row]) -> tuple[frozenset[str], dt.timedelta]:
        models, duration = frozenset(request["scope"]["models"]), request["duration"]
        for review in reviews:
            if review["verdict"] == "approve":
                models &= frozenset((review["scope"] or request["scope"])["models"])
                duration = min(duration, review["duration"] or duration)
        return models, duration

    def ask(self, request: Row) -> Ask:
        models, duration = self.terms(request, self.reviews_of(request))
        who = request["requester_id"]
        return Ask(
            duration=duration,
            models=models,
            groups=frozenset(self.groups.get(who, ())),
            is_service=self.users[who]["owner_id"] is not None,
            on_call=who in self.on_call,
            ticket=request["ticket"],
            extension=request["extends_id"] is not None,
            risk=self.profiles[request["profile_id"]]["endpoint__risk"],
        )

    # ── Checks ──────────────────────────────────────────────────────────────────────────────────

    def check_refused(self) -> None:
        """Nothing changed by what was refused."""
        before = self.state()
        self.look()
        assert self.state() == before, "a refusal changed something"

    def check(self) -> None:
        """After an action: everything new is right, and everything is on record once."""
        requests, reviews, grants = self.requests, self.reviews, self.grants
        self.look()
        if self.requests != requests or self.reviews != reviews or self.grants != grants:
            self.society()
            for pk, row in self.requests.items():
                self._check_move(requests.get(pk), row)
                if pk not in requests:
                    self._check_filed(row)
            for pk in self.reviews.keys() - reviews.keys():
                review = self.reviews[pk]
                before = requests[review["request_id"]]
                earlier = [r for r in reviews.values() if r["request_id"] == before["id"]]
                self._check_review(review, before, earlier)
            for pk in self.grants.keys() - grants.keys():
                self._check_grant(self.grants[pk])
            for pk, row in self.requests.items():
                key = (pk, row["step"])
                self.escalated[key] = max(self.escalated.get(key, 0), row["escalations"])
            self._check_all()
            self._check_record()

    def _check_move(self, before: Row | None, after: Row) -> None:
        was = before["state"] if before else "pending"
        if was != after["state"]:
            assert was == "pending", f"{was} became {after['state']}"
            assert (
                before is None
                or after["state"] == "expired"
                or (before["pending_until"] > after["decided_at"])
            ), "decided after it expired"
            self.seen[after["state"]] += 1

    def _check_filed(self, request: Row) -> None:
        """It asks for as many as each of the policies does, by steps in their order."""
        ask = self.ask(request)
        asked = sum(s["approvals"] for s in request["policy"]["steps"] if not s["skipped"])
        assert asked >= 1
        for document in self.documents[request["profile_id"]]:
            needed = sum(
                step.get("approvals", 1)
                for step in document["steps"]
                if not (step.get("skip_when") and CONDITIONS[step["skip_when"]](ask))
            )
            assert asked >= needed, "asks fewer than one of its policies"
        if request["automatic"]:
            assert not request["break_glass"]

    def _check_review(self, review: Row, request: Row, earlier: list[Row]) -> None:
        """`request` and `earlier` are as they were before."""
        who = review["reviewer_id"]
        owed = request["break_glass"] and request["reviewed_at"] is None
        assert request["state"] == "pending" or owed, "reviewed what was decided"
        assert owed or request["pending_until"] > review["at"], "reviewed what had expired"
        assert review["step"] == request["step"], "of another step"
        assert self.may(who, request, review["step"]), "by somebody who may not"
        assert who not in {each["reviewer_id"] for each in earlier}, "twice by one"
        models, duration = self.terms(request, earlier)
        assert frozenset((review["scope"] or request["scope"])["models"]) <= models or (
            review["scope"] is None
        ), "wider than approved so far"
        assert review["duration"] is None or review["duration"] <= duration
        self.seen["review"] += 1
        if review["step"] > 0:
            self.seen["later step"] += 1
        if review["scope"] or review["duration"] or review["starts_at"]:
            self.seen["approved less"] += 1
        if owed:
            self.seen["reviewed afterwards"] += 1

    def _check_grant(self, grant: Row) -> None:
        request = self.requests[grant["request_id"]]
        assert grant["holder_id"] == request["requester_id"]
        assert request["state"] == "approved"
        window = grant["ends_at"] - grant["starts_at"]
        models, duration = self.terms(request, self.reviews_of(request))
        assert window <= duration, "longer than approved"
        assert frozenset(grant["scope"]["models"]) <= models, "wider than approved"
        assert grant["scope"]["models"], "of nothing"
        starts = [request["starts_at"], *(r["starts_at"] for r in self.reviews_of(request))]
        assert all(at is None or grant["starts_at"] >= at for at in starts), "too early"
        assert grant["starts_at"] >= request["decided_at"], "before it was decided"
        kind = "ordinary"
        if request["extends_id"] is not None:
            extended = self.grants[request["extends_id"]]
            assert grant["starts_at"] == extended["ends_at"], "a gap or an overlap"
            assert extended["ended_at"] is None, "extends what has ended"
            assert extended["holder_id"] == grant["holder_id"]
            assert set(grant["scope"]["models"]) <= set(extended["scope"]["models"])
            source = self.requests[extended["request_id"]]
            assert source["profile_id"] == request["profile_id"]
            assert not source["break_glass"], "extends break-glass access"
            kind = "extension"
        elif any(starts):
            kind = "scheduled"
        self.check_ground(request)
        self.seen[f"{kind} grant"] += 1
        for name in ("automatic", "break_glass"):
            if request[name]:
                self.seen[f"{name} grant"] += 1
        approvals = len({r["reviewer_id"] for r in self.reviews_of(request)})
        if approvals > 1:
            self.seen["grant of several"] += 1

    def check_ground(self, request: Row) -> None:
        """At this moment, all that it rests on holds."""
        profile = self.profiles[request["profile_id"]]
        requester = self.users[request["requester_id"]]
        ask = self.ask(request)
        documents = self.documents[request["profile_id"]]
        assert requester["is_active"], "for somebody who was deactivated"
        assert profile["requesters__slug"] in ask.groups, "for somebody who may not ask"
        assert profile["retired_at"] is None
        assert profile["endpoint__retired_at"] is None
        assert ask.models <= set(profile["scope"]["models"]), "wider than the ceiling"
        assert ask.duration <= profile["max_duration"], "longer than the ceiling"
        for document in documents:
            limits = document.get("limits", {})
            if "max_duration" in limits:
                assert ask.duration <= seconds(limits["max_duration"]), "longer than the policy"
            if "ticket" in limits:
                assert ask.ticket, "without a ticket"
            for constraint in document.get("constraints", ()):
                assert CONDITIONS[constraint["expression"]](ask), "against a constraint"
        if request["automatic"]:
            assert not self.reviews_of(request)
            for document in documents:
                assert document.get("auto_approve_when"), "no policy decides it by itself"
                assert CONDITIONS[document["auto_approve_when"]](ask), "its condition doesn't hold"
                if ask.risk == "critical":
                    assert document.get("auto_approve_critical"), "critical, and not in words"
        elif request["break_glass"]:
            assert request["extends_id"] is None
            assert request["starts_at"] is None
            named: list[Any] = [document.get("break_glass") for document in documents]
            assert all(named), "no break-glass here"
            for item in named:
                assert ask.duration <= seconds(item.get("max_duration", "PT30M")), "too long"
            everywhere = set.intersection(*(set(item["groups"]) for item in named))
            assert everywhere & ask.groups, "break-glass by somebody who isn't named"
        else:
            self._check_consent(request, ask, documents)

    def _check_consent(self, request: Row, ask: Ask, documents: list[Row]) -> None:
        reviews = self.reviews_of(request)
        assert all(each["verdict"] == "approve" for each in reviews), "denied"
        steps = request["policy"]["steps"]
        assert not all(step["skipped"] for step in steps), "nobody was asked"
        for at, step in enumerate(steps):
            if step["skipped"]:
                continue
            who = {r["reviewer_id"] for r in reviews if r["step"] == at}
            good = {person for person in who if self.may(person, request, at)}
            assert len(good) >= step["approvals"], f"step {at} has {len(good)} of those it needs"
        filed = {(each["slug"], each["version"]) for each in request["policy"]["policies"]}
        if {(each["slug"], each["version"]) for each in documents} <= filed:
            # What let a step be skipped then: of the ask as it was, by who asks as they are.
            asked = frozenset(request["scope"]["models"])
            ask = replace(ask, duration=request["duration"], models=asked)
        else:
            self.seen["policy changed since"] += 1
        everybody = {r["reviewer_id"] for r in reviews}
        for document in documents:
            for step in document["steps"]:
                if step.get("skip_when") and CONDITIONS[step["skip_when"]](ask):
                    continue
                good = {p for p in everybody if self.eligible(p, request, step, 99)}
                assert len(good) >= step.get("approvals", 1), "too few for the policy as it is now"

    def _check_all(self) -> None:
        followed: Counter[Any] = Counter()
        for grant in self.grants.values():
            source = self.requests[grant["request_id"]]["extends_id"]
            if source is None:
                continue
            assert grant["starts_at"] == self.grants[source]["ends_at"], "a gap or an overlap"
            if grant["ended_at"] is None:
                followed[source] += 1
        assert not followed or max(followed.values()) == 1, "extended twice"
        waiting = Counter(
            row["extends_id"]
            for row in self.requests.values()
            if row["state"] == "pending"
            and row["extends_id"] is not None
            and row["pending_until"] > clock.now()
        )
        assert not waiting or max(waiting.values()) == 1, "two extensions wait"
        for request in self.requests.values():
            held = [g for g in self.grants.values() if g["request_id"] == request["id"]]
            assert len(held) == (request["state"] == "approved")

    def _check_record(self) -> None:
        """One state change, one audit row."""
        found: dict[Any, Counter[str]] = {}
        for event, about in AuditEvent.objects.filter(id__gt=self.first).values_list(
            "event", "subject_id"
        ):
            found.setdefault(about, Counter())[event] += 1
        for pk, request in self.requests.items():
            count, state = found[pk], request["state"]
            assert count[Event.REQUEST_FILED] == 1
            approved = count[Event.REQUEST_APPROVED] + count[Event.BREAK_GLASS_TAKEN]
            assert approved == (state == "approved")
            assert count[Event.REQUEST_DENIED] == (state == "denied")
            assert count[Event.REQUEST_CANCELLED] == (state == "cancelled")
            assert count[Event.REQUEST_EXPIRED] == (state == "expired")
            verdicts = count[Event.REQUEST_REVIEWED] + count[Event.REQUEST_DENIED]
            verdicts += count[Event.BREAK_GLASS_REVIEWED]
            if not request["automatic"] and not request["break_glass"]:
                verdicts += count[Event.REQUEST_APPROVED]
            assert verdicts == len(self.reviews_of(request))
        for pk, grant in self.grants.items():
            count, state = found[pk], grant["state"]
            assert count[Event.GRANT_ENDED] == (state == "ended")
            assert count[Event.GRANT_SCHEDULED] <= 1
            assert count[Event.GRANT_STARTED] <= 1
            assert count[Event.GRANT_SCHEDULED] + count[Event.GRANT_STARTED] >= 1
            assert state != "active" or count[Event.GRANT_STARTED] == 1
            assert state != "scheduled" or count[Event.GRANT_STARTED] == 0
