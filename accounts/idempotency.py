"""Carrying a call out once, however often it is sent: the header Idempotency-Key, as
draft-ietf-httpapi-idempotency-key-header-07 has it. See docs/adr/0042.
"""

import datetime as dt
import hashlib
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, OperationalError, transaction
from django.http import Http404, HttpResponse
from psycopg.errors import LockNotAvailable
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import ApiToken, IdempotencyKey, User
from audit import clock
from audit.redaction import redact
from broker.errors import (
    IdempotencyAnswerNotKept,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    InvalidInput,
    KeyturnError,
)

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEY = re.compile(r"[!-~]{1,255}")
KEPT = dt.timedelta(hours=24)
# Nothing works on a call for so long: whoever claimed its key died over it.
ABANDONED = dt.timedelta(minutes=2)
HEADERS = ("Location", "ETag")
REFUSALS = (KeyturnError, APIException, Http404, PermissionDenied)

Handler = Callable[[], Response]


def _shows_all(_path: str) -> bool:
    return True


@dataclass(frozen=True)
class Call:
    """A call that its caller may have to repeat. `sees` says of a path whether what is there is
    still shown to them."""

    request: Request
    caller: User
    key: str
    fingerprint: bytes
    sees: Callable[[str], bool]


def call_of(
    request: Request, caller: User, sees: Callable[[str], bool] = _shows_all
) -> Call | None:
    """This call, where it has a key. Raises InvalidInput for one that is none, and what reading
    the body raises."""
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not KEY.fullmatch(key):
        raise InvalidInput({HEADER: "Must be 1 to 255 visible ASCII characters, without spaces."})
    return Call(request, caller, key, _fingerprint(request), sees)


def _fingerprint(request: Request) -> bytes:
    # Another token of the same caller may repeat a call, but not one that is for other endpoints:
    # by the answer it would see what it isn't for.
    token = request.auth
    endpoints = sorted(map(str, token.endpoints)) if isinstance(token, ApiToken) else []
    said = [request.method, request.get_full_path(), request.data, endpoints]
    text = json.dumps(said, sort_keys=True)
    # Bodies can hold secrets: no guess of one can be verified with a copy of the database alone.
    key = hashlib.sha256(b"keyturn.idempotency:" + settings.SECRET_KEY.encode()).digest()
    return hmac.digest(key, text.encode(), "sha256")


def is_known(request: Request, caller: User) -> bool:
    """Whether this very call was carried out before, or is at this moment, so that it won't be
    again. Raises what `call_of` does."""
    call = call_of(request, caller)
    if call is None:
        return False
    rows = IdempotencyKey.objects.filter(caller=caller, key=call.key)
    row = rows.filter(fingerprint=call.fingerprint).first()
    return row is not None and not _is_over(row)


def in_one_transaction(call: Call, handler: Handler) -> HttpResponse:
    """Carry it out together with the row that says so, or give the answer that it got.

    Whoever sends it at the same time waits in PostgreSQL until the first is done. What is refused
    leaves no key, but all that its actions put on record; what fails leaves nothing. Raises what
    the handler raises, IdempotencyKeyReused, IdempotencyInProgress and IdempotencyAnswerNotKept.
    """
    with transaction.atomic():
        row, mine = _claim(call)
        if not mine:
            return _answer(row, call)
        try:
            response = handler()
        except REFUSALS as error:
            if _status(error) >= 500:
                raise
            row.delete()
            refusal = error
        else:
            _keep(row, call, response)
            return response
    raise refusal


def apart(call: Call, handler: Handler) -> HttpResponse:
    """The same for what calls others or commits several times: its key is claimed first, in a
    transaction of its own. A claim whose process died ends after two minutes.
    """
    row, mine = _claim(call)
    if not mine:
        return _answer(row, call)
    try:
        response = handler()
    except Exception:
        row.delete()
        raise
    _keep(row, call, response)
    return response


def forget_old_keys() -> int:
    """Delete what is older than a day; how many there were."""
    gone, _ = IdempotencyKey.objects.filter(created_at__lt=clock.now() - KEPT).delete()
    return gone


def _claim(call: Call) -> tuple[IdempotencyKey, bool]:
    """The row of this key, and whether it was made by this."""
    for _ in range(3):
        try:
            row, mine = IdempotencyKey.objects.get_or_create(
                caller=call.caller, key=call.key, defaults={"fingerprint": call.fingerprint}
            )
        except IntegrityError:
            # Whoever had it failed between our insert and our look.
            continue
        except OperationalError as error:
            if isinstance(error.__cause__, LockNotAvailable):
                raise IdempotencyInProgress from error
            raise
        if mine or not _is_over(row):
            return row, mine
        IdempotencyKey.objects.filter(pk=row.pk).delete()
    raise IdempotencyInProgress


def _is_over(row: IdempotencyKey) -> bool:
    age = clock.now() - row.created_at
    return age > KEPT or (row.status is None and age > ABANDONED)


def _answer(row: IdempotencyKey, call: Call) -> HttpResponse:
    """What was answered. That the caller may make such calls at all was checked anew before. Of
    what they don't see any more, they're told that it was done."""
    if bytes(row.fingerprint) != call.fingerprint:
        raise IdempotencyKeyReused
    if row.status is None:
        raise IdempotencyInProgress
    if row.body is None:
        raise IdempotencyAnswerNotKept(answered=row.status, location=row.headers.get("Location"))
    about = {call.request.path, urlsplit(row.headers.get("Location", "")).path} - {""}
    if row.body and not all(map(call.sees, about)):
        raise IdempotencyAnswerNotKept(answered=row.status, location=None)
    response = HttpResponse(
        bytes(row.body),
        status=row.status,
        content_type="application/json",
        headers={**row.headers, REPLAYED: "true"},
    )
    if not row.body:
        del response["Content-Type"]
    return response


def _keep(row: IdempotencyKey, call: Call, response: Response) -> None:
    if response.status_code >= 300:
        row.delete()
        return
    row.status = response.status_code
    row.headers = {name: response[name] for name in HEADERS if response.has_header(name)}
    row.body = _body(call, response)
    row.save(update_fields=["status", "headers", "body"])


def _body(call: Call, response: Response) -> bytes | None:
    """Just what is sent, or None where that may hold a secret."""
    if response.data is None:
        return b""
    renderer, media_type = call.request.accepted_renderer, call.request.accepted_media_type
    body: Any = renderer.render(response.data, media_type, call.request.parser_context)
    text = body.decode()
    secret = "no-store" in response.get("Cache-Control", "") or redact(text) != text
    return None if secret else body


def _status(error: Exception) -> int:
    return getattr(error, "status", None) or int(getattr(error, "status_code", 400))
