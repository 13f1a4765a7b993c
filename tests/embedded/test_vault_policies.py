"""What each login to OpenBao may do, and that it may do nothing else.

Asked of a real OpenBao, set up by the very files that production loads.
"""

import datetime as dt
import re
import time
import urllib.error
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from ulid import ULID

from credentials.vault import wrap
from tests.credentials.targets import Target
from tests.credentials.test_client_certificate import operate
from tests.servers import Servers

MINT = {
    "policies": "gateway-token",
    "no_default_policy": True,
    "ttl": "60s",
    "explicit_max_ttl": "3600s",
    "meta": {"grant": "g-1"},
}
MINT_PATH = "auth/token/create-orphan"
ENCRYPT, DECRYPT = "transit/encrypt/second-factor", "transit/decrypt/second-factor"
ENCRYPT_HOOK, DECRYPT_HOOK = "transit/encrypt/webhooks", "transit/decrypt/webhooks"
CSR = (
    x509.CertificateSigningRequestBuilder()
    .subject_name(x509.Name([]))
    .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    .public_bytes(Encoding.PEM)
    .decode()
)
SIGN = {
    "csr": CSR,
    "common_name": "kt-1",
    "uri_sans": "urn:keyturn:grant:1",
    "not_after": f"{dt.datetime.now(dt.UTC) + dt.timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}",
}
HOLDERS = ("web", "worker", "gateway", "gateway-token", "lease-owner", "nobody")
OWNER = MINT | {"policies": "lease-owner"}
JWS_PATH = "transit/sign/credentials"
JWS = {"input": "AAAA", "key_version": 1, "marshaling_algorithm": "jws"}
OWN_LOGIN = {"web", "worker", "gateway"}


@dataclass(frozen=True)
class Answer:
    status: int
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Minted:
    token: str
    accessor: str


class Vault:
    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.tokens = {role: servers.vault_token(role) for role in ("web", "worker", "gateway")}
        self.tokens["nobody"] = ""

    def token(self, holder: str) -> str:
        if holder in {"gateway-token", "lease-owner"}:
            return self.mint(policies=holder).token
        return self.tokens[holder]

    def ask(
        self,
        holder: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        **options: str,
    ) -> Answer:
        token = options.pop("token", None) or self.token(holder)
        try:
            answer = self.servers.bao.request(method, path, body, token=token, **options)
        except urllib.error.HTTPError as error:
            return Answer(error.code, {"said": error.read().decode()})
        return Answer(200, answer)

    def mint(self, **changes: Any) -> Minted:
        # Users of a database are named by it.
        changes.setdefault("display_name", f"kt-{ULID()}".lower())
        answer = self.ask("web", "POST", MINT_PATH, MINT | changes)
        assert answer.status == 200, answer
        return Minted(answer.body["auth"]["client_token"], answer.body["auth"]["accessor"])

    def lease(self) -> str:
        """A new lease of the target's."""
        answer = self.ask("lease-owner", "GET", CREDS)
        assert answer.status == 200, answer
        return str(answer.body["lease_id"])

    def seal(self, plaintext: str, *, bound_to: str, path: str = ENCRYPT) -> str:
        body = {"plaintext": plaintext, "associated_data": bound_to}
        answer = self.ask("web", "POST", path, body)
        assert answer.status == 200, answer
        return str(answer.body["data"]["ciphertext"])

    def fill(self, text: str) -> dict[str, str]:
        """What stands in this for something that exists, made for this alone."""
        made: dict[str, str] = {}
        if "{accessor}" in text or "{token}" in text:
            minted = self.mint()
            made |= {"{accessor}": minted.accessor, "{token}": minted.token}
        ways: dict[str, Callable[[], str]] = {
            "{sealed}": lambda: self.seal("AAAA", bound_to="QQ=="),
            "{hook}": lambda: self.seal("AAAA", bound_to="QQ==", path=ENCRYPT_HOOK),
            "{wrapped}": lambda: wrap({"a": "b"}, seconds=60).token,
            "{serial}": self.certificate,
            "{lease}": self.lease,
        }
        return made | {name: way() for name, way in ways.items() if name in text}

    def certificate(self) -> str:
        """The serial of a certificate that nobody has revoked."""
        return str(self.ask("web", "POST", "pki/sign/there", SIGN).body["data"]["serial_number"])


