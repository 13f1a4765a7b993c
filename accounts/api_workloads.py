"""Trusted issuers and the rules by which workloads of theirs come in: read by administrators and
auditors, changed by two administrators."""

from typing import Any

import django_filters
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import changes, stepup
from accounts.api import (
    IN_PERSON,
    StrictSerializer,
    VisibleViewSet,
    caller,
    check_empty,
)
from accounts.api_changes import ChangeSerializer, waits
from accounts.api_people import check_in_person
from accounts.changes.deciding import TEXT
from accounts.models import Change, TrustedIssuer, User, WorkloadRule
from accounts.models.workloads import LONGEST
from accounts.permissions import check_administer
from accounts.scopes import BY_ITSELF
from accounts.workloads import actions
from broker.errors import InvalidInput, NotFound

VERBS = [(verb.value, verb.label) for verb in BY_ITSELF]


class IssuerSerializer(serializers.ModelSerializer[TrustedIssuer]):
    class Meta:
        model = TrustedIssuer
        fields = (
            "id",
            "slug",
            "name",
            "issuer",
            "audience",
            "jwks_uri",
            "created_at",
            "retired_at",
        )
        read_only_fields = fields


class ReasonSerializer(StrictSerializer):
    reason = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=TEXT,
        help_text="needed where it lets anybody do more: a second administrator reads it",
    )


class ChangeIssuerSerializer(ReasonSerializer):
    name = serializers.CharField(max_length=100, required=False)
    audience = serializers.CharField(
        max_length=300, required=False, help_text="`aud` that its tokens must have, and no other"
    )
    jwks_uri = serializers.CharField(
        max_length=300,
        required=False,
        allow_blank=True,
        help_text="where its keys are; empty: what its discovery document says",
    )


class NewIssuerSerializer(ChangeIssuerSerializer):
    slug = serializers.SlugField(max_length=50)
    name = serializers.CharField(max_length=100)
    issuer = serializers.CharField(max_length=300, help_text="`iss` of its tokens, an https URL")
    audience = serializers.CharField(
        max_length=300, help_text="`aud` that its tokens must have, and no other"
    )


class RuleSerializer(serializers.ModelSerializer[WorkloadRule]):
    issuer = serializers.UUIDField(source="issuer_id", read_only=True)
    service_account = serializers.EmailField(source="service_account.email", read_only=True)
    claims = serializers.DictField(
        child=serializers.ListField(child=serializers.CharField()), read_only=True
    )
    lifetime = serializers.SerializerMethodField()

    class Meta:
        model = WorkloadRule
        fields = (
            "id",
            "issuer",
            "name",
            "service_account",
            "claims",
            "verbs",
            "endpoints",
            "lifetime",
            "created_at",
            "retired_at",
        )
        read_only_fields = fields

    def get_lifetime(self, rule: WorkloadRule) -> int:
        """Seconds."""
        return int(rule.lifetime.total_seconds())


class ChangeRuleSerializer(ReasonSerializer):
    name = serializers.CharField(max_length=100, required=False)
    service_account = serializers.EmailField(
        required=False, help_text="e-mail address of the one that they act as"
    )
    claims = serializers.DictField(
        required=False,
        help_text="what each claim must be: a text, or a list of which one; * stands for "
        "characters other than / and :",
    )
    verbs = serializers.ListField(
        child=serializers.ChoiceField(VERBS), required=False, help_text="what for"
    )
    endpoints = serializers.ListField(
        child=serializers.UUIDField(),
        required=False,
        max_length=100,
        help_text="ids of those it is for; empty for all that the service account sees",
    )
    lifetime = serializers.IntegerField(
        required=False,
        min_value=60,
        max_value=int(LONGEST.total_seconds()),
        help_text="seconds that a token lasts; 900 unless said",
    )


class NewRuleSerializer(ChangeRuleSerializer):
    issuer = serializers.UUIDField()
    name = serializers.CharField(max_length=100)
    service_account = serializers.EmailField(help_text="e-mail address of the one that they act as")
    claims = serializers.DictField(
        help_text="what each claim must be: a text, or a list of which one; * stands for "
        "characters other than / and :"
    )
    verbs = serializers.ListField(child=serializers.ChoiceField(VERBS), help_text="what for")


class RetiredFilter(django_filters.FilterSet):
    retired = django_filters.BooleanFilter(
        field_name="retired_at", lookup_expr="isnull", exclude=True, label="whether it is retired"
    )


class RuleFilter(RetiredFilter):
    issuer = django_filters.UUIDFilter(label="id of the issuer")


def _check_may(request: Request) -> None:
    if not caller(request).sees_everything:
        raise NotFound
    check_administer(caller(request))
    check_in_person(request)


