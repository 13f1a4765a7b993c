"""The form of API tokens: `kt_<kind>_<id>_<43 base62>_<crc32>`.

The prefix lets secret scanners recognise one, the id finds the row, 43 base62 characters carry
256 bits, and the checksum turns a mistyped or made-up token away before the database is asked.
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib
from typing import NamedTuple

from django.conf import settings

BASE62 = string.digits + string.ascii_letters
PATTERN = re.compile(r"kt_(pat|wl|scim)_([0-9A-Za-z]{12})_([0-9A-Za-z]{43})_([0-9a-f]{8})")


class Token(NamedTuple):
    """`lookup` may be stored and logged; `text` is the secret."""

    lookup: str
    text: str


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"


def generate(kind: str = "pat") -> Token:
    """A new token of this kind: `pat` (made by a person), `wl` (of a workload) or `scim` (of a
    directory)."""
    lookup = "".join(secrets.choice(BASE62) for _ in range(12))
    body = f"kt_{kind}_{lookup}_" + "".join(secrets.choice(BASE62) for _ in range(43))
    return Token(lookup, f"{body}_{_checksum(body)}")


def parse(text: str, kind: str = "pat") -> Token | None:
    """The token of this kind in `text`, or None where form or checksum is wrong."""
    match = PATTERN.fullmatch(text)
    if match is None or match[1] != kind:
        return None
    body = text.rpartition("_")[0]
    if not hmac.compare_digest(_checksum(body), match[4]):
        return None
    return Token(match[2], text)


def found_in(text: str) -> list[str]:
    """The tokens of all kinds anywhere in `text`, each once, five at most."""
    matches = {match[0]: match[1] for match in PATTERN.finditer(text)}
    return [each for each, kind in matches.items() if parse(each, kind) is not None][:5]


def digest(token: Token) -> bytes:
    """What is stored: HMAC-SHA-256 under a key of this deployment, so that a copy of the
    database alone verifies no guess."""
    key = hashlib.sha256(b"keyturn.api_token:" + settings.SECRET_KEY.encode()).digest()
    return hmac.digest(key, token.text.encode(), "sha256")
