"""Filing, reading, reviewing and cancelling access requests."""

import uuid
from typing import Any, ClassVar

import django_filters
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view
from rest_framework import serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from accessrequests import actions
from accessrequests.api.asking import (
    DurationField,
    FileSerializer,
    PreviewedSerializer,
    PreviewSerializer,
    TogetherSerializer,
    previewed,
)
from accessrequests.api.reviews import DecideSerializer, ReviewSerializer
from accessrequests.api.talking import (
    CommentSerializer,
    HandOverSerializer,
    HandSerializer,
    SaySerializer,
)
from accessrequests.models import AccessRequest, Comment, Grant, Review
from accessrequests.routing import reviewers_of
from accessrequests.states import RequestState
from accounts import stepup
from accounts.api import (
    IN_PERSON,
    LOCATION,
    caller,
    check_empty,
    check_person,
    created,
)
from accounts.details import Details, Lists
from accounts.expanding import ExpandedSerializer, Expansion, Expansions, listed_by
from accounts.filters import MadeFilter, PersonFilter
from accounts.models import User
from accounts.preconditions import Expected, expected
from accounts.scope_permission import check_endpoints
from accounts.scopes import Verb
from accounts.standing import check_standing
from audit import clock
from endpoints.api import ProfileViewSet, ScopeSerializer
from endpoints.models import AccessProfile


class AppliedSerializer(serializers.Serializer[Any]):
    slug = serializers.CharField()
    name = serializers.CharField()
    version = serializers.IntegerField(help_text="0 is the built-in one")


class StepSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    needed = serializers.IntegerField(help_text="approvals by so many different people")
    given = serializers.IntegerField()
    approved_by = serializers.ListField(child=serializers.EmailField())
    skipped = serializers.BooleanField(help_text="by the policy's own condition")
    state = serializers.ChoiceField(
        choices=["skipped", "approved", "denied", "waiting", "to_come", "not_needed"]
    )


class OwedSerializer(serializers.Serializer[Any]):
    until = serializers.DateTimeField()
    done_at = serializers.DateTimeField(allow_null=True)


def _reviews(_: Any, rows: Any) -> dict[Any, Any]:
    return {row.pk: ReviewSerializer(row.reviews.all(), many=True).data for row in rows}


# `grant` comes from the layer above, as it starts.
EXPANSIONS: Expansions = {
    "profile": listed_by(ProfileViewSet, key="profile_id"),
    "reviews": Expansion(ReviewSerializer, _reviews, many=True),
}


class RequestExpandedSerializer(ExpandedSerializer):
    expansions = EXPANSIONS


class RequestRows(serializers.ListSerializer[Any]):
    """Looks up for all rows at once whom they wait for."""

    def to_representation(self, data: Any) -> Any:
        rows = list(data)
        child: Any = self.child
        child.reviewers = reviewers_of(rows)
        return super().to_representation(rows)


class RequestSerializer(serializers.ModelSerializer[AccessRequest]):
    requester = serializers.EmailField(source="requester.email", read_only=True)
    on_behalf_of = serializers.EmailField(
        source="on_behalf_of.email",
        read_only=True,
        allow_null=True,
        default=None,
        help_text="for whom an agent asks",
    )
    endpoint = serializers.SlugField(source="profile.endpoint.slug", read_only=True)
    scope = ScopeSerializer(read_only=True)
    duration = DurationField(read_only=True)
    extends = serializers.PrimaryKeyRelatedField[Grant](
        read_only=True, allow_null=True, help_text="the grant that this one's would follow"
    )
    raises = serializers.PrimaryKeyRelatedField[Grant](
        read_only=True, allow_null=True, help_text="the grant whose budgets it asks to raise"
    )
    together = serializers.UUIDField(
        read_only=True, allow_null=True, help_text="shared by all that were asked for at once"
    )
    policy = serializers.SerializerMethodField(help_text="what applied when it was filed")
    steps = serializers.SerializerMethodField(help_text="of the policy, in order")
    waits_for = serializers.SerializerMethodField(help_text="who may decide it at this moment")
    review_owed = serializers.SerializerMethodField(
        help_text="of break-glass access: its review afterwards"
    )
    grant = serializers.PrimaryKeyRelatedField[Grant](
        read_only=True, help_text="once approved", allow_null=True
    )
    expanded = RequestExpandedSerializer(required=False, help_text="see `expand`")
    reviewers: dict[object, list[User]] | None = None

    class Meta:
        model = AccessRequest
        list_serializer_class = RequestRows
        fields: tuple[str, ...] = (
            "id",
            "state",
            "profile",
            "endpoint",
            "requester",
            "on_behalf_of",
            "run",
            "task",
            "scope",
            "duration",
            "starts_at",
            "justification",
            "ticket",
            "automatic",
            "break_glass",
            "extends",
            "raises",
            "together",
            "created_at",
            "pending_until",
            "decide_by",
            "policy",
            "steps",
            "waits_for",
            "decided_at",
            "decided_by",
            "review_owed",
            "grant",
            "expanded",
        )
        read_only_fields = fields

    @extend_schema_field(AppliedSerializer(many=True))
    def get_policy(self, request: AccessRequest) -> list[dict[str, Any]]:
        return [
            {"slug": each["slug"], "name": each["name"], "version": each["version"]}
            for each in request.policy["policies"]
        ]

    @extend_schema_field(StepSerializer(many=True))
    def get_steps(self, request: AccessRequest) -> list[dict[str, Any]]:
        return [_step(request, at, needs) for at, needs in enumerate(request.policy["steps"])]

    @extend_schema_field(serializers.ListField(child=serializers.EmailField()))
    def get_waits_for(self, request: AccessRequest) -> list[str]:
        found = self.reviewers if self.reviewers is not None else reviewers_of([request])
        done = {review.reviewer_id for review in request.reviews.all()}
        return [person.email for person in found[request.pk] if person.pk not in done]

    @extend_schema_field(OwedSerializer(allow_null=True))
    def get_review_owed(self, request: AccessRequest) -> dict[str, Any] | None:
        if not request.break_glass:
            return None
        return dict(
            OwedSerializer({"until": request.decide_by, "done_at": request.reviewed_at}).data
        )

    def to_representation(self, instance: AccessRequest) -> dict[str, Any]:
        grant = getattr(instance, "grant", None)
        instance.grant_id = grant.pk if grant else None  # type: ignore[attr-defined]
        return super().to_representation(instance)