def _propose(
    request: Request, kind: str, about: Any, serializer: type[StrictSerializer]
) -> Change | None:
    """What waits for a second administrator, else None."""
    body = serializer(data=request.data)
    body.is_valid(raise_exception=True)
    payload = dict(body.validated_data)
    reason = payload.pop("reason", "")
    if "service_account" in payload:
        payload["service_account"] = _service(payload["service_account"])
    for name in ("issuer", "endpoints"):
        if name in payload and kind == "workload_rule":
            said = payload[name]
            payload[name] = [str(each) for each in said] if isinstance(said, list) else str(said)
    return changes.propose(
        by=caller(request),
        kind=kind,
        about=about,
        payload=payload,
        reason=reason,
        proofs=stepup.proofs(request),
    )


def _proposed(request: Request, kind: str, of: type[StrictSerializer]) -> Response:
    change = _propose(request, kind, None, of)
    assert change is not None  # noqa: S101 -- what is new lets somebody do more
    return waits(change)


def _service(email: str) -> str:
    row = User.objects.filter(
        email=User.objects.normalize_email(email), owner__isnull=False
    ).first()
    if row is None:
        raise InvalidInput({"service_account": "No service account has this e-mail address."})
    return str(row.pk)


class IssuerViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, VisibleViewSet[TrustedIssuer]
):
    """Who signs JWTs that workloads are taken by. For auditors and administrators."""

    queryset = TrustedIssuer.objects.order_by()
    serializer_class = IssuerSerializer
    filterset_class = RetiredFilter

    @extend_schema(request=NewIssuerSerializer, responses={202: ChangeSerializer}, auth=IN_PERSON)
    def create(self, request: Request) -> Response:
        """Propose to trust another issuer: the answer is the change, which waits for a second
        administrator. Takes an administrator's session and a second factor proved for this."""
        _check_may(request)
        return _proposed(request, "trusted_issuer", NewIssuerSerializer)

    @extend_schema(
        request=ChangeIssuerSerializer,
        responses={200: IssuerSerializer, 202: ChangeSerializer},
        auth=IN_PERSON,
    )
    def partial_update(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Change what it is called, or propose another audience or other keys: that waits for a
        second administrator, and ends the tokens that were given for its JWTs."""
        row = self.get_object()
        _check_may(request)
        change = _propose(request, "trusted_issuer", row, ChangeIssuerSerializer)
        if change is not None:
            return waits(change)
        return Response(IssuerSerializer(self.get_object()).data)

    @extend_schema(request=None, responses={200: IssuerSerializer}, auth=IN_PERSON)
    @action(detail=True, methods=["post"])
    def retire(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Take nothing of it any more, which needs nobody else. What was given for its JWTs ends
        now; repeating it changes nothing."""
        row = self.get_object()
        _check_may(request)
        check_empty(request)
        actions.retire_issuer(by=caller(request), issuer=row, proofs=stepup.proofs(request))
        return Response(IssuerSerializer(self.get_object()).data)


class RuleViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, VisibleViewSet[WorkloadRule]):
    """Which tokens of an issuer act as which service account, and for what. For auditors and
    administrators."""

    queryset = WorkloadRule.objects.select_related("service_account").order_by()
    serializer_class = RuleSerializer
    filterset_class = RuleFilter

    @extend_schema(request=NewRuleSerializer, responses={202: ChangeSerializer}, auth=IN_PERSON)
    def create(self, request: Request) -> Response:
        """Propose another rule: the answer is the change, which waits for a second administrator.
        Takes an administrator's session and a second factor proved for the issuer."""
        _check_may(request)
        return _proposed(request, "workload_rule", NewRuleSerializer)

    @extend_schema(
        request=ChangeRuleSerializer,
        responses={200: RuleSerializer, 202: ChangeSerializer},
        auth=IN_PERSON,
    )
    def partial_update(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Narrow it, which is done at once, or propose what lets anybody do more. The tokens that
        were given by it end, unless only its name changes."""
        row = self.get_object()
        _check_may(request)
        change = _propose(request, "workload_rule", row, ChangeRuleSerializer)
        if change is not None:
            return waits(change)
        return Response(RuleSerializer(self.get_object()).data)

    @extend_schema(request=None, responses={200: RuleSerializer}, auth=IN_PERSON)
    @action(detail=True, methods=["post"])
    def retire(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Let nobody in by it any more, which needs nobody else. What was given by it ends now;
        repeating it changes nothing."""
        row = self.get_object()
        _check_may(request)
        check_empty(request)
        actions.retire_rule(by=caller(request), rule=row, proofs=stepup.proofs(request))
        return Response(RuleSerializer(self.get_object()).data)
