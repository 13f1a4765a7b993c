"""Rotators against fakes of their providers: one new key, the old one gone, nothing told."""

import base64
import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from audit import clock
from audit.models import AuditEvent
from broker.errors import InvalidInput
from credentials import vault
from credentials.actions import (
    rotate,
    rotate_due,
    set_rotator,
    store_rotator_key,
    store_upstream_key,
)
from credentials.models import Rotation
from credentials.rotators import calling, rotators
from credentials.rotators.base import Job, New, ProviderError, Rotator
from tests.conftest import free_port
from tests.fakes.azure_management import AzureManagement
from tests.fakes.litellm_proxy import LiteLLMProxy
from tests.fakes.openai_admin import OpenAIAdmin
from tests.fakes.server import Call, Fake, Refusal
from tests.world import World

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "rotator-webhook"
SCHEMA = json.loads((EXAMPLE / "schema.json").read_text())
NAME = "kt-01jd4r1c0fxm7gq3w2y8n5zv6k"
CANARY = "sk-canary-4d1e8b7a90c25f3e"


def against(part: str, said: Any) -> None:
    schema = {"$ref": f"#/$defs/{part}", "$defs": SCHEMA["$defs"]}
    jsonschema.validate(said, schema, cls=jsonschema.Draft202012Validator)


class Own(Fake):
    """An owner's own rotator, with what examples/rotator-webhook/schema.json says of it."""

    def __init__(self, secret: str) -> None:
        super().__init__()
        self.signature = Webhook(secret)
        self.keys: dict[str, str] = {}
        self.handle: dict[str, Any] | None = None

    def takes(self, key: str) -> bool:
        return key in self.keys.values()

    def asked(self, call: Call) -> Any:
        try:
            event = self.signature.verify(call.raw, call.headers)
        except WebhookVerificationError:
            raise Refusal(401, {}) from None
        against("request", event)
        data = event["data"]
        if event["type"] == "rotation.retire":
            self.keys.pop(data["old"].get("name", "by-hand"), None)
            return {}
        self.keys[data["name"]] = f"sk-{secrets.token_hex(16)}"
        answer: dict[str, Any] = {"secret": self.keys[data["name"]]}
        if self.handle is not None:
            answer["handle"] = self.handle
        against("created", answer)
        return answer

    routes = {"POST /rotate": asked}


@dataclass
class Case:
    """A rotator, its fake, the key that was there before, and which calls create and retire."""

    rotator: Rotator
    fake: Any
    job: Job
    first: str  # the key that `job.old` names
    creates: str
    retires: str
    alive: Callable[[], int] = field(repr=False)

    def after(self, new: New) -> Job:
        """The next rotation, which replaces this one's secret."""
        return replace(self.job, name=NAME[:-1] + "m", old=new.handle)


def openai(running: contextlib.ExitStack) -> Case:
    fake = running.enter_context(OpenAIAdmin(admin_key=CANARY))
    first = fake.add("kt-earlier")
    for number in range(250):  # of other people, over several pages
        fake.add(f"theirs {number}")
    settings = {"project_id": fake.project, "api_url": f"{fake.url}/v1"}
    job = _job(settings, {"id": first.id, "name": first.name})
    return Case(
        rotators()["openai"],
        fake,
        job,
        first.key,
        "POST",
        "DELETE",
        lambda: sum(not each.name.startswith("theirs") for each in fake.accounts),
    )


def azure_openai(running: contextlib.ExitStack) -> Case:
    fake = running.enter_context(AzureManagement(client_secret=CANARY))
    settings = {
        "tenant_id": "contoso.example",
        "subscription_id": "6f0d3c1a-0000-4a7e-9d57-2b8c1f6e0a11",
        "resource_group": "LLM-Prod",
        "account_name": fake.account,
        "slot_in_use": "Key2",
        "management_url": fake.url,
        "login_url": fake.url,
    }
    admin_key = json.dumps({"client_id": "an-app", "client_secret": CANARY})
    job = _job(settings, {"slot": "Key1"}, admin_key)
    return Case(
        rotators()["azure_openai"],
        fake,
        job,
        fake.keys["Key1"],
        "regenerateKey",
        "regenerateKey",
        lambda: len(fake.keys),
    )


def litellm(running: contextlib.ExitStack) -> Case:
    fake = running.enter_context(LiteLLMProxy(master_key=CANARY, contains=True))
    first = fake.add("kt-earlier")
    fake.add(f"{NAME}-of-others")
    job = _job({"models": ["llama"]}, {"key_alias": "kt-earlier"}, url=f"{fake.url}/v1")
    return Case(
        rotators()["litellm"],
        fake,
        job,
        first,
        "generate",
        "delete",
        lambda: len(fake.keys) - 1,
    )


