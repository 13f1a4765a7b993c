"""Policies: read by those who see everything, changed by administrators in person."""

from typing import Any, ClassVar

import django_filters
from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accessrequests import actions
from accessrequests.actions.policies import NOTE_LENGTH
from accessrequests.models import Policy, PolicyVersion
from accessrequests.permissions import check_administer
from accessrequests.policy.document import PolicyDocument, json_schema, parse
from accessrequests.policy.reading import write
from accessrequests.policy_changes import PolicyChange
from accessrequests.replay import replay
from accounts import stepup
from accounts.api import (
    IN_PERSON,
    LOCATION,
    StrictSerializer,
    caller,
    check_person,
    created,
    said_in,
)
from accounts.api_changes import ChangeSerializer, LineSerializer, waits
from accounts.details import Details, Lists
from accounts.models import User
from accounts.preconditions import Expected, expected
from accounts.scopes import Verb
from broker.errors import InvalidInput, NotFound

ALONE = "Changing a policy takes a person."


class PolicySerializer(serializers.ModelSerializer[Policy]):
    name = serializers.CharField(source="current.document.name", read_only=True)
    version = serializers.IntegerField(source="current.number", read_only=True)
    document = serializers.DictField(
        source="current.document", read_only=True, help_text="see `/api/v1/policies/schema/`"
    )
    changed_at = serializers.DateTimeField(source="current.created_at", read_only=True)
    changed_by = serializers.CharField(source="current.created_by", read_only=True)

    class Meta:
        model = Policy
        fields = (
            "slug",
            "name",
            "version",
            "document",
            "changed_at",
            "changed_by",
            "retired_at",
        )
        read_only_fields = fields


class VersionSerializer(serializers.ModelSerializer[PolicyVersion]):
    document = serializers.DictField(read_only=True)

    class Meta:
        model = PolicyVersion
        fields = ("number", "note", "created_at", "created_by", "document")
        read_only_fields = fields


@extend_schema_field({"type": "object", "additionalProperties": True})
class DocumentField(serializers.JSONField):
    """A policy, as plain data. What it's made of is judged by its own parser."""


class SaveSerializer(StrictSerializer):
    document = DocumentField(help_text="see `/api/v1/policies/schema/`")
    note = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=NOTE_LENGTH,
        help_text="why it is changed; needed where a second administrator decides",
    )


class CheckSerializer(StrictSerializer):
    document = DocumentField(help_text="see `/api/v1/policies/schema/`")


class OtherwiseSerializer(serializers.Serializer[Any]):
    request = serializers.UUIDField(source="request.pk")
    requester = serializers.EmailField(source="request.requester.email")
    profile = serializers.UUIDField(source="request.profile_id")
    before = serializers.CharField(help_text="what came of it, by the policies as they are")
    after = serializers.CharField(help_text="what would have, with this one in place")


class ReplaySerializer(serializers.Serializer[Any]):
    since = serializers.DateTimeField()
    looked_at = serializers.IntegerField(help_text="requests, the newest thousand at most")
    otherwise = OtherwiseSerializer(many=True)


class CheckedSerializer(serializers.Serializer[Any]):
    same = serializers.BooleanField(help_text="whether it says what the policy says already")
    waits = serializers.BooleanField(help_text="whether a second administrator would decide")
    difference = LineSerializer(many=True)
    replay = ReplaySerializer(help_text="the last weeks' requests, judged by it")


class PolicyFilter(django_filters.FilterSet):
    retired = django_filters.BooleanFilter(
        field_name="retired_at", lookup_expr="isnull", exclude=True, label="whether it is retired"
    )


