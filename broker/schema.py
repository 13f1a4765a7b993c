"""The OpenAPI document's idea of the API."""

from typing import Any, Literal

from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers


class ProblemSerializer(serializers.Serializer[Any]):
    """An error, in the form of RFC 9457."""

    type = serializers.URLField(help_text="Names the kind of problem, and has a page about it")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    instance = serializers.CharField(required=False)
    code = serializers.CharField(help_text="the last part of `type`")
    errors = serializers.ListField(  # type: ignore[assignment]
        child=serializers.DictField(child=serializers.CharField()),
        required=False,
        help_text="for `invalid-input`: each field at fault, with its message",
    )


class Schema(AutoSchema):
    """Adds to each operation the problems that it can answer with."""

    def get_tags(self) -> list[str]:
        """Operations are grouped by the resource: the first part of the path."""
        return [self.path.removeprefix("/api/v1/").split("/")[0]]

    def get_description(self) -> str:  # type: ignore[override]
        """A list says what it holds; one of its rows needs no more words."""
        if getattr(self.view, "action", "") == "retrieve":
            return "One of them, by its id."
        words: str = super().get_description()
        return words

    def _get_response_bodies(self, direction: Literal["request", "response"] = "response") -> Any:
        bodies = super()._get_response_bodies(direction)
        statuses = {"401", "403"}
        if "{" in self.path:
            statuses.add("404")
        if self.method in {"POST", "PUT", "PATCH"}:
            statuses |= {"400", "409", "415"}
        elif self.method == "GET":
            statuses |= {"400", "404"}  # a filter's value, a cursor
        asks_vault = ("credentials", "introspect", "revoke")
        if self.method == "POST" and any(part in self.path for part in asks_vault):
            statuses.add("503")
        for status in sorted(statuses - set(bodies)):
            body = self._get_response_for_code(  # type: ignore[no-untyped-call]
                ProblemSerializer, status, media_types=["application/problem+json"]
            )
            bodies[status] = body
        return bodies
