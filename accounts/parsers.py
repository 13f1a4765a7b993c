"""What the API reads: one JSON object that means the same to every reader, or a form where a
standard wants one.
"""

import json
from collections.abc import Mapping
from typing import IO, Any
from urllib.parse import parse_qsl

from django.conf import settings
from rest_framework import exceptions, parsers

from broker.errors import TooLarge

MOST_FIELDS = 20


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it names a key twice")
    return found


def _read(stream: IO[Any]) -> bytes:
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    body: bytes = stream.read(most + 1)
    if len(body) > most:
        raise TooLarge(f"The body may have at most {most} bytes.")
    return body


class StrictJSONParser(parsers.JSONParser):
    """JSON without what Python would read and others wouldn't, or would read otherwise."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,  # noqa: ARG002
        parser_context: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> Any:
        """The object in this body. Raises ParseError, and TooLarge instead of reading on."""
        body = _read(stream)
        try:
            return json.loads(
                body.decode(), object_pairs_hook=_once, parse_constant=self._no_constant
            )
        except RecursionError:
            raise exceptions.ParseError("The body is nested too deeply.") from None
        except ValueError as error:
            raise exceptions.ParseError(f"The body can't be read as JSON: {error}") from error

    @staticmethod
    def _no_constant(name: str) -> Any:
        raise ValueError(f"{name} is no JSON")


class StrictFormParser(parsers.FormParser):
    """`application/x-www-form-urlencoded` with each field once."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,  # noqa: ARG002
        parser_context: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> Any:
        """The fields of this body. Raises ParseError, and TooLarge instead of reading on."""
        try:
            return _once(
                parse_qsl(
                    _read(stream).decode(),
                    keep_blank_values=True,
                    errors="strict",
                    max_num_fields=MOST_FIELDS,
                )
            )
        except ValueError as error:
            raise exceptions.ParseError("The body can't be read as a form.") from error
