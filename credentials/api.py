"""Grants: checking out under them, ending them; credentials and their states."""

import datetime as dt
from typing import Any, ClassVar, cast

import django_filters
from django.conf import settings
from django.db.models import F, OuterRef, Subquery
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from accessrequests.api import RequestViewSet
from accessrequests.api.requests import EXPANSIONS as REQUEST_EXPANSIONS
from accessrequests.models import Grant
from accessrequests.states import GrantState
from accounts import stepup
from accounts.api import (
    LOCATION,
    ApiView,
    StrictSerializer,
    address,
    caller,
    check_empty,
)
from accounts.details import Details, Lists
from accounts.expanding import ExpandedSerializer, Expansions, listed_by
from accounts.filters import MadeFilter, PersonFilter
from accounts.models import User
from accounts.parsers import StrictFormParser, StrictJSONParser
from accounts.preconditions import expected
from accounts.scope_permission import token_of
from accounts.scopes import Verb
from accounts.standing import check_standing
from accounts.stepup import Proofs
from audit import clock
from audit.filters import TimeFilter
from audit.refusals import record_refusal
from broker.errors import InvalidInput, NotFound
from credentials import actions
from credentials.introspection import INACTIVE, introspect
from credentials.models import Credential, Credentials
from credentials.snippets import base_url
from credentials.standing import standing, stuck
from credentials.states import CredentialState
from endpoints.api import ScopeSerializer

OUT = (CredentialState.ISSUING, CredentialState.ACTIVE)

# Filled below: what they show is made of these.
GRANT_EXPANSIONS: Expansions = {}
CREDENTIAL_EXPANSIONS: Expansions = {}


class GrantExpandedSerializer(ExpandedSerializer):
    expansions = GRANT_EXPANSIONS


class CredentialExpandedSerializer(ExpandedSerializer):
    expansions = CREDENTIAL_EXPANSIONS


class GrantSerializer(serializers.ModelSerializer[Grant]):
    holder = serializers.EmailField(source="holder.email", read_only=True)
    on_behalf_of = serializers.EmailField(
        source="request.on_behalf_of.email",
        read_only=True,
        allow_null=True,
        default=None,
        help_text="for whom an agent holds it",
    )
    endpoint = serializers.SlugField(source="request.profile.endpoint.slug", read_only=True)
    scope = ScopeSerializer(
        source="held", read_only=True, help_text="with the budgets that it has by now"
    )
    is_live = serializers.SerializerMethodField(
        help_text="whether it holds at this moment, by the clock"
    )
    extends = serializers.UUIDField(
        source="request.extends_id",
        read_only=True,
        allow_null=True,
        help_text="the grant that this one follows without a gap",
    )
    extended_by = serializers.UUIDField(
        read_only=True, allow_null=True, help_text="the grant that follows this one"
    )
    expanded = GrantExpandedSerializer(required=False, help_text="see `expand`")

    class Meta:
        model = Grant
        fields = (
            "id",
            "request",
            "holder",
            "on_behalf_of",
            "endpoint",
            "state",
            "is_live",
            "scope",
            "starts_at",
            "ends_at",
            "extends",
            "extended_by",
            "ended_at",
            "ended_by",
            "end_reason",
            "expanded",
        )
        read_only_fields = fields

    def get_is_live(self, grant: Grant) -> bool:
        return grant.is_live(_now(self))


class CredentialSerializer(serializers.ModelSerializer[Credential]):
    name = serializers.CharField(read_only=True, help_text="its name in Vault")
    stuck_since = serializers.SerializerMethodField(
        help_text="since when it should have been gone, if that is longer than a minute"
    )
    expanded = CredentialExpandedSerializer(required=False, help_text="see `expand`")

    class Meta:
        model = Credential
        fields = (
            "id",
            "name",
            "grant",
            "kind",
            "state",
            "created_at",
            "issued_at",
            "expires_at",
            "revoking_since",
            "revoke_reason",
            "revoked_at",
            "proof",
            "attempts",
            "next_attempt_at",
            "last_error",
            "stuck_since",
            "expanded",
        )
        read_only_fields = fields

    def get_stuck_since(self, credential: Credential) -> dt.datetime | None:
        return standing(credential, _now(self)).stuck