class PolicyViewSet(Lists[Policy], Details[Policy]):
    """Policies, as they are now. For auditors and administrators."""

    queryset = Policy.objects.filter(current__isnull=False).select_related("current").order_by()
    serializer_class = PolicySerializer
    filterset_class: Any = PolicyFilter
    verbs: ClassVar = {"check": Verb.READ}
    lookup_field = "slug"
    if_match = ("update", "destroy")
    lookup_value_converter = "slug"

    def get_object(self) -> Policy:
        rows: QuerySet[Policy] = self.get_queryset()
        row = rows.filter(slug=self.kwargs["slug"]).first()
        if row is None:
            raise NotFound(kind="policy", id=self.kwargs["slug"])
        return row

    def _check_may_change(self, request: Request) -> None:
        user = caller(request)
        if not user.sees_everything:
            raise NotFound(kind="policy", id=self.kwargs["slug"])
        check_administer(user)
        check_person(request, ALONE)

    def _expected(self, request: Request) -> Expected:
        return expected(request, lambda row: PolicySerializer(row).data)

    @extend_schema(
        request=SaveSerializer,
        responses={200: PolicySerializer, 201: PolicySerializer, 202: ChangeSerializer},
        parameters=[LOCATION],
        auth=IN_PERSON,
    )
    def update(self, request: Request, slug: str) -> Response:
        """Make this the policy's next version; where nothing differs, nothing is written. What
        might let anybody do more waits for a second administrator: then the answer, 202, is the
        change. What is wrong is named by its key in the document. Takes an administrator's session
        and a second factor proved for this policy."""
        self._check_may_change(request)
        body = SaveSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        new = not self.get_queryset().filter(slug=slug).exists()
        document = _parsed(body.validated_data["document"])
        if document.slug != slug:
            raise InvalidInput({"document.slug": f"Must be {slug}, as in the address."})
        note = body.validated_data.get("note", "")
        try:
            change = actions.change_policy(
                by=caller(request),
                document=document,
                note=note,
                proofs=stepup.proofs(request),
                expected=self._expected(request),
            )
        except InvalidInput as error:
            raise InvalidInput(_in_body(error.errors)) from error
        if change is not None:
            return waits(change)
        data = PolicySerializer(self.get_object()).data
        return created(data, "api-policy-detail", slug) if new else Response(data)

    @extend_schema(responses={202: ChangeSerializer, 204: None}, auth=IN_PERSON)
    def destroy(self, request: Request, slug: str) -> Response:
        """Retire a policy: what it governed takes one reviewer of the profile again. Where that
        is less than it asked for, it waits for a second administrator. Takes what changing it
        takes."""
        self._check_may_change(request)
        change = actions.end_policy(
            by=caller(request),
            slug=slug,
            proofs=stepup.proofs(request),
            expected=self._expected(request),
        )
        if change is not None:
            return waits(change)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(responses={200: VersionSerializer(many=True)}, filters=False)
    @action(detail=True, filter_backends=())
    def versions(self, request: Request, slug: str) -> Response:  # noqa: ARG002
        """Every text that it ever had, newest first. None of them changes."""
        rows: Any = self.paginate_queryset(self.get_object().versions.order_by())  # type: ignore[arg-type]
        return self.get_paginated_response(VersionSerializer(rows, many=True).data)

    @extend_schema(request=CheckSerializer, responses={200: CheckedSerializer}, filters=False)
    @action(detail=False, methods=["post"], pagination_class=None, filter_backends=())
    def check(self, request: Request) -> Response:
        """What a PUT of this document would change, and what the policy would have made of the
        last weeks' requests. Writes nothing. For administrators, and their API tokens."""
        by = caller(request)
        if not by.sees_everything:
            raise NotFound(kind="policy", id="check")
        check_administer(by)
        document = _parsed(said_in(CheckSerializer, request)["document"])
        try:
            outlook = _outlook(by, document)
        except InvalidInput as error:
            raise InvalidInput(_in_body(error.errors)) from error
        return Response(CheckedSerializer(outlook).data)

    @extend_schema(responses={200: OpenApiTypes.OBJECT}, filters=False)
    @action(detail=False, url_path="schema", pagination_class=None, filter_backends=())
    def document_schema(self, request: Request) -> Response:  # noqa: ARG002
        """The JSON Schema (2020-12) of a policy's document."""
        return Response(json_schema())


def _parsed(data: Any) -> PolicyDocument:
    try:
        return parse(data)
    except InvalidInput as error:
        raise InvalidInput(_in_body(error.errors)) from error


def _outlook(by: User, document: PolicyDocument) -> dict[str, Any]:
    """What this document would change. Raises InvalidInput, and Forbidden."""
    actions.check_policy(by=by, document=document)
    row = Policy.objects.filter(slug=document.slug, current__isnull=False)
    policy = row.select_related("current").first()
    payload = {"document": document.as_data(), "note": ""}
    same = (
        policy is not None
        and policy.current is not None
        and policy.retired_at is None
        and write([policy.current.parsed()]) == write([document])
    )
    return {
        "same": same,
        "waits": not same and actions.widens(policy, document),
        "difference": [] if same else PolicyChange().difference(policy, payload),
        "replay": replay(document),
    }


def _in_body(errors: dict[str, str]) -> dict[str, str]:
    """Errors by their place in the body; what concerns the whole document is `policy` in it."""
    return {
        {"policy": "document", "note": "note"}.get(key, f"document.{key}"): text
        for key, text in errors.items()
    }
