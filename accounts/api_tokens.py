"""API tokens: made, listed, revoked; and reported by whoever finds one."""

from typing import Any

from django.conf import settings
from django.db.models import Q, QuerySet
from django.urls import reverse
from django.views.decorators.debug import sensitive_variables
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import actions, leaks, scopes, stepup, tokens
from accounts.actions.tokens import NAME_LENGTH, TOKEN_DAYS
from accounts.api import (
    IN_PERSON,
    ApiView,
    StrictSerializer,
    VisibleViewSet,
    caller,
    check_empty,
    check_person,
    said_in,
)
from accounts.models import ApiToken, User
from accounts.parsers import StrictJSONParser
from accounts.scope_permission import token_of
from accounts.scopes import BY_ITSELF, Verb
from broker.errors import InvalidInput


class ApiTokenSerializer(serializers.ModelSerializer[ApiToken]):
    owner = serializers.EmailField(source="owner.email", read_only=True)
    begins_with = serializers.SerializerMethodField(help_text="what may be logged of it")
    verbs = serializers.ListField(child=serializers.ChoiceField(Verb.choices), read_only=True)
    endpoints = serializers.ListField(
        child=serializers.UUIDField(),
        read_only=True,
        help_text="ids of those it is for; empty for all",
    )

    class Meta:
        model = ApiToken
        fields: tuple[str, ...] = (
            "id",
            "owner",
            "name",
            "kind",
            "begins_with",
            "verbs",
            "endpoints",
            "created_at",
            "expires_at",
            "last_used_at",
            "last_used_from",
            "revoked_at",
            "reported_at",
        )
        read_only_fields = fields

    def get_begins_with(self, row: ApiToken) -> str:
        return f"kt_{row.kind}_{row.lookup}_"


class MadeTokenSerializer(ApiTokenSerializer):
    token = serializers.CharField(read_only=True, help_text="shown in this answer and never again")

    class Meta(ApiTokenSerializer.Meta):
        fields = (*ApiTokenSerializer.Meta.fields, "token")
        read_only_fields = fields


class NewTokenSerializer(StrictSerializer):
    name = serializers.CharField(max_length=NAME_LENGTH, help_text="what will use it")
    days = serializers.IntegerField(
        min_value=1, max_value=TOKEN_DAYS, default=30, help_text="until it expires"
    )
    verbs = serializers.ListField(
        child=serializers.ChoiceField(Verb.choices),
        default=list(BY_ITSELF),
        max_length=len(Verb),
        help_text=f"what it is for; {', '.join(BY_ITSELF)} when left out",
    )
    endpoints = serializers.ListField(
        child=serializers.SlugField(),
        default=list,
        max_length=1000,
        help_text="slugs of those it is for; all when left out",
    )
    owner = serializers.EmailField(
        required=False, help_text="a service account that you own; you when left out"
    )


class ApiTokenViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, VisibleViewSet[ApiToken]):
    """API tokens: one's own, and those of service accounts that one owns; all for auditors and
    administrators."""

    queryset = ApiToken.objects.all()
    serializer_class: Any = ApiTokenSerializer
    filterset_fields = ("kind",)

    def get_queryset(self) -> QuerySet[ApiToken]:
        return super().get_queryset().select_related("owner").order_by()

    @extend_schema(request=NewTokenSerializer, responses={201: MadeTokenSerializer}, auth=IN_PERSON)
    @sensitive_variables("text")
    def create(self, request: Request) -> Response:
        """Make an API token for oneself, or for a service account that one owns. Takes a person,
        with a second factor proved for `token:<owner's id>`. One made with another token is for
        no more and for no longer than that."""
        check_person(request)
        by, said = caller(request), said_in(NewTokenSerializer, request)
        owner = _owner(by, said.pop("owner", None))
        row, text = actions.create_token(
            by=by,
            owner=owner,
            name=said["name"],
            days=said["days"],
            verbs=said["verbs"],
            endpoints=scopes.ids_of(owner, said["endpoints"]),
            proofs=stepup.proofs(request),
            within=token_of(request),
        )
        row.token = text  # type: ignore[attr-defined]
        return Response(
            MadeTokenSerializer(row).data,
            status=status.HTTP_201_CREATED,
            headers={
                "Cache-Control": "no-store",
                "Location": settings.KEYTURN_BASE_URL + reverse("api-token-detail", args=[row.pk]),
            },
        )

    @extend_schema(request=None, responses={200: ApiTokenSerializer})
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Make it good for nothing; repeating it changes nothing."""
        row = self.get_object()
        check_empty(request)
        actions.revoke_token(by=caller(request), token=row)
        return Response(ApiTokenSerializer(self.get_object()).data)


def _owner(by: User, email: str | None) -> User:
    if email is None:
        return by
    mine = User.objects.active().filter(Q(pk=by.pk) | Q(owner=by))
    found = mine.filter(email=User.objects.normalize_email(email)).first()
    if found is None:
        raise InvalidInput({"owner": "Must be you, or a service account that you own."})
    return found


class FoundTokenSerializer(StrictSerializer):
    token = serializers.CharField(max_length=200, help_text="the whole token")
    url = serializers.CharField(
        max_length=2000, required=False, default="", help_text="where it was found"
    )


class PatternSerializer(serializers.Serializer[Any]):
    regex = serializers.CharField(help_text="of a token, for PCRE, RE2, Python and JavaScript")
    checksum = serializers.CharField(help_text="how its last part is computed")
    report_to = serializers.URLField()


@extend_schema(tags=["tokens"])
class ReportTokenView(ApiView):
    """For whoever finds a token."""

    # Having it is all that it takes: who found one must not need an account to end it.
    authentication_classes = ()
    permission_classes = (AllowAny,)
    parser_classes = (StrictJSONParser,)

    @extend_schema(
        operation_id="tokens_report_leak",
        request=FoundTokenSerializer,
        responses={204: None},
    )
    @sensitive_variables("said")
    def post(self, request: Request) -> Response:
        """Report a token that was found somewhere: it is revoked at once, and whoever answers for
        it is told. The answer is the same for what is no token."""
        said = said_in(FoundTokenSerializer, request)
        leaks.report(text=said["token"].strip(), url=said["url"])
        return Response(status=status.HTTP_204_NO_CONTENT)


@extend_schema(tags=["tokens"])
class TokenPatternView(ApiView):
    """For secret scanners."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(operation_id="tokens_pattern", responses={200: PatternSerializer})
    def get(self, request: Request) -> Response:  # noqa: ARG002
        """How Keyturn's tokens are recognised, for secret scanners."""
        return Response(
            {
                "regex": rf"\b{tokens.PATTERN.pattern}\b",
                "checksum": "CRC-32 (as zlib's), in 8 lowercase hexadecimal digits, of all that "
                "stands before the last underscore",
                "report_to": settings.KEYTURN_BASE_URL + reverse("api-token-report-leak"),
            }
        )
