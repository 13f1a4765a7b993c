"""How each kind is used, as it is shown; bash and Python take all of it, whatever its address."""

import subprocess
from typing import Any

import pytest

from credentials.parts import shown
from credentials.snippets import base_url, snippets
from endpoints.models import AccessProfile, Endpoint

HOSTILE = "https://x.internal/'$(touch /tmp/pwned)\"`id`;#"
TARGET = "postgresql://db.internal:5432/claims"
DIRECT: list[tuple[str, str, dict[str, Any]]] = [
    ("database", TARGET, {"target": TARGET, "sslmode": "require"}),
    ("client_certificate", HOSTILE, {"role": "x"}),
    ("static_secret", HOSTILE, {}),
    ("engine", "amqps://queue.internal/'$(id)", {}),
    ("jwt", HOSTILE, {"audience": "urn:x"}),
]


def profile(kind: str, url: str, settings: dict[str, Any], *dialects: str) -> AccessProfile:
    endpoint = Endpoint(slug="claims", dialects=list(dialects) or ["direct"], upstream_url=url)
    return AccessProfile(endpoint=endpoint, credential_kind=kind, kind_settings=settings)


@pytest.mark.parametrize(("kind", "url", "settings"), DIRECT, ids=[row[0] for row in DIRECT])
def test_what_is_opened_directly_is_shown_at_its_own_address(
    kind: str, url: str, settings: dict[str, Any]
) -> None:
    of = profile(kind, url, settings)
    assert base_url(of) == url
    found = snippets(of, "")
    assert found
    for each in found:
        assert "/e/claims" not in each.text
        if each.label == "Python":
            compile(each.text, each.key, "exec")
        else:
            subprocess.run(["/bin/bash", "-n"], input=each.text, text=True, check=True)
    # Run with every command but these inert: nothing in an address is carried out.
    inert = "curl() { :; }; psql() { :; }; chmod() { :; }; "
    for each in found:
        if each.label != "Python":
            done = subprocess.run(
                ["/bin/bash", "-c", f"PATH=/nonexistent; {inert}{each.text}"],
                input="a\nb\nc\n",
                capture_output=True,
                text=True,
                check=False,
            )
            assert "uid=" not in done.stdout + done.stderr
            assert "not found" not in done.stderr, done.stderr


def test_a_static_key_for_an_inference_api_goes_past_the_gateway() -> None:
    of = profile("static_secret", "https://llm.internal", {}, "openai")
    texts = [each.text for each in snippets(of, "gpt")]
    assert texts[0].startswith("export OPENAI_BASE_URL=https://llm.internal/v1\n")
    assert not any("/e/claims" in text for text in texts)


def test_gateway_tokens_go_to_the_gateway() -> None:
    of = profile("gateway_token", "https://llm.internal", {}, "openai")
    assert base_url(of).endswith("/e/claims")
    assert not any("llm.internal" in each.text for each in snippets(of, "gpt"))
    assert base_url(profile("jwt", "https://llm.internal", {}, "openai")).endswith("/e/claims")


def test_parts_are_shown_with_what_is_pasted_first_and_nothing_twice() -> None:
    parts = shown({"secret": "pw", "username": "u", "password": "pw", "host": "h"})
    assert [(each.label, each.text) for each in parts] == [
        ("Password", "pw"),
        ("User name", "u"),
        ("Host", "h"),
    ]
    parts = shown({"secret": "key\ncert\n", "private_key": "key\n", "certificate": "cert\n"})
    assert [each.file for each in parts] == ["client.pem", "private_key.pem", "certificate.pem"]
    assert "key\\ncert" not in repr(parts[0])
