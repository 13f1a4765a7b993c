"""Changes that wait for a second administrator. Deciding them takes a person."""

from typing import Any

import django_filters
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import changes, stepup
from accounts.api import (
    IN_PERSON,
    StrictSerializer,
    address,
    caller,
    check_empty,
    check_person,
)
from accounts.changes.deciding import TEXT
from accounts.details import Details, Lists
from accounts.models import Change
from accounts.preconditions import Expected, expected
from accounts.standing import check_standing
from audit import clock

ALONE = "Deciding a change takes a person."


class LineSerializer(serializers.Serializer[Any]):
    what = serializers.CharField()
    before = serializers.CharField()
    after = serializers.CharField()


class ChangeSerializer(serializers.ModelSerializer[Change]):
    about = serializers.UUIDField(
        read_only=True, allow_null=True, help_text="id of what it changes"
    )
    difference = LineSerializer(many=True, read_only=True)
    state = serializers.SerializerMethodField()
    proposed_by = serializers.EmailField(source="proposed_by.email", read_only=True)
    decided_by = serializers.EmailField(
        source="decided_by.email", read_only=True, allow_null=True, default=None
    )

    class Meta:
        model = Change
        fields = (
            "id",
            "kind",
            "about",
            "label",
            "difference",
            "reason",
            "state",
            "proposed_by",
            "proposed_at",
            "expires_at",
            "decided_by",
            "decided_at",
            "note",
        )
        read_only_fields = fields

    @extend_schema_field(serializers.ChoiceField(Change.State.choices))
    def get_state(self, change: Change) -> str:
        return str(change.state_at(self.context.get("now") or clock.now()))


class ChangeNoteSerializer(StrictSerializer):
    note = serializers.CharField(
        required=False, allow_blank=True, max_length=TEXT, help_text="needed to reject"
    )


class ChangeFilter(django_filters.FilterSet):
    kind = django_filters.CharFilter()
    about = django_filters.UUIDFilter(label="id of what it changes")
    waiting = django_filters.BooleanFilter(method="by_waiting", label="whether it can be decided")

    def by_waiting(self, rows: Any, _name: str, value: bool) -> Any:
        waiting = Change.objects.waiting().values("pk")
        return rows.filter(pk__in=waiting) if value else rows.exclude(pk__in=waiting)


class ChangeViewSet(Lists[Change], Details[Change]):
    """What widens access and so takes two administrators. One sees one's own proposals;
    administrators and auditors see all."""

    queryset = Change.objects.select_related("proposed_by", "decided_by").order_by()
    serializer_class = ChangeSerializer
    filterset_class = ChangeFilter
    if_match = ("approve", "reject", "withdraw")

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "now": clock.now()}

    def _in_person(self, request: Request) -> Change:
        change = self.get_object()
        check_person(request, ALONE)
        return change

    def _expected(self, request: Request) -> Expected:
        return expected(request, lambda row: ChangeSerializer(row).data)

    def _decide(self, request: Request, verb: Any) -> Response:
        change = self._in_person(request)
        check_standing(request)
        body = ChangeNoteSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        done = verb(
            by=caller(request),
            change_id=change.pk,
            note=body.validated_data.get("note", ""),
            proofs=stepup.proofs(request),
            expected=self._expected(request),
        )
        return Response(self.get_serializer(done).data)

    @extend_schema(request=ChangeNoteSerializer, responses={200: ChangeSerializer}, auth=IN_PERSON)
    @action(detail=True, methods=["post"], one_transaction=False)
    def approve(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Agree to it; it is done by this. Takes another administrator's session and a second
        factor proved for this change."""
        return self._decide(request, changes.approve)

    @extend_schema(request=ChangeNoteSerializer, responses={200: ChangeSerializer}, auth=IN_PERSON)
    @action(detail=True, methods=["post"], one_transaction=False)
    def reject(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Refuse it, and say why. Takes what `approve` takes."""
        return self._decide(request, changes.reject)

    @extend_schema(request=None, responses={200: ChangeSerializer}, auth=IN_PERSON)
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Take one's own proposal back."""
        change = self._in_person(request)
        check_empty(request)
        done = changes.withdraw(
            by=caller(request), change_id=change.pk, expected=self._expected(request)
        )
        return Response(self.get_serializer(done).data)


def waits(change: Change) -> Response:
    """202: it isn't done, and this is what waits for a second administrator."""
    return Response(
        ChangeSerializer(change).data,
        status=status.HTTP_202_ACCEPTED,
        headers={"Location": address("api-change-detail", change.pk)},
    )
