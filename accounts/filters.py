"""How lists read their filters from an address."""

import datetime as dt
import re
from collections.abc import Iterable
from typing import Any

import django_filters
from django.db.models import QuerySet
from django_filters.rest_framework import DjangoFilterBackend

from audit.filters import TimeFilter
from audit.ids import first_id
from broker.errors import InvalidInput

PAGES = ("cursor", "limit")
EXPAND = "expand"  # accounts.expanding
SLACK = 60  # seconds: an id is made before its row is, by another clock


def check_query(request: Any, known: Iterable[str], several: Iterable[str] = ()) -> None:
    """Raise InvalidInput for each unknown name, and for one that is there more than once."""
    known, several = set(known), set(several)
    errors = {}
    for name, values in request.query_params.lists():
        if name not in known:
            what = ", ".join(sorted(known)) or "nothing"
            errors[name] = f"Can't be given here. What can be: {what}."
        elif len(values) > 1 and name not in several:
            errors[name] = "Can be given once."
    if errors:
        raise InvalidInput(errors)


class StrictFilterBackend(DjangoFilterBackend):
    """Refuses what django-filter would leave out in silence: a name that it doesn't know, an empty
    id or time, another word for true, the same filter twice. Whoever wrote it would take all rows
    for those they asked for."""

    def filter_queryset(self, request: Any, queryset: QuerySet[Any], view: Any) -> Any:
        kind = self.get_filterset_class(view, queryset)
        filters = kind.base_filters if kind else {}
        several = {
            name
            for name, each in filters.items()
            if isinstance(each, django_filters.MultipleChoiceFilter)
        }
        expands = {EXPAND} if getattr(view, "expansions", None) else set()
        check_query(request, {*filters, *PAGES, *expands}, {*several, *expands})
        faults = {}
        for name, each in filters.items():
            values = request.query_params.getlist(name)
            if fault := _fault(each, values):
                faults[name] = fault
        if faults:
            raise InvalidInput(faults)
        return super().filter_queryset(request, queryset, view)


def _fault(each: django_filters.Filter, values: list[str]) -> str:
    if isinstance(each, django_filters.BooleanFilter):
        if values and values[0].lower() not in {"true", "false"}:
            return "Must be true or false."
    elif isinstance(each, django_filters.NumberFilter):
        # All that is filtered by is counted.
        if values and not re.fullmatch(r"-?[0-9]{1,18}", values[0]):
            return "Must be a whole number."
    elif values == [""] and not isinstance(each, django_filters.CharFilter):
        return "Must not be empty."
    return ""


class PersonFilter(django_filters.CharFilter):
    """By somebody's e-mail address; `me` is the caller's."""

    def filter(self, qs: Any, value: str) -> Any:
        filters: Any = self
        return super().filter(qs, filters.parent.request.user.email if value == "me" else value)


class MadeFilter(TimeFilter):
    """By when a row was made. Its id says nearly the same and is what lists are ordered by, so
    that PostgreSQL begins where the time does."""

    def filter(self, qs: Any, value: dt.datetime | None) -> Any:
        if value is not None:
            later = self.lookup_expr.startswith("gt")
            near = first_id(value, later=-SLACK if later else SLACK)
            qs = qs.filter(pk__gte=near) if later else qs.filter(pk__lt=near)
        return super().filter(qs, value)