def webhook(running: contextlib.ExitStack) -> Case:
    secret = f"whsec_{base64.b64encode(CANARY.encode()).decode()}"
    fake = running.enter_context(Own(secret))
    fake.keys["kt-earlier"] = f"sk-{secrets.token_hex(16)}"
    settings = {"url": f"{fake.url}/rotate", "about": {"team": "platform"}}
    job = _job(settings, {"name": "kt-earlier"}, secret)
    return Case(
        rotators()["webhook"],
        fake,
        job,
        fake.keys["kt-earlier"],
        "rotate",
        "rotate",
        lambda: len(fake.keys),
    )


def _job(
    settings: dict[str, Any],
    old: dict[str, Any],
    admin_key: str = CANARY,
    url: str = "https://llm.example",
) -> Job:
    return Job(NAME, "llama-prod", url, settings, old, admin_key)


CASES = [openai, azure_openai, litellm, webhook]


@pytest.fixture(params=CASES, ids=lambda case: case.__name__)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    with contextlib.ExitStack() as running:
        made: Case = request.param(running)
        job = replace(made.job, settings=made.rotator.check(made.job.settings))
        yield replace(made, job=job)
        assert not made.fake.violations


@pytest.fixture(autouse=True)
def nothing_secret_is_told(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level("DEBUG")
    yield
    assert CANARY not in caplog.text


def test_one_is_created_and_the_old_one_retired(case):
    new = case.rotator.create(case.job)
    assert case.fake.takes(new.secret)
    assert case.fake.takes(case.first)
    case.rotator.retire(case.job)
    assert case.fake.takes(new.secret)
    assert not case.fake.takes(case.first)
    # And again, from the handle that it gave.
    assert json.loads(json.dumps(new.handle)) == new.handle
    assert new.secret not in json.dumps(new.handle)
    newer = case.rotator.create(case.after(new))
    case.rotator.retire(case.after(new))
    assert case.fake.takes(newer.secret)
    assert not case.fake.takes(new.secret)


def test_a_lost_answer_leaves_nothing_behind(case):
    before = case.alive()
    with case.fake.going_wrong(case.creates, lost=True):
        with pytest.raises(ProviderError, match="broke off") as error:
            case.rotator.create(case.job)
        assert error.value.unknown
    slots = case.rotator.slug == "azure_openai"  # has two, whatever is in them
    assert case.alive() == before + (not slots)
    assert case.fake.takes(case.first)
    new = case.rotator.create(case.job)
    assert case.fake.takes(new.secret)
    assert case.fake.takes(case.first)
    assert case.alive() == before + (not slots)


def test_one_that_is_gone_already_is_retired(case):
    new = case.rotator.create(case.job)
    with case.fake.going_wrong(case.retires, lost=True):
        with pytest.raises(ProviderError) as error:
            case.rotator.retire(case.job)
        assert error.value.unknown
    assert not case.fake.takes(case.first)
    case.rotator.retire(case.job)
    case.rotator.retire(case.job)
    assert not case.fake.takes(case.first)
    assert case.fake.takes(new.secret)


ECHO = json.dumps({"error": {"message": f"not {CANARY}", "value": CANARY}}).encode()


@pytest.mark.parametrize(
    ("fault", "says", "unknown"),
    [
        ({"status": 400}, r"refused \(400\)", False),
        ({"status": 401}, r"doesn’t take the admin key \(401\)", False),
        ({"status": 403}, r"may not do this \(403\)", False),
        ({"status": 429}, r"no more calls for now \(429\)", False),
        ({"status": 408}, r"refused \(408\)", True),
        ({"status": 500}, r"failed \(500\)", True),
        ({"status": 503}, r"failed \(503\)", True),
        ({"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}}, "elsewhere", True),
        ({"status": 200}, "can’t be read", True),
        ({"status": 200, "body": b"[" * 100_000}, "can’t be read", True),
        ({"status": 200, "body": b"<html>" + CANARY.encode()}, "can’t be read", True),
        ({"status": 200, "body": b" " * 1_500_000}, "more than 1,000,000 bytes", True),
        ({"status": 200, "silent": 1}, "no answer within 0.3 s", True),
    ],
    ids=lambda value: str(value.get("status")) if isinstance(value, dict) else None,
)
def test_what_went_wrong_is_said_and_whether_it_may_have_been_done(
    case, monkeypatch, fault, says, unknown
):
    monkeypatch.setattr(calling, "TIMEOUT", 0.3 if "silent" in fault else 10.0)
    said = {"body": ECHO} | fault
    for operation, step in (
        (case.creates, case.rotator.create),
        (case.retires, case.rotator.retire),
    ):
        if step == case.rotator.retire and case.rotator.slug == "webhook" and "read" in says:
            continue  # whose body doesn't matter
        with (
            case.fake.going_wrong(operation, **said),
            pytest.raises(ProviderError, match=says) as error,
        ):
            step(case.job)
        assert error.value.unknown is unknown
        assert CANARY not in str(error.value)
        assert len(str(error.value)) < 300
        assert error.value.__cause__ is None
    assert case.fake.takes(case.first)
    assert case.fake.done.count(case.creates) == 0


def test_what_cannot_be_reached_was_not_done(case, settings):
    settings.KEYTURN_OUTGOING_NETWORKS = ["public", "private"]
    for step in (case.rotator.create, case.rotator.retire):
        with pytest.raises(ProviderError, match="may not be called from here") as error:
            step(case.job)
        assert not error.value.unknown
    assert not case.fake.calls


def test_what_it_holds_is_not_shown(case):
    new = case.rotator.create(case.job)
    assert CANARY not in repr(case.job)
    assert new.secret not in repr(new)


@pytest.mark.parametrize("key", ["", " \n", "wrong", "two\r\nX-Admin: yes", "clé", '{"a": 1}'])
def test_an_admin_key_that_is_none(case, key):
    job = replace(case.job, admin_key=key)
    for step in (case.rotator.create, case.rotator.retire):
        with pytest.raises(ProviderError) as error:
            step(job)
        assert not error.value.unknown
        assert "X-Admin" not in str(error.value)
    assert not case.fake.done
    assert not any("x-admin" in call.headers for call in case.fake.calls)


def test_an_admin_key_from_a_file_that_ends_with_a_line(case):
    job = replace(case.job, admin_key=f" {case.job.admin_key}\n")
    assert case.fake.takes(case.rotator.create(job).secret)


@pytest.mark.parametrize(
    "name",
    ["../../v1/keys", "a/b?c#d", "' OR 1=1 --", "é\u202e", "x" * 500, "%2e%2e", "a\r\nHost: b"],
)
def test_hostile_names_are_data(case, name):
    job = replace(case.job, name=name, endpoint=name)
    new = case.rotator.create(job)
    assert case.fake.takes(new.secret)
    again = case.rotator.create(job)
    assert case.fake.takes(again.secret)
    assert not case.fake.takes(new.secret)
    assert case.fake.takes(case.first)
    case.rotator.retire(job)
    assert not case.fake.takes(case.first)


# Each one's own


@contextlib.contextmanager
def one(make: Callable[[contextlib.ExitStack], Case]) -> Iterator[Case]:
    with contextlib.ExitStack() as running:
        case = make(running)
        yield case
        assert not case.fake.violations


def test_openai_finds_what_came_through_late():
    with one(openai) as case:
        new = case.rotator.create(case.job)
        late = case.fake.add(NAME)  # the first try, after it had been given up and repeated
        assert case.fake.takes(late.key)
        case.rotator.retire(case.after(new))
        assert not case.fake.takes(late.key)
        assert not case.fake.takes(new.secret)


def test_openai_keys_that_have_to_expire():
    with one(openai) as case:
        case.fake.longest = 86_400
        with pytest.raises(ProviderError, match=r"refused \(400\)"):
            case.rotator.create(case.job)
        job = replace(case.job, settings={**case.job.settings, "expires_in_seconds": 86_400})
        assert case.rotator.create(job).handle["expires_at"] > time.time() + 86_000


@pytest.mark.parametrize(
    ("make", "says"),
    [(openai, "delete it at OpenAI"), (litellm, "delete it in LiteLLM")],
)
@pytest.mark.parametrize("old", [{}, {"slot": "Key1"}])
def test_a_key_that_somebody_else_made_is_theirs_to_end(make, says, old):
    with one(make) as case:
        with pytest.raises(ProviderError, match=says):
            case.rotator.retire(replace(case.job, old=old))
        assert not case.fake.calls


def test_openai_pages_that_never_end(monkeypatch):
    page = {"object": "list", "data": [{"id": "a", "name": "b"}], "has_more": True}
    with one(openai) as case:
        body = json.dumps(page).encode()
        with (
            case.fake.going_wrong("GET", status=200, body=body, times=1000),
            pytest.raises(ProviderError, match="pages don’t end"),
        ):
            case.rotator.create(case.job)
        assert len(case.fake.calls) == 2
        # Nor is an id followed that would lead elsewhere.
        page["data"] = [{"id": "../../keys", "name": NAME}]
        body = json.dumps(page | {"has_more": False}).encode()
        with (
            case.fake.going_wrong("GET", status=200, body=body),
            pytest.raises(ProviderError, match="can’t be read"),
        ):
            case.rotator.create(case.job)


def test_azure_starts_from_the_slot_that_a_person_named():
    with one(azure_openai) as case:
        job, before = replace(case.job, old={}), dict(case.fake.keys)
        assert case.rotator.create(job).handle == {"slot": "Key1"}
        assert case.fake.keys["Key2"] == before["Key2"]
        case.rotator.retire(job)
        assert case.fake.keys["Key2"] != before["Key2"]


def test_azure_takes_a_token_too():
    with one(azure_openai) as case:
        case.fake.tokens.add("eyJ0.token")
        assert case.rotator.create(replace(case.job, admin_key="eyJ0.token\n"))
        assert not any("oauth2" in call.operation for call in case.fake.calls)


def test_azure_with_a_secret_that_expired():
    with one(azure_openai) as case:
        case.fake.client_secret = "another"
        with pytest.raises(ProviderError, match=r"Entra was asked to give a token: .*\(401\)"):
            case.rotator.create(case.job)


def test_litellm_keys_call_models_and_manage_nothing():
    with one(litellm) as case:
        case.rotator.create(case.job)
        [made] = case.fake.made
        assert made == {"key_alias": NAME, "key_type": "llm_api", "models": ["llama"]}


@pytest.mark.parametrize(
    ("handle", "says"),
    [
        ({"note": "x" * 3000}, "too long"),
        ({"note": "SECRET"}, "a secret in it"),
    ],
)
def test_a_webhooks_handle_is_not_for_secrets(handle, says, monkeypatch):
    with one(webhook) as case:
        monkeypatch.setattr(secrets, "token_hex", lambda _: "SECRET" * 4)
        case.fake.handle = {k: v.replace("SECRET", f"sk-{'SECRET' * 4}") for k, v in handle.items()}
        with pytest.raises(ProviderError, match=says) as error:
            case.rotator.create(case.job)
        assert error.value.unknown
        assert "SECRETSECRET" not in str(error.value)


def test_a_handle_never_holds_the_admin_key():
    account = {"id": CANARY, "name": NAME, "api_key": {"value": "sk-svcacct-1"}}
    with one(openai) as case:
        body = json.dumps(account).encode()
        with (
            case.fake.going_wrong("POST", status=200, body=body),
            pytest.raises(ProviderError, match="a secret in it") as error,
        ):
            case.rotator.create(case.job)
        assert CANARY not in str(error.value)


@pytest.mark.parametrize("secret", ["short", "two words", "line\nbreak", "ключ-ключ"])
def test_a_secret_that_no_header_takes(secret):
    with one(webhook) as case:
        body = json.dumps({"secret": secret}).encode()
        with (
            case.fake.going_wrong("rotate", status=200, body=body),
            pytest.raises(ProviderError, match="can’t be used as a key") as error,
        ):
            case.rotator.create(case.job)
        assert error.value.unknown
        assert secret not in str(error.value)


def test_a_webhook_that_is_repeated_has_the_same_id():
    with one(webhook) as case:
        for _ in range(2):
            case.rotator.create(case.job)
        case.rotator.retire(case.job)
        ids = [call.headers["webhook-id"] for call in case.fake.calls]
        assert ids == [f"{NAME}.rotation.create"] * 2 + [f"{NAME}.rotation.retire"]


@pytest.mark.parametrize(
    ("slug", "said", "wrong"),
    [
        ("openai", {}, "project_id"),
        ("openai", {"project_id": "proj/../x"}, "project_id"),
        ("openai", {"project_id": "p", "admin_key": "sk"}, "admin_key"),
        ("openai", {"project_id": "p", "api_url": "ftp://x"}, "api_url"),
        ("openai", {"project_id": "p", "api_url": "https://u:p@x"}, "api_url"),
        ("openai", {"project_id": "p", "api_url": "https://x/?a=b"}, "api_url"),
        ("azure_openai", {"slot_in_use": "Key3"}, "slot_in_use"),
        ("azure_openai", {"resource_group": "a/b"}, "resource_group"),
        ("litellm", {"max_budget": -1}, "max_budget"),
        ("webhook", {"url": "//rotator"}, "url"),
    ],
)
def test_settings_that_are_wrong_are_named(slug, said, wrong):
    with pytest.raises(InvalidInput) as error:
        rotators()[slug].check(said)
    assert wrong in error.value.errors


def test_the_example_of_a_receiver(tmp_path):
    secret = f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"
    keys, port = tmp_path / "keys.json", free_port()
    keys.write_text(json.dumps({"by-hand": "sk-entered-by-a-person"}))
    url = f"http://127.0.0.1:{port}/"
    process = subprocess.Popen(
        [sys.executable, EXAMPLE / "receiver.py", str(port)],
        env={**os.environ, "ROTATOR_SECRET": secret, "KEYS": str(keys)},
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                assert httpx.post(url, json={}, trust_env=False).status_code == 401
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        job, rotator = _job({"url": url}, {}, secret), rotators()["webhook"]
        rotator.create(job)
        new = rotator.create(job)
        assert set(json.loads(keys.read_text()).values()) == {new.secret, "sk-entered-by-a-person"}
        rotator.retire(job)
        rotator.retire(job)
        assert json.loads(keys.read_text()) == {NAME: new.secret}
        forged = f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"
        with pytest.raises(ProviderError, match="401"):
            rotator.create(replace(job, admin_key=forged))
        newer = rotator.create(replace(job, name="kt-next", old=new.handle))
        rotator.retire(replace(job, name="kt-next", old=new.handle))
        assert json.loads(keys.read_text()) == {"kt-next": newer.secret}
    finally:
        process.kill()
        process.wait()


# As workers do it


@pytest.mark.usefixtures("committed")
def test_a_worker_rotates_twice_through_lost_answers(
    case: Case, world: World, role: Callable[[str], contextlib.AbstractContextManager[None]]
) -> None:
    fake, slug = case.fake, case.rotator.slug
    endpoint = world.endpoint(
        with_key=False,
        upstream_url=fake.url,
        dialects=["openai"],
        key_header="api-key" if slug == "azure_openai" else "",
    )
    settings = dict(case.job.settings)
    if slug == "azure_openai":
        settings["slot_in_use"] = "Key1"
    if slug == "webhook":
        fake.keys = {"by-hand": case.first}
    store_upstream_key(by=None, endpoint=endpoint, key=case.first)
    store_rotator_key(by=None, endpoint=endpoint, key=case.job.admin_key)
    set_rotator(by=None, endpoint=endpoint, rotator=slug, settings=settings, max_age=None)

    def steps(rotation: Rotation, over: Callable[[Rotation], bool]) -> None:
        until = time.monotonic() + 20
        while not over(rotation):
            with role("worker"):
                rotate_due()
            rotation.refresh_from_db()
            assert time.monotonic() < until, (
                rotation.state,
                rotation.waits_for,
                rotation.last_error,
            )
            Rotation.objects.filter(pk=rotation.pk).update(next_attempt_at=clock.now())

    def current() -> str:
        with role("worker"):
            found = vault.upstream_key(endpoint.slug)
        assert found is not None
        return found

    first = rotate(by=None, endpoint=endpoint)
    with fake.going_wrong(case.creates, lost=True):
        steps(first, lambda now: bool(now.last_error))
        assert "may have been done" in first.last_error
    if slug in {"openai", "litellm"}:
        # Which of its keys a person stored, neither of them can tell.
        steps(first, lambda now: "delete it" in now.last_error + now.waits_for)
        assert fake.takes(case.first)
        fake.forget(case.first)
    steps(first, lambda now: not now.is_open)
    assert first.proof == "the endpoint refuses it"
    made = current()
    assert fake.takes(made)
    assert not fake.takes(case.first)

    second = rotate(by=None, endpoint=endpoint)
    with fake.going_wrong(case.retires, lost=True):
        steps(second, lambda now: not now.is_open)
    assert second.proof == "the endpoint refuses it"
    assert fake.takes(current())
    assert not fake.takes(made)
    assert case.alive() == (2 if slug == "azure_openai" else 1)
    for told in (first.last_error, second.last_error, *map(str, AuditEvent.objects.values())):
        assert not any(each in told for each in (CANARY, made, current()))


def test_every_rotator_is_documented():
    page = (Path(__file__).resolve().parents[2] / "docs" / "rotators.md").read_text()
    for slug, rotator in rotators().items():
        if type(rotator).__module__.startswith("tests."):
            continue  # another file's, in the same process
        assert f"`{slug}`" in page
        for setting in rotator.Settings.model_fields:
            assert re.search(rf"`{setting}`", page), f"{slug}: {setting}"