@pytest.fixture(scope="module")
def vault(servers: Servers, target: Target) -> Iterator[Vault]:
    vault = Vault(servers)
    stored = vault.servers.vault(
        "POST", "kv/data/upstream/there", {"options": {"cas": 0}, "data": {"key": "k"}}
    )
    assert stored["data"]["version"] == 1
    servers.vault("POST", "kv/data/rotators/there", {"options": {"cas": 0}, "data": {"key": "k"}})
    servers.vault("POST", "kv/data/handed-out/there", {"options": {"cas": 0}, "data": {"key": "k"}})
    operate(servers, "there")
    servers.vault("POST", "pki/revoke", {"serial_number": vault.certificate()})
    yield vault
    servers.vault("DELETE", "kv/metadata/upstream/there")
    servers.vault("DELETE", "kv/metadata/handed-out/there")
    servers.vault("DELETE", "kv/metadata/rotators/there")


@dataclass(frozen=True)
class Deed:
    method: str
    path: str
    body: Mapping[str, Any] | None
    may: frozenset[str]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def deed(method: str, path: str, body: Mapping[str, Any] | None = None, *, may: set[str]) -> Deed:
    return Deed(method, path, body, frozenset(may))


NOBODY: set[str] = set()
WRITERS = {"web", "worker"}
CREDS = "database/creds/orders-reader"
STATIC = "database/static-creds"
# {lease} is one of a target's; {accessor} and {token} are those of a gateway token that was minted
# for the occasion; {sealed} is a second factor's secret, {hook} a webhook's.
DEEDS = [
    # Tokens
    deed("POST", MINT_PATH, MINT, may={"web"}),
    deed("POST", "auth/token/create", {"ttl": "60s"}, may=NOBODY),
    deed("POST", "auth/token/create", MINT, may=NOBODY),
    deed("POST", MINT_PATH, {"ttl": "60s"}, may=NOBODY),
    deed("POST", "auth/token/create/other", MINT, may=NOBODY),
    deed("POST", "auth/token/renew-accessor", {"accessor": "{accessor}"}, may={"web"}),
    deed("POST", "auth/token/lookup-accessor", {"accessor": "{accessor}"}, may={"worker"}),
    deed("POST", "auth/token/revoke-accessor", {"accessor": "{accessor}"}, may={"worker"}),
    deed("LIST", "auth/token/accessors", may={"worker"}),
    deed("LIST", "auth/token/accessors/", may={"worker"}),
    deed("POST", "auth/token/lookup", {"token": "{token}"}, may={"web", "gateway"}),
    deed("POST", "auth/token/renew", {"token": "{token}"}, may=NOBODY),
    deed("POST", "auth/token/revoke", {"token": "{token}"}, may=NOBODY),
    deed("POST", "auth/token/revoke-orphan", {"token": "{token}"}, may=NOBODY),
    deed("GET", "auth/token/lookup-self", may=OWN_LOGIN),
    deed("POST", "auth/token/renew-self", {}, may=OWN_LOGIN),
    deed("POST", "auth/token/revoke-self", {}, may=NOBODY),
    deed("POST", "auth/token/tidy", {}, may=NOBODY),
    deed("POST", "auth/token/create/gateway-token", MINT, may=NOBODY),
    deed("LIST", "auth/token/roles", may=NOBODY),
    deed("POST", "auth/token/roles/new", {"orphan": True}, may=NOBODY),
    # Leases
    deed("POST", MINT_PATH, OWNER, may={"web"}),
    deed("GET", CREDS, may={"lease-owner"}),
    deed("GET", f"{STATIC}/keyturn-monitor-orders", may={"worker"}),
    deed("GET", f"{STATIC}/others", may=NOBODY),
    deed("LIST", STATIC.replace("creds", "roles"), may=NOBODY),
    deed("GET", "database/config/orders", may=NOBODY),
    deed("POST", "database/config/orders", {"connection_url": "x"}, may=NOBODY),
    deed("POST", "database/reset/orders", {}, may=NOBODY),
    deed("POST", "database/rotate-root/orders", {}, may=NOBODY),
    deed("POST", "database/rotate-role/keyturn-monitor-orders", {}, may=NOBODY),
    deed("GET", "database/roles/orders-reader", may=NOBODY),
    deed("POST", "database/roles/orders-reader", {"max_ttl": "1s"}, may=NOBODY),
    deed("DELETE", "database/roles/orders-reader", may=NOBODY),
    deed("POST", "sys/leases/renew/{lease}", {"increment": "100s"}, may={"web"}),
    deed("POST", "sys/leases/renew", {"lease_id": "{lease}"}, may=NOBODY),
    deed("PUT", "sys/leases/lookup", {"lease_id": "{lease}"}, may={"worker"}),
    deed("LIST", f"sys/leases/lookup/{CREDS}", may={"worker"}),
    deed("LIST", f"sys/leases/lookup/{CREDS}/", may={"worker"}),
    deed("LIST", "sys/leases/lookup/auth/approle/login", may=NOBODY),
    deed("LIST", "sys/leases/lookup/", may=NOBODY),
    deed("PUT", "sys/leases/revoke/{lease}", {"sync": True}, may={"worker"}),
    deed("PUT", "sys/leases/revoke", {"lease_id": "{lease}"}, may=NOBODY),
    deed("PUT", f"sys/leases/revoke-prefix/{CREDS}", {}, may=NOBODY),
    deed("PUT", f"sys/leases/revoke-force/{CREDS}", {}, may=NOBODY),
    deed("POST", "sys/leases/tidy", {}, may=NOBODY),
    # Upstream secrets
    deed("POST", "kv/data/upstream/new", {"options": {"cas": 0}, "data": {}}, may=WRITERS),
    deed("GET", "kv/data/upstream/there", may={"gateway", "worker"}),
    deed("GET", "kv/data/upstream/there?version=1", may={"gateway", "worker"}),
    deed("PATCH", "kv/data/upstream/there", {"data": {"key": "x"}}, may=NOBODY),
    deed("DELETE", "kv/data/upstream/there", may=NOBODY),
    deed("GET", "kv/metadata/upstream/there", may=WRITERS),
    deed("LIST", "kv/metadata/upstream", may=NOBODY),
    deed("POST", "kv/metadata/upstream/there", {"max_versions": 1}, may=NOBODY),
    deed("DELETE", "kv/metadata/upstream/there", may=NOBODY),
    deed("POST", "kv/delete/upstream/there", {"versions": [1]}, may=NOBODY),
    deed("POST", "kv/undelete/upstream/there", {"versions": [1]}, may=NOBODY),
    deed("POST", "kv/destroy/upstream/there", {"versions": [99]}, may={"worker"}),
    deed("GET", "kv/subkeys/upstream/there", may=NOBODY),
    # What rotators manage keys with: typed in by people, read by whoever rotates.
    deed("POST", "kv/data/rotators/new", {"options": {"cas": 0}, "data": {}}, may={"web"}),
    deed("GET", "kv/data/rotators/there", may={"worker"}),
    deed("GET", "kv/metadata/rotators/there", may={"web"}),
    deed("POST", "kv/destroy/rotators/there", {"versions": [99]}, may=NOBODY),
    deed("GET", "kv/data/elsewhere", may=NOBODY),
    deed("POST", "kv/data/elsewhere", {"options": {"cas": 0}, "data": {}}, may=NOBODY),
    deed("GET", "kv/config", may=NOBODY),
    deed("POST", "kv/config", {"cas_required": False}, may=NOBODY),
    # Static keys that may be handed out
    deed("POST", "kv/data/handed-out/new", {"options": {"cas": 0}, "data": {}}, may=WRITERS),
    deed("GET", "kv/data/handed-out/there", may=WRITERS),
    deed("GET", "kv/metadata/handed-out/there", may={"web", "worker"}),
    deed("POST", "kv/destroy/handed-out/there", {"versions": [99]}, may={"worker"}),
    deed("DELETE", "kv/data/handed-out/there", may=NOBODY),
    deed("DELETE", "kv/metadata/handed-out/there", may=NOBODY),
    deed("LIST", "kv/metadata/handed-out", may=NOBODY),
    # Client certificates
    deed("POST", "pki/sign/there", SIGN, may={"web"}),
    deed("POST", "pki/sign/there", SIGN | {"common_name": "root"}, may=NOBODY),
    deed("POST", "pki/sign/there", SIGN | {"uri_sans": "urn:other"}, may=NOBODY),
    deed("POST", "pki/sign/there", SIGN | {"ttl": "1h"}, may=NOBODY),
    deed("POST", "pki/sign/there", SIGN | {"not_after": "9999-12-31T23:59:59Z"}, may=NOBODY),
    deed("POST", "pki/sign/there", {"csr": CSR, "common_name": "kt-1"}, may=NOBODY),
    deed("POST", "pki/issue/there", {"common_name": "kt-1"}, may=NOBODY),
    deed("POST", "pki/sign-verbatim", {"csr": CSR}, may=NOBODY),
    deed("LIST", "pki/certs/detailed", may={"worker"}),
    deed("LIST", "pki/certs/revoked", may={"worker"}),
    deed("POST", "pki/revoke", {"serial_number": "{serial}"}, may={"worker"}),
    deed("POST", "pki/revoke-with-key", {"serial_number": "{serial}"}, may=NOBODY),
    deed("GET", "pki/roles/there", may=NOBODY),
    deed("POST", "pki/roles/there", {"allow_any_name": True}, may=NOBODY),
    deed("POST", "pki/root/generate/internal", {"common_name": "x"}, may=NOBODY),
    deed("POST", "pki/config/crl", {"disable": True}, may=NOBODY),
    deed("POST", "pki/tidy", {}, may=NOBODY),
    # Second factors
    deed("POST", ENCRYPT, {"plaintext": "AAAA", "associated_data": "QQ=="}, may={"web"}),
    deed("POST", DECRYPT, {"ciphertext": "{sealed}", "associated_data": "QQ=="}, may={"web"}),
    deed("POST", ENCRYPT, {"plaintext": "AAAA"}, may=NOBODY),
    deed("POST", DECRYPT, {"batch_input": [{"ciphertext": "{sealed}"}]}, may=NOBODY),
    deed("POST", "transit/encrypt/other", {"plaintext": "AAAA"}, may=NOBODY),
    deed("POST", "transit/rewrap/second-factor", {"ciphertext": "{sealed}"}, may=NOBODY),
    deed("POST", "transit/datakey/plaintext/second-factor", {}, may=NOBODY),
    deed("GET", "transit/keys/second-factor", may=NOBODY),
    deed("LIST", "transit/keys", may=NOBODY),
    deed("POST", "transit/keys/other", {}, may=NOBODY),
    deed("POST", "transit/keys/second-factor/config", {"exportable": True}, may=NOBODY),
    deed("POST", "transit/keys/second-factor/rotate", {}, may=NOBODY),
    deed("DELETE", "transit/keys/second-factor", may=NOBODY),
    deed("GET", "transit/export/encryption-key/second-factor", may=NOBODY),
    deed("GET", "transit/backup/second-factor", may=NOBODY),
    # Signing secrets of webhooks: who seals them doesn't read them.
    deed("POST", ENCRYPT_HOOK, {"plaintext": "AAAA", "associated_data": "QQ=="}, may={"web"}),
    deed("POST", DECRYPT_HOOK, {"ciphertext": "{hook}", "associated_data": "QQ=="}, may={"worker"}),
    deed("POST", ENCRYPT_HOOK, {"plaintext": "AAAA"}, may=NOBODY),
    deed("POST", DECRYPT_HOOK, {"batch_input": [{"ciphertext": "{hook}"}]}, may=NOBODY),
    deed("GET", "transit/keys/webhooks", may=NOBODY),
    deed("GET", "transit/export/encryption-key/webhooks", may=NOBODY),
    # JWTs
    deed("POST", JWS_PATH, JWS, may={"web"}),
    deed("POST", JWS_PATH, {"input": "AAAA"}, may=NOBODY),
    deed("POST", JWS_PATH, JWS | {"prehashed": True}, may=NOBODY),
    deed("POST", JWS_PATH, JWS | {"marshaling_algorithm": "asn1"}, may=NOBODY),
    deed("POST", JWS_PATH + "/sha2-512", JWS, may=NOBODY),
    deed("POST", "transit/sign/other", JWS, may=NOBODY),
    deed("POST", "transit/verify/credentials", JWS | {"signature": "vault:v1:AA"}, may=NOBODY),
    deed("GET", "transit/keys/credentials", may={"web", "gateway"}),
    deed("POST", "transit/keys/credentials", {}, may=NOBODY),
    deed("POST", "transit/keys/credentials/rotate", {}, may=NOBODY),
    deed("POST", "transit/keys/credentials/config", {"exportable": True}, may=NOBODY),
    deed("DELETE", "transit/keys/credentials", may=NOBODY),
    deed("GET", "transit/export/signing-key/credentials", may=NOBODY),
    # Logins and policies
    deed("GET", "auth/approle/role/web", may=NOBODY),
    deed("GET", "auth/approle/role/web/role-id", may=NOBODY),
    deed("POST", "auth/approle/role/web/secret-id", {}, may=NOBODY),
    deed("POST", "auth/approle/role/web/policies", {"token_policies": ["root"]}, may=NOBODY),
    deed("LIST", "auth/approle/role", may=NOBODY),
    deed("LIST", "sys/policies/acl", may=NOBODY),
    deed("GET", "sys/policies/acl/web", may=NOBODY),
    deed("POST", "sys/policies/acl/web", {"policy": 'path "*" {}'}, may=NOBODY),
    deed("LIST", "identity/entity/id", may=NOBODY),
    # The system
    deed("GET", "sys/mounts", may=NOBODY),
    deed("POST", "sys/mounts/new", {"type": "kv"}, may=NOBODY),
    deed("GET", "sys/auth", may=NOBODY),
    deed("GET", "sys/audit", may=NOBODY),
    deed("LIST", "sys/namespaces", may=NOBODY),
    deed("POST", "sys/namespaces/more", {}, may=NOBODY),
    deed("LIST", "sys/leases/lookup/auth/token/create", may=NOBODY),
    deed("PUT", "sys/leases/revoke-prefix/auth", {}, may=NOBODY),
    deed("PUT", "sys/leases/revoke-force/auth", {}, may=NOBODY),
    deed("POST", "sys/capabilities-self", {"paths": ["kv/data/upstream/there"]}, may=NOBODY),
    deed("POST", "sys/wrapping/wrap", {"a": "b"}, may=NOBODY),
    deed("POST", "sys/wrapping/unwrap", {"token": "{wrapped}"}, may={"web"}),
    deed("POST", "sys/wrapping/rewrap", {"token": "{wrapped}"}, may=NOBODY),
    deed("POST", "sys/tools/random/8", {}, may=NOBODY),
    deed("POST", "cubbyhole/mine", {"a": "b"}, may=NOBODY),
    deed("PUT", "sys/seal", {}, may=NOBODY),
    # That a mount is there and of which type; what it holds is another matter.
    deed("GET", "sys/internal/ui/mounts/kv", may=OWN_LOGIN | {"lease-owner"}),
]


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("what", DEEDS, ids=str)
def test_each_may_do_its_work_and_nothing_else(vault: Vault, what: Deed, holder: str) -> None:
    fill = vault.fill(f"{what.path} {what.body}")
    path = re.sub(r"{\w+}", lambda named: fill[named[0]], what.path)
    body = what.body and {key: fill.get(str(value), value) for key, value in what.body.items()}

    answer = vault.ask(holder, what.method, path, body)

    if holder in what.may:
        assert answer.status == 200, answer
    else:
        # 400: what exists in the root namespace alone.
        refusals = {400, 403} if what.path in {"sys/seal", "sys/audit"} else {403}
        if (holder, path) == ("web", CREDS):
            # It must have the policy to hand it on. The target makes no user by the login's name.
            refusals = {500}
        assert answer.status in refusals, answer
    for path in ("upstream/new", "handed-out/new"):
        if what.path == f"kv/data/{path}":
            vault.servers.vault("DELETE", f"kv/metadata/{path}")


