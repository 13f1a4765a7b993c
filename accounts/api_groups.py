"""Groups: who is in them, and who says so. An API token reads them, and changes none."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import actions, changes, stepup
from accounts.api import (
    IN_PERSON,
    LOCATION,
    StrictSerializer,
    caller,
    created,
    said_in,
)
from accounts.api_changes import ChangeSerializer, waits
from accounts.api_people import check_in_person, somebody
from accounts.changes.deciding import TEXT
from accounts.details import Details, Lists
from accounts.models import Change, Group, Membership, User
from accounts.permissions import check_administer, check_say_members
from accounts.preconditions import expected, tagged


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


class NewGroupSerializer(StrictSerializer):
    slug = serializers.SlugField(help_text="what policies and the inventory call it")
    name = serializers.CharField(max_length=100)


class GroupViewSet(Lists[Group], Details[Group]):
    """Groups: all for administrators and auditors, else those that one owns."""

    queryset = Group.objects.prefetch_related("owners").order_by()
    serializer_class = GroupSerializer
    tagged = ("retrieve", "members")
    if_match = ("join", "leave", "owners", "drop_owner")

    @extend_schema(responses={200: MemberSerializer(many=True)}, filters=False)
    @action(detail=True, methods=["get"], pagination_class=None)
    def members(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Who is in it, by name; the first thousand."""
        return tagged(request, _members(self.get_object()))

    @extend_schema(
        request=NewGroupSerializer,
        responses={201: GroupSerializer},
        parameters=[LOCATION],
        auth=IN_PERSON,
    )
    def create(self, request: Request) -> Response:
        """Add an empty group. Takes an administrator's session."""
        check_administer(caller(request))
        check_in_person(request)
        row = actions.create_group(by=caller(request), **said_in(NewGroupSerializer, request))
        return created(GroupSerializer(row).data, "api-group-detail", row.pk)

    @extend_schema(
        request=JoinSerializer,
        responses={201: MemberSerializer, 202: ChangeSerializer},
        parameters=[LOCATION],
        auth=IN_PERSON,
    )
    @members.mapping.post
    def join(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Add somebody; where the group opens something, that waits for a second administrator:
        the answer, 202, is then the change. Takes a session of an owner or administrator, and a
        second factor proved for the group."""
        row = self._changing(request)
        user, change = self._propose(request, row, "member")
        if change is not None:
            return waits(change)
        member = row.memberships.select_related("user").get(user=user)
        return Response(MemberSerializer(member).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=LeaveSerializer, responses={204: None}, auth=IN_PERSON)
    @action(detail=True, methods=["post"], url_path="members/remove")
    def leave(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Take somebody out; what they held by it ends within seconds."""
        row = self._changing(request)
        said = said_in(LeaveSerializer, request)
        actions.remove_member(
            by=caller(request),
            user=somebody(said["person"]),
            group=row,
            expected=expected(request, _members),
        )
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(
        request=JoinSerializer,
        responses={201: GroupSerializer, 202: ChangeSerializer},
        parameters=[LOCATION],
        auth=IN_PERSON,
    )
    @action(detail=True, methods=["post"])
    def owners(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Let somebody say who is in it; answers as adding a member does. Takes an
        administrator's session and a second factor proved for the group."""
        row = self._owning(request)
        _, change = self._propose(request, row, "owner")
        if change is not None:
            return waits(change)
        return created(GroupSerializer(row).data, "api-group-detail", row.pk)

    @extend_schema(request=LeaveSerializer, responses={204: None}, auth=IN_PERSON)
    @action(detail=True, methods=["post"], url_path="owners/remove")
    def drop_owner(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Take that away again. Takes an administrator's session."""
        row = self._owning(request)
        said = said_in(LeaveSerializer, request)
        actions.drop_owner(
            by=caller(request),
            group=row,
            user=somebody(said["person"]),
            expected=expected(request, _group),
        )
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _changing(self, request: Request) -> Group:
        row = self.get_object()
        check_say_members(caller(request), row)
        check_in_person(request)
        return row

    def _owning(self, request: Request) -> Group:
        row = self.get_object()
        check_administer(caller(request))
        check_in_person(request)
        return row

    def _propose(self, request: Request, row: Group, role: str) -> tuple[User, Change | None]:
        said = said_in(JoinSerializer, request)
        user = somebody(said["person"])
        change = changes.propose(
            by=caller(request),
            kind="group_member",
            about=row,
            payload={"person": str(user.pk), "as": role},
            reason=said.get("reason", ""),
            proofs=stepup.proofs(request),
            expected=expected(request, _members if role == "member" else _group),
        )
        return user, change


def _group(row: Group) -> Any:
    return GroupSerializer(row).data


def _members(row: Group) -> Any:
    rows = row.memberships.select_related("user").order_by("user__full_name", "user")
    return MemberSerializer(rows[:1000], many=True).data
