"""First starts that go wrong, and what the next start makes of them."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from broker.embedded.errors import StartError
from broker.embedded.keeper import Keeper
from broker.embedded.ports import Ports
from broker.embedded.servers import OpenBao, Postgres
from broker.embedded.state import State

BROKEN = """
initialize "broken" {
  request "nonsense" {
    operation = "update"
    path      = "sys/mounts/x"
    data      = { type = "no-such-engine" }
  }
}
"""


@pytest.fixture
def state(tmp_path: Path) -> State:
    state = State(tmp_path / "state")
    state.create()
    return state


def test_failed_self_initialisation_is_wiped_before_the_next_start(
    state: State, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.hcl"
    broken.write_text(BROKEN)
    port = Ports.free().openbao
    with pytest.raises(StartError, match=r"OpenBao ended with status 1(?s:.)*nonsense") as told:
        Keeper(OpenBao(state, port, self_init=[broken]), state).start()
    assert str(state.logs / "openbao.log") in str(told.value)

    bao = OpenBao(state, port)
    keeper = Keeper(bao, state)
    keeper.start()
    try:
        assert bao.login("web")
    finally:
        keeper.kill()


def test_half_made_database_is_not_taken_for_one(state: State) -> None:
    postgres = Postgres(state, Ports.free().postgres, testing=True)
    half = state.folder / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    keeper = Keeper(postgres, state)
    keeper.start()
    try:
        with psycopg.connect(postgres.url) as connection:
            told = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
            assert told.fetchone() == (False,)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(postgres.url, password="wrong")
    finally:
        keeper.kill()


@pytest.fixture
def no_user_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that forbids them: `unshare` isn't to be had."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("setpriv", "test"):
        found = shutil.which(name)
        assert found
        (programs / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(programs))


@pytest.fixture
def reachable(tmp_path: Path) -> Iterator[State]:
    folder = Path(f"/tmp/keyturn-reachable-{os.getpid()}")
    folder.mkdir(mode=0o755)
    state = State(folder / "state")
    state.create()
    yield state
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="PostgreSQL refuses root alone")
@pytest.mark.usefixtures("no_user_namespaces")
def test_root_without_user_namespaces_runs_postgresql_as_somebody_else(reachable: State) -> None:
    postgres = Postgres(reachable, Ports.free().postgres, testing=True)
    keeper = Keeper(postgres, reachable)
    try:
        keeper.start()
    except StartError as error:
        if "can't reach" in str(error):
            pytest.skip("another user can't reach these packages")
        raise
    try:
        assert postgres.data.stat().st_uid == 65534
        assert stat.S_IMODE(postgres.data.stat().st_mode) == 0o700
        with psycopg.connect(postgres.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        keeper.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="PostgreSQL refuses root alone")
@pytest.mark.usefixtures("no_user_namespaces")
def test_root_who_has_no_way_to_run_postgresql_is_told_what_to_do(state: State) -> None:
    state.folder.parent.chmod(0o700)
    with pytest.raises(StartError, match=r"forbids user namespaces(?s:.)*DATABASE_URL"):
        Keeper(Postgres(state, Ports.free().postgres), state).start()