@pytest.mark.parametrize("holder", [*sorted(OWN_LOGIN), "gateway-token", "lease-owner"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("LIST", "auth/token/accessors"),
        ("LIST", "sys/namespaces"),
        ("GET", "sys/mounts"),
        ("POST", MINT_PATH),
    ],
)
def test_nothing_outside_the_namespace_opens(
    vault: Vault, holder: str, method: str, path: str
) -> None:
    assert (
        vault.ask(holder, method, path, {} if method == "POST" else None, namespace="").status
        == 403
    )


def test_the_operators_tokens_are_out_of_the_workers_reach(vault: Vault, servers: Servers) -> None:
    mine = servers.vault("GET", "auth/token/lookup-self", namespace="")["data"]["accessor"]
    listed = vault.ask("worker", "LIST", "auth/token/accessors").body["data"]["keys"]
    assert mine not in listed
    for path in ("auth/token/lookup-accessor", "auth/token/revoke-accessor"):
        answer = vault.ask("worker", "POST", path, {"accessor": mine})
        assert "in different namespace" in answer.body["said"]
    servers.vault("GET", "auth/token/lookup-self", namespace="")


def test_a_gateway_token_sees_no_mounts(vault: Vault) -> None:
    answer = vault.ask("gateway-token", "GET", "sys/internal/ui/mounts")
    assert answer.body["data"] == {"auth": {}, "secret": {}}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 200),
        ({"display_name": "kt-1"}, 200),
        ({"explicit_max_ttl": "1s"}, 200),
        ({"explicit_max_ttl": "2592000s"}, 200),
        ({"policies": ["gateway-token"]}, 403),
        ({"policies": ["lease-owner"]}, 403),
        ({"policies": "gateway-token,lease-owner"}, 403),
        ({"policies": "web"}, 403),
        ({"policies": ["web"]}, 403),
        ({"policies": "gateway-token,web"}, 403),
        ({"policies": ["gateway-token", "web"]}, 403),
        ({"policies": "root"}, 403),
        ({"policies": []}, 403),
        ({"policies": None}, 403),
        ({"Policies": ["web"]}, 403),
        ({"no_default_policy": False}, 403),
        ({"no_default_policy": None}, 403),
        ({"ttl": "61s"}, 403),
        ({"ttl": "1h"}, 403),
        ({"ttl": 3600}, 403),
        ({"ttl": None}, 403),
        ({"explicit_max_ttl": "0"}, 403),
        ({"explicit_max_ttl": "0s"}, 403),
        ({"explicit_max_ttl": "00s"}, 403),
        ({"explicit_max_ttl": "0m"}, 403),
        ({"explicit_max_ttl": "-1s"}, 403),
        ({"explicit_max_ttl": ""}, 403),
        ({"explicit_max_ttl": 0}, 403),
        ({"explicit_max_ttl": 3600}, 403),
        ({"explicit_max_ttl": False}, 403),
        ({"explicit_max_ttl": None}, 403),
        ({"meta": None}, 403),
        ({"id": "s.chosen"}, 403),
        ({"num_uses": 3}, 403),
        ({"period": "1h"}, 403),
        ({"no_parent": True}, 403),
        ({"renewable": True}, 403),
        ({"type": "batch"}, 403),
        ({"entity_alias": "somebody"}, 403),
    ],
    ids=str,
)
def test_only_what_a_grant_needs_can_be_said_when_minting(
    vault: Vault, changes: dict[str, Any], status: int
) -> None:
    body = {key: value for key, value in (MINT | changes).items() if value is not None}
    answer = vault.ask("web", "POST", MINT_PATH, body)
    assert answer.status == status, answer
    if status == 200:
        assert answer.body["auth"]["policies"] == ["gateway-token"]
        assert answer.body["auth"]["orphan"] is True
        assert answer.body["auth"]["token_type"] == "service"