def _now(serializer: serializers.BaseSerializer[Any]) -> dt.datetime:
    """The clock is the database's: it's asked once a page, not once a row."""
    context = cast(dict[str, Any], serializer.context)
    if "now" not in context:
        context["now"] = clock.now()
    return cast(dt.datetime, context["now"])


class CheckOutSerializer(StrictSerializer):
    wrap = serializers.BooleanField(
        required=False,
        default=False,
        help_text="hand over a token instead, which gives the secret to its first reader",
    )


class CheckedOutSerializer(serializers.Serializer[Any]):
    credential = CredentialSerializer()
    secret = serializers.CharField(
        help_text="shown in this answer and never again; the wrapping token where it's `wrapped`"
    )
    parts = serializers.DictField(
        child=serializers.CharField(),
        help_text="the secret by its parts: what there is beside `secret` depends on the kind",
    )
    wrapped = serializers.BooleanField(
        help_text="whether `secret` is a token that unwraps it once, within 5 minutes"
    )
    base_url = serializers.CharField(
        help_text="for OpenAI clients append /v1; what is opened directly has its own address here"
    )
    expires_at = serializers.DateTimeField(help_text="of this secret: a JWT ends before its grant")


class UnwrapSerializer(StrictSerializer):
    token = serializers.CharField(max_length=1000, help_text="the wrapping token")


def _handed_over(out: actions.CheckedOut, status_code: int) -> Response:
    grant = out.credential.grant
    body = CheckedOutSerializer(
        {
            "credential": out.credential,
            "secret": out.secret,
            "parts": out.parts,
            "wrapped": out.wrapped,
            "base_url": base_url(grant.request.profile),
            "expires_at": out.credential.expires_at or grant.ends_at,
        }
    )
    # What a program that lost this answer reads instead.
    path = reverse("api-credential-detail", args=[out.credential.pk])
    headers = {"Cache-Control": "no-store", "Location": settings.KEYTURN_BASE_URL + path}
    return Response(body.data, status=status_code, headers=headers)


class GrantFilter(django_filters.FilterSet):
    state = django_filters.MultipleChoiceFilter(choices=GrantState.choices, distinct=False)
    live = django_filters.BooleanFilter(method="only_live", label="whether it holds now")
    # The metaclass takes it out of the class, where `request` is the HTTP request.
    request = django_filters.UUIDFilter()  # type: ignore[assignment]
    endpoint = django_filters.CharFilter(
        field_name="request__profile__endpoint__slug", label="its slug"
    )
    profile = django_filters.UUIDFilter(field_name="request__profile", label="its id")
    holder = PersonFilter(field_name="holder__email", label="their e-mail, or `me`")
    extends = django_filters.UUIDFilter(field_name="request__extends", label="a grant's id")
    ends_since = TimeFilter(field_name="ends_at", lookup_expr="gte")
    ends_until = TimeFilter(field_name="ends_at", lookup_expr="lt")

    def only_live(self, rows: Any, _name: str, wanted: bool) -> Any:
        live = Grant.objects.live().values("pk")
        return rows.filter(pk__in=live) if wanted else rows.exclude(pk__in=live)


