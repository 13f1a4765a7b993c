"""Servers and workers die while much is going on; afterwards everything alive is accounted for."""

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import Error as DatabaseError
from django.db import connection

from accessrequests.models import Grant
from accessrequests.states import EndReason
from audit.events import Event
from audit.models import AuditEvent
from broker.embedded.keeper import Keeper
from broker.errors import KeyturnError
from credentials.actions import check_out, end_grant
from credentials.actions.reconciling import reconcile
from credentials.models import Credential
from credentials.states import CredentialState
from tests.conftest import process_environment, running_worker
from tests.faults import report
from tests.faults.killing import settle, standing, until, unwanted, wrong
from tests.faults.kinds import Tried
from tests.invariants.target import token_of
from tests.servers import Servers
from tests.world import World

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("committed")]


@contextmanager
def minting(grants: list[Grant]) -> Iterator[Counter[str]]:
    """Check out under each of these grants, again and again, until the block ends."""
    over = threading.Event()
    counts: Counter[str] = Counter()

    def again_and_again(grant: Grant) -> None:
        try:
            while not over.is_set():
                try:
                    check_out(by=grant.holder, grant_id=grant.pk)
                    counts["minted"] += 1
                except KeyturnError as error:
                    counts[type(error).__name__] += 1
                    over.wait(0.05)
                except DatabaseError:
                    counts["DatabaseError"] += 1
                    connection.close()
                    over.wait(0.05)
        finally:
            connection.close()

    threads = [threading.Thread(target=again_and_again, args=(grant,)) for grant in grants]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def kill_and_restart(server: Keeper, times: int) -> None:
    for _ in range(times):
        time.sleep(random.uniform(0.3, 1.5))
        server.kill()
        server.start()


@pytest.fixture
def grants(world: World, tried: dict[str, Tried]) -> list[Grant]:
    """Three of each kind."""
    profiles = [kind.profile(world) for kind in tried.values()]
    return [world.grant(profile=profile) for profile in profiles for _ in range(3)]


@pytest.mark.parametrize(("name", "times"), [("openbao", 20), ("postgres", 5)])
def test_killed_again_and_again_under_a_load_of_mints(
    name: str, times: int, grants: list[Grant], servers: Servers, role: Any
) -> None:
    """PostgreSQL here forgets what it committed in its last moments (synchronous_commit is off),
    as one restored from a replica does: rows vanish under tokens that live."""
    before = standing(servers)
    connection.close()
    with running_worker(servers), minting(grants) as counts:
        kill_and_restart(getattr(servers, name), times)
        began = time.monotonic()
    with running_worker(servers):
        settle(grants, 150)
    assert counts["minted"] >= times, counts
    stray = wrong(servers, grants, before=before)
    with role("worker"):
        row = reconcile()
    assert not row.failures
    took = time.monotonic() - began
    assert wrong(servers, grants, before=before) == []
    begun = Credential.objects.filter(grant__in=grants).count()
    titles = {"openbao": "OpenBao", "postgres": "PostgreSQL"}
    report.add(
        f"{titles[name]} killed {times} times under a load of check-outs",
        f"of {begun} mints that were begun ({counts['minted']} came through) none is unaccounted "
        f"for; {len(stray)} were before the look around, which ended {row.ended}",
        took,
    )
    for grant in grants:
        end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)
    with running_worker(servers):
        settle(grants, 60)
    assert wrong(servers, grants, before=before) == []


def many(world: World, count: int) -> list[Grant]:
    profile = world.profile()
    people = [world.person(profile.requesters) for _ in range(10)]
    reviewer = world.person(profile.reviewers)
    return [
        world.grant(profile=profile, requester=people[n % 10], reviewer=reviewer)
        for n in range(count)
    ]


def tokens(servers: Servers) -> int:
    return len(servers.vault("LIST", "auth/token/accessors/")["data"]["keys"])


def test_a_worker_killed_in_the_middle_of_500_revocations(servers: Servers, world: World) -> None:
    before, few = standing(servers), tokens(servers)
    grants = many(world, 500)
    for grant in grants:
        check_out(by=grant.holder, grant_id=grant.pk)
    for grant in grants:
        end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)
    with running_worker(servers) as first:
        until(lambda: tokens(servers) < few + 400, 60, every=0.01)
        first.send_signal(signal.SIGKILL)
        first.wait()
    left = len(unwanted(servers, grants))
    assert left > 20, "it was to be killed in the middle"
    began = time.monotonic()
    with running_worker(servers), running_worker(servers):
        until(lambda: not unwanted(servers, grants), 60)
        settle(grants, 60)
    took = time.monotonic() - began
    assert wrong(servers, grants, before=before) == []
    ends = AuditEvent.objects.filter(event=Event.CREDENTIAL_REVOKED)
    ids = Credential.objects.filter(grant__in=grants).values_list("pk", flat=True)
    assert ends.filter(subject_id__in=ids).count() == 500, "each is on record once"
    report.add(
        "worker killed in the middle of 500 revocations",
        f"{left} were left; two more workers proved all 500 gone, each on record once",
        took,
    )


