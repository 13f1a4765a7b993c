import datetime as dt
from typing import Any

import pgtrigger
from django.db import models
from django.db.models import F, OuterRef, Q

from accessrequests.models.requests import BUDGETS, HELD, AccessRequest, came_to
from accessrequests.models.reviews import Review
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
from accessrequests.states import GRANT_MOVES, EndReason, GrantState, pairs
from accounts.models import User
from audit.clock import ClockTimestamp
from audit.ids import new_id
from audit.keeping import refuse_truncate
from endpoints.scope import Scope

LACKING = """-- Steps that have fewer approvals than the request's own policy asks for.
                    SELECT count(*) INTO lacking
                        FROM jsonb_array_elements(asked.policy -> 'steps')
                            WITH ORDINALITY AS step (needs, place)
                        WHERE NOT (needs ->> 'skipped')::boolean
                            AND (needs ->> 'approvals')::integer > (
                                SELECT count(*) FROM accessrequests_review AS review
                                WHERE review.request_id = asked.id
                                    AND review.verdict = 'approve'
                                    AND review.step = place - 1
                                    AND review.reviewer_id <> asked.requester_id
                                    AND review.reviewer_id
                                        IS DISTINCT FROM asked.on_behalf_of_id);"""


class Grants(models.QuerySet["Grant"]):
    def visible_to(self, user: User) -> "Grants":
        """One's own, those that agents hold on one's behalf, and those that one may review or end;
        everything for auditors."""
        return self if user.sees_everything else in_any(self, _ways(user, sight_of(user)))

    def listed_for(self, user: User) -> "Grants":
        """The same, for lists (`accessrequests.models.sight`)."""
        return self if user.sees_everything else listed(self, _ways(user, known_sight(user)))

    def live(self) -> "Grants":
        """Those that hold at this moment, whatever any worker has or hasn't done."""
        return self.filter(
            ended_at=None, starts_at__lte=ClockTimestamp(), ends_at__gt=ClockTimestamp()
        ).exclude(state=GrantState.ENDED)


def _ways(user: User, sight: Sight) -> list[Way]:
    return [
        plain(holder=user),
        plain(holder__in=sight.services),
        plain(request__on_behalf_of=user),
        plain(request__profile__in=sight.reviewed),
        plain(request__profile__in=sight.owned),
        *came_to(user, sight, "request"),
        related(
            Q(request__in=Review.objects.filter(reviewer=user).values("request")),
            Review.objects.filter(request=OuterRef("request"), reviewer=user),
        ),
    ]


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
    warn_at = models.DateTimeField(null=True, help_text="when its holder is told that it ends soon")

    objects = Grants.as_manager()

    class Meta:
        ordering = ("-id",)
        indexes = [
            models.Index(fields=["ends_at"], condition=Q(ended_at=None), name="grant_due"),
            models.Index(fields=["holder", "-id"], name="grant_by_holder"),
            models.Index(fields=["state", "-id"], name="grant_by_state"),
            models.Index(
                fields=["starts_at"], condition=Q(state="scheduled"), name="grant_to_start"
            ),
            models.Index(
                fields=["warn_at"],
                condition=Q(ended_at=None, warn_at__isnull=False),
                name="grant_to_warn_of",
            ),
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
                declare=[
                    ("asked", "accessrequests_accessrequest%ROWTYPE"),
                    ("lacking", "integer"),
                ],
                func=f"""
                    SELECT * INTO asked FROM accessrequests_accessrequest
                        WHERE id = NEW.request_id;
                    {LACKING}
                    IF asked.state <> 'approved' OR asked.requester_id <> NEW.holder_id
                        OR asked.raises_id IS NOT NULL
                        OR NOT scope_within(NEW.scope, asked.scope)
                        OR NOT scope_opens_something(NEW.scope)
                        OR NEW.ends_at - NEW.starts_at > asked.duration
                        OR NEW.starts_at < asked.starts_at
                        OR (NOT asked.automatic AND NOT asked.break_glass
                            AND lacking IS DISTINCT FROM 0)
                        OR EXISTS (
                            SELECT 1 FROM accessrequests_review AS review
                            WHERE review.request_id = asked.id AND (
                                review.verdict = 'deny'
                                OR NEW.ends_at - NEW.starts_at > review.duration
                                OR NOT scope_within(NEW.scope, COALESCE(review.scope, asked.scope))
                                OR NEW.starts_at < review.starts_at))
                        OR (asked.extends_id IS NOT NULL AND NEW.starts_at IS DISTINCT FROM (
                            SELECT ends_at FROM accessrequests_grant WHERE id = asked.extends_id))
                    THEN
                        RAISE EXCEPTION 'grant % is beyond what was approved', NEW.id
                            USING ERRCODE = 'check_violation';
                    END IF;
                    RETURN NEW;
                """,  # noqa: S608 -- constants
            ),
            pgtrigger.Protect(name="grant_kept", operation=pgtrigger.Delete),
            refuse_truncate("grant_not_truncated"),
        ]

    def __str__(self) -> str:
        return f"{self.holder} on {self.request.profile}"

    @property
    def held(self) -> dict[str, Any]:
        """What the grant holds by now, with the budgets of its latest raise."""
        # All of them, so that prefetching spares the query.
        scope: dict[str, Any] = max(self.raises.all(), key=lambda each: each.at, default=self).scope
        return scope

    @property
    def allowed(self) -> Scope:
        """The same, read."""
        return Scope.parse(self.held)

    def held_before(self, moment: dt.datetime) -> Scope:
        """What the grant held at this moment."""
        before = [each for each in self.raises.all() if each.at < moment]
        return Scope.parse(max(before, key=lambda each: each.at, default=self).scope)

    def is_live(self, moment: dt.datetime) -> bool:
        """Whether the grant holds at this moment, by the clock and not by any worker."""
        return self.ended_at is None and self.starts_at <= moment < self.ends_at


