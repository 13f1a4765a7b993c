import datetime as dt

import pgtrigger
from django.db import models
from django.db.models import F, Q

from accessrequests.states import (
    GRANT_MOVES,
    REQUEST_MOVES,
    EndReason,
    GrantState,
    RequestState,
    pairs,
)
from accounts.models import Membership, User
from audit.clock import ClockTimestamp
from audit.ids import new_id
from audit.keeping import refuse_truncate
from endpoints.models import LONGEST, SHORTEST, AccessProfile
from endpoints.scope import Scope


def _reviewed_by(user: User, path: str) -> Q:
    groups = Membership.objects.filter(user=user).values("group")
    return Q(**{f"{path}reviewers__in": groups})


class AccessRequests(models.QuerySet["AccessRequest"]):
    def visible_to(self, user: User) -> "AccessRequests":
        """One's own, those that one may review or has reviewed; everything for auditors."""
        if user.sees_everything:
            return self
        reviewed = Review.objects.filter(reviewer=user).values("request")
        return self.filter(Q(requester=user) | _reviewed_by(user, "profile__") | Q(pk__in=reviewed))

    def waiting_for(self, user: User) -> "AccessRequests":
        """Pending requests that this person may decide."""
        return self.filter(
            _reviewed_by(user, "profile__"),
            state=RequestState.PENDING,
            pending_until__gt=ClockTimestamp(),
        ).exclude(requester=user)


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
                ],
            ),
            pgtrigger.Trigger(
                name="request_within_profile",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                declare=[("ceiling", "endpoints_accessprofile%ROWTYPE")],
                func="""
                    SELECT * INTO ceiling FROM endpoints_accessprofile WHERE id = NEW.profile_id;
                    IF NEW.duration > ceiling.max_duration OR NOT NEW.scope <@ ceiling.scope
                        OR NEW.scope #> '{models,0}' IS NULL
                    THEN
                        RAISE EXCEPTION 'request % is beyond its profile', NEW.id
                            USING ERRCODE = 'check_violation';
                    END IF;
                    IF NEW.state <> 'pending' THEN
                        RAISE EXCEPTION 'request % does not begin pending', NEW.id
                            USING ERRCODE = 'check_violation';
                    END IF;
                    RETURN NEW;
                """,
            ),
            pgtrigger.Protect(name="request_kept", operation=pgtrigger.Delete),
            refuse_truncate("request_not_truncated"),
        ]

    def __str__(self) -> str:
        return f"{self.requester} on {self.profile}"

    @property
    def asked(self) -> Scope:
        """The scope that was asked for."""
        return Scope.parse(self.scope)


class Review(models.Model):
    """One reviewer's verdict on one request."""

    class Verdict(models.TextChoices):
        APPROVE = "approve", "Approve"
        DENY = "deny", "Deny"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    request = models.ForeignKey(AccessRequest, on_delete=models.PROTECT, related_name="reviews")
    reviewer = models.ForeignKey(User, on_delete=models.PROTECT, related_name="reviews")
    verdict = models.CharField(max_length=10, choices=Verdict.choices)
    reason = models.CharField(max_length=1000, blank=True)
    at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)

    class Meta:
        ordering = ("at",)
        constraints = [
            models.UniqueConstraint(fields=["request", "reviewer"], name="review_once_each"),
            models.CheckConstraint(
                condition=Q(verdict="approve") | ~Q(reason=""), name="review_denial_has_reason"
            ),
        ]
        triggers = [
            pgtrigger.Trigger(
                name="review_by_another",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                declare=[("asked", "accessrequests_accessrequest%ROWTYPE")],
                func="""
                    SELECT * INTO asked FROM accessrequests_accessrequest
                        WHERE id = NEW.request_id FOR UPDATE;
                    IF asked.requester_id = NEW.reviewer_id THEN
                        RAISE EXCEPTION 'nobody reviews their own request (%)', asked.id
                            USING ERRCODE = 'check_violation';
                    END IF;
                    IF asked.state <> 'pending' THEN
                        RAISE EXCEPTION 'request % is already %', asked.id, asked.state
                            USING ERRCODE = 'check_violation';
                    END IF;
                    RETURN NEW;
                """,
            ),
            pgtrigger.Protect(name="review_kept", operation=pgtrigger.Update | pgtrigger.Delete),
            refuse_truncate("review_not_truncated"),
        ]

    def __str__(self) -> str:
        return f"{self.reviewer}: {self.verdict}"