def test_gateway_reads_what_the_token_was_minted_for(vault: Vault) -> None:
    minted = vault.mint(meta={"grant": "g-7", "credential": "kt-1"})
    told = vault.ask("gateway", "POST", "auth/token/lookup", {"token": minted.token}).body["data"]
    assert told["meta"] == {"grant": "g-7", "credential": "kt-1"}
    assert told["accessor"] == minted.accessor
    assert told["explicit_max_ttl"] == 3600
    assert told["path"] == MINT_PATH
    assert told["policies"] == ["gateway-token"]


def test_ttl_is_raised_by_accessor_but_never_past_the_end_of_the_grant(vault: Vault) -> None:
    minted = vault.mint(explicit_max_ttl="2s")
    born = time.monotonic()
    body = {"accessor": minted.accessor, "increment": "3600s"}
    raised = vault.ask("web", "POST", "auth/token/renew-accessor", body)
    assert raised.status == 200
    assert raised.body["auth"]["lease_duration"] <= 2
    time.sleep(max(0.0, born + 2.1 - time.monotonic()))
    gone = vault.ask("gateway", "POST", "auth/token/lookup", {"token": minted.token})
    assert gone.status == 403
    assert "bad token" in gone.body["said"]
    assert vault.ask("web", "POST", "auth/token/renew-accessor", body).status in {400, 403, 404}


