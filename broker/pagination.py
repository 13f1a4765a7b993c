import re
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils.timezone import is_naive
from rest_framework import exceptions, pagination

from broker.errors import InvalidInput


class Cursor(pagination.CursorPagination):
    """Newest first, or as the view's `ordering` says. Pages stay what they were while rows are
    added."""

    ordering = "-id"
    page_size_query_param = "limit"
    max_page_size = 200

    def paginate_queryset(self, queryset: Any, request: Any, view: Any = None) -> Any:
        first = self.get_ordering(request, queryset, view)[0].lstrip("-")
        self._key = queryset.model._meta.get_field(first)
        page: Any = super().paginate_queryset(queryset, request, view)
        # The links to other pages, like all others, are never built from a Host header.
        self.base_url = settings.KEYTURN_BASE_URL + request.get_full_path()
        return page

    def get_page_size(self, request: Any) -> int | None:
        """As many as are asked for, within bounds. Raises InvalidInput for what is no number."""
        text = request.query_params.get(self.page_size_query_param, "1")
        if not re.fullmatch(r"-?[0-9]+", text):
            raise InvalidInput({self.page_size_query_param: "Must be a whole number."})
        return super().get_page_size(request)

    def get_ordering(
        self,
        request: Any,  # noqa: ARG002
        queryset: Any,  # noqa: ARG002
        view: Any,
    ) -> tuple[str, ...]:
        chosen: tuple[str, ...] = getattr(view, "ordering", None) or (self.ordering,)
        return chosen

    def decode_cursor(self, request: Any) -> Any:
        """A cursor is base64 of an id or a time, so anybody can make one up: what is neither is
        no cursor."""
        cursor = super().decode_cursor(request)
        if cursor is not None and cursor.position is not None:
            try:
                position = self._key.to_python(cursor.position)
                if isinstance(position, datetime):
                    # PostgreSQL takes no offset of 16 hours or more, which ISO 8601 and Python do.
                    position = None if is_naive(position) else position.astimezone(UTC)
            except (ValidationError, OverflowError):
                position = None
            if position is None:
                raise exceptions.NotFound(self.invalid_cursor_message)
            cursor = cursor._replace(position=str(position))  # type: ignore[arg-type]
        return cursor
