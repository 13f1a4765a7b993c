"""Grants: checking out under them, ending them; credentials and their states."""

from typing import Any, cast

import django_filters
from django.conf import settings
from django.db.models import F, OuterRef, Subquery
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accessrequests.models import Grant
from accessrequests.states import GrantState
from accounts.api import VisibleViewSet, caller, check_empty
from audit import clock
from credentials import actions
from credentials.models import Credential
from endpoints.api import ScopeSerializer


class GrantSerializer(serializers.ModelSerializer[Grant]):
    holder = serializers.EmailField(source="holder.email", read_only=True)
    endpoint = serializers.SlugField(source="request.profile.endpoint.slug", read_only=True)
    scope = ScopeSerializer(read_only=True)
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

    class Meta:
        model = Grant
        fields = (
            "id",
            "request",
            "holder",
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
        )
        read_only_fields = fields

    def get_is_live(self, grant: Grant) -> bool:
        # The clock is the database's: it's asked once a page, not once a row.
        context = cast(dict[str, Any], self.context)
        if "now" not in context:
            context["now"] = clock.now()
        return grant.is_live(context["now"])


class CredentialSerializer(serializers.ModelSerializer[Credential]):
    name = serializers.CharField(read_only=True, help_text="its name in Vault")

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
            "revoking_since",
            "revoke_reason",
            "revoked_at",
            "proof",
            "attempts",
            "last_error",
        )
        read_only_fields = fields


class CheckedOutSerializer(serializers.Serializer[Any]):
    credential = CredentialSerializer()
    secret = serializers.CharField(help_text="shown in this answer and never again")
    base_url = serializers.URLField(help_text="for OpenAI clients append /v1")
    expires_at = serializers.DateTimeField()


class GrantFilter(django_filters.FilterSet):
    state = django_filters.ChoiceFilter(choices=GrantState.choices)
    # The metaclass takes it out of the class, where `request` is the HTTP request.
    request = django_filters.UUIDFilter()  # type: ignore[assignment]
    endpoint = django_filters.CharFilter(
        field_name="request__profile__endpoint__slug", label="its slug"
    )
    holder = django_filters.CharFilter(field_name="holder__email", label="their e-mail")
    extends = django_filters.UUIDFilter(field_name="request__extends", label="a grant's id")


class GrantViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, VisibleViewSet[Grant]):
    """Grants: the caller's own, and those of profiles that they review."""

    queryset = (
        Grant.objects.select_related(
            "holder",
            "request__requester",
            "request__profile__endpoint",
            "request__profile__reviewers",
        )
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

    @extend_schema(request=None, responses={201: CheckedOutSerializer})
    @action(detail=True, methods=["post"])
    def credentials(self, request: Request, pk: str) -> Response:
        """Check a credential out. The one that was out before is revoked."""
        check_empty(request)
        out = actions.check_out(by=caller(request), grant_id=pk)
        grant = out.credential.grant
        body = CheckedOutSerializer(
            {
                "credential": out.credential,
                "secret": out.secret,
                "base_url": f"{settings.KEYTURN_GATEWAY_URL}/e/"
                f"{grant.request.profile.endpoint.slug}",
                "expires_at": grant.ends_at,
            }
        )
        return Response(
            body.data, status=status.HTTP_201_CREATED, headers={"Cache-Control": "no-store"}
        )

    @extend_schema(request=None, responses={200: GrantSerializer})
    @action(detail=True, methods=["post"])
    def end(self, request: Request, pk: str) -> Response:
        """End a grant now. What is out under it is refused at once and revoked."""
        check_empty(request)
        actions.end_grant(by=caller(request), grant_id=pk)
        return Response(GrantSerializer(self.get_object()).data)


class CredentialViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, VisibleViewSet[Credential]
):
    """What was minted under the grants that the caller may see, and whether it's proven gone."""

    queryset = Credential.objects.order_by()
    serializer_class = CredentialSerializer
    filterset_fields = ("state", "grant")
