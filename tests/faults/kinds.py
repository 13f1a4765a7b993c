"""What each kind of credential is killed with, and what is alive of it: its target says so."""

import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cryptography import x509

from credentials.models import Credential
from endpoints.models import AccessProfile
from tests.credentials.targets import ROLE, Target
from tests.credentials.test_client_certificate import operate
from tests.faults.killing import Thing, named
from tests.servers import Servers
from tests.world import World

PKI_ROLE = "claims-tools"


@dataclass(frozen=True)
class Tried:
    """How a grant of this kind comes to be, and who knows what is alive."""

    profile: Callable[[World], AccessProfile]
    alive: Callable[[], Iterator[Thing]] | None = None


def tried(servers: Servers, target: Target) -> dict[str, Tried]:
    """By slug."""
    operate(servers, PKI_ROLE)
    return {
        "gateway_token": Tried(lambda world: world.profile(with_key=True)),
        "database": Tried(target.profile, lambda: _of_database(servers, target)),
        "client_certificate": Tried(_mtls, lambda: _certificates(servers)),
    }


def _of_database(servers: Servers, target: Target) -> Iterator[Thing]:
    for user in target.users():
        yield Thing("user", user, named(user))
    rows = Credential.objects.filter(kind="database").only("id", "handles")
    owners = {row.handles.get("lease"): str(row.pk) for row in rows}
    for lease in _listed(servers, f"sys/leases/lookup/database/creds/{ROLE}/"):
        yield Thing("lease", lease, owners.get(f"database/creds/{ROLE}/{lease}", ""))


def _mtls(world: World) -> AccessProfile:
    endpoint = world.endpoint(
        with_key=False, dialects=["direct"], kind="tool", upstream_url="https://tools.internal"
    )
    return world.profile(
        endpoint=endpoint,
        models=None,
        scope={"operations": ["CONNECT /"]},
        credential_kind="client_certificate",
        kind_settings={"role": PKI_ROLE},
    )


def _certificates(servers: Servers) -> Iterator[Thing]:
    for serial in _listed(servers, "pki/certs/"):
        data = servers.vault("GET", f"pki/cert/{serial}")["data"]
        subject = x509.load_pem_x509_certificate(data["certificate"].encode()).subject
        names = subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        name = str(names[0].value) if names else ""
        if name.startswith("kt-") and not data["revocation_time"]:
            yield Thing("certificate", serial, named(name))


def _listed(servers: Servers, path: str) -> list[str]:
    try:
        return list(servers.vault("LIST", path)["data"]["keys"])
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return []
        raise
