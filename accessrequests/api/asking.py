"""An ask for access: what is sent, and what it would come to."""

import datetime as dt
import re
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from accessrequests import actions
from accessrequests.actions.asking import (
    MOST_TOGETHER,
    RUN_LENGTH,
    TASK_LENGTH,
    TICKET_LENGTH,
)
from accessrequests.outlook import seen
from accounts.api import StrictSerializer, WordsField
from accounts.models import User
from broker.errors import InvalidInput
from endpoints.api import ScopeSerializer
from endpoints.kinds import Revocation
from endpoints.scope import MOST_NAMES, NAME_LENGTH

# What else Python would read as a duration, "1:00" say, other readers take for another.
DURATION = (
    r"^(P(?=.)([0-9]{1,6}D)?(T(?=.)([0-9]{1,6}H)?([0-9]{1,6}M)?([0-9.]{1,13}S)?)?|[0-9]{1,9})$"
)


@extend_schema_field({"type": "string", "pattern": DURATION})
class DurationField(serializers.DurationField):
    """ISO 8601 up to days, or seconds."""

    def __init__(self, **options: Any) -> None:
        super().__init__(format="iso-8601", **options)

    def to_internal_value(self, value: Any) -> dt.timedelta:
        if not (isinstance(value, str) and re.match(DURATION, value)):
            self.fail("invalid", format="PT1H, P1DT30M or seconds")
        return super().to_internal_value(value)


class AskSerializer(StrictSerializer):
    """What every ask may say. What is left out is as policy and profile have it by default."""

    duration = DurationField(required=False, help_text="ISO 8601, such as PT1H, or seconds")
    models = serializers.ListField(
        child=serializers.CharField(max_length=NAME_LENGTH),
        required=False,
        max_length=MOST_NAMES,
        help_text="short for those of the scope",
    )
    scope = ScopeSerializer(
        required=False, help_text="what it doesn't name is as the profile has it by default"
    )
    starts_at = serializers.DateTimeField(
        required=False, help_text="for a later start; else it begins at approval"
    )
    ticket = serializers.CharField(required=False, allow_blank=True, max_length=TICKET_LENGTH)
    break_glass = serializers.BooleanField(
        required=False, help_text="access before its review, where the policy lets you"
    )
    on_behalf_of = serializers.EmailField(
        required=False,
        help_text="of a service account: the person for whom it asks, who has let it; their "
        "rights are its ceiling",
    )
    run = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=RUN_LENGTH,
        help_text="of a service account: the id or URL of its run",
    )
    task = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=TASK_LENGTH,
        help_text="of a service account: what it is about to do",
    )


class FileSerializer(AskSerializer):
    """An ask for access."""

    profile = serializers.UUIDField()
    justification = WordsField(max_length=actions.JUSTIFICATION_LENGTH)
    extends = serializers.UUIDField(
        required=False, help_text="a grant of yours, which the new one follows without a gap"
    )
    raises = serializers.UUIDField(
        required=False,
        help_text="a grant of yours that is to have the larger token_budget or cost_budget, in "
        "all, that the scope names; it goes on as it is",
    )


class PreviewSerializer(FileSerializer):
    """An ask as far as it has been filled in."""

    justification = serializers.CharField(  # type: ignore[assignment]
        max_length=actions.JUSTIFICATION_LENGTH, allow_blank=True, required=False
    )


class TogetherSerializer(AskSerializer):
    """One ask for several profiles."""

    profiles = serializers.ListField(
        child=serializers.UUIDField(), min_length=1, max_length=MOST_TOGETHER
    )
    justification = WordsField(max_length=actions.JUSTIFICATION_LENGTH)


class FaultSerializer(serializers.Serializer[Any]):
    field = serializers.CharField()
    message = serializers.CharField()


class PreviewedStepSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    approvals = serializers.IntegerField()
    reviewers = serializers.ListField(child=serializers.EmailField())
    skipped = serializers.BooleanField()


class SeenSerializer(serializers.Serializer[Any]):
    differences = serializers.ListField(
        child=serializers.CharField(), help_text="from what the profile gives by default"
    )


class PreviewedSerializer(serializers.Serializer[Any]):
    """What an ask would come to. Where `errors` has any, only `may` and these are filled in."""

    may = serializers.BooleanField(help_text="whether it would be taken just as it is")
    errors = FaultSerializer(many=True)  # type: ignore[assignment]
    missing = FaultSerializer(many=True, help_text="what still has to be filled in")
    automatic = serializers.BooleanField(allow_null=True, help_text="decided by policy, by nobody")
    steps = PreviewedStepSerializer(many=True, help_text="who would have to approve")
    scope = ScopeSerializer(allow_null=True)
    starts_at = serializers.DateTimeField(allow_null=True, help_text="if approved now")
    ends_at = serializers.DateTimeField(allow_null=True, help_text="likewise")
    pending_until = serializers.DateTimeField(
        allow_null=True, help_text="when it would expire undecided"
    )
    max_duration = DurationField(allow_null=True)
    may_break_glass = serializers.BooleanField(allow_null=True)
    reviewer_sees = SeenSerializer(allow_null=True)
    revocation = serializers.ChoiceField(
        choices=Revocation.choices,
        allow_null=True,
        help_text="how a credential could be taken back",
    )
    needs_factor_within = DurationField(
        allow_null=True, help_text="filing takes a second factor proved so recently"
    )


def _faults(errors: dict[str, str]) -> list[dict[str, str]]:
    return [{"field": field, "message": message} for field, message in errors.items()]


def previewed(by: User, profile: object, ask: dict[str, Any], now: dt.datetime) -> dict[str, Any]:
    """What this ask would come to, as PreviewedSerializer shows it. Writes nothing."""
    nothing: dict[str, Any] = {str(name): None for name in PreviewedSerializer().fields}
    try:
        asked = actions.preview_request(by=by, profile_id=str(profile), **ask)
    except InvalidInput as error:
        return nothing | {"may": False, "errors": _faults(error.errors), "missing": [], "steps": []}
    pending_until = now + asked.pending_timeout
    for grant in filter(None, (asked.extends, asked.raises)):
        pending_until = min(pending_until, grant.ends_at)
    at_once = asked.automatic or asked.break_glass
    return {
        "may": not asked.missing,
        "errors": [],
        "missing": _faults(asked.missing),
        "automatic": asked.automatic,
        "steps": [
            {
                "name": routed.step.name,
                "approvals": routed.step.approvals,
                "reviewers": [person.email for person in routed.people],
                "skipped": routed.skipped,
            }
            for routed in ([] if asked.automatic else asked.steps)
        ],
        "scope": asked.scope.as_json(),
        "starts_at": asked.starts_at,
        "ends_at": asked.ends_at,
        "pending_until": None if at_once else pending_until,
        "max_duration": asked.effective.max_duration,
        "may_break_glass": asked.may_break_glass,
        "reviewer_sees": {"differences": seen(asked)},
        "revocation": asked.profile.revocation,
        "needs_factor_within": actions.ask_age(asked.effective, break_glass=asked.break_glass),
    }
