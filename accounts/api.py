"""What the API's views of every app stand on: the caller, and only what they may see."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, TypeVar

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.db.models import Model, QuerySet
from django.urls import Resolver404, resolve, reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import exceptions, serializers, status, viewsets
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import idempotency, rate_limits, stepup
from accounts.door import fetch
from accounts.models import ApiToken, User
from accounts.parsers import StrictJSONParser
from accounts.scope_permission import token_of, within
from accounts.scopes import Verb
from broker.errors import NeedsPerson

Row = TypeVar("Row", bound=Model)

# In the OpenAPI document: the header that `created` sends.
LOCATION = OpenApiParameter(
    "Location",
    OpenApiTypes.URI,
    OpenApiParameter.HEADER,
    description="address of what was made, or of the change that waits",
    response=[201, 202],
)


def address(route: str, key: object) -> str:
    """Where this is; like all addresses, never built from a Host header."""
    return settings.KEYTURN_BASE_URL + reverse(route, args=[key])


def created(data: Any, route: str, key: object) -> Response:
    """201 with what was made, and its address."""
    headers = {"Location": address(route, key)}
    return Response(data, status=status.HTTP_201_CREATED, headers=headers)


def caller(request: Request) -> User:
    """The person on whose behalf this call is made; the permission classes let nobody else by."""
    user = request.user
    if isinstance(user, AnonymousUser):
        raise exceptions.NotAuthenticated
    return user


def is_token(request: Request) -> bool:
    """Whether this call came with an API token rather than a person's session."""
    return isinstance(request.auth, ApiToken)


# In the OpenAPI document: a session, or one's own token with a second factor.
IN_PERSON: Any = [{"session": []}, {"apiToken": [], "secondFactor": []}]


def check_person(request: Request, detail: str = "") -> None:
    """Raise NeedsPerson for the API token of a service account or workload, and StepUpNeeded for a
    person's that comes without a second factor: what it would do takes somebody who is there."""
    token = token_of(request)
    if token is None or token.proved_at is not None:
        return
    if not token.is_persons:
        raise NeedsPerson(detail)
    raise stepup.needed_in_call()


class ApiView(APIView):
    """What every call of the API goes through: it's counted, and with an Idempotency-Key it's
    carried out once.

    `one_transaction` is for what calls only PostgreSQL. What calls others, or has several
    transactions that are to stand by themselves, says that it's false.
    """

    one_transaction: ClassVar[bool] = True
    _standing: rate_limits.Standing | None = None

    def perform_authentication(self, request: Request) -> None:
        writes = request.method not in SAFE_METHODS
        try:
            super().perform_authentication(request)
        except exceptions.APIException:
            self._count(request, None, writes=writes)
            raise
        self._count(request, request.user, writes=writes)

    def _count(self, request: Request, user: User | AnonymousUser | None, *, writes: bool) -> None:
        who = (
            str(user.pk)
            if isinstance(user, User)
            else rate_limits.network(request.META.get("REMOTE_ADDR") or "")
        )
        self._standing = rate_limits.count(who, writes=writes)
        if self._standing is not None:
            self._standing.check()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        method = (request.method or "").lower()
        handler = getattr(self, method, None)
        if handler is None or request.method in SAFE_METHODS or not isinstance(request.user, User):
            return
        call = idempotency.call_of(request, request.user, partial(_sees, request))
        if call is not None:
            how = idempotency.in_one_transaction if self.one_transaction else idempotency.apart
            setattr(self, method, partial(_once, how, call, handler))

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        final = super().finalize_response(request, response, *args, **kwargs)
        if self._standing is not None:
            self._standing.tell(final)
        return final


def _once(how: Any, call: idempotency.Call, handler: Any, *args: Any, **kwargs: Any) -> Any:
    return how(call, partial(handler, *args, **kwargs))


def _sees(request: Request, path: str) -> bool:
    """Whether what has this path is there for the caller: what is no row of a VisibleViewSet is."""
    try:
        found = resolve(path)
    except Resolver404:
        return True
    kind = getattr(found.func, "cls", None)
    if kind is None or not issubclass(kind, VisibleViewSet) or "pk" not in found.kwargs:
        return True
    view = kind()
    view.request, view.args, view.kwargs, view.action = request, (), found.kwargs, "retrieve"
    return bool(view.get_queryset().filter(pk=found.kwargs["pk"]).exists())