class Grants(models.QuerySet["Grant"]):
    def visible_to(self, user: User) -> "Grants":
        """One's own and those of profiles that one reviews; everything for auditors."""
        if user.sees_everything:
            return self
        return self.filter(
            Q(holder=user)
            | _reviewed_by(user, "request__profile__")
            | Q(request__profile__endpoint__owner=user)
        )

    def live(self) -> "Grants":
        """Those that hold at this moment, whatever any worker has or hasn't done."""
        return self.filter(
            ended_at=None, starts_at__lte=ClockTimestamp(), ends_at__gt=ClockTimestamp()
        ).exclude(state=GrantState.ENDED)


class Grant(models.Model):
    """The approved window: from, until, scope, and why and when it ended."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    request = models.OneToOneField(AccessRequest, on_delete=models.PROTECT, related_name="grant")
    holder = models.ForeignKey(User, on_delete=models.PROTECT, related_name="grants")
    state = models.CharField(max_length=10, choices=GrantState.choices, default=GrantState.ACTIVE)
    scope = models.JSONField()
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    ended_by = models.CharField(max_length=254, blank=True, default="")
    end_reason = models.CharField(max_length=30, choices=EndReason.choices, blank=True, default="")

    objects = Grants.as_manager()

    class Meta:
        ordering = ("-id",)
        indexes = [
            models.Index(fields=["ends_at"], condition=Q(ended_at=None), name="grant_due"),
            models.Index(fields=["holder", "-id"], name="grant_by_holder"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(ends_at__gt=F("starts_at")), name="grant_window_sound"
            ),
            models.CheckConstraint(
                condition=(~Q(state="ended") & Q(ended_at=None, ended_by="", end_reason=""))
                | (Q(state="ended", ended_at__isnull=False) & ~Q(ended_by="") & ~Q(end_reason="")),
                name="grant_end_complete",
            ),
        ]
        triggers = [
            pgtrigger.FSM(name="grant_moves", field="state", transitions=pairs(GRANT_MOVES)),
            pgtrigger.ReadOnly(
                name="grant_fixed", fields=["request", "holder", "scope", "starts_at", "ends_at"]
            ),
            pgtrigger.Trigger(
                name="grant_within_request",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                declare=[("asked", "accessrequests_accessrequest%ROWTYPE")],
                func="""
                    SELECT * INTO asked FROM accessrequests_accessrequest
                        WHERE id = NEW.request_id;
                    IF asked.state <> 'approved' OR asked.requester_id <> NEW.holder_id
                        OR NOT NEW.scope <@ asked.scope
                        OR NEW.scope #> '{models,0}' IS NULL
                        OR NEW.ends_at - NEW.starts_at > asked.duration
                        OR NOT EXISTS (
                            SELECT 1 FROM accessrequests_review
                            WHERE request_id = asked.id AND verdict = 'approve'
                                AND reviewer_id <> asked.requester_id)
                    THEN
                        RAISE EXCEPTION 'grant % is beyond what was approved', NEW.id
                            USING ERRCODE = 'check_violation';
                    END IF;
                    RETURN NEW;
                """,
            ),
            pgtrigger.Protect(name="grant_kept", operation=pgtrigger.Delete),
            refuse_truncate("grant_not_truncated"),
        ]

    def __str__(self) -> str:
        return f"{self.holder} on {self.request.profile}"

    @property
    def allowed(self) -> Scope:
        """What the grant holds."""
        return Scope.parse(self.scope)

    def is_live(self, moment: dt.datetime) -> bool:
        """Whether the grant holds at this moment, by the clock and not by any worker."""
        return self.ended_at is None and self.starts_at <= moment < self.ends_at
