from rest_framework import pagination


class Cursor(pagination.CursorPagination):
    """Newest first. Pages stay what they were while rows are added."""

    ordering = "-id"
    page_size_query_param = "limit"
    max_page_size = 200
