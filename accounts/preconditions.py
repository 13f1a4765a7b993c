"""Preconditions of calls (RFC 9110, section 13): which version of a thing somebody looked at.

A tag is the digest of the whole representation, so that whatever a caller can see of it changes
it. What was expanded comes behind a dot, and If-Match doesn't look at that.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rest_framework import status
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.encoders import JSONEncoder

from broker.errors import InvalidInput, PreconditionFailed

EXPANDED = "expanded"
_ANY = '"'  # for `*`, which a tag may consist of too: none has a quote in it
_TAG = r'(W/)?"([!#-~\x80-\xff]*)"'
_LIST = re.compile(rf"{_TAG}(?:\s*,\s*{_TAG})*")


def _digest(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, cls=JSONEncoder)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(data: Any) -> Any:
    if not isinstance(data, Mapping):
        return data
    return {name: value for name, value in data.items() if name != EXPANDED}


def tag_of(data: Any) -> str:
    """The tag of this representation, without its quotes."""
    plain = _digest(_plain(data))
    if isinstance(data, Mapping) and EXPANDED in data:
        return f"{plain}.{_digest(data[EXPANDED])}"
    return plain


@dataclass(frozen=True)
class Expected:
    """What a caller looked at before, and says that it still is. Verbs check it on the row that
    they have locked: before that, somebody else could still be first."""

    shown: Callable[[Any], Any]
    tags: frozenset[str] | None = None  # None: whatever it is by now
    others: frozenset[str] = frozenset()  # what it mustn't be

    def check(self, row: Any) -> None:
        """Raise PreconditionFailed unless the row is shown now as it was; None is gone or new."""
        if row is not None and self.others and self.others & {_ANY, _digest(self.shown(row))}:
            raise PreconditionFailed
        if self.tags is None or (row is not None and _ANY in self.tags):
            return
        if row is None or _digest(self.shown(row)) not in self.tags:
            raise PreconditionFailed


ANYTHING = Expected(shown=lambda row: row)


def expected(request: Request, shown: Callable[[Any], Any]) -> Expected:
    """What the call's If-Match says, of what `shown` represents, and its If-None-Match where it
    changes something. Raises InvalidInput."""
    found = _tags(request, "If-Match")
    others = [] if request.method in SAFE_METHODS else _tags(request, "If-None-Match") or []
    if found is None and not others:
        return ANYTHING
    # The comparison by If-Match is strong: a weak tag never matches.
    strong = None if found is None else _plain_tags(each for each in found if not each[0])
    return Expected(shown, strong, _plain_tags(others))


def _plain_tags(found: Iterable[tuple[bool, str]]) -> frozenset[str]:
    return frozenset(tag.partition(".")[0] for _, tag in found)


def tagged(request: Request, data: Any) -> Response:
    """The answer to a GET: this, with its tag; 304 where the caller has it already.

    Raises PreconditionFailed where If-Match asks for another, and InvalidInput.
    """
    tag = tag_of(data)
    expected(request, lambda plain: plain).check(_plain(data))
    known = _tags(request, "If-None-Match") or []
    headers = {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache"}
    if any(each in {tag, _ANY} for _, each in known):
        return Response(status=status.HTTP_304_NOT_MODIFIED, headers=headers)
    return Response(data, headers=headers)


def _tags(request: Request, header: str) -> list[tuple[bool, str]] | None:
    """The tags in this header, each with whether it is weak; None without the header."""
    text = request.headers.get(header)
    if text is None:
        return None
    if text.strip() == "*":
        return [(False, _ANY)]
    if not _LIST.fullmatch(text.strip()):
        raise InvalidInput({header: 'Must be *, or tags as in ETag, such as "5f1c".'})
    return [(bool(weak), tag) for weak, tag in re.findall(_TAG, text)]
