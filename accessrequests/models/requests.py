from typing import Any

import pgtrigger
from django.db import models
from django.db.models import F, OuterRef, Q

from accessrequests.models.sight import (
    Sight,
    Way,
    in_any,
    known_sight,
    listed,
    plain,
    related,
    sight_of,
)
from accessrequests.states import REQUEST_MOVES, RequestState, pairs
from accounts.linked import are_linked
from accounts.models import Group, Membership, User
from audit.clock import ClockTimestamp
from audit.ids import new_id
from audit.keeping import refuse_truncate
from audit.templatetags.keyturn import and_list, duration
from endpoints.models import LONGEST, SHORTEST, AccessProfile
from endpoints.scope import Scope
from endpoints.wording import budgets_in_words

# In SQL: the scope that the grant in `held` has by now, and the keys that a raise may change.
HELD = """COALESCE((
    SELECT scope FROM accessrequests_grantraise WHERE grant_id = held.id ORDER BY at DESC LIMIT 1
), held.scope)"""
BUDGETS = "ARRAY['token_budget', 'cost_budget']"


def groups_of(user: User) -> models.QuerySet[Membership, Any]:
    """The ids of the groups that this person is in, as a subquery."""
    return Membership.objects.filter(user=user).values("group")


def reviewed_by(user: User, path: str) -> Q:
    """Whether the profile at `path` names a group of this person's as its reviewers."""
    return Q(**{f"{path}reviewers__in": groups_of(user)})


def own_of(user: User, path: str = "") -> Q:
    """Requests at `path` that `is_own` is true of."""
    own = Q()
    for each in ("requester", "requester__owner", "on_behalf_of"):
        own |= Q(**{f"{path}{each}": user})
    return own


class AccessRequests(models.QuerySet["AccessRequest"]):
    def visible_to(self, user: User) -> "AccessRequests":
        """One's own, one's service accounts' and what agents ask on one's behalf, and those that
        one may review or has reviewed; everything for auditors."""
        return self if user.sees_everything else in_any(self, _ways(user, sight_of(user)))

    def listed_for(self, user: User) -> "AccessRequests":
        """The same, for lists (`accessrequests.models.sight`)."""
        return self if user.sees_everything else listed(self, _ways(user, known_sight(user)))


def _ways(user: User, sight: Sight) -> list[Way]:
    from accessrequests.models.reviews import Review  # which imports this module

    return [
        plain(requester=user),
        plain(requester__in=sight.services),
        plain(on_behalf_of=user),
        plain(profile__in=sight.reviewed),
        *came_to(user, sight, "pk"),
        related(
            Q(pk__in=Review.objects.filter(reviewer=user).values("request")),
            Review.objects.filter(request=OuterRef("pk"), reviewer=user),
        ),
    ]


def came_to(user: User, sight: Sight, path: str) -> list[Way]:
    """That the request with the id at `path` was routed to this person, or to a group of theirs."""
    reached = (Q(group__in=sight.groups), Q(person=user))
    return [
        related(
            Q(**{f"{path}__in": Route.objects.filter(way).values("request")}),
            Route.objects.filter(way, request=OuterRef(path)),
        )
        for way in reached
    ]


