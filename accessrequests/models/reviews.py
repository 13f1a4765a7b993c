import pgtrigger
from django.db import models
from django.db.models import Q

from accessrequests.models.requests import AccessRequest
from accounts.models import User
from audit.clock import ClockTimestamp
from audit.ids import new_id
from audit.keeping import refuse_truncate


class Review(models.Model):
    """One reviewer's verdict on one request, and how much less than asked they approved."""

    class Verdict(models.TextChoices):
        APPROVE = "approve", "Approve"
        DENY = "deny", "Deny"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    request = models.ForeignKey(AccessRequest, on_delete=models.PROTECT, related_name="reviews")
    reviewer = models.ForeignKey(User, on_delete=models.PROTECT, related_name="reviews")
    step = models.PositiveSmallIntegerField(default=0)
    verdict = models.CharField(max_length=10, choices=Verdict.choices)
    reason = models.CharField(max_length=1000, blank=True)
    scope = models.JSONField(null=True, help_text="what was approved, where less than asked")
    duration = models.DurationField(null=True, help_text="likewise")
    starts_at = models.DateTimeField(null=True, help_text="likewise, where later")
    at = models.DateTimeField(db_default=ClockTimestamp(), editable=False)

    class Meta:
        ordering = ("at",)
        indexes = [models.Index(fields=["reviewer", "-at"], name="review_by_reviewer")]
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
                declare=[
                    ("asked", "accessrequests_accessrequest%ROWTYPE"),
                    ("requester", "accounts_user%ROWTYPE"),
                    ("reviewer", "accounts_user%ROWTYPE"),
                ],
                func="""
                    SELECT * INTO asked FROM accessrequests_accessrequest
                        WHERE id = NEW.request_id FOR UPDATE;
                    SELECT * INTO requester FROM accounts_user WHERE id = asked.requester_id;
                    SELECT * INTO reviewer FROM accounts_user WHERE id = NEW.reviewer_id;
                    IF requester.id = reviewer.id OR requester.owner_id = reviewer.id
                        OR asked.on_behalf_of_id = reviewer.id
                    THEN
                        RAISE EXCEPTION 'nobody reviews their own request (%)', asked.id
                            USING ERRCODE = 'check_violation';
                    END IF;
                    IF reviewer.owner_id IS NOT NULL THEN
                        RAISE EXCEPTION 'only people review (%)', asked.id
                            USING ERRCODE = 'check_violation';
                    END IF;
                    IF asked.state <> 'pending' AND NOT (
                        asked.state = 'approved' AND asked.break_glass
                        AND asked.reviewed_at IS NULL)
                    THEN
                        RAISE EXCEPTION 'request % is already %', asked.id, asked.state
                            USING ERRCODE = 'check_violation';
                    END IF;
                    IF (NEW.scope IS NOT NULL AND NOT scope_within(NEW.scope, asked.scope))
                        OR NEW.duration > asked.duration OR NEW.starts_at < asked.starts_at
                    THEN
                        RAISE EXCEPTION 'a review only narrows (%)', asked.id
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