def _step(request: AccessRequest, at: int, needs: dict[str, Any]) -> dict[str, Any]:
    reviews = [review for review in request.reviews.all() if review.step == at]
    by = [r.reviewer.email for r in reviews if r.verdict == Review.Verdict.APPROVE]
    pending = request.state == RequestState.PENDING
    owed = request.break_glass and request.reviewed_at is None
    # What break-glass access owes is one review, whatever the policy asks for beforehand.
    enough = 1 if request.break_glass else needs["approvals"]
    if needs["skipped"]:
        state = "skipped"
    elif len(by) < len(reviews):
        state = "denied"
    elif len(by) >= enough:
        state = "approved"
    elif (pending or owed) and at == request.step:
        state = "waiting"
    else:
        state = "to_come" if pending else "not_needed"
    return {
        "name": needs["name"],
        "needed": needs["approvals"],
        "given": len(by),
        "approved_by": by,
        "skipped": needs["skipped"],
        "state": state,
    }


class RequestFilter(django_filters.FilterSet):
    state = django_filters.MultipleChoiceFilter(choices=RequestState.choices, distinct=False)
    profile = django_filters.UUIDFilter()
    endpoint = django_filters.CharFilter(field_name="profile__endpoint__slug", label="its slug")
    requester = PersonFilter(field_name="requester__email", label="their e-mail, or `me`")
    on_behalf_of = PersonFilter(field_name="on_behalf_of__email", label="their e-mail, or `me`")
    run = django_filters.CharFilter()
    ticket = django_filters.CharFilter()
    automatic = django_filters.BooleanFilter()
    break_glass = django_filters.BooleanFilter()
    extends = django_filters.UUIDFilter()
    raises = django_filters.UUIDFilter()
    together = django_filters.UUIDFilter()
    since = MadeFilter(field_name="created_at", lookup_expr="gte", label="filed from then on")
    until = MadeFilter(field_name="created_at", lookup_expr="lt", label="filed before that")


# What a request is shown with, in a constant number of queries.
SHOWN = AccessRequest.objects.select_related(
    "profile__endpoint", "requester", "on_behalf_of", "grant"
).prefetch_related("reviews__reviewer")


def _check_profiles(request: Request, *profiles: uuid.UUID) -> None:
    rows = AccessProfile.objects.filter(pk__in=profiles)
    check_endpoints(request, rows.values_list("endpoint_id", flat=True))


