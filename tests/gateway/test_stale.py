"""How long a gateway goes on with what it last heard."""

import time
import uuid

import pytest

from credentials.live import Live
from endpoints.scope import Scope
from gateway.registry import Entry


@pytest.mark.parametrize(
    ("critical", "max_stale", "seconds"),
    [(False, None, 5), (True, None, 2), (False, 30, 30), (True, 30, 2), (False, 0, 2)],
)
def test_an_endpoint_says_how_stale_what_is_known_may_be(
    critical: bool, max_stale: int | None, seconds: int
) -> None:
    one = uuid.uuid4()
    live = Live(
        one,
        one,
        one,
        holder="ana@example.com",
        endpoint_id=one,
        endpoint="llm",
        dialects=frozenset({"openai"}),
        upstreams=("http://127.0.0.1",),
        key_header="",
        max_stale=max_stale,
        critical=critical,
        aliases={},
        scope=Scope(frozenset({"m"})),
    )
    now = time.monotonic()
    entry = Entry(live, (), deadline=now + 3600, confirmed=now)
    assert not entry.is_stale(now + seconds)
    assert entry.is_stale(now + seconds + 0.01)