class AccessRequest(models.Model):
    """One ask for access to one profile. What was asked never changes; its state does."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    profile = models.ForeignKey(AccessProfile, on_delete=models.PROTECT, related_name="requests")
    requester = models.ForeignKey(User, on_delete=models.PROTECT, related_name="access_requests")
    state = models.CharField(
        max_length=10, choices=RequestState.choices, default=RequestState.PENDING
    )
    scope = models.JSONField()
    duration = models.DurationField()
    justification = models.CharField(max_length=2000)
    policy = models.JSONField(help_text="what applied when it was filed")
    created_at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)
    pending_until = models.DateTimeField()
    decided_at = models.DateTimeField(null=True)
    decided_by = models.CharField(max_length=254, blank=True, default="")
    starts_at = models.DateTimeField(null=True, help_text="asked for; else it begins at approval")
    ticket = models.CharField(max_length=100, blank=True, default="")
    automatic = models.BooleanField(default=False, help_text="decided by policy, by nobody")
    break_glass = models.BooleanField(default=False, help_text="access first, review after")
    extends = models.ForeignKey(
        "Grant", on_delete=models.PROTECT, null=True, related_name="extensions"
    )
    raises = models.ForeignKey(
        "Grant",
        on_delete=models.PROTECT,
        null=True,
        related_name="raises_asked",
        help_text="asks for larger budgets of it, and for nothing else",
    )
    together = models.UUIDField(null=True, help_text="shared by all that were asked for at once")
    on_behalf_of = models.ForeignKey(
        User,
        on_delete=models.PROTECT,
        null=True,
        related_name="asked_for_by_agents",
        help_text="for whom an agent asks; their rights are its ceiling",
    )
    run = models.CharField(max_length=200, blank=True, default="", help_text="of an agent: which")
    task = models.CharField(
        max_length=1000, blank=True, default="", help_text="of an agent: what it is about to do"
    )
    step = models.PositiveSmallIntegerField(default=0, help_text="of its policy, from 0")
    step_since = models.DateTimeField(db_default=ClockTimestamp())
    decide_by = models.DateTimeField(help_text="when a decision comes too late")
    remind_at = models.DateTimeField(null=True)
    escalate_at = models.DateTimeField(null=True)
    escalations = models.PositiveSmallIntegerField(default=0, help_text="of this step, so far")
    reviewed_at = models.DateTimeField(null=True, help_text="break-glass: when its review was done")

    objects = AccessRequests.as_manager()

    class Meta:
        ordering = ("-id",)
        indexes = [
            models.Index(
                fields=["pending_until"],
                condition=Q(state="pending"),
                name="request_pending_until",
            ),
            models.Index(fields=["requester", "-id"], name="request_by_requester"),
            models.Index(fields=["state", "-id"], name="request_by_state"),
            models.Index(fields=["profile", "requester", "-id"], name="request_by_ask"),
            models.Index(
                fields=["-decided_at"],
                condition=Q(decided_at__isnull=False),
                name="request_by_decision",
            ),
            models.Index(
                fields=["remind_at"], condition=Q(remind_at__isnull=False), name="request_remind"
            ),
            models.Index(
                fields=["escalate_at"],
                condition=Q(escalate_at__isnull=False),
                name="request_escalate",
            ),
            models.Index(
                fields=["together"], condition=Q(together__isnull=False), name="request_together"
            ),
            models.Index(
                fields=["on_behalf_of", "-id"],
                condition=Q(on_behalf_of__isnull=False),
                name="request_on_behalf_of",
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(duration__gte=SHORTEST) & Q(duration__lte=LONGEST),
                name="request_duration_sound",
            ),
            models.CheckConstraint(
                condition=~Q(justification=""), name="request_justification_given"
            ),
            models.CheckConstraint(
                condition=Q(state="pending", decided_at=None, decided_by="")
                | (~Q(state="pending") & Q(decided_at__isnull=False) & ~Q(decided_by="")),
                name="request_decision_complete",
            ),
            models.CheckConstraint(
                condition=~Q(automatic=True, break_glass=True)
                & ~Q(break_glass=True, extends__isnull=False),
                name="request_one_way_of_consent",
            ),
            models.CheckConstraint(
                condition=Q(on_behalf_of=None) | ~Q(on_behalf_of=F("requester")),
                name="request_on_behalf_of_another",
            ),
            models.CheckConstraint(
                condition=Q(raises=None) | Q(extends=None, break_glass=False, starts_at=None),
                name="request_raises_and_nothing_else",
            ),
            models.CheckConstraint(
                condition=Q(reviewed_at=None) | Q(break_glass=True),
                name="request_review_afterwards_of_break_glass",
            ),
            models.CheckConstraint(
                condition=Q(state="pending")
                | Q(remind_at=None, escalate_at=None)
                | Q(break_glass=True, reviewed_at=None, escalate_at=None),
                name="request_chased_while_it_waits",
            ),
        ]
        triggers = [
            pgtrigger.FSM(name="request_moves", field="state", transitions=pairs(REQUEST_MOVES)),
            pgtrigger.ReadOnly(
                name="request_fixed",
                fields=[
                    "profile",
                    "requester",
                    "scope",
                    "duration",
                    "justification",
                    "policy",
                    "created_at",
                    "pending_until",
                    "starts_at",
                    "ticket",
                    "automatic",
                    "break_glass",
                    "extends",
                    "raises",
                    "together",
                    "decide_by",
                    "on_behalf_of",
                    "run",
                    "task",
                ],
            ),
            pgtrigger.Trigger(
                name="request_within_profile",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                declare=[("ceiling", "endpoints_accessprofile%ROWTYPE")],
                func="""
                    SELECT * INTO ceiling FROM endpoints_accessprofile WHERE id = NEW.profile_id;
                    IF NEW.duration > ceiling.max_duration
                        OR NOT scope_within(NEW.scope, ceiling.scope)
                        OR NOT scope_opens_something(NEW.scope)
                    THEN
                        RAISE EXCEPTION 'request % is beyond its profile', NEW.id
                            USING ERRCODE = 'check_violation';
                    END IF;
                    IF NEW.state <> 'pending' OR jsonb_array_length(NEW.policy -> 'steps') < 1
                        OR NEW.policy -> 'steps' IS NULL
                    THEN
                        RAISE EXCEPTION 'request % does not begin pending', NEW.id
                            USING ERRCODE = 'check_violation';
                    END IF;
                    RETURN NEW;
                """,
            ),
            pgtrigger.Trigger(
                name="request_by_an_agent",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                condition=pgtrigger.Condition(
                    "NEW.on_behalf_of_id IS NOT NULL OR NEW.run <> '' OR NEW.task <> ''"
                ),
                func="""
                    IF EXISTS (SELECT 1 FROM accounts_user
                            WHERE id = NEW.requester_id AND owner_id IS NULL)
                        OR EXISTS (SELECT 1 FROM accounts_user
                            WHERE id = NEW.on_behalf_of_id AND owner_id IS NOT NULL)
                    THEN
                        RAISE EXCEPTION 'request % is not of an agent for a person', NEW.id
                            USING ERRCODE = 'check_violation';
                    END IF;
                    RETURN NEW;
                """,
            ),
            pgtrigger.Trigger(
                name="request_raises_a_grant",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                condition=pgtrigger.Condition("NEW.raises_id IS NOT NULL"),
                declare=[("held", "accessrequests_grant%ROWTYPE")],
                func=f"""
                    SELECT * INTO held FROM accessrequests_grant
                        WHERE id = NEW.raises_id FOR UPDATE;
                    held.scope = {HELD};
                    IF held.holder_id <> NEW.requester_id OR held.ended_at IS NOT NULL
                        OR held.ends_at <= clock_timestamp()
                        OR NEW.scope - {BUDGETS} <> held.scope - {BUDGETS}
                        OR NOT scope_within(held.scope, NEW.scope)
                        OR NEW.profile_id <> (
                            SELECT profile_id FROM accessrequests_accessrequest
                            WHERE id = held.request_id)
                    THEN
                        RAISE EXCEPTION 'request % raises no budget of a live grant', NEW.id
                            USING ERRCODE = 'check_violation';
                    END IF;
                    -- Until what nobody decided in time is marked so, the clock decides.
                    IF EXISTS (SELECT 1 FROM accessrequests_accessrequest
                        WHERE raises_id = held.id AND state = 'pending'
                            AND pending_until > clock_timestamp())
                    THEN
                        RAISE EXCEPTION 'a raise of grant % waits already', held.id
                            USING ERRCODE = 'unique_violation';
                    END IF;
                    RETURN NEW;
                """,  # noqa: S608 -- constants
            ),
            pgtrigger.Protect(name="request_kept", operation=pgtrigger.Delete),
            refuse_truncate("request_not_truncated"),
        ]

    def __str__(self) -> str:
        return f"{self.requester} on {self.profile}"

    def is_own(self, user: User) -> bool:
        """Whether deciding it would be deciding for oneself: they ask, answer for the service
        account that does, or it's asked on their behalf."""
        return are_linked(user, self.requester) or self.on_behalf_of_id == user.pk

    @property
    def asker(self) -> str:
        """Who asks, and for whom where that's somebody else."""
        if self.on_behalf_of is None:
            return str(self.requester)
        return f"{self.requester} (agent) for {self.on_behalf_of}"

    @property
    def asked(self) -> Scope:
        """The scope that was asked for."""
        return Scope.parse(self.scope)

    @property
    def wanted(self) -> str:
        """What is asked for in a few words: how long, or how large a budget."""
        if self.raises_id is not None:
            return f"a budget of {and_list(budgets_in_words(self.asked))}"
        return f"{duration(self.duration)}{' more' if self.extends_id is not None else ''}"


