"""People, service accounts and groups. Changing them takes a person."""

from typing import Any

import django_filters
from django.db.models import Q, QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import actions, changes, stepup
from accounts.api import (
    IN_PERSON,
    StrictSerializer,
    VisibleViewSet,
    caller,
    check_empty,
    check_person,
)
from accounts.changes.deciding import TEXT
from accounts.models import Group, Membership, User
from accounts.people import with_factor
from accounts.permissions import check_administer, check_answer_for, check_say_members
from broker.errors import InvalidInput

ALONE = "Changing people and groups takes a person."


class PersonSerializer(serializers.ModelSerializer[User]):
    owner = serializers.EmailField(
        source="owner.email",
        read_only=True,
        allow_null=True,
        default=None,
        help_text="of a service account",
    )
    manager = serializers.EmailField(
        source="manager.email", read_only=True, allow_null=True, default=None
    )
    groups = serializers.SlugRelatedField[Group](
        source="member_of", slug_field="slug", many=True, read_only=True
    )
    has_factor = serializers.BooleanField(
        source="factor", read_only=True, help_text="whether they have set up a second factor"
    )

    class Meta:
        model = User
        fields = (
            "id",
            "email",
            "full_name",
            "time_zone",
            "is_active",
            "is_administrator",
            "is_auditor",
            "owner",
            "ends_at",
            "manager",
            "groups",
            "has_factor",
            "last_login",
            "created_at",
        )
        read_only_fields = fields


class PersonFilter(django_filters.FilterSet):
    q = django_filters.CharFilter(method="by_words", label="part of the name or e-mail address")
    active = django_filters.BooleanFilter(field_name="is_active")
    service = django_filters.BooleanFilter(method="by_service", label="service accounts alone")

    def by_words(self, rows: Any, _name: str, value: str) -> Any:
        return rows.filter(Q(full_name__icontains=value) | Q(email__icontains=value))

    def by_service(self, rows: Any, _name: str, value: bool) -> Any:
        return rows.filter(owner__isnull=not value)


class PersonViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, VisibleViewSet[User]):
    """People and service accounts: all for administrators and auditors, else the service accounts
    that one answers for."""

    queryset = User.objects.all()
    serializer_class = PersonSerializer
    filterset_class = PersonFilter

    def get_queryset(self) -> QuerySet[User]:
        if getattr(self, "swagger_fake_view", False):
            return super().get_queryset()
        rows = User.objects.visible_to(caller(self.request)).select_related("owner", "manager")
        return with_factor(rows.prefetch_related("member_of").order_by())

    @extend_schema(request=None, responses={200: PersonSerializer}, auth=IN_PERSON)
    @action(detail=True, methods=["post"])
    def deactivate(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Close the account, and all that it holds: grants end within seconds. Takes a session
        and a second factor proved for this account; repeating it changes nothing."""
        row, by = self.get_object(), caller(request)
        # Whoever may not do it at all is told that first.
        if row.is_service:
            check_answer_for(by, row)
        else:
            check_administer(by)
        check_in_person(request)
        check_empty(request)
        actions.deactivate_user(by=by, user=row, proofs=stepup.proofs(request))
        return Response(self.get_serializer(self.get_object()).data)


def check_in_person(request: Request) -> None:
    """Raise what `check_person` does."""
    check_person(request, ALONE)


class GroupSerializer(serializers.ModelSerializer[Group]):
    owners = serializers.SlugRelatedField[User](slug_field="email", many=True, read_only=True)

    class Meta:
        model = Group
        fields = ("id", "slug", "name", "is_rota", "owners")
        read_only_fields = fields


class MemberSerializer(serializers.ModelSerializer[Membership]):
    id = serializers.UUIDField(source="user.pk", read_only=True)
    email = serializers.EmailField(source="user.email", read_only=True)
    full_name = serializers.CharField(source="user.full_name", read_only=True)
    is_active = serializers.BooleanField(source="user.is_active", read_only=True)

    class Meta:
        model = Membership
        fields = ("id", "email", "full_name", "is_active", "since")
        read_only_fields = fields


class JoinSerializer(StrictSerializer):
    person = serializers.EmailField(help_text="e-mail address")
    reason = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=TEXT,
        help_text="needed where the group opens something: a second administrator reads it",
    )


class LeaveSerializer(StrictSerializer):
    person = serializers.EmailField(help_text="e-mail address")


class JoinedSerializer(serializers.Serializer[Any]):
    change = serializers.UUIDField(
        allow_null=True,
        help_text="what waits for a second administrator; null where it was done at once",
    )


class GroupViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, VisibleViewSet[Group]):
    """Groups: all for administrators and auditors, else those that one owns."""

    queryset = Group.objects.prefetch_related("owners").order_by()
    serializer_class = GroupSerializer

    @extend_schema(responses={200: MemberSerializer(many=True)}, filters=False)
    @action(detail=True, methods=["get"])
    def members(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Who is in it, by name; the first thousand."""
        rows = self.get_object().memberships.select_related("user").order_by("user__full_name")
        return Response(MemberSerializer(rows[:1000], many=True).data)

    @extend_schema(request=JoinSerializer, responses={201: JoinedSerializer}, auth=IN_PERSON)
    @members.mapping.post
    def join(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Add somebody; where the group opens something, that waits for a second administrator.
        Takes a session of an owner or administrator, and a second factor proved for the group."""
        row, body = self._changing(request, JoinSerializer)
        change = changes.propose(
            by=caller(request),
            kind="group_member",
            about=row,
            payload={"person": str(_somebody(body["person"]).pk)},
            reason=body.get("reason", ""),
            proofs=stepup.proofs(request),
        )
        data = JoinedSerializer({"change": None if change is None else change.pk}).data
        return Response(data, status=status.HTTP_201_CREATED)

    @extend_schema(request=LeaveSerializer, responses={204: None}, auth=IN_PERSON)
    @action(detail=True, methods=["post"], url_path="members/remove")
    def leave(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Take somebody out; what they held by it ends within seconds."""
        row, body = self._changing(request, LeaveSerializer)
        actions.remove_member(by=caller(request), user=_somebody(body["person"]), group=row)
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _changing(self, request: Request, kind: type[StrictSerializer]) -> tuple[Group, Any]:
        row = self.get_object()
        check_say_members(caller(request), row)
        check_in_person(request)
        body = kind(data=request.data)
        body.is_valid(raise_exception=True)
        return row, body.validated_data


def _somebody(email: str) -> User:
    found = User.objects.filter(email=User.objects.normalize_email(email)).first()
    if found is None:
        raise InvalidInput({"person": "Nobody has this e-mail address."})
    return found