class GrantViewSet(Lists[Grant], Details[Grant]):
    """Grants: the caller's own, and those of profiles that they review."""

    queryset = (
        Grant.objects.select_related(
            "holder",
            "request__requester",
            "request__on_behalf_of",
            "request__profile__endpoint",
            "request__profile__reviewers",
        )
        .prefetch_related("raises")
        .annotate(
            extended_by=Subquery(
                # Where one ended before its time there may be another.
                Grant.objects.filter(request__extends=OuterRef("pk"))
                .order_by(F("ended_at").desc(nulls_first=True), "-pk")
                .values("pk")[:1]
            )
        )
        .order_by()
    )
    serializer_class = GrantSerializer
    filterset_class = GrantFilter
    endpoint_path = "request__profile__endpoint"
    verbs: ClassVar = {
        "credentials": Verb.CHECK_OUT,
        "refresh": Verb.CHECK_OUT,
        "end": Verb.END,
    }
    expansions = GRANT_EXPANSIONS
    waits_while = (GrantState.SCHEDULED,)
    if_match = ("end",)

    @extend_schema(
        request=CheckOutSerializer, responses={201: CheckedOutSerializer}, parameters=[LOCATION]
    )
    @action(detail=True, methods=["post"], one_transaction=False)
    def credentials(self, request: Request, pk: str) -> Response:
        """Check a credential out. The one that was out before is revoked."""
        asked = CheckOutSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        wrap = asked.validated_data["wrap"]
        check_standing(request)
        out = actions.check_out(by=caller(request), grant_id=pk, wrap=wrap, proofs=_proofs(request))
        answer = _handed_over(out, status.HTTP_201_CREATED)
        answer["Location"] = address("api-credential-detail", out.credential.pk)
        return answer

    @extend_schema(request=None, responses={200: CheckedOutSerializer})
    @action(detail=True, methods=["post"], url_path="credentials/refresh", one_transaction=False)
    def refresh(self, request: Request, pk: str) -> Response:
        """Another secret of the credential that is out, for those kinds whose secrets live for
        minutes."""
        check_empty(request)
        check_standing(request)
        out = actions.refresh(by=caller(request), grant_id=pk, proofs=_proofs(request))
        return _handed_over(out, status.HTTP_200_OK)

    @extend_schema(request=None, responses={200: GrantSerializer})
    @action(detail=True, methods=["post"])
    def end(self, request: Request, pk: str) -> Response:
        """End a grant now. What is out under it is refused at once and revoked."""
        check_empty(request)
        seen = expected(request, lambda row: GrantSerializer(self.queryset.get(pk=row.pk)).data)
        actions.end_grant(by=caller(request), grant_id=pk, expected=seen)
        return Response(GrantSerializer(self.get_object()).data)


def _proofs(request: Request) -> Proofs | None:
    # A program can't prove anything, and isn't asked to.
    return None if request.auth is not None else stepup.proofs(request)


class CredentialFilter(django_filters.FilterSet):
    # Not one of rows: that would tell a stranger which ids are grants.
    grant = django_filters.UUIDFilter(label="a grant's id")
    state = django_filters.MultipleChoiceFilter(choices=CredentialState.choices, distinct=False)
    endpoint = django_filters.CharFilter(
        field_name="grant__request__profile__endpoint__slug", label="its slug"
    )
    holder = PersonFilter(field_name="grant__holder__email", label="their e-mail, or `me`")
    since = MadeFilter(field_name="created_at", lookup_expr="gte", label="minted from then on")
    until = MadeFilter(field_name="created_at", lookup_expr="lt", label="minted before that")
    stuck = django_filters.BooleanFilter(
        method="only_stuck", label="whether it should have been gone for more than a minute"
    )

    class Meta:
        model = Credential
        fields = ("kind",)

    def only_stuck(self, rows: Credentials, _name: str, wanted: bool) -> Credentials:
        late = stuck(None, clock.now()).values("pk")
        return rows.filter(pk__in=late) if wanted else rows.exclude(pk__in=late)


class CredentialViewSet(Lists[Credential], Details[Credential]):
    """What was minted under the grants that the caller may see, and whether it's proven gone."""

    queryset = Credential.objects.order_by()
    serializer_class = CredentialSerializer
    filterset_class = CredentialFilter
    endpoint_path = "grant__request__profile__endpoint"
    verbs: ClassVar = {"unwrap": Verb.CHECK_OUT}
    expansions = CREDENTIAL_EXPANSIONS
    waits_while = (CredentialState.ISSUING, CredentialState.REVOKING)

    @extend_schema(request=None, responses={200: CredentialSerializer})
    @action(detail=True, methods=["post"], url_path="try-now")
    def try_now(self, request: Request, pk: str) -> Response:
        """Have its revocation tried at once rather than at its next turn: for administrators."""
        check_empty(request)
        row = actions.try_now(by=caller(request), credential_id=pk)
        return Response(CredentialSerializer(row).data)

    @extend_schema(request=UnwrapSerializer, responses={200: CheckedOutSerializer})
    @action(detail=True, methods=["post"], one_transaction=False)
    def unwrap(self, request: Request, pk: str) -> Response:
        """Read a wrapped secret: once, by whoever is first. For those who can't reach Vault."""
        if request.query_params:
            raise InvalidInput(
                {"token": "Send it in the body: what was in a URL is in logs, so end its grant."}
            )
        asked = UnwrapSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        token = asked.validated_data["token"]
        out = actions.unwrap(by=caller(request), credential_id=pk, token=token)
        return _handed_over(out, status.HTTP_200_OK)


