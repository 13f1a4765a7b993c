"""People and service accounts. Changing them takes a person."""

from typing import Any

import django_filters
from django.db.models import Q, QuerySet
from django.views.decorators.debug import sensitive_variables
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import actions, changes, invitations, stepup
from accounts.api import (
    IN_PERSON,
    LOCATION,
    StrictSerializer,
    caller,
    check_empty,
    check_person,
    created,
    said_in,
)
from accounts.api_changes import ChangeSerializer, waits
from accounts.changes.deciding import TEXT
from accounts.details import Details, Lists
from accounts.models import Group, User
from accounts.people import with_factor
from accounts.permissions import check_administer, check_answer_for
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
        fields: tuple[str, ...] = (
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


class InvitationSerializer(serializers.Serializer[Any]):
    link = serializers.URLField(help_text="lets this person in, once; it's in this answer alone")
    expires_at = serializers.DateTimeField()


class AddedSerializer(PersonSerializer):
    invitation = InvitationSerializer(
        read_only=True, allow_null=True, help_text="null for a service account"
    )

    class Meta(PersonSerializer.Meta):
        fields = (*PersonSerializer.Meta.fields, "invitation")
        read_only_fields = fields


class AddSerializer(StrictSerializer):
    email = serializers.EmailField(help_text="it can't be changed later")
    full_name = serializers.CharField(max_length=150)
    owner = serializers.EmailField(
        required=False, help_text="whoever answers for it; makes it a service account"
    )
    ends_at = serializers.DateTimeField(
        required=False, help_text="of a service account: at most a year from now"
    )

    def validate(self, attrs: Any) -> Any:
        if "owner" in attrs and "ends_at" not in attrs:
            raise serializers.ValidationError({"ends_at": "Say until when it is needed."})
        if "ends_at" in attrs and "owner" not in attrs:
            raise serializers.ValidationError({"owner": "Only a service account ends by itself."})
        return attrs


class RolesSerializer(StrictSerializer):
    administrator = serializers.BooleanField(required=False)
    auditor = serializers.BooleanField(required=False)
    reason = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=TEXT,
        help_text="needed to give one: a second administrator reads it",
    )


class ReasonSerializer(StrictSerializer):
    reason = serializers.CharField(
        max_length=TEXT, help_text="why, and how you know that it is them"
    )


class ExtendSerializer(StrictSerializer):
    ends_at = serializers.DateTimeField(help_text="at most a year from now")


class SignedOutSerializer(serializers.Serializer[Any]):
    ended = serializers.IntegerField(help_text="sessions")


class PersonFilter(django_filters.FilterSet):
    q = django_filters.CharFilter(method="by_words", label="part of the name or e-mail address")
    active = django_filters.BooleanFilter(field_name="is_active")
    service = django_filters.BooleanFilter(method="by_service", label="service accounts alone")

    def by_words(self, rows: Any, _name: str, value: str) -> Any:
        return rows.filter(Q(full_name__icontains=value) | Q(email__icontains=value))

    def by_service(self, rows: Any, _name: str, value: bool) -> Any:
        return rows.filter(owner__isnull=not value)