def test_ttl_is_raised_from_the_minute_that_an_unconfirmed_token_has(vault: Vault) -> None:
    minted = vault.mint()
    looked = {"token": minted.token}
    assert vault.ask("gateway", "POST", "auth/token/lookup", looked).body["data"]["ttl"] <= 60
    body = {"accessor": minted.accessor, "increment": "1800s"}
    assert vault.ask("web", "POST", "auth/token/renew-accessor", body).status == 200
    ttl = vault.ask("gateway", "POST", "auth/token/lookup", looked).body["data"]["ttl"]
    assert 1790 <= ttl <= 1800


def test_a_revoked_token_is_gone_and_says_so(vault: Vault) -> None:
    minted = vault.mint()
    body = {"accessor": minted.accessor}
    assert vault.ask("worker", "POST", "auth/token/lookup-accessor", body).status == 200
    assert vault.ask("worker", "POST", "auth/token/revoke-accessor", body).status == 200
    after = vault.ask("worker", "POST", "auth/token/lookup-accessor", body)
    assert after.status in {400, 403, 404}, after
    assert "invalid accessor" in after.body["said"]


def test_tokens_outlive_the_login_that_minted_them(vault: Vault, servers: Servers) -> None:
    login = servers.vault_token("web")
    answer = vault.ask("web", "POST", MINT_PATH, MINT, token=login)
    mine = vault.ask("web", "GET", "auth/token/lookup-self", token=login).body["data"]["accessor"]
    vault.ask("worker", "POST", "auth/token/revoke-accessor", {"accessor": mine})
    assert vault.ask("web", "GET", "auth/token/lookup-self", token=login).status == 403
    token = answer.body["auth"]["client_token"]
    assert vault.ask("gateway", "POST", "auth/token/lookup", {"token": token}).status == 200


