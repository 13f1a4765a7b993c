"""Kill a process of the broker at a named moment, let workers go on, and look what is left.

act = Act(servers, tmp_path)
act.dies_at("mint:made", "check_out", grant.pk)
with running_worker(servers):
    took = until(lambda: settled([grant]), 60)
assert wrong(servers, [grant], act.loot()) == []
"""

import json
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
from ulid import ULID

from accessrequests.models import Grant
from credentials.models import Credential
from credentials.states import CredentialState
from tests.conftest import RunningGateway, process_environment
from tests.invariants.target import ask
from tests.servers import Servers


class Act:
    """Runs actions in processes of their own and keeps what Vault told them."""

    def __init__(self, servers: Servers, folder: Path, database: str = "") -> None:
        """`database` is host:port/name of what logins are for."""
        self._servers, self._database = servers, database
        self._loot = folder / f"loot-{uuid.uuid4()}"

    def dies_at(
        self, failpoint: str, action: str, *arguments: Any, role: str = "web", **environment: str
    ) -> float:
        """The moment (time.monotonic) at which it died there, by SIGKILL."""
        died = self.may_die_at(failpoint, action, *arguments, role=role, **environment)
        assert died is not None, f"{action} never came by {failpoint}"
        return died

    def may_die_at(
        self, failpoint: str, action: str, *arguments: Any, role: str = "web", **environment: str
    ) -> float | None:
        """The same, or None where it came to its end without having been there."""
        done = self.run(action, *arguments, role=role, KEYTURN_FAILPOINT=failpoint, **environment)
        assert done.returncode in (0, -signal.SIGKILL), (
            f"{action} was to die at {failpoint} and ended with {done.returncode}:\n{done.stderr}"
        )
        return time.monotonic() if done.returncode else None

    def run(
        self, action: str, *arguments: Any, role: str = "web", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Let it go on to its end."""
        return subprocess.run(
            [sys.executable, "-m", "tests.faults.act", str(self._loot), action]
            + [str(each) for each in arguments],
            env=process_environment(self._servers, role) | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def loot(self) -> list[str]:
        """Every token that Vault gave these processes, and every login to a database as a URL."""
        if not self._loot.exists():
            return []
        said = [json.loads(line)["said"] for line in self._loot.read_text().splitlines()]
        tokens = [answer["auth"]["client_token"] for answer in said if answer.get("auth")]
        # Whoever renews by accessor isn't told the token, and an empty one means one's own.
        tokens = [token for token in tokens if token]
        logins = [
            (data["username"], data["password"])
            for answer in said
            if "lease_id" in answer
            and {"username", "password"} <= set(data := answer["data"] or {})
        ]
        # The worker's monitor logs in by a name of another kind.
        ours = [each for each in logins if each[0].startswith("kt-")]
        return tokens + [
            f"postgresql://{user}:{quote(word)}@{self._database}" for user, word in ours
        ]


def until(true: Callable[[], object], most: float, every: float = 0.2) -> float:
    """The seconds until this was so."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < most, f"not within {most:.0f} s"
        time.sleep(every)
    return time.monotonic() - began


@dataclass(frozen=True)
class Thing:
    """Something alive in OpenBao or at a target that bears a credential's mark."""

    what: str
    name: str
    credential: str


# What else to look at, beside OpenBao's tokens.
targets: list[Callable[[], Iterable[Thing]]] = []


def standing(servers: Servers) -> set[Thing]:
    """All that is alive and was minted by a broker, by the word of what holds it."""
    return {*_tokens(servers), *(thing for target in targets for thing in target())}


def _tokens(servers: Servers) -> Iterator[Thing]:
    for accessor in servers.vault("LIST", "auth/token/accessors/")["data"]["keys"]:
        data = ask(servers, "lookup-accessor", {"accessor": accessor})
        credential = ((data or {}).get("meta") or {}).get("credential")
        if credential:
            yield Thing("token", accessor, credential)


def named(name: str) -> str:
    """The id of the credential that this name begins with; empty if it's none."""
    try:
        return str(ULID.from_str(name[3:29].upper()).to_uuid())
    except ValueError:
        return ""


def settled(grants: Iterable[Grant]) -> bool:
    """Whether nothing of these grants is on its way any more."""
    return (
        not Credential.objects.filter(grant__in=list(grants))
        .exclude(state__in=[CredentialState.ACTIVE, CredentialState.REVOKED])
        .exists()
    )


def settle(grants: Iterable[Grant], most: float) -> float:
    """The seconds until all of these are settled."""
    grants = list(grants)
    try:
        return until(lambda: settled(grants), most)
    except AssertionError as error:
        rows = (
            Credential.objects.filter(grant__in=grants)
            .exclude(state__in=[CredentialState.ACTIVE, CredentialState.REVOKED])
            .values_list("kind", "state", "attempts", "last_error")
        )
        raise AssertionError(f"{error}: {len(rows)} aren't, such as {list(rows[:5])}") from error


def unwanted(servers: Servers, grants: Iterable[Grant]) -> set[Thing]:
    """What is alive under these grants and shouldn't be: its credential isn't on record as live,
    or its grant has ended."""
    rows = _credentials(grants)
    found = set()
    for thing in standing(servers):
        row = rows.get(thing.credential)
        if row and (row.state != CredentialState.ACTIVE or row.grant.ended_at is not None):
            found.add(thing)
    return found


def _credentials(grants: Iterable[Grant]) -> Mapping[str, Credential]:
    rows = Credential.objects.filter(grant__in=list(grants)).select_related(
        "grant__request__profile__endpoint"
    )
    return {str(row.pk): row for row in rows}


def wrong(
    servers: Servers,
    grants: Iterable[Grant],
    loot: Iterable[str] = (),
    *,
    gateway: RunningGateway | None = None,
    before: set[Thing] | None = None,
) -> list[str]:
    """What contradicts the invariants, by the word of PostgreSQL, OpenBao and the targets: empty
    once all is well.

    Every credential of an ended grant is proven gone and is gone; at most one is alive per live
    grant; of what came since `before`, nothing alive is unknown. With a `gateway` every token of
    `loot` is tried there too.
    """
    rows = _credentials(grants)
    found = []
    alive: Counter[tuple[uuid.UUID, str]] = Counter()
    now = standing(servers)
    known = set(map(str, Credential.objects.values_list("pk", flat=True)))
    if before is not None:
        unknown = {thing for thing in now - before if thing.credential not in known}
        found += [f"nobody knows {thing}" for thing in unknown]
    for thing in now:
        row = rows.get(thing.credential)
        if row is None:
            continue
        alive[row.grant_id, thing.what] += 1
        if row.state != CredentialState.ACTIVE or row.grant.ended_at is not None:
            found.append(f"{thing} is alive, and on record as {row.state}")
    found += [f"{count} are alive under {of}" for of, count in alive.items() if count > 1]
    for row in rows.values():
        if row.state == CredentialState.REVOKED:
            if not row.proof:
                found.append(f"{row} went without a proof")
        elif row.grant.ended_at is not None or row.state != CredentialState.ACTIVE:
            found.append(f"{row} is still {row.state}: {row.last_error}")
    for secret in loot:
        if secret.startswith("postgresql://"):
            opens, credential = _logs_in(secret), named(secret[len("postgresql://") :])
        else:
            held = ask(servers, "lookup", {"token": secret})
            opens = bool(held) or (gateway is not None and _opens(gateway, rows.values(), secret))
            credential = ((held or {}).get("meta") or {}).get("credential", "")
        # One that came to its end without dying has a grant of its own.
        row = Credential.objects.filter(pk=credential).first() if credential else None
        if opens and (row is None or row.state != CredentialState.ACTIVE):
            found.append(f"a secret of {row or 'nobody'} opens something")
    return found


def _logs_in(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def _opens(gateway: RunningGateway, rows: Iterable[Credential], secret: str) -> bool:
    slugs = {row.grant.request.profile.endpoint.slug for row in rows if row.kind == "gateway_token"}
    return any(
        httpx.get(
            f"{gateway.base(slug)}/models", headers={"Authorization": f"Bearer {secret}"}
        ).status_code
        == 200  # 401 for the first few, then 429
        for slug in slugs
    )
