"""What the API reads: one JSON object that means the same to every reader."""

import json
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework import exceptions, parsers

from broker.errors import TooLarge


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it names a key twice")
    return found


class StrictJSONParser(parsers.JSONParser):
    """JSON without what Python would read and others wouldn't, or would read otherwise."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,  # noqa: ARG002
        parser_context: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> Any:
        """The object in this body. Raises ParseError, and TooLarge instead of reading on."""
        most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        body = stream.read(most + 1)
        if len(body) > most:
            raise TooLarge(f"The body may have at most {most} bytes.")
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
