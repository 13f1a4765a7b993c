"""Ten thousand grants that end in the same second, and what a mint costs, against OpenBao."""

import contextlib
import datetime as dt
import json
import os
import textwrap
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.db import connection, connections
from django.test import override_settings

from accessrequests.models import AccessRequest, Grant
from audit import clock
from credentials import vault
from credentials.actions import check_out, checking_out
from credentials.models import Credential
from credentials.states import CredentialState
from credentials.stopping import end_all
from tests.bench.load import quantiles
from tests.bench.passes import say
from tests.bench.report import table, write
from tests.conftest import running_gateway, running_worker
from tests.servers import Servers
from tests.world import PROVED, World

pytestmark = pytest.mark.usefixtures("committed")

MANY = int(os.environ.get("KEYTURN_BENCH_ENDS", "10000"))
ASKED = 100  # of their secrets, at the gateway, the moment that they end
THREADS = 8
MINTS = 200
PATIENCE = 600.0
Figures = dict[str, Any]


def test_storm(
    world: World,
    servers: Servers,
    role: Any,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if request.config.getoption("quick"):
        pytest.skip("not a quick one")
    mint = _mint(world, monkeypatch)
    raw = _raw(role)
    calm = _lateness(world, lambda: time.sleep(10))
    with running_gateway(servers) as gateway, running_worker(servers):
        early = _ended(world, gateway.url, raw["minting"], at_once=True)
        natural = _ended(world, gateway.url, raw["minting"], at_once=False)
    rows = [
        ["OpenBao alone, 8 connections: revoke", f"{raw['took']:.1f}", f"{raw['rate']:,.0f}", 1.0],
    ]
    for name, each in (("ended early, all at once", early), ("time up, all at once", natural)):
        ratio = each["took"] / raw["took"]
        rows.append([name, f"{each['took']:.1f}", f"{MANY / each['took']:,.0f}", ratio])
    late = [
        [name, *(f"{each[key]:,.0f}" for key in ("p50", "p99", "most"))]
        for name, each in (
            ("before", calm),
            ("while 10,000 are ended early", early["others"]),
            ("while the time of 10,000 is up", natural["others"]),
        )
    ]
    text = "\n\n".join(
        [
            textwrap.fill(
                f"{MANY:,} grants with a credential each end in the same second, with one worker. "
                "From that second to the last credential proven gone, rows, record and "
                f"notifications included, against {MANY:,} revoke calls made to the same OpenBao "
                f"and nothing else. Promised: within 2 of it. Of {ASKED} of their secrets the "
                f"gateway let in {early['let_in']} and {natural['let_in']} when asked "
                f"{early['asked_after']:.1f} and {natural['asked_after']:.1f} s after that second.",
                98,
            ),
            table(["", "to the last one, s", "per second", "× OpenBao's time"], rows),
            "Unrelated check-outs meanwhile, one after another, in ms:",
            table(["", "p50", "p99", "longest"], late),
            textwrap.fill(
                f"A mint, from the commit of its intent on, takes {mint['mint'] / mint['raw']:.2f} "
                f"of the two calls to OpenBao that it needs (p50 of {MINTS} in turn, "
                f"{mint['mint']:.1f} against {mint['raw']:.1f} ms; promised: 2). The whole "
                f"check-out takes {mint['check_out'] / mint['raw']:.2f} of them "
                f"({mint['check_out']:.1f} ms): before anything is minted all that the grant rests "
                "on is checked anew under lock, in about 20 queries.",
                98,
            ),
        ]
    )
    found = {"raw": raw, "early": early, "natural": natural, "calm": calm, "mint": mint}
    write("storm", "Ten thousand ends in one second", text, found)


def _raw_mint() -> vault.Minted:
    meta = {"credential": str(uuid.uuid4()), "grant": "bench", "request": "bench"}
    minted = vault.mint(name="kt-bench", meta=meta, lifetime=3000)
    vault.raise_ttl(minted.accessor, 3000)
    return minted


def _mint(world: World, monkeypatch: pytest.MonkeyPatch) -> Figures:
    """Turn by turn, so that whatever else the machine does hits both."""
    intended: list[float] = []
    begin = checking_out._begin

    def beginning(**which: Any) -> Credential:
        credential = begin(**which)
        intended.append(time.perf_counter())
        return credential

    monkeypatch.setattr(checking_out, "_begin", beginning)
    grants = [world.grant() for _ in range(MINTS // 4)]
    whole, minting, raw = [], [], []
    for at in range(MINTS + 20):
        grant = grants[at % len(grants)]
        began = time.perf_counter()
        check_out(by=grant.holder, grant_id=grant.pk)
        checked_out = time.perf_counter()
        _raw_mint()
        made = time.perf_counter()
        if at >= 20:
            whole.append((checked_out - began) * 1000)
            minting.append((checked_out - intended[-1]) * 1000)
            raw.append((made - checked_out) * 1000)
    found = {
        name: sorted(values)[MINTS // 2]
        for name, values in (("check_out", whole), ("mint", minting), ("raw", raw))
    }
    say(", ".join(f"{name} {value:.1f} ms" for name, value in found.items()))
    return found


def _raw(role: Any) -> Figures:
    """What OpenBao does in revocations if nothing else is asked of anybody."""
    with ThreadPoolExecutor(THREADS) as pool:
        began = time.monotonic()
        minted = list(pool.map(lambda _: _raw_mint(), range(MANY)))
        minting = time.monotonic() - began
        with role("worker"):
            list(pool.map(lambda _: vault.ping(), range(THREADS * 4)))
            began = time.monotonic()
            list(pool.map(lambda each: vault.revoke(each.accessor), minted))
            took = time.monotonic() - began
    say(f"{MANY:,} revokes by OpenBao alone: {took:.1f} s")
    return {"took": took, "rate": MANY / took, "minting": minting}


COPY = """
INSERT INTO {table} SELECT (jsonb_populate_record(one, to_jsonb(own))).*
FROM {table} AS one, jsonb_to_recordset(%s::jsonb) AS own({columns}) WHERE one.id = %s
"""


def _copies(row: Any, columns: dict[str, str], values: list[dict[str, Any]]) -> None:
    name = row._meta.db_table
    spelled = ", ".join(f"{column} {kind}" for column, kind in columns.items())
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {name} DISABLE TRIGGER USER")
        cursor.execute(
            COPY.format(table=name, columns=spelled), [json.dumps(values, default=str), str(row.pk)]
        )
        cursor.execute(f"ALTER TABLE {name} ENABLE TRIGGER USER")


def _live(world: World, ends_at: dt.datetime) -> tuple[Grant, list[str]]:
    """So many live grants with a live credential each, of one endpoint; and some of the secrets.

    All but one are copies of one that was made as people make them; what OpenBao holds is real.
    """
    first = world.grant(duration=ends_at - clock.now())
    lifetime = int((ends_at - clock.now()).total_seconds())
    rows = [
        {"id": uuid.uuid4(), "request_id": uuid.uuid4(), "credential": uuid.uuid4()}
        for _ in range(MANY)
    ]

    def mint(row: dict[str, Any]) -> vault.Minted:
        meta = {"credential": str(row["credential"]), "grant": str(row["id"]), "request": "bench"}
        minted = vault.mint(name="kt-bench", meta=meta, lifetime=lifetime)
        vault.raise_ttl(minted.accessor, lifetime)
        return minted

    with ThreadPoolExecutor(THREADS) as pool:
        minted = list(pool.map(mint, rows))
    ids = [{"id": row["request_id"]} for row in rows]
    _copies(first.request, {"id": "uuid"}, ids)
    own = [{"id": row["id"], "request_id": row["request_id"], "ends_at": ends_at} for row in rows]
    _copies(first, {"id": "uuid", "request_id": "uuid", "ends_at": "timestamptz"}, own)
    Credential.objects.bulk_create(
        Credential(
            pk=row["credential"],
            grant_id=row["id"],
            kind="gateway_token",
            state=CredentialState.ACTIVE,
            accessor=each.accessor,
            issued_at=clock.now(),
        )
        for row, each in zip(rows, minted, strict=True)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    assert AccessRequest.objects.filter(profile=first.request.profile).count() == MANY + 1
    return first, [each.token for each in minted[:ASKED]]


def _ended(world: World, gateway: str, minting: float, *, at_once: bool) -> Figures:
    # Their time must not be up before the last is minted.
    ends_at = clock.now() + dt.timedelta(seconds=1800 if at_once else 45 + 2 * minting)
    first, secrets = _live(world, ends_at)
    endpoint = first.request.profile.endpoint
    of_it = Credential.objects.filter(grant__request__profile__endpoint=endpoint)
    _ask(gateway, endpoint.slug, secrets)
    found: Figures = {}

    def storm() -> None:
        if at_once:
            owner = endpoint.owner
            end_all(by=owner, endpoint=endpoint, reason="Bench.", proofs=PROVED)
            began = time.monotonic()
        else:
            left = (ends_at - clock.now()).total_seconds()
            if left < 1:
                raise RuntimeError("their time was up before all were minted")
            time.sleep(left)
            began = time.monotonic()
        time.sleep(0.5)
        found["asked_after"] = time.monotonic() - began
        found["let_in"] = _ask(gateway, endpoint.slug, secrets)
        while of_it.exclude(state=CredentialState.REVOKED).exists():
            if time.monotonic() - began > PATIENCE:
                raise RuntimeError(f"{of_it.exclude(state='revoked').count()} are left")
            time.sleep(0.1)
        found["took"] = time.monotonic() - began
        found["left_in_vault"] = _left(of_it)

    found["others"] = _lateness(world, storm)
    say(f"{'ended early' if at_once else 'time up'}: {found['took']:.1f} s to the last one")
    assert found["let_in"] == 0
    assert found["left_in_vault"] == 0
    return found


def _left(rows: Any) -> int:
    with override_settings(VAULT_ROLE_ID="worker", **_secret("worker")):
        return len(vault.accessors().intersection(rows.values_list("accessor", flat=True)))


def _secret(name: str) -> dict[str, str]:
    from tests.servers import _servers

    assert _servers is not None
    return {"VAULT_SECRET_ID": _servers.vault_secret_id(name)}


def _ask(gateway: str, slug: str, secrets: list[str]) -> int:
    """Ask for the models with each of these; how many were let in."""
    with httpx.Client(base_url=f"{gateway}/e/{slug}") as client:
        answers = [
            client.get("/v1/models", headers={"Authorization": f"Bearer {secret}"})
            for secret in secrets
        ]
    return sum(answer.status_code == 200 for answer in answers)


def _lateness(world: World, meanwhile: Callable[[], None]) -> Figures:
    """How long unrelated check-outs take while this runs."""
    grant = world.grant()
    took: list[float] = []
    over = threading.Event()

    def keep_checking_out() -> None:
        with contextlib.closing(connections["default"]):
            while not over.is_set():
                began = time.perf_counter()
                check_out(by=grant.holder, grant_id=grant.pk)
                took.append((time.perf_counter() - began) * 1000)
                time.sleep(0.05)

    thread = threading.Thread(target=keep_checking_out)
    thread.start()
    try:
        meanwhile()
    finally:
        over.set()
        thread.join()
    return quantiles(took) | {"most": max(took), "count": len(took)}
