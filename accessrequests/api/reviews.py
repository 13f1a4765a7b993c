"""Verdicts: on one request, and the same on several."""

from typing import Any, ClassVar

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accessrequests import actions
from accessrequests.actions.reviewing import MOST_AT_ONCE
from accessrequests.api.asking import DurationField
from accessrequests.models import Review
from accessrequests.states import RequestState
from accounts import stepup
from accounts.api import IN_PERSON, ApiView, StrictSerializer, caller, check_person
from accounts.parsers import StrictJSONParser
from accounts.scopes import Verb
from accounts.standing import check_standing
from audit.refusals import record_refusal
from broker.errors import KeyturnError, NotFound
from endpoints.api import ScopeSerializer
from endpoints.scope import MOST_NAMES, NAME_LENGTH


class VerdictSerializer(StrictSerializer):
    verdict = serializers.ChoiceField(choices=Review.Verdict.choices)
    reason = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=actions.REASON_LENGTH,
        help_text="needed for a denial",
    )


class DecideSerializer(VerdictSerializer):
    """A verdict. An approval may give less than was asked for, never more."""

    duration = DurationField(required=False, help_text="approve less: a shorter one")
    models = serializers.ListField(
        child=serializers.CharField(max_length=NAME_LENGTH),
        required=False,
        max_length=MOST_NAMES,
        help_text="approve less: some of those asked for",
    )
    scope = ScopeSerializer(
        required=False, help_text="approve less: what it names, of what was asked for"
    )
    starts_at = serializers.DateTimeField(required=False, help_text="approve less: a later start")


class ReviewSerializer(serializers.ModelSerializer[Review]):
    reviewer = serializers.EmailField(source="reviewer.email", read_only=True)
    step = serializers.IntegerField(read_only=True, help_text="of the policy, from 0")
    scope = ScopeSerializer(read_only=True, allow_null=True, help_text="where less than asked")
    duration = DurationField(read_only=True, allow_null=True, help_text="where less than asked")

    class Meta:
        model = Review
        fields = (
            "id",
            "request",
            "reviewer",
            "step",
            "verdict",
            "reason",
            "scope",
            "duration",
            "starts_at",
            "at",
        )
        read_only_fields = fields


class SeveralSerializer(VerdictSerializer):
    """One verdict on several requests."""

    requests = serializers.ListField(
        child=serializers.UUIDField(), help_text=f"from 1 to {MOST_AT_ONCE}"
    )


class OutcomeSerializer(serializers.Serializer[Any]):
    """What became of one of them."""

    request = serializers.UUIDField()
    result = serializers.ChoiceField(
        choices=["approved", "waiting", "denied", "refused"],
        help_text="`waiting`: it needs more approvals; `refused`: see `problem`",
    )
    problem = serializers.DictField(
        allow_null=True, help_text="why this one was refused, as a problem (RFC 9457)"
    )


def _problem(error: KeyturnError) -> dict[str, Any]:
    return {
        "type": f"{settings.KEYTURN_BASE_URL}/problems/{error.code}/",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        # What one may not see has nothing to tell.
        **({} if isinstance(error, NotFound) else error.extra),
    }


def _result(outcome: actions.Outcome) -> str:
    if outcome.review is None:
        return "refused"
    if outcome.review.verdict == Review.Verdict.DENY:
        return "denied"
    return "waiting" if outcome.review.request.state == RequestState.PENDING else "approved"


@extend_schema(tags=["approvals"])
class ReviewsView(ApiView):
    """The same verdict on several requests."""

    # Each is decided in a transaction of its own.
    one_transaction = False
    parser_classes = (StrictJSONParser,)
    verbs: ClassVar = {"post": Verb.REVIEW}

    @extend_schema(
        request=SeveralSerializer,
        responses={200: OutcomeSerializer(many=True)},
        auth=IN_PERSON,
    )
    def post(self, request: Request) -> Response:
        """The same verdict on several requests, each decided or refused by itself; takes a person,
        with a second factor."""
        check_person(request)
        check_standing(request)
        body = SeveralSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        outcomes = actions.review_many(
            by=caller(request),
            request_ids=body.validated_data["requests"],
            verdict=Review.Verdict(body.validated_data["verdict"]),
            reason=body.validated_data.get("reason", ""),
            proofs=stepup.proofs(request),
        )
        for outcome in outcomes:
            if outcome.error is not None:
                path = f"{request.path}#{outcome.request_id}"
                record_refusal(outcome.error, by=caller(request), method=request.method, path=path)
        rows = [
            {
                "request": outcome.request_id,
                "result": _result(outcome),
                "problem": _problem(outcome.error) if outcome.error else None,
            }
            for outcome in outcomes
        ]
        return Response(OutcomeSerializer(rows, many=True).data)
