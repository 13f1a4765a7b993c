"""The one module that talks to Vault or OpenBao.

Each process logs in by its own AppRole (web mints, worker revokes, gateway verifies) inside the
broker's own namespace, so `revoke-accessor`, which Vault can't scope, can't reach the tokens of
those who operate it.
"""

import base64
import datetime as dt
import logging
import threading
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import hvac
import hvac.exceptions
import requests
from django.conf import settings

from audit.context import origin
from credentials.breaker import breaker

logger = logging.getLogger(__name__)

# A token that nobody heard of dies by itself after this; raised once it's recorded. Seconds.
UNCONFIRMED_TTL = 60
TOKEN_POLICY = "gateway-token"  # noqa: S105
OWNER_POLICY = "lease-owner"
# Not on a token role: when OpenBao renews a token that was made on one, it forgets the token's
# own explicit_max_ttl and takes the role's, so that raising the TTL could outlast the grant.
MINT_PATH = "auth/token/create-orphan"
WRAP_PATH = "sys/wrapping/wrap"
KV_MOUNT = "kv"
TRANSIT_MOUNT = "transit"
FACTOR_KEY = "second-factor"
WEBHOOK_KEY = "webhooks"
SIGNING_KEY = "credentials"


class VaultError(Exception):
    """Vault did not do this. `unknown` says that it may have."""

    unknown = False


class VaultDown(VaultError):
    """Vault can't be reached or is sealed, electing or overloaded.

    A call that was on its way may have been carried out.
    """

    unknown = True


class VaultDenied(VaultError):
    """Vault refused this by policy: an operator has to look at it, trying again won't help."""


class VaultInvalid(VaultError):
    """Vault can't do this as things stand: what it is about is gone or has changed."""


class LeaseStuck(VaultError):
    """Vault can't end this lease at present, and goes on trying for a while: what made it, or
    where, is out of its reach."""


@dataclass(frozen=True)
class Minted:
    """`token` is the secret, for one answer to one person; `accessor` may be stored."""

    token: str
    accessor: str

    def __repr__(self) -> str:
        return f"Minted(accessor={self.accessor!r})"


@dataclass(frozen=True)
class Lease:
    """What an engine gave: `data` are the secret's parts, `seconds` how long it lasts as it is."""

    id: str
    seconds: int
    renewable: bool
    data: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class KeyVersion:
    """The public half of one version of the signing key, as its `type` is written in Vault."""

    number: int
    type: str
    public: str
    created_at: dt.datetime


class _Session:
    """One logged-in client, with a connection of its own, for one thread."""

    def __init__(self) -> None:
        http = requests.Session()
        # Looking for proxies in the environment costs 150 µs a call and would send tokens there.
        http.trust_env = False
        if settings.VAULT_CACERT:
            http.verify = settings.VAULT_CACERT
        self.client = hvac.Client(
            url=settings.VAULT_ADDR,
            namespace=settings.VAULT_NAMESPACE or None,
            session=http,
            timeout=settings.VAULT_TIMEOUT,
        )
        self.renew_at = 0.0
        self.dead_at = 0.0

    def ready(self) -> hvac.Client:
        """The client, logged in for at least half of its token's period yet."""
        moment = time.monotonic()
        if moment >= self.dead_at:
            self._adopt(
                self.client.auth.approle.login(
                    role_id=settings.VAULT_ROLE_ID, secret_id=settings.VAULT_SECRET_ID
                ),
                moment,
            )
        elif moment >= self.renew_at:
            try:
                self._adopt(self.client.auth.token.renew_self(), moment)
            except hvac.exceptions.Forbidden:
                self.dead_at = 0.0
                return self.ready()
        return self.client

    def _adopt(self, answer: dict[str, Any], moment: float) -> None:
        lease = answer["auth"]["lease_duration"]
        self.renew_at, self.dead_at = moment + lease / 2, moment + lease * 0.9

    def forget(self) -> None:
        self.dead_at = 0.0


_local = threading.local()


