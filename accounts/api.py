"""What the API's views of every app stand on: the caller, and only what they may see."""

from collections.abc import Mapping
from typing import Any, TypeVar

from django.contrib.auth.models import AnonymousUser
from django.db.models import Model, QuerySet
from rest_framework import exceptions, serializers, viewsets
from rest_framework.request import Request

from accounts.door import fetch
from accounts.models import ApiToken, User
from accounts.parsers import StrictJSONParser

Row = TypeVar("Row", bound=Model)


def caller(request: Request) -> User:
    """The person on whose behalf this call is made; the permission classes let nobody else by."""
    user = request.user
    if isinstance(user, AnonymousUser):
        raise exceptions.NotAuthenticated
    return user


def is_token(request: Request) -> bool:
    """Whether this call came with an API token rather than a person's session."""
    return isinstance(request.auth, ApiToken)


class VisibleViewSet(viewsets.GenericViewSet[Row]):
    """Lists and fetches by `visible_to` the caller; the rest answers 404 and is audited."""

    lookup_value_converter = "uuid"
    parser_classes = (StrictJSONParser,)

    def get_queryset(self) -> QuerySet[Row]:
        rows = super().get_queryset()
        if getattr(self, "swagger_fake_view", False):
            return rows
        visible: QuerySet[Row] = rows.visible_to(caller(self.request))  # type: ignore[attr-defined]
        return visible

    def get_object(self) -> Row:
        return fetch(self.get_queryset(), self.kwargs["pk"])


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields that it doesn't know or that can't be written, by name.

    Dropping them in silence would tell a caller that `ends_at` or `state` was taken.
    """

    def to_internal_value(self, data: Any) -> Any:
        faults: dict[str, Any] = {}
        if isinstance(data, Mapping):
            writable = {name for name, field in self.fields.items() if not field.read_only}
            known = ", ".join(sorted(writable)) or "nothing"
            unknown = [str(key) for key in data if key not in writable]
            faults = dict.fromkeys(unknown, f"Can't be written here. What can be: {known}.")
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as error:
            # All that is wrong at once, not one thing after the other.
            detail: Any = error.detail
            raise serializers.ValidationError({**faults, **detail}) from error
        if faults:
            raise serializers.ValidationError(faults)
        return value


def check_empty(request: Request) -> None:
    """Refuse all that is sent to a verb that takes nothing, by name."""
    StrictSerializer(data=request.data).is_valid(raise_exception=True)