class PersonViewSet(Lists[User], Details[User]):
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

    @extend_schema(
        request=AddSerializer,
        responses={201: AddedSerializer},
        parameters=[LOCATION],
        auth=IN_PERSON,
    )
    @sensitive_variables("link", "data")
    def create(self, request: Request) -> Response:
        """Add a person, or with `owner` a service account. The answer has the link that lets the
        person in. Takes an administrator's session and a second factor proved for `people:`."""
        by = caller(request)
        check_administer(by)
        check_in_person(request)
        said = said_in(AddSerializer, request)
        if "owner" in said:
            row = actions.create_service(
                by=by,
                email=said["email"],
                full_name=said["full_name"],
                owner=somebody(said["owner"], field="owner"),
                ends_at=said["ends_at"],
                proofs=stepup.proofs(request),
            )
            data = self._shown(row) | {"invitation": None}
        else:
            row, link = invitations.invite_new(by=by, proofs=stepup.proofs(request), **said)
            data = self._shown(row) | {"invitation": _invitation(row, link)}
        return _not_kept(created(data, "api-person-detail", row.pk))

    def _shown(self, row: User) -> dict[str, Any]:
        found = self.get_queryset().get(pk=row.pk)
        return {**PersonSerializer(found).data}

    def _administered(self, request: Request) -> User:
        row = self.get_object()
        # Whoever may not do it at all is told that first.
        check_administer(caller(request))
        check_in_person(request)
        return row

    def _answered_for(self, request: Request) -> User:
        row, by = self.get_object(), caller(request)
        if row.is_service:
            check_answer_for(by, row)
        else:
            check_administer(by)
        check_in_person(request)
        return row

    @extend_schema(request=None, responses={200: PersonSerializer}, auth=IN_PERSON)
    @action(detail=True, methods=["post"])
    def deactivate(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Close the account, and all that it holds: grants end within seconds. Takes a session
        and a second factor proved for this account; repeating it changes nothing."""
        row = self._answered_for(request)
        check_empty(request)
        actions.deactivate_user(by=caller(request), user=row, proofs=stepup.proofs(request))
        return Response(self._shown(row))

    @extend_schema(request=None, responses={200: PersonSerializer}, auth=IN_PERSON)
    @action(detail=True, methods=["post"])
    def reactivate(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Open the account again, empty: no group, role, token or password comes back. Takes what
        `deactivate` takes, by an administrator."""
        row = self._administered(request)
        check_empty(request)
        actions.reactivate_user(by=caller(request), user=row, proofs=stepup.proofs(request))
        return Response(self._shown(row))

    @extend_schema(request=None, responses={200: InvitationSerializer}, auth=IN_PERSON)
    @action(detail=True, methods=["post"])
    @sensitive_variables("link")
    def invite(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """A new link for somebody who hasn't signed in yet; earlier ones are void. Takes what
        `reactivate` takes."""
        row = self._administered(request)
        check_empty(request)
        link = invitations.invite(by=caller(request), person=row, proofs=stepup.proofs(request))
        return _not_kept(Response(_invitation(row, link)))

    @extend_schema(request=None, responses={200: SignedOutSerializer}, auth=IN_PERSON)
    @action(detail=True, methods=["post"], url_path="sign-out")
    def sign_out(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """End all of somebody's sessions in the portal. Takes an administrator's session."""
        row = self._administered(request)
        check_empty(request)
        return Response({"ended": actions.end_sessions(by=caller(request), person=row)})

    @extend_schema(
        request=RolesSerializer,
        responses={200: PersonSerializer, 202: ChangeSerializer},
        parameters=[LOCATION],
        auth=IN_PERSON,
    )
    @action(detail=True, methods=["post"])
    def roles(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Take a role away, or propose that somebody be given one: that waits for a second
        administrator. What isn't named stays. Takes what `reactivate` takes."""
        row, said = self._administered(request), said_in(RolesSerializer, request)
        wanted = {role: said[role] for role in ("administrator", "auditor") if role in said}
        if not wanted:
            raise InvalidInput({"administrator": "Name one of the two: administrator, auditor."})
        payload: dict[str, Any] = {
            role: value for role, value in wanted.items() if value != getattr(row, f"is_{role}")
        }
        if not payload:
            return Response(self._shown(row))
        return self._propose(request, row, "role", payload, said.get("reason", ""))

    @extend_schema(
        request=ReasonSerializer,
        responses={202: ChangeSerializer},
        parameters=[LOCATION],
        auth=IN_PERSON,
    )
    @action(detail=True, methods=["post"], url_path="reset-factors")
    def reset_factors(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Propose that somebody's lost second factors be taken away; a second administrator
        decides. Takes what `reactivate` takes."""
        row, said = self._administered(request), said_in(ReasonSerializer, request)
        return self._propose(request, row, "factor_reset", {}, said["reason"])

    def _propose(
        self, request: Request, row: User, kind: str, payload: dict[str, Any], reason: str
    ) -> Response:
        change = changes.propose(
            by=caller(request),
            kind=kind,
            about=row,
            payload=payload,
            reason=reason,
            proofs=stepup.proofs(request),
        )
        return Response(self._shown(row)) if change is None else waits(change)

    @extend_schema(request=ExtendSerializer, responses={200: PersonSerializer}, auth=IN_PERSON)
    @action(detail=True, methods=["post"])
    def extend(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Let a service account go on. Takes the session of its owner or an administrator, and a
        second factor proved for this account."""
        row, said = self._answered_for(request), said_in(ExtendSerializer, request)
        actions.extend_service(
            by=caller(request), service=row, proofs=stepup.proofs(request), **said
        )
        return Response(self._shown(row))


def check_in_person(request: Request) -> None:
    """Raise what `check_person` does."""
    check_person(request, ALONE)


def somebody(email: str, *, field: str = "person") -> User:
    """The account with this address. Raises InvalidInput."""
    found = User.objects.filter(email=User.objects.normalize_email(email)).first()
    if found is None:
        raise InvalidInput({field: "Nobody has this e-mail address."})
    return found


def _invitation(row: User, link: str) -> dict[str, Any]:
    made = row.invitations.get(used_at=None)
    return {**InvitationSerializer({"link": link, "expires_at": made.expires_at}).data}


def _not_kept(response: Response) -> Response:
    """Whoever has the link is that person: no cache keeps it."""
    response["Cache-Control"] = "no-store"
    return response