@contextmanager
def _calling(what: str) -> Iterator[hvac.Client]:
    """A ready client; Vault's and the network's exceptions become this module's."""
    sessions: dict[str, _Session] = _local.__dict__.setdefault("sessions", {})
    made_of = (
        f"{settings.VAULT_ADDR} {settings.VAULT_NAMESPACE} {settings.VAULT_ROLE_ID}"
        f" {settings.VAULT_TIMEOUT}"
    )
    session = sessions.get(made_of) or sessions.setdefault(made_of, _Session())
    circuit = breaker(settings.VAULT_ADDR)
    if not circuit.allows():
        raise VaultDown(f"{what}: it didn't answer of late, and isn't asked for a moment")
    try:
        client = session.ready()
        client.adapter.session.headers["X-Broker-Request-Id"] = str(origin().trace)
        yield client
        circuit.worked()
    except hvac.exceptions.Forbidden as error:
        circuit.worked()
        # Our own login may have died with a restore or a seal: the next call logs in anew.
        session.forget()
        raise VaultDenied(
            f"{what}: Vault refused it to the AppRole {settings.VAULT_ROLE_ID}"
        ) from error
    except hvac.exceptions.InvalidRequest as error:
        circuit.worked()
        if "approle" in str(error.url or ""):
            session.forget()
            raise VaultDenied(
                f"{what}: no AppRole {settings.VAULT_ROLE_ID} with this secret id in Vault"
            ) from error
        raise VaultInvalid(f"{what}: Vault found it invalid") from error
    except hvac.exceptions.InvalidPath as error:
        circuit.worked()
        raise VaultInvalid(f"{what}: Vault has nothing there") from error
    except (requests.RequestException, hvac.exceptions.VaultError) as error:
        circuit.failed()
        # The text of such an error can hold a URL or headers; its type says enough.
        raise VaultDown(f"{what}: {type(error).__name__}") from error


def mint(*, name: str, meta: dict[str, str], lifetime: int, policy: str = TOKEN_POLICY) -> Minted:
    """A service token that opens nothing in Vault, or with OWNER_POLICY only what it takes to ask
    for a lease.

    It lives for UNCONFIRMED_TTL seconds until `raise_ttl` confirms it, and never longer than
    `lifetime` seconds. Raises VaultDown, after which it may exist all the same, VaultDenied, or
    VaultInvalid.
    """
    if lifetime < 1:
        raise ValueError("a lifetime of 0 would mean none at all to Vault")
    body = {
        # Exactly as the policy of web spells them; it refuses anything else.
        "policies": policy,
        "no_default_policy": True,
        "display_name": name,
        "meta": meta,
        "ttl": f"{UNCONFIRMED_TTL}s",
        "explicit_max_ttl": f"{lifetime}s",
    }
    with _calling("mint") as client:
        # hvac's token.create would send keys that the policy's allowed_parameters refuse.
        answer = client.adapter.post(f"/v1/{MINT_PATH}", json=body)
    return Minted(token=answer["auth"]["client_token"], accessor=answer["auth"]["accessor"])


def take_lease(path: str, *, owner: str) -> Lease:
    """What the engine at this path gives, on a lease that hangs on the token `owner`.

    Raises VaultDown, after which the lease may exist all the same, VaultDenied and VaultInvalid.
    """
    with _calling("take a lease") as client:
        # A second one on the same connection: hvac lets no call say whose token it uses.
        adapter: Any = hvac.adapters.JSONAdapter.from_adapter(client.adapter)
        adapter.token = owner
        try:
            answer = adapter.get(f"/v1/{path}")
        except hvac.exceptions.InternalServerError as error:
            # The engine's answer, not Vault's state: a target that is down says nothing of Vault.
            raise LeaseStuck(f"{path.partition('/')[0]} couldn't make a credential") from error
        except requests.ReadTimeout as error:
            raise VaultDown(f"{path.partition('/')[0]} hasn't answered in time") from error
    return Lease(
        answer["lease_id"],
        int(answer["lease_duration"]),
        bool(answer["renewable"]),
        answer["data"] or {},
    )


def renew_lease(lease: str, seconds: int) -> int:
    """Let a lease last for `seconds` from now; for how long it does. Raises VaultInvalid where it
    was revoked before that, and LeaseStuck."""
    with _calling("renew a lease") as client:
        try:
            answer = client.adapter.post(
                f"/v1/sys/leases/renew/{lease}", json={"increment": f"{seconds}s"}
            )
        except (hvac.exceptions.InternalServerError, hvac.exceptions.InvalidRequest) as error:
            if "failed to renew entry" not in str(error):
                raise
            raise LeaseStuck("what made the lease couldn't renew it") from error
        except requests.ReadTimeout as error:
            raise VaultDown("what made the lease hasn't answered in time") from error
    return int(answer["lease_duration"])


