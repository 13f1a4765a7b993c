"""Endpoints and access profiles, as far as the caller may see them."""

import django_filters
from django.conf import settings
from rest_framework import mixins, serializers

from accounts.api import StrictSerializer, VisibleViewSet
from endpoints.kinds import Revocation
from endpoints.models import AccessProfile, Endpoint
from endpoints.scope import ANY_TOOL, MOST, MOST_NAMES, NAME_LENGTH


def _names(about: str) -> serializers.ListField:
    return serializers.ListField(
        child=serializers.CharField(max_length=NAME_LENGTH),
        required=False,
        max_length=MOST_NAMES,
        help_text=about,
    )


def _limit(about: str) -> serializers.IntegerField:
    return serializers.IntegerField(
        required=False, min_value=1, max_value=MOST, help_text=about or None
    )


class ScopeSerializer(StrictSerializer):
    """A scope, or the parts of one that are named."""

    models = _names("as the upstream knows them")
    tools = _names(f"functions; server:<type> is run by the provider, {ANY_TOOL} any by the client")
    mcp_hosts = _names("servers that the provider may call on the model's behalf")
    operations = _names('of a plain HTTP endpoint, a method and a path prefix: "GET /api/"')
    max_output_tokens = _limit("in one answer")
    requests_per_minute = _limit("")
    concurrency = _limit("calls at once")
    token_budget = _limit("of a grant in all")
    cost_budget = serializers.RegexField(
        r"^(?=.*[1-9])[0-9]{1,7}(\.[0-9]{1,4})?$",
        required=False,
        error_messages={
            "invalid": 'Must be an amount in US dollars above 0, such as "12.50".',
        },
        help_text='US dollars of a grant in all, such as "12.50"',
    )


class EndpointSerializer(serializers.ModelSerializer[Endpoint]):
    owner = serializers.EmailField(source="owner.email", read_only=True)
    gateway_url = serializers.SerializerMethodField(help_text="what clients take as base URL")

    class Meta:
        model = Endpoint
        fields = (
            "id",
            "slug",
            "name",
            "description",
            "kind",
            "environment",
            "risk",
            "connected_systems",
            "dialects",
            "owner",
            "gateway_url",
            "retired_at",
        )
        read_only_fields = fields

    def get_gateway_url(self, endpoint: Endpoint) -> str | None:
        if endpoint.is_direct:
            return None
        return f"{settings.KEYTURN_GATEWAY_URL}/e/{endpoint.slug}"


class ProfileSerializer(serializers.ModelSerializer[AccessProfile]):
    endpoint = serializers.SlugRelatedField[Endpoint](slug_field="slug", read_only=True)
    models = serializers.ListField(
        child=serializers.CharField(), source="scope.models", read_only=True, default=list
    )
    default_models = serializers.SerializerMethodField(help_text="those of the default scope")
    scope = ScopeSerializer(read_only=True, help_text="the ceiling")
    default_scope = ScopeSerializer(
        source="default_scope.as_json",
        read_only=True,
        help_text="what an ask gets that names nothing",
    )
    aliases = serializers.DictField(
        child=serializers.CharField(),
        read_only=True,
        help_text="names that clients may use for a model",
    )
    requesters = serializers.SlugField(source="requesters.slug", read_only=True)
    reviewers = serializers.SlugField(source="reviewers.slug", read_only=True)
    default_duration = serializers.DurationField(format="iso-8601", read_only=True)
    max_duration = serializers.DurationField(format="iso-8601", read_only=True)
    credential = serializers.CharField(
        source="in_words", read_only=True, help_text="what one gets, and how it ends"
    )
    revocation = serializers.ChoiceField(
        choices=Revocation.choices,
        read_only=True,
        help_text="how a credential can be taken back",
    )

    class Meta:
        model = AccessProfile
        fields: tuple[str, ...] = (
            "id",
            "endpoint",
            "slug",
            "name",
            "description",
            "credential_kind",
            "credential",
            "models",
            "default_models",
            "scope",
            "default_scope",
            "aliases",
            "default_duration",
            "max_duration",
            "revocation",
            "requesters",
            "reviewers",
            "retired_at",
        )
        read_only_fields = fields

    def get_default_models(self, profile: AccessProfile) -> list[str]:
        return sorted(profile.default_scope.models)


class ProfileFilter(django_filters.FilterSet):
    endpoint = django_filters.CharFilter(field_name="endpoint__slug", label="its slug")
    slug = django_filters.CharFilter()


class EndpointViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, VisibleViewSet[Endpoint]):
    """What may be asked for, reviewed or is owned by the caller."""

    queryset = Endpoint.objects.select_related("owner").order_by()
    endpoint_path = "pk"
    serializer_class = EndpointSerializer
    filterset_fields = ("slug", "kind", "environment", "risk")


class ProfileViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, VisibleViewSet[AccessProfile]
):
    """Access profiles: what may be asked for, for how long at most, and who reviews it."""

    queryset = AccessProfile.objects.select_related(
        "endpoint", "requesters", "reviewers"
    ).order_by()
    serializer_class = ProfileSerializer
    filterset_class = ProfileFilter
    endpoint_path = "endpoint"
