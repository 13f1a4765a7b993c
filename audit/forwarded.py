"""Whom a call comes from, where proxies stand in between.

Anybody can send X-Forwarded-For. What it says counts only as far as proxies that are ours wrote it:
each appends whom it was called by, so it's read from the right until an address that isn't one of
them. Whatever stands left of that is the caller's own invention.
"""

import ipaddress
from collections.abc import Sequence

from django.conf import settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_trusted(peer: str) -> bool:
    """Whether this address is a proxy of KEYTURN_TRUSTED_PROXIES."""
    return bool(settings.KEYTURN_TRUSTED_PROXIES) and _trusted(_parsed(peer))


def client_address(peer: str, forwarded_for: Sequence[str]) -> str:
    """Who called, if `peer` is who connected and these are its X-Forwarded-For headers in order."""
    address = _parsed(peer) if settings.KEYTURN_TRUSTED_PROXIES else None
    if address is None or not _trusted(address):
        return peer
    for entry in reversed(",".join(forwarded_for).split(",")):
        before = _parsed(entry)
        if before is None:
            break
        address = before
        if not _trusted(address):
            break
    return str(address)


def _trusted(address: Address | None) -> bool:
    return address is not None and any(
        address in network for network in settings.KEYTURN_TRUSTED_PROXIES
    )


def _parsed(text: str) -> Address | None:
    """The address in `1.2.3.4`, `1.2.3.4:56`, `2001:db8::1` or `[2001:db8::1]:56`."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