def revoke_lease(lease: str) -> None:
    """Have what this lease is of ended. Its success proves nothing: ask `lookup_lease`, and what
    it opens.

    Where that fails Vault is asked to go on trying by itself; then it raises LeaseStuck.
    """
    path = f"/v1/sys/leases/revoke/{lease}"
    with _calling("revoke a lease") as client:
        try:
            client.adapter.put(path, json={"sync": True})
        except requests.ReadTimeout as error:
            why: Exception = error
        except (hvac.exceptions.InternalServerError, hvac.exceptions.InvalidRequest) as error:
            why = error
            client.adapter.put(path, json={"sync": False})
        else:
            return
    if isinstance(why, requests.ReadTimeout):
        # It's at this lease, and keeps it locked meanwhile. Does it answer anybody else?
        ping()
        raise LeaseStuck("Vault waits for what the lease is of, which doesn't answer") from why
    raise LeaseStuck("Vault couldn't end the lease, and tries again by itself") from why


def lookup_lease(lease: str) -> dict[str, Any] | None:
    """What Vault holds of a lease; None where Vault itself says that there is nothing."""
    with _calling("look a lease up") as client:
        try:
            answer = client.adapter.put("/v1/sys/leases/lookup", json={"lease_id": lease})
        except (hvac.exceptions.InvalidRequest, hvac.exceptions.InvalidPath):
            return None
    data: dict[str, Any] = answer["data"]
    return data


def leases(path: str) -> set[str]:
    """All leases of what was read at this path."""
    with _calling("list leases") as client:
        try:
            answer = client.adapter.list(f"/v1/sys/leases/lookup/{path}/")
        except hvac.exceptions.InvalidPath:
            return set()
    return {f"{path}/{key}" for key in answer["data"]["keys"]}


def static_login(mount: str, role: str) -> tuple[str, str]:
    """Name and password of a login whose password the engine at `mount` keeps changing."""
    with _calling("read a monitor's login") as client:
        data = client.adapter.get(f"/v1/{mount}/static-creds/{role}")["data"]
    return data["username"], data["password"]


def wrap(parts: dict[str, str], *, seconds: int) -> Minted:
    """A token that gives these to its first reader, within so many seconds."""
    with _calling("wrap a secret") as client:
        answer = client.adapter.post(
            f"/v1/{WRAP_PATH}", json=parts, headers={"X-Vault-Wrap-TTL": f"{seconds}s"}
        )
    info = answer["wrap_info"]
    return Minted(token=info["token"], accessor=info["accessor"])


def wrapping(token: str) -> tuple[str, str] | None:
    """The accessor of a wrapping token and the path that made it; None where Vault doesn't know
    it, as after its first reader. Looking doesn't use it up."""
    with _calling("look at a wrapped secret") as client:
        try:
            answer = client.adapter.post("/v1/auth/token/lookup", json={"token": token})
        except hvac.exceptions.Forbidden as error:
            # "bad token" is the answer to an unknown one; anything else is about ourselves.
            if "bad token" in str(error):
                return None
            raise
        except (hvac.exceptions.InvalidRequest, hvac.exceptions.InvalidPath):
            return None
    return answer["data"]["accessor"], answer["data"]["path"]


def unwrap(token: str) -> dict[str, str] | None:
    """What a wrapping token wraps, for the first who asks; None for everybody after."""
    with _calling("unwrap a secret") as client:
        try:
            answer = client.adapter.post("/v1/sys/wrapping/unwrap", json={"token": token})
        except (hvac.exceptions.InvalidRequest, hvac.exceptions.InvalidPath):
            return None
        except hvac.exceptions.InternalServerError as error:
            # What OpenBao says to one in a thousand of those who come while the first one reads.
            if "wrapping token's use-count" in str(error):
                return None
            raise
    parts: dict[str, str] = answer["data"]
    return parts


def raise_ttl(accessor: str, seconds: int) -> None:
    """Let a minted token live for `seconds` from now; Vault caps that at its lifetime.

    Raises VaultInvalid where it was revoked before that.
    """
    with _calling("raise the TTL") as client:
        client.adapter.post(
            "/v1/auth/token/renew-accessor",
            json={"accessor": accessor, "increment": f"{seconds}s"},
        )