@extend_schema_view(
    create=extend_schema(
        request=FileSerializer, responses={201: RequestSerializer}, parameters=[LOCATION]
    ),
)
class RequestViewSet(Lists[AccessRequest], Details[AccessRequest]):
    """Access requests: the caller's own, and those that they may review."""

    queryset = SHOWN.order_by()
    serializer_class = RequestSerializer
    filterset_class = RequestFilter
    endpoint_path = "profile__endpoint"
    verbs: ClassVar = {
        "create": Verb.REQUEST,
        "preview": Verb.REQUEST,
        "together": Verb.REQUEST,
        "cancel": Verb.REQUEST,
        "comments": Verb.REQUEST,
        "reviews": Verb.REVIEW,
        "hand_over": Verb.REVIEW,
    }
    expansions = EXPANSIONS
    waits_while = (RequestState.PENDING,)
    if_match = ("reviews", "cancel")

    def _expected(self) -> Expected:
        """By If-Match: that it is decided as it was looked at."""

        def shown(row: AccessRequest) -> Any:
            return RequestSerializer(SHOWN.get(pk=row.pk)).data

        return expected(self.request, shown)

    def create(self, request: Request) -> Response:
        """Ask for access. Where the policy decides by itself, the answer has its grant already."""
        body = FileSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        asked = dict(body.validated_data)
        _check_profiles(request, asked["profile"])
        if asked.get("break_glass"):
            check_person(request, "Access before a review takes a person.")
        filed = actions.file_request(
            by=caller(request),
            profile_id=asked.pop("profile"),
            proofs=stepup.proofs(request),
            **asked,
        )
        shown = RequestSerializer(self.get_queryset().get(pk=filed.pk))
        return created(shown.data, "api-request-detail", filed.pk)

    @extend_schema(request=PreviewSerializer, responses={200: PreviewedSerializer})
    @action(detail=False, methods=["post"], filter_backends=())
    def preview(self, request: Request) -> Response:
        """What an ask would come to: may I, why not, who would have to approve, until when. What
        policy refuses is in the answer. Writes nothing."""
        body = PreviewSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        asked = dict(body.validated_data)
        _check_profiles(request, asked["profile"])
        found = previewed(caller(request), asked.pop("profile"), asked, clock.now())
        return Response(PreviewedSerializer(found).data)

    @extend_schema(
        request=TogetherSerializer, responses={201: RequestSerializer(many=True)}, filters=False
    )
    @action(detail=False, methods=["post"], pagination_class=None, filter_backends=())
    def together(self, request: Request) -> Response:
        """Ask for several profiles at once: a request and a review for each. All are filed or
        none; what is wrong is named by profile and field."""
        body = TogetherSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        asked = dict(body.validated_data)
        _check_profiles(request, *asked["profiles"])
        if asked.get("break_glass"):
            check_person(request, "Access before a review takes a person.")
        filed = actions.file_together(
            by=caller(request),
            profile_ids=asked.pop("profiles"),
            proofs=stepup.proofs(request),
            **asked,
        )
        rows = self.get_queryset().in_bulk([row.pk for row in filed])
        shown = [rows[row.pk] for row in filed]
        return Response(RequestSerializer(shown, many=True).data, status=status.HTTP_201_CREATED)

    @extend_schema(methods=["get"], responses=ReviewSerializer(many=True), filters=False)
    @extend_schema(
        methods=["post"],
        request=DecideSerializer,
        responses={201: ReviewSerializer},
        auth=IN_PERSON,
    )
    # Whoever let a reviewer in is asked about them.
    @action(
        detail=True,
        methods=["get", "post"],
        pagination_class=None,
        filter_backends=(),
        one_transaction=False,
    )
    def reviews(self, request: Request, pk: str) -> Response:
        """The verdicts on a request; POST adds the caller's own, which takes a person with a second
        factor."""
        if request.method != "POST":
            rows = self.get_object().reviews.select_related("reviewer")
            return Response(ReviewSerializer(rows, many=True).data)
        self.get_object()
        check_person(request)
        check_standing(request)
        body = DecideSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        said = dict(body.validated_data)
        review = actions.review_request(
            by=caller(request),
            request_id=pk,
            verdict=Review.Verdict(said.pop("verdict")),
            proofs=stepup.proofs(request),
            expected=self._expected(),
            **said,
        )
        return Response(ReviewSerializer(review).data, status=status.HTTP_201_CREATED)

    @extend_schema(methods=["get"], responses=CommentSerializer(many=True), filters=False)
    @extend_schema(methods=["post"], request=SaySerializer, responses={201: CommentSerializer})
    @action(detail=True, methods=["get", "post"], pagination_class=None, filter_backends=())
    def comments(self, request: Request, pk: str) -> Response:
        """What was said about a request, oldest first; POST adds a comment, or a question to its
        requester."""
        if request.method != "POST":
            rows = self.get_object().comments.select_related("author")
            return Response(CommentSerializer(rows, many=True).data)
        self.get_object()
        body = SaySerializer(data=request.data)
        body.is_valid(raise_exception=True)
        row = actions.comment(
            by=caller(request),
            request_id=pk,
            text=body.validated_data["text"],
            kind=Comment.Kind(body.validated_data.get("kind", Comment.Kind.COMMENT)),
        )
        return Response(CommentSerializer(row).data, status=status.HTTP_201_CREATED)

    @extend_schema(methods=["get"], responses=HandOverSerializer(many=True), filters=False)
    @extend_schema(methods=["post"], request=HandSerializer, responses={201: HandOverSerializer})
    @action(
        detail=True,
        methods=["get", "post"],
        url_path="hand-over",
        pagination_class=None,
        filter_backends=(),
    )
    def hand_over(self, request: Request, pk: str) -> Response:
        """Who asked whom to decide in their place; POST asks another reviewer. Who may decide
        stays as it is."""
        if request.method != "POST":
            rows = self.get_object().hand_overs.select_related("by", "to")
            return Response(HandOverSerializer(rows, many=True).data)
        self.get_object()
        body = HandSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        row = actions.hand_over(by=caller(request), request_id=pk, **body.validated_data)
        return Response(HandOverSerializer(row).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=None, responses={200: RequestSerializer})
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Take one's own pending request back."""
        check_empty(request)
        actions.cancel_request(by=caller(request), request_id=pk, expected=self._expected())
        return Response(RequestSerializer(self.get_object()).data)