class GrantRaise(models.Model):
    """Larger budgets of a grant that goes on as it is: its whole scope from then on."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    grant = models.ForeignKey(Grant, on_delete=models.PROTECT, related_name="raises")
    request = models.OneToOneField(AccessRequest, on_delete=models.PROTECT, related_name="raised")
    scope = models.JSONField()
    at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)

    class Meta:
        ordering = ("at",)
        triggers = [
            pgtrigger.Trigger(
                name="raise_within_request",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                declare=[
                    ("asked", "accessrequests_accessrequest%ROWTYPE"),
                    ("held", "accessrequests_grant%ROWTYPE"),
                    ("lacking", "integer"),
                ],
                func=f"""
                    SELECT * INTO asked FROM accessrequests_accessrequest
                        WHERE id = NEW.request_id;
                    SELECT * INTO held FROM accessrequests_grant
                        WHERE id = NEW.grant_id FOR UPDATE;
                    held.scope = {HELD};
                    {LACKING}
                    -- When it was made is what tells which raise is the latest.
                    NEW.at = clock_timestamp();
                    IF asked.state <> 'approved' OR asked.raises_id IS DISTINCT FROM held.id
                        OR held.ended_at IS NOT NULL OR held.ends_at <= clock_timestamp()
                        OR NEW.scope - {BUDGETS} <> held.scope - {BUDGETS}
                        OR NOT scope_within(held.scope, NEW.scope)
                        OR NOT scope_within(NEW.scope, asked.scope)
                        OR NOT scope_within(NEW.scope, (
                            SELECT scope FROM endpoints_accessprofile
                            WHERE id = asked.profile_id))
                        OR (NOT asked.automatic AND lacking IS DISTINCT FROM 0)
                        OR EXISTS (
                            SELECT 1 FROM accessrequests_review AS review
                            WHERE review.request_id = asked.id AND (
                                review.verdict = 'deny'
                                OR NOT scope_within(NEW.scope,
                                    COALESCE(review.scope, asked.scope))))
                    THEN
                        RAISE EXCEPTION 'raise % is beyond what was approved', NEW.id
                            USING ERRCODE = 'check_violation';
                    END IF;
                    RETURN NEW;
                """,  # noqa: S608 -- constants
            ),
            pgtrigger.Protect(name="raise_kept", operation=pgtrigger.Update | pgtrigger.Delete),
            refuse_truncate("raise_not_truncated"),
        ]

    def __str__(self) -> str:
        return f"more for {self.grant}"