def test_a_write_must_state_the_version_that_it_replaces(vault: Vault) -> None:
    path = "kv/data/upstream/there"
    for options in ({}, {"options": {"cas": 0}}, {"options": {"cas": 99}}):
        assert vault.ask("web", "POST", path, options | {"data": {"key": "x"}}).status == 400
    version = vault.ask("web", "GET", "kv/metadata/upstream/there").body["data"]["current_version"]
    body = {"options": {"cas": version}, "data": {"key": "next"}}
    assert vault.ask("web", "POST", path, body).status == 200
    assert vault.ask("gateway", "GET", path).body["data"]["data"] == {"key": "next"}


def test_what_is_sealed_for_one_is_not_unsealed_for_another(vault: Vault) -> None:
    sealed = vault.seal("AAAA", bound_to="QQ==")
    assert sealed.startswith("vault:v1:")
    theirs = {"ciphertext": sealed, "associated_data": "QQ=="}
    assert vault.ask("web", "POST", DECRYPT, theirs).body["data"] == {"plaintext": "AAAA"}
    anothers = {"ciphertext": sealed, "associated_data": "Qg=="}
    assert vault.ask("web", "POST", DECRYPT, anothers).status == 400


@pytest.mark.parametrize("role", sorted(OWN_LOGIN))
def test_a_login_lasts_20_minutes_and_has_its_own_policy_alone(vault: Vault, role: str) -> None:
    told = vault.ask(role, "GET", "auth/token/lookup-self").body["data"]
    # What a login mints, it must itself have.
    handed_on = {"gateway-token", "lease-owner"} if role == "web" else set()
    assert set(told["policies"]) == {role} | handed_on
    assert told["period"] == 20 * 60
    assert told["type"] == "service"
    assert told["namespace_path"] == "keyturn/"


def test_no_root_token_is_left(vault: Vault, servers: Servers) -> None:
    for namespace in ("", "keyturn"):
        listed = servers.vault("LIST", "auth/token/accessors", namespace=namespace)["data"]["keys"]
        for accessor in listed:
            try:
                told = servers.vault(
                    "POST",
                    "auth/token/lookup-accessor",
                    {"accessor": accessor},
                    namespace=namespace,
                )
            except urllib.error.HTTPError:
                continue  # it expired since it was listed
            assert "root" not in told["data"]["policies"]


def test_requests_are_audited_with_our_request_id_and_without_secrets(
    vault: Vault, servers: Servers
) -> None:
    minted = vault.mint(meta={"grant": "audited-1"})
    log = (servers.folder / "openbao" / "audit.log").read_text()
    assert "audited-1" in log
    assert minted.token not in log
    assert servers.vault_secret_id("web") not in log
