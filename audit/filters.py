"""Filters of lists by time."""

import datetime as dt
from typing import Any

import django_filters
from django import forms
from django_filters.fields import IsoDateTimeField


class _TimeField(IsoDateTimeField):
    """In UTC: PostgreSQL takes no offset of 16 hours or more, which ISO 8601 and Python do."""

    def to_python(self, value: Any) -> Any:
        found = super().to_python(value)
        try:
            return found.astimezone(dt.UTC) if isinstance(found, dt.datetime) else found
        except OverflowError:
            raise forms.ValidationError("Must be within the years 1 to 9999.") from None


class TimeFilter(django_filters.IsoDateTimeFilter):
    """By a time in ISO 8601, of any offset."""

    field_class = _TimeField