class VisibleViewSet(ApiView, viewsets.GenericViewSet[Row]):
    """Lists and fetches by `visible_to` the caller; the rest answers 404 and is audited.

    `verbs` and `endpoint_path` are what accounts.scope_permission asks for.
    """

    lookup_value_converter = "uuid"
    parser_classes = (StrictJSONParser,)
    verbs: ClassVar[Mapping[str, Verb | None]] = {}
    endpoint_path: str | None = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        token = token_of(request)
        # Actions fetch by what the owner may see, which can be more than the token is for.
        if token is not None and token.endpoints and "pk" in self.kwargs:
            self.get_object()

    def get_queryset(self) -> QuerySet[Row]:
        rows = super().get_queryset()
        if getattr(self, "swagger_fake_view", False):
            return rows
        # Where rows are many, a list is found another way than one of them.
        find = getattr(rows, "listed_for", None) if self.action == "list" else None
        visible: QuerySet[Row] = (find or rows.visible_to)(caller(self.request))  # type: ignore[attr-defined]
        return self.within_token(visible)

    def within_token(self, rows: QuerySet[Row]) -> QuerySet[Row]:
        """Those of the endpoints that the call's token is for."""
        return within(self.request, rows, self.endpoint_path) if self.endpoint_path else rows

    def get_object(self) -> Row:
        return fetch(self.get_queryset(), self.kwargs["pk"])


def _mistyped(field: serializers.Field[Any, Any, Any, Any], value: Any) -> str:
    """What is wrong with a value's type, which JSON has and DRF would convert in silence."""
    match field:
        case serializers.ListField():
            rows = value if isinstance(value, list) else []
            return next(filter(None, (_mistyped(field.child, row) for row in rows)), "")
        case serializers.BooleanField():
            right, words = isinstance(value, bool), "Must be true or false."
        case serializers.IntegerField():
            right = isinstance(value, int) and not isinstance(value, bool)
            words = "Must be a whole number."
        case (
            serializers.CharField()
            | serializers.ChoiceField()
            | serializers.UUIDField()
            | serializers.DateTimeField()
            | serializers.DateField()
            | serializers.DurationField()
            | serializers.DecimalField()
        ):
            right, words = isinstance(value, str), "Must be a string."
        case _:
            return ""
    return "" if right or value is None else words


class WordsField(serializers.CharField):
    """A text that mustn't be empty. If it is, its action says so, with all else that is wrong."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_blank=True, **options)


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields that it doesn't know or that can't be written, and types that JSON tells
    apart, by name.

    Dropping them in silence would tell a caller that `ends_at` or `state` was taken.
    """

    def to_internal_value(self, data: Any) -> Any:
        faults: dict[str, Any] = {}
        if isinstance(data, Mapping):
            writable = {name for name, field in self.fields.items() if not field.read_only}
            known = ", ".join(sorted(writable)) or "nothing"
            unknown = [str(key) for key in data if key not in writable]
            faults = dict.fromkeys(unknown, f"Can't be written here. What can be: {known}.")
            for name in writable & data.keys():
                if fault := _mistyped(self.fields[name], data[name]):
                    faults[name] = fault
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as error:
            # All that is wrong at once, not one thing after the other.
            detail: Any = error.detail
            raise serializers.ValidationError({**faults, **detail}) from error
        if faults:
            raise serializers.ValidationError(faults)
        return value


def said_in(kind: type[StrictSerializer], request: Request) -> dict[str, Any]:
    """What the body of this call says, as this kind of body. Raises ValidationError."""
    body = kind(data=request.data)
    body.is_valid(raise_exception=True)
    said: dict[str, Any] = body.validated_data
    return said


def check_empty(request: Request) -> None:
    """Refuse all that is sent to a verb that takes nothing, by name."""
    StrictSerializer(data=request.data).is_valid(raise_exception=True)