def revoke(accessor: str) -> None:
    """Ask Vault to revoke. Its answer proves nothing: ask `lookup` afterwards."""
    with _calling("revoke") as client:
        try:
            client.adapter.post("/v1/auth/token/revoke-accessor", json={"accessor": accessor})
        except (hvac.exceptions.InvalidRequest, hvac.exceptions.InvalidPath):
            return  # not there: `lookup` will say so itself


def lookup(accessor: str) -> dict[str, Any] | None:
    """What Vault holds for this accessor; None where Vault itself says that there is nothing.

    A refusal by policy isn't that: it raises VaultDenied.
    """
    path = "/v1/auth/token/lookup-accessor"
    with _calling("look an accessor up") as client:
        try:
            answer = client.adapter.post(path, json={"accessor": accessor})
        except (hvac.exceptions.InvalidRequest, hvac.exceptions.InvalidPath):
            return None
        except hvac.exceptions.Forbidden:
            # A mint that was cut off leaves an accessor without its token, which OpenBao lists
            # and answers with 403 for ever after. Whoever may look their own accessor up was not
            # refused by policy, so the token behind this one is what isn't there.
            own = client.adapter.get("/v1/auth/token/lookup-self")["data"]["accessor"]
            client.adapter.post(path, json={"accessor": own})
            return None
    data: dict[str, Any] = answer["data"]
    return data


def accessors() -> set[str]:
    """Of every token in the namespace, our own logins' too."""
    with _calling("list accessors") as client:
        try:
            answer = client.adapter.list("/v1/auth/token/accessors/")
        except hvac.exceptions.InvalidPath:
            return set()
    return set(answer["data"]["keys"])


