"""How the API shows things: in lists, and one by its id, with its tag."""

from typing import Any, ClassVar, TypeVar

from django.db.models import Model
from rest_framework import mixins
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api import VisibleViewSet
from accounts.expanding import Expansions, expand
from accounts.filters import EXPAND, check_query
from accounts.preconditions import tagged

Row = TypeVar("Row", bound=Model)


class Expands(VisibleViewSet[Row]):
    """Shows what hangs on its rows, where the call asks for that."""

    expansions: ClassVar[Expansions] = {}

    def shown(self, rows: list[Row]) -> list[Any]:
        """These rows as the call asks for them."""
        data = list(self.get_serializer(rows, many=True).data)
        return expand(self, rows, data, self.expansions)


class Lists(Expands[Row], mixins.ListModelMixin):
    """A list in pages."""

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002
        rows: Any = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(self.shown(list(rows)))


class Details(Expands[Row], mixins.RetrieveModelMixin):
    """One by its id, with a tag."""

    # What the OpenAPI document says: whose answers have a tag, and which verbs take one.
    tagged: ClassVar[tuple[str, ...]] = ("retrieve",)
    if_match: ClassVar[tuple[str, ...]] = ()

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002
        self._check_query(request)
        return tagged(self.request, self.shown([self.get_object()])[0])

    def _check_query(self, request: Request) -> None:
        check_query(request, [EXPAND] if self.expansions else [], several=[EXPAND])