class Routes(models.QuerySet["Route"]):
    def to(self, user: User) -> "Routes":
        """Those by which requests reach this person."""
        return self.filter(Q(group__in=groups_of(user)) | Q(person=user))


class Route(models.Model):
    """A way by which one step of a request reaches those who may decide it.

    `sort_at` orders a queue: when it must be decided, brought forward by its risk.
    """

    class Via(models.TextChoices):
        GROUP = "group", "a group"
        PERSON = "person", "a person"
        ENDPOINT_OWNER = "endpoint_owner", "the endpoint's owner"
        REQUESTER_MANAGER = "requester_manager", "the requester's manager"
        PROFILE_REVIEWERS = "profile_reviewers", "the profile's reviewers"

    request = models.ForeignKey(AccessRequest, on_delete=models.PROTECT, related_name="routes")
    step = models.PositiveSmallIntegerField()
    via = models.CharField(max_length=20, choices=Via.choices)
    group = models.ForeignKey(Group, on_delete=models.PROTECT, null=True, related_name="routes")
    person = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="routes")
    escalated = models.BooleanField(default=False)
    waiting = models.BooleanField(default=False, help_text="it's this step that waits now")
    sort_at = models.DateTimeField()
    since = models.DateTimeField(db_default=ClockTimestamp(), editable=False)

    objects = Routes.as_manager()

    class Meta:
        indexes = [
            models.Index(
                fields=["sort_at", "request"],
                include=["group", "person"],
                condition=Q(waiting=True),
                name="route_waiting",
            ),
            models.Index(fields=["group", "-request"], name="route_by_group"),
            models.Index(fields=["person", "-request"], name="route_by_person"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["request", "step", "via", "group", "person"],
                nulls_distinct=False,
                name="route_once",
            ),
            models.CheckConstraint(
                condition=Q(
                    via__in=["group", "profile_reviewers"], group__isnull=False, person=None
                )
                | Q(
                    via__in=["person", "endpoint_owner", "requester_manager"],
                    group=None,
                    person__isnull=False,
                ),
                name="route_to_somebody",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.request_id} to {self.group or self.person}"


class Comment(models.Model):
    """A remark on a request, or a reviewer's question to its requester."""

    class Kind(models.TextChoices):
        COMMENT = "comment", "commented"
        QUESTION = "question", "asked"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    request = models.ForeignKey(AccessRequest, on_delete=models.PROTECT, related_name="comments")
    author = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.COMMENT)
    text = models.CharField(max_length=2000)
    at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)

    class Meta:
        ordering = ("at",)
        constraints = [models.CheckConstraint(condition=~Q(text=""), name="comment_says_something")]
        triggers = [
            pgtrigger.Protect(name="comment_kept", operation=pgtrigger.Update | pgtrigger.Delete),
            refuse_truncate("comment_not_truncated"),
        ]

    def __str__(self) -> str:
        return f"{self.author}: {self.text[:40]}"


class HandOver(models.Model):
    """One reviewer asked another, who is eligible too, to decide in their place."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    request = models.ForeignKey(AccessRequest, on_delete=models.PROTECT, related_name="hand_overs")
    by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    to = models.ForeignKey(User, on_delete=models.PROTECT, related_name="handed_over")
    note = models.CharField(max_length=300, blank=True)
    at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)

    class Meta:
        ordering = ("at",)
        constraints = [
            models.CheckConstraint(condition=~Q(by=F("to")), name="hand_over_to_another"),
        ]

    def __str__(self) -> str:
        return f"{self.by} to {self.to}"