def tokens(*, but: Collection[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Accessor and data of every token in the namespace but these, one call each."""
    for accessor in accessors().difference(but):
        data = lookup(accessor)
        if data is not None:
            yield accessor, data


def find(credential_ids: set[str], *, but: Collection[str] = ()) -> dict[str, str]:
    """Accessors by credential id, for those of these credentials that are in Vault.

    For mints whose answer was lost. Looks at every token of the namespace `but` these accessors.
    """
    found = {}
    for accessor, data in tokens(but=but):
        credential = (data.get("meta") or {}).get("credential")
        if credential in credential_ids:
            found[credential] = accessor
    return found


def irrevocable() -> list[dict[str, str]]:
    """Leases that Vault has given up revoking: `lease` and `error` of each."""
    with _calling("list irrevocable leases") as client:
        try:
            answer = client.adapter.get("/v1/sys/leases", params={"type": "irrevocable"})
        except hvac.exceptions.InvalidPath:
            return []
    leases = ((answer or {}).get("data") or {}).get("leases") or []
    return [
        {"lease": str(each.get("lease_id", "")), "error": str(each.get("error", ""))[:300]}
        for each in leases
    ]


def whose(token: str) -> uuid.UUID | None:
    """The id of the credential that this secret is, or None where Vault doesn't know it.

    Raises VaultDown and VaultDenied; neither says anything of the secret.
    """
    with _calling("look a token up") as client:
        try:
            answer = client.adapter.post("/v1/auth/token/lookup", json={"token": token})
        except hvac.exceptions.Forbidden as error:
            # "bad token" is the answer to an unknown one; anything else is about ourselves.
            if "bad token" in str(error):
                return None
            raise
        except (hvac.exceptions.InvalidRequest, hvac.exceptions.InvalidPath):
            return None
    data = answer["data"]
    if data.get("path") != MINT_PATH or data.get("policies") != [TOKEN_POLICY]:
        return None
    try:
        return uuid.UUID((data.get("meta") or {}).get("credential", ""))
    except ValueError:
        return None


def ping() -> None:
    """Raise VaultError unless this process is logged in to a Vault that answers."""
    with _calling("look at its own login") as client:
        client.adapter.get("/v1/auth/token/lookup-self")


@dataclass(frozen=True)
class Kept:
    """One version of a secret in KV. `about` is what was written beside it, and isn't secret."""

    secret: str = field(repr=False)
    version: int
    about: dict[str, Any]


def kept(path: str, *, version: int = 0) -> Kept | None:
    """The secret at `path` in KV, at this version or the newest; None where there is none.

    A version that was destroyed is none.
    """
    query = f"?version={version}" if version else ""
    with _calling("read a secret") as client:
        try:
            answer = client.adapter.get(f"/v1/{KV_MOUNT}/data/{path}{query}")
        except hvac.exceptions.InvalidPath:
            return None
    data = dict(answer["data"]["data"])
    return Kept(str(data.pop("key")), answer["data"]["metadata"]["version"], data)


def keep(path: str, secret: str, *, replaces: int, about: dict[str, Any] | None = None) -> int:
    """Write a secret to KV over this version; its new one.

    Check-and-set: of two writers at once one raises VaultInvalid, none is lost. What stood there
    before stays readable at its own version until it's destroyed.
    """
    with _calling("store a secret") as client:
        answer = client.adapter.post(
            f"/v1/{KV_MOUNT}/data/{path}",
            json={"data": {**(about or {}), "key": secret}, "options": {"cas": replaces}},
        )
    stored: int = answer["data"]["version"]
    return stored


def newest(path: str) -> int:
    """The newest version of the secret at `path` in KV, 0 if there is none."""
    with _calling("look at a secret's versions") as client:
        try:
            meta = client.adapter.get(f"/v1/{KV_MOUNT}/metadata/{path}")
        except hvac.exceptions.InvalidPath:
            return 0
    version: int = meta["data"]["current_version"]
    return version


def destroy(path: str, versions: list[int]) -> None:
    """Destroy these versions of a secret in KV; those that are gone already stay so."""
    with _calling("destroy a secret") as client:
        client.adapter.post(f"/v1/{KV_MOUNT}/destroy/{path}", json={"versions": versions})


def remark(path: str, about: dict[str, str]) -> None:
    """Set custom metadata of the secret at `path` in KV, for whoever looks at it in Vault."""
    with _calling("describe a secret") as client:
        client.adapter.request(
            "patch",
            f"/v1/{KV_MOUNT}/metadata/{path}",
            json={"custom_metadata": about},
            headers={"Content-Type": "application/merge-patch+json"},
        )


def upstream_path(endpoint: str) -> str:
    """Where the key is that gateways use for an endpoint."""
    return f"upstream/{endpoint}"


def upstream_version(endpoint: str) -> int:
    """The newest version of an endpoint's stored upstream key, 0 if there is none."""
    return newest(upstream_path(endpoint))


def store_upstream_key(endpoint: str, key: str) -> int:
    """Write an endpoint's upstream key; its new version. Raises VaultInvalid where somebody else
    wrote one meanwhile."""
    path = upstream_path(endpoint)
    return keep(path, key, replaces=newest(path))


def upstream_key(endpoint: str, *, version: int = 0) -> str | None:
    """An endpoint's upstream key, None if it has none."""
    found = kept(upstream_path(endpoint), version=version)
    return found.secret if found is not None else None


def store_rotator_key(endpoint: str, key: str) -> int:
    """Write what lets an endpoint's rotator manage keys at its provider; its new version."""
    path = f"rotators/{endpoint}"
    return keep(path, key, replaces=newest(path))


def rotator_key(endpoint: str) -> str:
    """What lets an endpoint's rotator manage keys, empty if nothing is stored. For the worker."""
    found = kept(f"rotators/{endpoint}")
    return found.secret if found is not None else ""


def handed_out_key(endpoint: str, *, version: int = 0) -> tuple[str, int] | None:
    """The static key that an endpoint's grants hand out, and its version; None if it has none."""
    found = kept(f"handed-out/{endpoint}", version=version)
    return (found.secret, found.version) if found is not None else None


@dataclass(frozen=True)
class Signed:
    """A certificate and those of its issuers, as PEM; nothing of it is secret."""

    serial: str
    certificate: str
    chain: list[str]


def sign_certificate(
    mount: str, role: str, *, csr: str, name: str, uri: str, not_after: str
) -> Signed:
    """Have the CA of this mount certify the key of `csr` under this name, until `not_after`.

    Raises VaultDown, after which it may have been signed all the same: `certificates` lists it.
    """
    body = {
        "csr": csr,
        "common_name": name,
        "uri_sans": uri,
        "not_after": not_after,
        "exclude_cn_from_sans": True,
    }
    with _calling("sign a certificate") as client:
        data = client.adapter.post(f"/v1/{mount}/sign/{role}", json=body)["data"]
    chain = data.get("ca_chain") or [data["issuing_ca"]]
    return Signed(data["serial_number"], data["certificate"], chain)


def certificates(mount: str) -> dict[str, dict[str, Any]]:
    """By serial, the name (`common_name`) and the end (`not_after`) of each certificate that this
    CA has signed and not revoked. Those that are over are among them until they are tidied up."""
    with _calling("list certificates") as client:
        try:
            answer = client.adapter.list(f"/v1/{mount}/certs/detailed")
        except hvac.exceptions.InvalidPath:
            return {}
        try:
            revoked = client.adapter.list(f"/v1/{mount}/certs/revoked")["data"]["keys"]
        except hvac.exceptions.InvalidPath:
            revoked = []
    info: dict[str, dict[str, Any]] = answer["data"]["key_info"]
    return {serial: each for serial, each in info.items() if serial not in set(revoked)}


def certificate(mount: str, serial: str) -> str | None:
    """As PEM; None where the CA doesn't know it, or no longer."""
    with _calling("read a certificate") as client:
        try:
            answer = client.adapter.get(f"/v1/{mount}/cert/{serial}")
        except (hvac.exceptions.InvalidRequest, hvac.exceptions.InvalidPath):
            return None
    pem: str = answer["data"]["certificate"]
    return pem


def issuers(mount: str) -> list[str]:
    """The CA's own certificates, as PEM."""
    with _calling("read the CA's certificates") as client:
        ids = client.adapter.list(f"/v1/{mount}/issuers")["data"]["keys"]
        return [
            client.adapter.get(f"/v1/{mount}/issuer/{each}/json")["data"]["certificate"]
            for each in ids
        ]


def revoke_certificate(mount: str, serial: str) -> None:
    """Ask the CA to revoke it. Its answer proves nothing: ask `ocsp` afterwards."""
    with _calling("revoke a certificate") as client:
        try:
            client.adapter.post(f"/v1/{mount}/revoke", json={"serial_number": serial})
        except (hvac.exceptions.InvalidRequest, hvac.exceptions.InvalidPath):
            return  # not there, or over: `ocsp` or its end will say so


def ocsp(mount: str, question: bytes) -> bytes:
    """What the CA's OCSP responder answers (RFC 6960), DER both ways."""
    with _calling("ask the OCSP responder") as client:
        answer = client.adapter.post(
            f"/v1/{mount}/ocsp",
            data=question,
            headers={"Content-Type": "application/ocsp-request"},
        )
    content: bytes = answer.content
    return content


def seal(secret: bytes, *, bound_to: str, key: str = FACTOR_KEY) -> str:
    """`secret` encrypted by this key of Vault's; `unseal` needs the same `bound_to`."""
    with _calling(f"seal by the key {key}") as client:
        answer = client.adapter.post(
            f"/v1/{TRANSIT_MOUNT}/encrypt/{key}",
            json={"plaintext": _base64(secret), "associated_data": _base64(bound_to.encode())},
        )
    sealed: str = answer["data"]["ciphertext"]
    return sealed


def unseal(sealed: str, *, bound_to: str, key: str = FACTOR_KEY) -> bytes:
    """What `seal` encrypted. Raises VaultInvalid where it was bound to something else."""
    with _calling(f"unseal by the key {key}") as client:
        answer = client.adapter.post(
            f"/v1/{TRANSIT_MOUNT}/decrypt/{key}",
            json={"ciphertext": sealed, "associated_data": _base64(bound_to.encode())},
        )
    return base64.b64decode(answer["data"]["plaintext"])


def signing_key() -> list[KeyVersion]:
    """The versions of the key that signs JWTs, oldest first, without those that were withdrawn."""
    with _calling("read the signing key") as client:
        answer = client.adapter.get(f"/v1/{TRANSIT_MOUNT}/keys/{SIGNING_KEY}")
    data = answer["data"]
    return [
        KeyVersion(
            int(number),
            data["type"],
            version["public_key"],
            dt.datetime.fromisoformat(version["creation_time"]),
        )
        for number, version in sorted(data["keys"].items(), key=lambda item: int(item[0]))
    ]


def sign(data: bytes, *, version: int) -> str:
    """The signature of `data` by this version, as a JWS has it. Raises VaultError, also where the
    version was withdrawn."""
    with _calling("sign") as client:
        answer = client.adapter.post(
            f"/v1/{TRANSIT_MOUNT}/sign/{SIGNING_KEY}",
            json={
                "input": _base64(data),
                "key_version": version,
                "marshaling_algorithm": "jws",
            },
        )
    signature: str = answer["data"]["signature"]
    return signature.rpartition(":")[2]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