@contextmanager
def running_beat(servers: Servers, folder: Path) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "--app=broker", "beat", f"--schedule={folder}/beat"],
        env=process_environment(servers, "worker"),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("beats", [0, 2])
def test_whatever_rings_each_grant_ends_once(
    beats: int, servers: Servers, world: World, tmp_path: Path
) -> None:
    """Two beats and two workers: each message comes at least twice. No beat: none comes."""
    before = standing(servers)
    grants = many(world, 30)
    for grant in grants:
        check_out(by=grant.holder, grant_id=grant.pk)
    with ExitStack() as running:
        for number in range(beats):
            folder = tmp_path / str(number)
            folder.mkdir()
            running.enter_context(running_beat(servers, folder))
        for _ in range(2):
            running.enter_context(running_worker(servers))
        began = time.monotonic()
        for grant in grants:
            end_grant(grant_id=grant.pk, by=None, reason=EndReason.REVOKED)
        settle(grants, 60)
    took = time.monotonic() - began
    assert wrong(servers, grants, before=before) == []
    ids = Credential.objects.filter(grant__in=grants).values_list("pk", flat=True)
    for event, subjects in (
        (Event.GRANT_ENDED, [grant.pk for grant in grants]),
        (Event.CREDENTIAL_REVOKED, ids),
    ):
        assert AuditEvent.objects.filter(event=event, subject_id__in=subjects).count() == 30
    report.add(f"{beats or 'no'} beats, two workers", "30 grants, each ended once", took)


# ── The database's disk is full ─────────────────────────────────────────────────────────────────


@contextmanager
def small_disk(servers: Servers, folder: Path) -> Iterator[Callable[[], None]]:
    """Credentials and the record are on a disk of 12 MB within the block; what this gives fills
    it."""
    name = connection.settings_dict["NAME"]
    folder.mkdir()
    if subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=12m", "none", folder]).returncode:
        pytest.skip("no right to mount a small disk here")
    url = servers.superuser_url(name)
    moved = ["credentials_credential", "audit_auditevent"]
    connection.close()
    try:
        place = folder / "space"
        place.mkdir(mode=0o700)
        with psycopg.connect(url, autocommit=True) as database:
            database.execute(f"CREATE TABLESPACE small LOCATION '{place}'".encode())
            for table in moved:
                database.execute(f"ALTER TABLE {table} SET TABLESPACE small".encode())
            database.execute("CREATE TABLE ballast (data text) TABLESPACE small")
            database.execute("ALTER TABLE ballast ALTER data SET STORAGE EXTERNAL")

        def fill() -> None:
            with psycopg.connect(url, autocommit=True) as database:
                for size in (100_000, 10_000, 1_000, 100, 1):
                    with contextlib.suppress(psycopg.errors.DiskFull):
                        while True:
                            database.execute("INSERT INTO ballast VALUES (repeat('x', %s))", [size])

        yield fill
    finally:
        with psycopg.connect(url, autocommit=True) as database:
            database.execute("DROP TABLE IF EXISTS ballast")
            for table in moved:
                database.execute(f"ALTER TABLE {table} SET TABLESPACE pg_default".encode())
            database.execute("DROP TABLESPACE IF EXISTS small")
        subprocess.run(["/bin/umount", folder], check=True)


def test_a_full_disk_lets_nothing_out_and_what_is_to_end_ends(
    servers: Servers, world: World, sweep: Callable[[], int], tmp_path: Path
) -> None:
    before = standing(servers)
    grants = many(world, 62)
    ending, later, *rest = grants
    secrets = [check_out(by=each.holder, grant_id=each.pk).secret for each in (ending, later)]
    end_grant(grant_id=ending.pk, by=None, reason=EndReason.REVOKED)
    with small_disk(servers, tmp_path / "disk") as fill:
        fill()
        refused = 0
        for grant in rest:
            try:
                check_out(by=grant.holder, grant_id=grant.pk)
            except DatabaseError:
                refused += 1
        assert refused > 30, "what a page had room for aside, nothing is checked out"
        with pytest.raises(DatabaseError):
            sweep()
        assert token_of(servers, secrets[0]) is None, "revoked, though it couldn't be recorded"
        row = Credential.objects.get(grant=ending)
        assert (row.state, row.attempts) == (CredentialState.REVOKING, 0), "not even claimed"
        with psycopg.connect(
            servers.superuser_url(connection.settings_dict["NAME"]), autocommit=True
        ) as database:
            database.execute("DROP TABLE ballast")
        began = time.monotonic()
        end_grant(grant_id=later.pk, by=None, reason=EndReason.REVOKED)
        with running_worker(servers):
            settle(grants, 150)
        took = time.monotonic() - began
        assert wrong(servers, grants, secrets, before=before) == []
        connection.close()
    report.add(
        "disk full at the database",
        f"{refused} of {len(rest)} check-outs refused, none leaked; what was to end was revoked, "
        "and recorded once there was room",
        took,
    )
