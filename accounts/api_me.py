"""Who calls, as Keyturn knows them; and where they are signed in."""

import datetime as dt
from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import actions, agents, sessions
from accounts.api import ApiView, StrictSerializer, caller, check_empty, is_token, said_in
from accounts.api_people import PersonSerializer
from accounts.models import ApiToken, Group, Session, User
from accounts.parsers import StrictJSONParser
from accounts.people import with_factor
from accounts.sso.configuration import provider
from broker.errors import NeedsPerson, NotFound

ALONE = "One’s own account takes a signed-in person: an API token alone changes nothing of it."
ELSEWHERE = "Where its owner is signed in is told to them alone, not to their API tokens."

# In the OpenAPI document: a session, and no token.
IN_SESSION: Any = [{"session": []}]


class CallingTokenSerializer(serializers.ModelSerializer[ApiToken]):
    class Meta:
        model = ApiToken
        fields = ("id", "name", "kind", "verbs", "endpoints", "created_at", "expires_at")
        read_only_fields = fields


class MeSerializer(PersonSerializer):
    owns_groups = serializers.SlugRelatedField[Group](slug_field="slug", many=True, read_only=True)
    has_factor = serializers.BooleanField(
        source="factor", read_only=True, help_text="whether a second factor is set up"
    )
    token = serializers.SerializerMethodField(help_text="the one of this call; null in a session")

    class Meta:
        model = User
        fields = (
            "id",
            "email",
            "full_name",
            "time_zone",
            "is_administrator",
            "is_auditor",
            "owner",
            "ends_at",
            "manager",
            "groups",
            "owns_groups",
            "has_factor",
            "token",
        )
        read_only_fields = fields

    @extend_schema_field(CallingTokenSerializer(allow_null=True))
    def get_token(self, _: User) -> Any:
        token = self.context.get("token")
        return CallingTokenSerializer(token).data if isinstance(token, ApiToken) else None


class ProfileOfOneselfSerializer(StrictSerializer):
    full_name = serializers.CharField(
        max_length=150, required=False, help_text="beside what you ask for and decide"
    )
    time_zone = serializers.CharField(
        max_length=64, required=False, help_text="IANA's name of it, such as Europe/Berlin"
    )


class SessionSerializer(serializers.Serializer[Any]):
    id = serializers.SerializerMethodField(help_text="a name for it; it lets nobody in")
    is_this = serializers.SerializerMethodField(help_text="whether this call came in it")
    how = serializers.SerializerMethodField(help_text="password, passkey, or the provider's name")
    address = serializers.IPAddressField(allow_null=True, help_text="of its last call")
    browser = serializers.SerializerMethodField()
    began_at = serializers.SerializerMethodField()
    ends_at = serializers.DateTimeField(source="expire_date", help_text="unless it's used again")

    def get_id(self, row: Session) -> str:
        return sessions.name_of(row.session_key)

    def get_is_this(self, row: Session) -> bool:
        return bool(row.session_key == self.context["current"])

    def get_how(self, row: Session) -> str:
        by_provider = provider(row.how)
        return row.how if by_provider is None else by_provider.name

    def get_browser(self, row: Session) -> str:
        return str(agents.in_words(row.agent))

    def get_began_at(self, row: Session) -> dt.datetime | None:
        return None if row.began is None else dt.datetime.fromtimestamp(row.began, dt.UTC)


class EndedSerializer(serializers.Serializer[Any]):
    ended = serializers.IntegerField(help_text="sessions")


def _in_person(request: Request, why: str) -> User:
    if is_token(request):
        raise NeedsPerson(why)
    return caller(request)


@extend_schema(tags=["me"])
class MeView(ApiView):
    """Whoever calls."""

    parser_classes = (StrictJSONParser,)
    # What it is for, each token may know of itself.
    verbs: ClassVar = {"get": None}
    endpoint_path = ""

    def _shown(self, request: Request) -> Response:
        rows = with_factor(User.objects.filter(pk=caller(request).pk))
        row = rows.select_related("owner", "manager").get()
        return Response(MeSerializer(row, context={"token": request.auth}).data)

    @extend_schema(operation_id="me_retrieve", responses={200: MeSerializer})
    def get(self, request: Request) -> Response:
        """Who this call is made as: their name, roles, groups, and by which API token."""
        return self._shown(request)

    @extend_schema(
        operation_id="me_change",
        request=ProfileOfOneselfSerializer,
        responses={200: MeSerializer},
        auth=IN_SESSION,
    )
    def patch(self, request: Request) -> Response:
        """Change one's own name or time zone; what isn't named stays. Takes a session."""
        user = _in_person(request, ALONE)
        said = said_in(ProfileOfOneselfSerializer, request)
        kept = {"full_name": user.full_name, "time_zone": user.time_zone}
        actions.change_profile(by=user, **(kept | said))
        return self._shown(request)


@extend_schema(tags=["me"])
class OwnSessionsView(ApiView):
    """Where one is signed in."""

    @extend_schema(
        operation_id="me_sessions_list",
        responses={200: SessionSerializer(many=True)},
        auth=IN_SESSION,
    )
    def get(self, request: Request) -> Response:
        """One's own sessions, the last used first. Takes a session."""
        user = _in_person(request, ELSEWHERE)
        context = {"current": request.session.session_key}
        rows = sessions.opened(user)
        return Response(SessionSerializer(rows, many=True, context=context).data)


@extend_schema(tags=["me"])
class EndSessionView(ApiView):
    """One of one's own sessions."""

    parser_classes = (StrictJSONParser,)

    @extend_schema(
        operation_id="me_session_end", request=None, responses={204: None}, auth=IN_SESSION
    )
    def post(self, request: Request, name: str) -> Response:
        """End one of one's own sessions. Takes a session."""
        own = {sessions.name_of(row.session_key) for row in sessions.opened(caller(request))}
        if name not in own:
            raise NotFound(kind="session", id=name)
        user = _in_person(request, ALONE)
        check_empty(request)
        actions.end_session(by=user, name=name)
        return Response(status=204)


@extend_schema(tags=["me"])
class EndOtherSessionsView(ApiView):
    """All others of one's own sessions."""

    parser_classes = (StrictJSONParser,)

    @extend_schema(
        operation_id="me_sessions_end_others",
        request=None,
        responses={200: EndedSerializer},
        auth=IN_SESSION,
    )
    def post(self, request: Request) -> Response:
        """End all of one's own sessions but the one that asks. Takes a session."""
        user = _in_person(request, ALONE)
        check_empty(request)
        ended = actions.end_sessions(by=user, person=user, but=request.session.session_key)
        return Response({"ended": ended})
