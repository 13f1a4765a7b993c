"""Which agents may act on one's behalf."""

from typing import ClassVar

import django_filters
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import actions, stepup
from accounts.api import (
    IN_PERSON,
    LOCATION,
    StrictSerializer,
    VisibleViewSet,
    caller,
    check_empty,
    check_person,
    created,
    said_in,
)
from accounts.models import AgentConsent
from accounts.scopes import Verb

ALONE = "Only a person lets an agent act on their behalf."


class AllowSerializer(StrictSerializer):
    agent = serializers.EmailField(help_text="e-mail address of the service account")
    until = serializers.DateTimeField(
        required=False, help_text="until you take it back, when left out"
    )


class AgentSerializer(serializers.ModelSerializer[AgentConsent]):
    """That a person lets an agent ask for access on their behalf."""

    agent = serializers.EmailField(source="agent.email", read_only=True)
    person = serializers.EmailField(source="person.email", read_only=True)

    class Meta:
        model = AgentConsent
        fields = ("id", "agent", "person", "given_at", "until", "taken_back_at")
        read_only_fields = fields


class AgentFilter(django_filters.FilterSet):
    agent = django_filters.CharFilter(field_name="agent__email", label="its e-mail")
    person = django_filters.CharFilter(field_name="person__email", label="their e-mail")
    standing = django_filters.BooleanFilter(method="by_standing", label="whether it holds now")

    def by_standing(
        self, rows: QuerySet[AgentConsent], _name: str, value: bool
    ) -> QuerySet[AgentConsent]:
        standing = AgentConsent.objects.standing().values("pk")
        return rows.filter(pk__in=standing) if value else rows.exclude(pk__in=standing)


@extend_schema_view(
    create=extend_schema(
        request=AllowSerializer,
        responses={201: AgentSerializer},
        parameters=[LOCATION],
        auth=IN_PERSON,
    ),
)
class AgentViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, VisibleViewSet[AgentConsent]):
    """Which agents may ask on whose behalf: one's own and one's service accounts' consents;
    administrators and auditors see all."""

    queryset = AgentConsent.objects.select_related("agent", "person").order_by()
    serializer_class = AgentSerializer
    filterset_class = AgentFilter
    verbs: ClassVar = {"take_back": Verb.END}

    def create(self, request: Request) -> Response:
        """Let a service account ask for access on your behalf, never for more than you may have.
        Takes you in person, and a second factor where you have one."""
        check_person(request, ALONE)
        said = said_in(AllowSerializer, request)
        row = actions.allow_agent(by=caller(request), proofs=stepup.proofs(request), **said)
        return created(AgentSerializer(row).data, "api-agent-detail", row.pk)

    @extend_schema(request=None, responses={200: AgentSerializer})
    @action(detail=True, methods=["post"], url_path="take-back")
    def take_back(self, request: Request, pk: str) -> Response:
        """No longer let it. What it asked for is withdrawn and what it holds for you ends, within
        seconds. Also for its owner and administrators."""
        check_empty(request)
        row = actions.take_back_agent(by=caller(request), consent_id=pk)
        return Response(AgentSerializer(row).data)
