from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from rest_framework import exceptions, pagination


class Cursor(pagination.CursorPagination):
    """Newest first. Pages stay what they were while rows are added."""

    ordering = "-id"
    page_size_query_param = "limit"
    max_page_size = 200

    def paginate_queryset(self, queryset: Any, request: Any, view: Any = None) -> Any:
        self._key = queryset.model._meta.pk
        page: Any = super().paginate_queryset(queryset, request, view)
        # The links to other pages, like all others, are never built from a Host header.
        self.base_url = settings.KEYTURN_BASE_URL + request.get_full_path()
        return page

    def decode_cursor(self, request: Any) -> Any:
        """A cursor is base64 of an id, so anybody can make one up: what is no id is no cursor."""
        cursor = super().decode_cursor(request)
        if cursor is not None and cursor.position is not None:
            try:
                self._key.to_python(cursor.position)
            except ValidationError:
                raise exceptions.NotFound(self.invalid_cursor_message) from None
        return cursor
