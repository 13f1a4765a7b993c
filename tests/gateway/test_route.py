"""The gateway's paths, against generated input."""

import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import ENDPOINT, ROUTES, route

slugs = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?\Z")
calls = st.sampled_from(sorted(ROUTES))
noise = st.binary(max_size=12) | st.sampled_from(
    [b"/", b"//", b"..", b"/../", b"%2f", b"%2e%2e", b"\n", b"\x00", b";", b"?", b"#", b"A", b"."]
)


@given(slugs, calls)
def test_the_gateway_has_a_route_for_what_it_serves(slug: str, call: bytes) -> None:
    found = ENDPOINT.fullmatch(b"/e/" + slug.encode() + call)
    assert found is not None
    assert (found["endpoint"].decode(), found["rest"]) == (slug, call)
    assert route(found["rest"], {}) is ROUTES[call]


@given(slugs, calls, noise, st.integers(min_value=0, max_value=200))
def test_it_has_none_for_a_second_spelling(slug: str, call: bytes, extra: bytes, at: int) -> None:
    path = b"/e/" + slug.encode() + call
    spelt = path[:at] + extra + path[at:]
    found = ENDPOINT.fullmatch(spelt)
    if found is not None and route(found["rest"] or b"", {}) is not None:
        # Only another endpoint's own name: the path is exactly what its parts say.
        assert spelt == b"/e/" + found["endpoint"] + found["rest"]
        assert re.fullmatch(rb"[a-z0-9-]{1,50}", found["endpoint"])
        assert found["rest"] in ROUTES


@given(st.binary(max_size=80))
def test_it_has_none_for_noise(path: bytes) -> None:
    found = ENDPOINT.fullmatch(path)
    assert found is None or path.startswith(b"/e/")
