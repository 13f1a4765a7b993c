import contextlib
import gc
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import hypothesis
import psycopg
import pytest
from django.conf import settings as django_settings
from django.contrib.auth.hashers import Argon2PasswordHasher
from django.test import override_settings
from django.test.utils import setup_databases, teardown_databases
from whitenoise.middleware import WhiteNoiseMiddleware  # type: ignore[import-untyped]

from accounts import factors, stepup
from audit.context import Origin, working_for
from broker.embedded.servers import http_status
from credentials import actions, breaker
from tests.credentials.targets import target, target_down
from tests.servers import Servers
from tests.upstream import Upstream
from tests.world import PROVED, UPSTREAM_KEY, World

__all__ = ["target", "target_down"]

# Looking for cycles among all that Django and its libraries loaded is a tenth of a run's time.
gc.set_threshold(50_000, 20, 50)

# Tests are about who gets in, not about how long a stolen hash resists.
Argon2PasswordHasher.time_cost = 1
Argon2PasswordHasher.memory_cost = 8
Argon2PasswordHasher.parallelism = 1

# A line for each call that a test's client makes buries what went wrong.
for name in ("httpx", "httpx2"):
    logging.getLogger(name).setLevel(logging.WARNING)


@pytest.fixture(autouse=True)
def _nobody_needs_a_factor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that each test of a page needn't set one up first; `must_enrol` marks those about it.

    Only within this process: a browser meets the portal as it is.
    """
    if "must_enrol" not in request.keywords:
        monkeypatch.setattr(factors, "needed_because", lambda _: "")


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None,
    django_db_modify_db_settings: None,
    django_db_blocker: Any,
) -> Iterator[None]:
    """The test database, also for tests without the django_db mark (`committed`).

    pytest-django's own fixture makes it only for marked ones.
    """
    with django_db_blocker.unblock():
        made = setup_databases(verbosity=0, interactive=False, aliases=["default"])  # type: ignore[arg-type]
    _made.append(django_settings.DATABASES["default"]["NAME"])
    yield
    with django_db_blocker.unblock():
        teardown_databases(made, verbosity=0)


# A gate gives the same commit the same answer; `make test-slow` draws anew each time.
hypothesis.settings.register_profile("same", derandomize=True)

# What migrations made.
KEPT = {"django_migrations", "django_content_type", "auth_permission"}


@pytest.fixture(scope="module", autouse=True)
def emptied(request: pytest.FixtureRequest, servers: Servers) -> Iterator[None]:
    """What a file's tests committed is gone before the next file's begin.

    Else they'd depend on which files ran before in the same database. The superuser does it: the
    record refuses TRUNCATE to its owner.
    """
    # What a file before this one took down is up again, and nobody waits to find out.
    breaker._breakers.clear()
    yield
    if not _made:
        return
    with psycopg.connect(servers.superuser_url(_made[0]), autocommit=True) as database:
        database.execute("SET session_replication_role = replica")
        names = [
            name
            for (name,) in database.execute(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND NOT relispartition"
                " AND relnamespace = 'public'::regnamespace"
            )
            if name not in KEPT
        ]
        full = " UNION ALL ".join(
            f"(SELECT '{name}' FROM {name} LIMIT 1)"  # noqa: S608
            for name in names
        )
        held = [name for (name,) in database.execute(full)]
        if held:
            database.execute(f"TRUNCATE {', '.join(held)} CASCADE")


_made: list[str] = []


@pytest.fixture
def committed(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """A database in which tests commit, for races and other processes.

    Nothing is rolled back until the file's last test is over (`emptied`): each makes people and
    endpoints of its own.
    """
    with django_db_blocker.unblock():
        yield


@pytest.fixture(scope="module")
def committed_once(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The same for what all tests of a file look at, each undoing what it does to it."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture(scope="session", autouse=True)
def static_files_read_once() -> Iterator[None]:
    """Each test client makes the middleware anew, for which whitenoise reads all of static/."""
    read = WhiteNoiseMiddleware.add_files_from_finders
    found: dict[str, Any] = {}

    def add(self: Any) -> None:
        if not found:
            read(self)
            found.update(self.files)
        self.files.update(found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WhiteNoiseMiddleware, "add_files_from_finders", add)
        yield


@pytest.fixture
def role(servers: Servers) -> Callable[[str], contextlib.AbstractContextManager[None]]:
    """`with role("worker"):` logs in to Vault as that process does."""

    @contextlib.contextmanager
    def as_role(name: str) -> Iterator[None]:
        with override_settings(VAULT_ROLE_ID=name, VAULT_SECRET_ID=servers.vault_secret_id(name)):
            yield

    return as_role


@pytest.fixture
def sweep(role: Any) -> Callable[[], int]:
    """One sweep, as a worker does it."""

    def once() -> int:
        with role("worker"), working_for(Origin(via="worker")):
            return actions.sweep()

    return once


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    """A provider in a thread, so that tests see what reached it and can make it misbehave."""
    with Upstream(UPSTREAM_KEY) as running:
        yield running


@pytest.fixture(scope="session")
def world(upstream: Upstream) -> World:
    """Makes people, endpoints, requests and grants at any state; the test picks the database."""
    return World(upstream_url=upstream.url)


@dataclass(frozen=True)
class Running:
    """A process of the broker, on a port of its own."""

    url: str
    process: subprocess.Popen[bytes]


@dataclass(frozen=True)
class RunningGateway(Running):
    def base(self, slug: str) -> str:
        return f"{self.url}/e/{slug}/v1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def process_environment(servers: Servers, role: str) -> dict[str, str]:
    """What a process of the broker needs to work on the test database."""
    database = django_settings.DATABASES["default"]["NAME"]
    return os.environ | {
        "DATABASE_URL": servers.database_url.rpartition("/")[0] + f"/{database}",
        "VAULT_ROLE_ID": role,
        "VAULT_SECRET_ID_FILE": str(servers.vault_secret_id_file(role)),
    }


@contextlib.contextmanager
def _running(
    role: str,
    argv: list[str],
    ready: str,
    servers: Servers,
    environment: dict[str, str],
    port: int | None = None,
) -> Iterator[Running]:
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", *argv, "--port", str(port)],
        env=process_environment(servers, role) | environment,
    )
    try:
        wait_for(url + ready, process)
        yield Running(url, process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def running_gateway(
    servers: Servers, *, port: int | None = None, **environment: str
) -> Iterator[RunningGateway]:
    """Run a gateway until the block ends."""
    argv = ["gateway", "--no-access-log", "--no-proxy-headers", "--log-level=warning"]
    with _running("gateway", argv, "/healthz", servers, environment, port) as process:
        yield RunningGateway(process.url, process.process)


@contextlib.contextmanager
def running_web(
    servers: Servers, *, port: int | None = None, **environment: str
) -> Iterator[Running]:
    """Run portal and API until the block ends."""
    argv = ["granian", "--interface=wsgi", "--no-ws", "--blocking-threads=4"]
    argv += ["--log-level=warning", "broker.wsgi:application"]
    with _running("web", argv, "/healthz/", servers, environment, port) as process:
        yield process


@contextlib.contextmanager
def running_worker(servers: Servers) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker, without beat, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "--app=broker", "worker", "--concurrency=1"],
        env=process_environment(servers, "worker"),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode} before it answered at {url}")
        if http_status(url, timeout=1) == 200:
            return
        time.sleep(0.05)
    raise RuntimeError(f"nothing answered at {url} within {seconds} s")


@pytest.fixture(scope="module")
def gateway(servers: Servers, django_db_setup: None) -> Iterator[RunningGateway]:
    """One gateway process on the test database."""
    with running_gateway(servers) as running:
        yield running


@pytest.fixture(scope="module")
def portal(servers: Servers, django_db_setup: None, gateway: RunningGateway) -> Iterator[Running]:
    """One web process on the test database, which names the `gateway` fixture's in its pages.

    Use it with `committed`: another process sees only what is committed.
    """
    with running_web(servers, KEYTURN_GATEWAY_URL=gateway.url) as running:
        yield running


@pytest.fixture
def proved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has a session has proved a second factor for everything just now. For tests about
    something else: tests/abuse/test_stepup.py is about those who haven't."""
    real = stepup.proofs

    def proofs(request: Any) -> stepup.Proofs:
        return stepup.NONE if real(request) is stepup.NONE else PROVED

    monkeypatch.setattr(stepup, "proofs", proofs)
