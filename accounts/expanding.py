"""`?expand=`: what hangs on a thing, in the same answer.

An id stays where it is, and what it stands for comes beside it under `expanded`, so that every
field has one type. It is what the thing's own list would show this caller, and null otherwise.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar

from django.db.models import Model
from rest_framework import exceptions, serializers
from rest_framework.request import Request
from rest_framework.viewsets import GenericViewSet

from accounts.filters import EXPAND
from accounts.preconditions import EXPANDED
from broker.errors import Forbidden, InvalidInput

Rows = Sequence[Model]


@dataclass(frozen=True)
class Expansion:
    """What one name stands for. `find` gives for all rows at once, by their keys, what is shown
    to the caller of this view."""

    serializer: type[serializers.BaseSerializer[Any]]
    find: Callable[[GenericViewSet[Any], Rows], dict[Any, Any]]
    many: bool = False


Expansions = dict[str, Expansion]


def listed_by(
    view: type[GenericViewSet[Any]], *, key: str, by: str = "pk", **where: Any
) -> Expansion:
    """What this view lists: the row whose `by` is the `key` of the other, and that is `where`."""
    at, of = attrgetter(key), attrgetter(by)

    def find(asked: GenericViewSet[Any], rows: Rows) -> dict[Any, Any]:
        other: Any = view()
        other.request, other.args, other.kwargs, other.format_kwarg = asked.request, (), {}, None
        other.action, other.get = "retrieve", other.list
        try:
            other.check_permissions(asked.request)
        except (Forbidden, exceptions.PermissionDenied):
            return {}
        wanted = {at(row) for row in rows} - {None}
        found = list(other.get_queryset().filter(**{f"{by}__in": wanted}, **where))
        shown = dict(zip(map(of, found), other.get_serializer(found, many=True).data, strict=True))
        return {row.pk: shown.get(at(row)) for row in rows}

    serializer: Any = view.serializer_class
    return Expansion(serializer, find)


@functools.cache
def _plain(serializer: Any) -> Any:
    """The same without `expanded`: what is expanded is no further, and the document ends."""
    meta: Any = getattr(serializer, "Meta", None)
    if EXPANDED not in getattr(meta, "fields", ()):
        return serializer
    fields = tuple(name for name in meta.fields if name != EXPANDED)
    less = type("Meta", (meta,), {"fields": fields, "read_only_fields": fields})
    return type(f"Plain{serializer.__name__}", (serializer,), {"Meta": less, EXPANDED: None})


class ExpandedSerializer(serializers.Serializer[Any]):
    """What `expand` asked for; null where there is nothing that you may see."""

    expansions: ClassVar[Expansions]

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        """Those that are known by now: layers above add theirs."""
        fields = {}
        for name, each in self.expansions.items():
            options = {"many": True} if each.many else {"allow_null": True}
            serializer: Any = each.serializer
            fields[name] = _plain(serializer)(required=False, **options)
        return fields


def names(request: Request, known: Expansions) -> list[str]:
    """What this call asks to expand. Raises InvalidInput."""
    asked = [
        name for text in request.query_params.getlist(EXPAND) for name in text.split(",") if name
    ]
    if unknown := [name for name in asked if name not in known]:
        what = f"What can be: {', '.join(sorted(known))}."
        raise InvalidInput({EXPAND: f"Can't expand {', '.join(unknown)}. {what}"})
    return list(dict.fromkeys(asked))


def expand(view: GenericViewSet[Any], rows: Rows, data: list[Any], known: Expansions) -> list[Any]:
    """The same data of these rows, each with what the call asks to expand."""
    asked = names(view.request, known)
    found = {name: known[name].find(view, rows) for name in asked}
    for row, shown in zip(rows, data, strict=True) if asked else ():
        shown[EXPANDED] = {name: found[name].get(row.pk) for name in asked}
    return data
