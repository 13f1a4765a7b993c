"""The whole story in real processes; then everything that keeps anything is searched."""

import base64
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from accessrequests.models import AccessRequest, Grant
from accounts import invitations
from accounts.actions import create_token, join_group
from accounts.models import User
from accounts.scim import tokens as scim
from credentials.models import Credential
from credentials.states import CredentialState
from tests.accounts.authenticator import authenticator, code, later
from tests.canary import scan
from tests.conftest import free_port, process_environment, wait_for
from tests.credentials.test_client_certificate import operate
from tests.servers import Servers
from tests.upstream import Upstream
from tests.world import PASSWORD, UPSTREAM_KEY, World, unique

pytestmark = pytest.mark.usefixtures("committed")


@contextmanager
def process(
    role: str, argv: list[str], servers: Servers, logs: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process of the broker, as talkative as it can be, with its output in a file."""
    with (logs / f"{role}.log").open("wb") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", *argv],
            env=process_environment(servers, role) | {"KEYTURN_LOG_LEVEL": "DEBUG"} | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(15)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


@dataclass
class Story:
    logs: Path
    heard: list[str] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.1)


def csrf_of(page: httpx.Response) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert found is not None, page.text[:500]
    return found[1]


def post(browser: httpx.Client, path: str, page: str = "", **data: str) -> httpx.Response:
    """Send the form of this page, which is at the same address where none is named."""
    data["csrfmiddlewaretoken"] = csrf_of(browser.get(page or path))
    return browser.post(path, data=data, headers={"Origin": str(browser.base_url).rstrip("/")})


def sign_in(web: httpx.Client, email: str, password: str) -> httpx.Response:
    form = web.get("/sign-in/")
    return web.post(
        "/sign-in/",
        data={"csrfmiddlewaretoken": csrf_of(form), "username": email, "password": password},
        headers={"Origin": str(web.base_url).rstrip("/")},
    )


@pytest.fixture(scope="module")
def story(
    servers: Servers,
    django_db_setup: None,
    django_db_blocker: Any,
    upstream: Upstream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Story]:
    with django_db_blocker.unblock(), ExitStack() as stack:
        told = Story(tmp_path_factory.mktemp("logs"))
        told.heard = stack.enter_context(scan.listening(servers.redis_url))
        play(told, World(upstream.url), servers, stack)
        stack.close()
        yield told


def play(told: Story, world: World, servers: Servers, stack: ExitStack) -> None:
    ports = {"web": free_port(), "gateway": free_port()}
    urls = {role: f"http://127.0.0.1:{port}" for role, port in ports.items()}
    argv = {
        "web": ["granian", "--interface=wsgi", "--no-ws", "--blocking-threads=2", "--access-log",
                "--port", str(ports["web"]), "broker.wsgi:application"],
        "gateway": ["gateway", "--port", str(ports["gateway"])],
        "worker": ["celery", "-A", "broker.celery", "worker", "-B", "--pool=solo",
                   "--loglevel=DEBUG", "--schedule", str(told.logs / "beat")],
    }  # fmt: skip
    environment = {"KEYTURN_BASE_URL": urls["web"], "KEYTURN_GATEWAY_URL": urls["gateway"]}
    running = {
        role: stack.enter_context(process(role, each, servers, told.logs, **environment))
        for role, each in argv.items()
    }
    wait_for(urls["web"] + "/healthz/", running["web"], 180)
    wait_for(urls["gateway"] + "/healthz", running["gateway"], 180)

    profile = world.profile(with_key=True)
    password = f"{PASSWORD} {unique()}"
    requester = world.person(profile.requesters, password=password)
    reviewer = world.person(profile.reviewers, password=password)
    authenticator_of_reviewer = authenticator(reviewer)
    _, token = create_token(by=requester, owner=requester, name="story")
    mistyped = f"mistyped {unique()} password"
    told.secrets = {
        "upstream key": UPSTREAM_KEY,
        "API token": token,
        "password": password,
        "mistyped password": mistyped,
    }
    told.marks = {"justification": f"Ticket {unique()}"}

    with (
        httpx.Client(
            base_url=f"{urls['web']}/api/v1",
            headers={"Authorization": f"Bearer {token}"},
            event_hooks={"request": [repeatable]},
        ) as api,
        httpx.Client(base_url=urls["web"]) as web,
    ):  # fmt: skip
        assert sign_in(web, reviewer.email, mistyped).status_code == 400
        assert sign_in(web, mistyped, mistyped).status_code == 400  # in the wrong field
        assert (
            sign_in(web, reviewer.email, password).headers["Location"]
            == "/sign-in/factor/?next=%2F"
        )
        assert (
            post(web, "/sign-in/factor/", code=code(authenticator_of_reviewer)).status_code == 302
        )

        filed = api.post(
            "/requests/",
            json={"profile": str(profile.pk), "justification": told.marks["justification"]},
        )
        assert filed.status_code == 201, filed.text
        request = AccessRequest.objects.get(pk=filed.json()["id"])
        later(reviewer)
        proof = f"/step-up/?for=review:{request.pk}"
        assert post(web, proof, code=code(authenticator_of_reviewer)).status_code == 302
        reviewed = post(
            web, f"/requests/{request.pk}/review/", f"/requests/{request.pk}/", verdict="approve"
        )
        assert reviewed.status_code == 302, reviewed.text
        grant = Grant.objects.get(request=request)

        first = api.post(f"/grants/{grant.pk}/credentials/")
        second = api.post(f"/grants/{grant.pk}/credentials/")
        assert (first.status_code, second.status_code) == (201, 201)
        told.secrets |= {"first": first.json()["secret"], "second": second.json()["secret"]}
        told.marks["credential"] = str(second.json()["credential"]["id"])
        with httpx.Client() as own:
            assert sign_in_at(own, urls["web"], requester.email, password) == 302
            page = own.get(f"{urls['web']}/grants/{grant.pk}/")
            shown = own.post(
                f"{urls['web']}/grants/{grant.pk}/check-out/",
                data={"csrfmiddlewaretoken": csrf_of(page)},
                headers={"Origin": urls["web"]},
            )
            secret = re.search(r"\b(?:hv)?s\.[A-Za-z0-9_\-.]{20,}", shown.text)
            assert secret is not None, shown.text
            told.secrets["third"] = secret[0]
            open_in_browser(told, world, own, urls, requester)
        hand_over(told, world, api, servers, requester)
        be_invited(told, world, urls["web"])
        use(told, f"{urls['gateway']}/e/{profile.endpoint.slug}/v1")
        ask_about(told, api, f"{urls['gateway']}/authz/{profile.endpoint.slug}")
        use_signed(told, world, api, urls, requester)
        # A token in a path or a query is what access logs are afraid of.
        api.get("/grants/", params={"state": "ended"})
        assert api.post(f"/grants/{grant.pk}/end/").status_code == 200
        until(
            lambda: (
                not Credential.objects.filter(grant=grant)
                .exclude(state=CredentialState.REVOKED)
                .exists()
            )
        )
        use_ended(told, f"{urls['gateway']}/e/{profile.endpoint.slug}/v1")


def repeatable(request: httpx.Request) -> None:
    """Have the answer kept, as far as answers are."""
    request.headers["Idempotency-Key"] = f"canary-{unique()}"


def be_invited(told: Story, world: World, base: str) -> None:
    """A newcomer's link, password, authenticator and recovery codes; a directory's token."""
    newcomer = world.person()
    link = invitations.invite(by=None, person=newcomer)
    _, told.secrets["directory's token"] = scim.create_token(name="story")
    told.secrets |= {"invitation": link.split("/")[-2], "chosen": f"chosen {unique()} password"}
    with httpx.Client(base_url=base) as browser:
        assert browser.get(httpx.URL(link).path).status_code == 302
        chosen = told.secrets["chosen"]
        assert post(browser, "/welcome/", password=chosen, again=chosen).status_code == 302
        assert browser.get(httpx.URL(link).path).status_code == 404
        assert post(browser, "/settings/factor/").status_code == 302
        shown = re.search(r"secret=([A-Z2-7]{32})", browser.get("/settings/factor/set-up/").text)
        assert shown is not None
        told.secrets["authenticator"] = shown[1]
        right = code(base64.b32decode(shown[1]))
        codes = post(browser, "/settings/factor/set-up/", code=right)
        found = re.findall(r"<code>([0-9A-Z-]{27})</code>", codes.text)
        assert len(found) == 10, codes.text
        told.secrets |= {"recovery code": found[0], "unused recovery code": found[1]}
    with httpx.Client(base_url=base) as browser:
        assert (
            sign_in(browser, newcomer.email, chosen).headers["Location"]
            == "/sign-in/factor/?next=%2F"
        )
        assert post(browser, "/sign-in/factor/", recovery=found[0]).status_code == 302
    people = f"{base}/scim/v2/Users"
    for token, status in (
        (told.secrets["directory's token"], 200),
        (told.secrets["API token"], 401),
    ):
        # The first of a process loads SCIM's schemas, beside whatever else this machine does.
        answer = httpx.get(people, headers={"Authorization": f"Bearer {token}"}, timeout=60)
        assert answer.status_code == status, answer.text


def open_in_browser(
    told: Story, world: World, own: httpx.Client, urls: dict[str, str], requester: User
) -> None:
    """A dashboard, with a session at the gateway."""
    scope = {"operations": ["GET /admin/"]}
    endpoint = world.endpoint(dialects=["http"], kind="dashboard")
    profile = world.profile(endpoint=endpoint, models=None, scope=scope)
    join_group(by=None, user=requester, group=profile.requesters)
    grant = world.grant(profile=profile, requester=requester)
    page = own.get(f"{urls['web']}/grants/{grant.pk}/")
    opened = own.post(
        f"{urls['web']}/grants/{grant.pk}/open/",
        data={"csrfmiddlewaretoken": csrf_of(page)},
        headers={"Origin": urls["web"]},
    )
    secret = re.search(r'name="credential" value="([^"]+)"', opened.text)
    assert secret is not None, opened.text
    told.secrets["opened"] = secret[1]
    base = f"{urls['gateway']}/e/{endpoint.slug}"
    session = httpx.post(
        f"{base}/.keyturn/session",
        data={"credential": secret[1]},
        headers={"Origin": urls["web"]},
    )
    told.secrets["session"] = session.cookies["keyturn-gateway"]
    cookie = {"Cookie": f"keyturn-gateway={told.secrets['session']}"}
    answer = httpx.get(f"{base}/admin/", headers=cookie)
    assert answer.status_code == 200, answer.text


def hand_over(
    told: Story, world: World, api: httpx.Client, servers: Servers, requester: User
) -> None:
    """What isn't a gateway token, and what is wrapped; and the end of it all."""
    operate(servers, "claims-tools")
    told.secrets["static key"] = f"sk-static-canary-{unique()}"
    settings = {"client_certificate": {"role": "claims-tools"}, "static_secret": {}}
    for kind, kind_settings in settings.items():
        endpoint = world.endpoint(with_key=False, dialects=["direct"])
        profile = world.profile(
            endpoint=endpoint,
            models=None,
            scope={"operations": ["CONNECT /"]},
            credential_kind=kind,
            kind_settings=kind_settings,
        )
        body = {"data": {"key": told.secrets["static key"]}, "options": {"cas": 0}}
        servers.vault("POST", f"kv/data/handed-out/{endpoint.slug}", body)
        join_group(by=None, user=requester, group=profile.requesters)
        grant = world.grant(profile=profile, requester=requester)
        out = api.post(f"/grants/{grant.pk}/credentials/", json={"wrap": True}).json()
        path = f"/credentials/{out['credential']['id']}/unwrap/"
        answers = [api.post(path, json={"token": out["secret"]}) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 410]
        told.secrets[f"wrapping token of {kind}"] = out["secret"]
        parts = answers[0].json()["parts"]
        if kind == "static_secret":
            assert parts == {"secret": told.secrets["static key"]}
        else:
            told.secrets["private key"] = parts["private_key"].splitlines()[2]
        assert api.post(f"/grants/{grant.pk}/end/").status_code == 200


def use_signed(
    told: Story, world: World, api: httpx.Client, urls: dict[str, str], requester: User
) -> None:
    """A JWT and the one after it, to the word of a finder who has it revoked."""
    profile = world.profile(with_key=True, credential_kind="jwt")
    join_group(by=None, user=requester, group=profile.requesters)
    grant = world.grant(profile=profile, requester=requester)
    out = [api.post(f"/grants/{grant.pk}/credentials{path}/") for path in ("", "/refresh")]
    told.secrets |= {f"JWT {at}": each.json()["secret"] for at, each in enumerate(out)}
    told.secrets["signature"] = told.secrets["JWT 1"].rpartition(".")[2]
    models = f"{urls['gateway']}/e/{profile.endpoint.slug}/v1/models"
    bearer = {"Authorization": f"Bearer {told.secrets['JWT 1']}"}
    assert httpx.get(models, headers=bearer).status_code == 200
    forged = {"Authorization": f"Bearer {told.secrets['JWT 1'][:-4]}AAAA"}
    assert httpx.get(models, headers=forged).status_code == 401
    revoke = f"{urls['web']}/api/v1/revoke/"
    assert httpx.post(revoke, data={"token": told.secrets["JWT 1"]}).status_code == 200
    until(lambda: httpx.get(models, headers=bearer).status_code == 401, 5)


def sign_in_at(client: httpx.Client, url: str, email: str, password: str) -> int:
    client.base_url = httpx.URL(url)
    return sign_in(client, email, password).status_code


def use(told: Story, base: str) -> None:
    body = {"model": "demo-small", "messages": [{"role": "user", "content": "hello"}]}
    bearer = {"Authorization": f"Bearer {told.secrets['third']}"}
    for extra in ({}, {"stream": True}):
        answer = httpx.post(f"{base}/chat/completions", json=body | extra, headers=bearer)
        assert answer.status_code == 200, answer.text
        assert UPSTREAM_KEY not in answer.text
        assert UPSTREAM_KEY not in str(answer.headers)
    assert (
        httpx.get(f"{base}/models", headers={"api-key": told.secrets["first"]}).status_code == 401
    )
    assert httpx.post(f"{base}/chat/completions", content=b"{", headers=bearer).status_code == 400


def ask_about(told: Story, api: httpx.Client, authz: str) -> None:
    """As servers do that verify it: by introspection, and by a proxy."""
    secret = told.secrets["third"]
    # Not the owner's: what is refused leaves more behind than what isn't.
    asked = api.post("/introspect/", data={"token": secret})
    assert asked.json() == {"active": False}, asked.text
    for bearer, status in ((secret, 200), (told.secrets["first"], 401)):
        headers = {"Authorization": f"Bearer {bearer}"}
        assert httpx.get(f"{authz}/envoy/v1/models", headers=headers).status_code == status


def use_ended(told: Story, base: str) -> None:
    bearer = {"Authorization": f"Bearer {told.secrets['third']}"}
    until(lambda: httpx.get(f"{base}/models", headers=bearer).status_code == 401, 5)


def test_no_secret_is_in_postgresql(story: Story) -> None:
    places = scan.postgresql()
    assert story.marks["justification"] in places["public.accessrequests_accessrequest"]
    assert story.marks["credential"] in places["public.credentials_credential"]
    assert story.marks["credential"] in places["public.accounts_idempotencykey"]
    assert "canary-" in places["public.accounts_idempotencykey"]
    assert scan.seen(story.secrets, places) == []


def test_no_secret_is_or_ever_was_in_valkey(story: Story, servers: Servers) -> None:
    heard = "".join(story.heard)  # a command can come in two parts
    assert "keyturn:ended" in heard, "pushes were heard"
    assert "credentials.tasks.sweep" in heard, "tasks were heard"
    places = scan.valkey(servers.redis_url) | {"commands": heard}
    assert scan.seen(story.secrets, places) == []


def test_no_secret_is_in_any_log(story: Story, servers: Servers) -> None:
    places = scan.files(story.logs) | scan.files(servers.folder / "logs")
    places["audit.log"] = (servers.folder / "openbao" / "audit.log").read_text(errors="replace")
    assert "POST" in places["web.log"], "it wrote of calls"
    assert "credentials.tasks.sweep" in places["worker.log"], "it wrote of tasks"
    # An invitation is a link: the access log, which is on for this test alone, has its path. What
    # Keyturn itself writes of it is redacted, and once used it opens nothing.
    secrets = {name: each for name, each in story.secrets.items() if name != "invitation"}
    assert scan.seen(secrets, places) == []


@pytest.mark.parametrize("how", ["plain", "quoted", "hex", "base64"])
def test_the_search_finds_what_is_there(how: str) -> None:
    """Or everything above would be green for nothing."""
    secret = "s.A/canary+with=signs"
    text = {
        "plain": secret,
        "quoted": quote(secret, safe=""),
        "hex": secret.encode().hex(),
        "base64": base64.b64encode(b'{"a": "' + secret.encode() + b'"}').decode(),
    }[how]
    assert scan.seen({"it": secret}, {"here": f"... {text} ..."}) == ["it in here"]
    assert scan.seen({"it": secret}, {"here": "... another ..."}) == []
