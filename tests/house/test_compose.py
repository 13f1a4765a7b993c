"""docker-compose.yml and Dockerfile, checked without a Docker engine."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.embedded.commands import command
from broker.embedded.ports import Ports
from broker.embedded.servers import BASE_DIR, OpenBao, http_status
from broker.embedded.state import State
from broker.embedded.supervisor import VAULT_ROLE

FILE = BASE_DIR / "docker-compose.yml"
# Which of the commands of `manage.py up` each service runs.
OURS = {name: name for name in ("migrate", "web", "gateway", "worker", "beat")}
SERVERS = {"postgres", "valkey", "openbao"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text()))


def test_follows_the_compose_specification() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--builtin-schema=vendor.compose-spec",
            str(FILE),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_specification_would_have_noticed(tmp_path: Path, compose: dict[str, Any]) -> None:
    compose["services"]["web"] |= {"commnad": ["true"]}
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(yaml.safe_dump(compose))
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema=vendor.compose-spec", wrong],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "commnad" in done.stdout


def test_runs_the_same_processes_as_up(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == OURS.keys() | SERVERS


@pytest.mark.parametrize("name", OURS)
def test_each_command_is_the_one_that_up_runs(compose: dict[str, Any], name: str) -> None:
    assert compose["services"][name]["command"] == list(command(OURS[name], scratch="/tmp"))


def test_the_images_own_command_is_webs() -> None:
    text = (BASE_DIR / "Dockerfile").read_text()
    [line] = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    assert json.loads(line) == list(command("web", scratch="/tmp"))


@pytest.mark.parametrize("name", OURS)
def test_each_process_has_its_own_login_and_no_other(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    role = VAULT_ROLE.get(name, "web")
    assert service["environment"]["VAULT_ROLE_ID"] == role
    assert service["environment"]["VAULT_SECRET_ID_FILE"] == f"/run/secrets/vault-{role}"
    logins = [secret for secret in service["secrets"] if secret.startswith("vault-")]
    assert logins == [f"vault-{role}"]


@pytest.mark.parametrize("name", OURS)
def test_our_processes_can_write_nowhere_and_gain_nothing(
    compose: dict[str, Any], name: str
) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "volumes" not in service
    assert re.search(r"^USER [1-9]\d*$", (BASE_DIR / "Dockerfile").read_text(), re.MULTILINE)


def test_nothing_listens_beyond_loopback(compose: dict[str, Any]) -> None:
    published = {name: service.get("ports", []) for name, service in compose["services"].items()}
    assert {name for name, ports in published.items() if ports} == {"web", "gateway"}
    for ports in published.values():
        assert all(port.startswith("127.0.0.1:") for port in ports)
    for name in SERVERS:
        assert compose["services"][name]["networks"] == ["inside"]
    assert compose["networks"]["inside"]["internal"] is True


def test_everything_comes_back_and_says_how_it_is(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["restart"] in {"unless-stopped", "on-failure"}, name
        assert "healthcheck" in service or name in {"migrate", "beat"}, name
        tag = service["image"].partition(":")[2]
        assert tag, name
        assert tag != "latest", name


def test_secrets_are_files_and_each_is_generated(compose: dict[str, Any], tmp_path: Path) -> None:
    for name, service in compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|_KEY|DATABASE_URL|REDIS_URL", variable):
                assert variable.endswith("_FILE"), f"{name}: {variable}"
                assert value.removeprefix("/run/secrets/") in service["secrets"]
        for secret in service.get("secrets", []):
            source = secret if isinstance(secret, str) else secret["source"]
            assert source in compose["secrets"]

    folder = tmp_path / "secrets"
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    argv = ["make", "secrets", f"KEYTURN_SECRETS={folder}"]
    for _ in range(2):  # the second time it keeps what there is
        subprocess.run(argv, cwd=BASE_DIR, env=environ, check=True, capture_output=True)
        generated = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert generated.keys() == compose["secrets"].keys()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(generated["openbao-seal"]) == 32
    assert all(len(value) >= 32 and not value.endswith(b"\n") for value in generated.values())
    assert len(set(generated.values())) == len(generated)
    assert generated["postgres-keyturn"] in generated["database-url"]
    assert generated["valkey"] in generated["redis-url"]


def test_variables_are_settings(compose: dict[str, Any]) -> None:
    settings = (BASE_DIR / "broker" / "settings.py").read_text()
    for name in OURS:
        for variable in compose["services"][name]["environment"]:
            assert f'"{variable.removesuffix("_FILE")}"' in settings, f"{name}: {variable}"


def test_openbao_starts_with_the_files_that_compose_names(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    """The very command, on another port and with other folders."""
    state = State(tmp_path / "state")
    state.create()
    bao = OpenBao(state, Ports.free().openbao)
    bao.prepare()
    text = (BASE_DIR / "credentials" / "openbao" / "compose.hcl").read_text()
    for there, here in (
        ("0.0.0.0:8200", f"127.0.0.1:{bao.port}"),
        ("openbao:8201", f"127.0.0.1:{bao.port + 1}"),
        ("/openbao/logs", str(tmp_path)),
    ):
        assert there in text
        text = text.replace(there, here)
    (bao.data / "place.hcl").write_text(text)
    files = [
        f"-config={name.replace('policies/compose.hcl', 'place.hcl').removeprefix('-config=')}"
        for name in compose["services"]["openbao"]["command"][2:]
    ]
    raft = tmp_path / "raft"
    raft.mkdir()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [bao.argv()[0], "server", *files],
            cwd=bao.data,
            env={**bao.env, "BAO_RAFT_PATH": str(raft)},
            stdout=log,
            stderr=log,
        )
        try:
            deadline = time.monotonic() + 30
            while not bao.ready():
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.05)
            assert http_status(f"{bao.url}/v1/sys/health") == 200
            assert bao.login("web")
            assert (raft / "vault.db").exists()
            assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600
        finally:
            process.kill()
            process.wait()