REQUEST_EXPANSIONS["grant"] = listed_by(GrantViewSet, key="pk", by="request_id")
GRANT_EXPANSIONS |= {
    "request": listed_by(RequestViewSet, key="request_id"),
    # There is one at most; those before it are listed by `credentials/?grant=`.
    "credential": listed_by(CredentialViewSet, key="pk", by="grant_id", state__in=OUT),
}
CREDENTIAL_EXPANSIONS["grant"] = listed_by(GrantViewSet, key="grant_id")


class TokenSerializer(StrictSerializer):
    token = serializers.CharField(max_length=8000, help_text="a credential's secret")
    token_type_hint = serializers.CharField(required=False, help_text="not looked at")


# JSON is taken as well. Generated clients that are told so send both at once.
AS_FORM = {"application/x-www-form-urlencoded": TokenSerializer}


def _token(request: Request) -> str:
    if request.query_params:
        raise InvalidInput(
            {"token": "Send it in the body: what was in a URL is in logs, so end its grant."}
        )
    asked = TokenSerializer(data=request.data)
    asked.is_valid(raise_exception=True)
    token: str = asked.validated_data["token"]
    return token


class AuthorizationDetailSerializer(serializers.Serializer[Any]):
    type = serializers.CharField(help_text="keyturn; beside it, the scope as a grant shows it")


class IntrospectionSerializer(serializers.Serializer[Any]):
    active = serializers.BooleanField(help_text="whether it holds now; if not, all there is")
    token_type = serializers.CharField(required=False)
    scope = serializers.CharField(required=False, help_text="models, with spaces between")
    authorization_details = AuthorizationDetailSerializer(many=True, required=False)
    client_id = serializers.UUIDField(required=False, help_text="the grant")
    sub = serializers.UUIDField(required=False, help_text="its holder")
    username = serializers.EmailField(required=False, help_text="the holder's e-mail")
    iss = serializers.URLField(required=False)
    aud = serializers.CharField(
        required=False, help_text="the endpoint at the gateway, or whom a JWT is for"
    )
    jti = serializers.UUIDField(required=False, help_text="the credential; of a JWT the token")
    iat = serializers.IntegerField(required=False, help_text="seconds since 1970, as nbf and exp")
    nbf = serializers.IntegerField(required=False)
    exp = serializers.IntegerField(required=False)


class IntrospectionView(ApiView):
    """Ask what a credential is for (RFC 7662): for the endpoint's owner and auditors.

    `active` is false alike for what is unknown, over, or of an endpoint that isn't the caller's.
    """

    one_transaction = False
    parser_classes = (StrictFormParser, StrictJSONParser)
    verbs: ClassVar = {"post": Verb.READ}
    endpoint_path = "grant__request__profile__endpoint"

    @extend_schema(tags=["credentials"], request=AS_FORM, responses={200: IntrospectionSerializer})
    def post(self, request: Request) -> Response:
        """What a credential is for, if it holds at this moment."""
        secret = _token(request)
        by, token = caller(request), token_of(request)
        try:
            told = introspect(by=by, secret=secret, of=token.endpoints if token else ())
        except NotFound as refused:
            # Section 2.2: who may not see it isn't told that there is something to see.
            record_refusal(refused, by=by, method=request.method, path=request.path)
            told = INACTIVE
        return Response(told, headers={"Cache-Control": "no-store"})


class RevocationView(ApiView):
    """Take a credential back by its secret (RFC 7009): for whoever has it.

    The answer is the same for what is unknown or over already.
    """

    # Holding the secret is all that it takes: who found one must not need an account to end it.
    permission_classes = (AllowAny,)
    one_transaction = False
    parser_classes = (StrictFormParser, StrictJSONParser)

    @extend_schema(tags=["credentials"], request=AS_FORM, responses={200: None})
    def post(self, request: Request) -> Response:
        """Start revoking the credential of this secret. Its grant goes on."""
        by = request.user if isinstance(request.user, User) else None
        actions.take_back(by=by, secret=_token(request))
        return Response(headers={"Cache-Control": "no-store"})
