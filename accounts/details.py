"""How the API shows things: in lists, and one by its id, with its tag and waited for."""

from typing import Any, ClassVar, TypeVar

from django.contrib.auth import get_user
from django.db.models import Model
from rest_framework import mixins
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import waiting
from accounts.api import VisibleViewSet, caller
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
    """One by its id, with a tag. `waits_while` are the states in which `wait` waits for another."""

    waits_while: ClassVar[tuple[str, ...]] = ()
    # What the OpenAPI document says: whose answers have a tag, and which verbs take one.
    tagged: ClassVar[tuple[str, ...]] = ("retrieve",)
    if_match: ClassVar[tuple[str, ...]] = ()

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # noqa: ARG002
        self._check_query(request)
        row, retry_after = self.get_object(), ""
        seconds = waiting.asked(request) if self.waits_while else 0
        if seconds and getattr(row, "state", None) in self.waits_while:
            row, retry_after = self._waited_for(row, seconds)
        answer = tagged(self.request, self.shown([row])[0])
        if retry_after:
            answer["Retry-After"] = retry_after
        return answer

    def _check_query(self, request: Request) -> None:
        known = [
            *([waiting.NAME] if self.waits_while else ()),
            *([EXPAND] if self.expansions else ()),
        ]
        check_query(request, known, several=[EXPAND])

    def _waited_for(self, row: Row, seconds: int) -> tuple[Row, str]:
        """The row as it is then, and when to ask again where this call didn't wait."""
        undecided = type(row)._default_manager.filter(pk=row.pk, state__in=self.waits_while)
        with waiting.place(caller(self.request).pk) as free:
            if not free:
                return row, waiting.ask_again_after()
            waiting.while_in(undecided, seconds)
        self._look_again()
        return self.get_object(), ""

    def _look_again(self) -> None:
        """Who calls, and may they? Whoever lost a right meanwhile is answered as without it."""
        http: Any = self.request._request
        # What is in the session by now is what is saved with the answer.
        http.session.__dict__.pop("_session_cache", None)
        http.user = get_user(http)
        self.request = self.initialize_request(http, *self.args, **self.kwargs)
        self.check_permissions(self.request)
