"""What Keyturn is for, played over HTTP against real servers, with the time that each step took.

Every line printed is something that was checked; the first that isn't so ends the story.
"""

import base64
import re
import sys
import threading
import time
import urllib.error
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

import openai
import requests
from django_otp.oath import hotp

from broker.demo.data import PASSWORD
from broker.embedded.supervisor import Supervisor

ENDPOINT = "research-models"
PROFILE = "experiment"
SAY: Any = [{"role": "user", "content": "Which locks did you open today?"}]


class WentWrong(Exception):
    """A step of the story didn't do what it says."""


def check(condition: object, what: str) -> None:
    """Raise WentWrong with these words unless the condition holds."""
    if not condition:
        raise WentWrong(what)


@dataclass
class Timeline:
    """Prints steps as they are proven."""

    began: float = field(default_factory=time.monotonic)

    def chapter(self, title: str) -> None:
        """A heading."""
        print(f"\n{title}", flush=True)

    def step(self, words: str, took: float | None = None) -> None:
        """One thing that was checked just now; `took` in seconds."""
        elapsed = time.monotonic() - self.began
        measured = "" if took is None else f"  ({took * 1000:.0f} ms)"
        print(f"  {elapsed:7.2f} s  ✓ {words}{measured}", flush=True)

    def wait(self, words: str, seconds: float) -> None:
        """Sleep, saying on a terminal how long for."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if sys.stdout.isatty():
                print(f"\r             … {words} in {left:2.0f} s ", end="", flush=True)
            time.sleep(min(0.2, left))
        if sys.stdout.isatty():
            print("\r" + " " * 70 + "\r", end="", flush=True)


class Person:
    """Somebody signed in to the portal, or their program with an API token."""

    def __init__(self, base_url: str, *, email: str = "", token: str = "") -> None:
        self.base_url = base_url
        self.http = requests.Session()
        self.http.trust_env = False
        if token:
            self.http.headers["Authorization"] = f"Bearer {token}"
        else:
            self._page("/sign-in/")
            self._send("/sign-in/", 302, username=email, password=PASSWORD)
        self._secret, self._step = b"", 0

    def _page(self, path: str) -> str:
        answer = self.http.get(self.base_url + path, timeout=10)
        answer.raise_for_status()
        return answer.text

    def _send(self, path: str, status: int, **form: Any) -> None:
        """Send a form of the portal."""
        answer = self.http.post(
            self.base_url + path,
            data=form | {"csrfmiddlewaretoken": self.http.cookies["keyturn-csrf"]},
            headers={"Referer": self.base_url + path},
            allow_redirects=False,
            timeout=10,
        )
        check(answer.status_code == status, f"{path} answered {answer.status_code}")

    def set_up_app(self) -> None:
        """Set up an authenticator app, as its page says."""
        self._send("/settings/factor/", 302)
        found = re.search("[?&;]secret=([A-Z2-7]+)", self._page("/settings/factor/set-up/"))
        if found is None:
            raise WentWrong("the page shows no secret for an authenticator")
        self._secret = base64.b32decode(found[1])
        self._send("/settings/factor/set-up/", 200, code=self._code())

    def prove(self, purpose: str) -> None:
        """Prove the second factor anew, for this action on this thing."""
        self._send("/step-up/", 302, code=self._code(), **{"for": purpose})

    def _code(self) -> str:
        """A code that wasn't used yet. The one before and the one after are taken too."""
        # The earliest that will still be taken when it arrives, as each works once.
        self._step = max(self._step + 1, int(time.time() + 3) // 30 - 1)
        while self._step > int(time.time()) // 30 + 1:
            time.sleep(0.5)
        return f"{hotp(self._secret, self._step):06}"

    def call(self, method: str, path: str, body: Any = None) -> requests.Response:
        """One call of the REST API."""
        headers = {"Referer": self.base_url}
        if csrf := self.http.cookies.get("keyturn-csrf"):
            headers["X-CSRFToken"] = csrf
        return self.http.request(
            method, f"{self.base_url}/api/v1/{path}", json=body, headers=headers, timeout=20
        )

    def done(self, method: str, path: str, body: Any = None) -> Any:
        """The same, for what has to succeed."""
        answer = self.call(method, path, body)
        check(answer.ok, f"{method} {path} answered {answer.status_code}: {answer.text}")
        return answer.json()


class Story:
    """The chapters, in order. Each leaves behind what the next one needs."""

    def __init__(self, keyturn: Supervisor) -> None:
        self.keyturn = keyturn
        self.timeline = Timeline()
        self.vault_token = ""

    def play(self) -> None:
        """All of it. Raises WentWrong."""
        self._cast()
        self.timeline.chapter("Ana asks")
        grant = self._ask_and_approve("PT1H", show=True)
        self.timeline.chapter("She uses it, with an ordinary OpenAI client")
        out = self._check_out(grant)
        with self._client(out) as client:
            self._use(client)
            self.timeline.chapter("She gives it back early, with a stream still open")
            self._end_early(client, grant, out)
        self.timeline.chapter("Another minute, and nobody there to end it")
        self._expire_alone()
        self.timeline.chapter("And all of it is on the record")
        self._read_the_record(grant)

    def _cast(self) -> None:
        self.timeline.chapter("The cast")
        token = self.keyturn.manage(
            "token", "create", "--owner=ana@example.com", "--name=make demo", "--days=1"
        ).strip()
        self.ana = Person(self.keyturn.base_url, token=token)
        self.timeline.step("Ana's program has an API token: it can ask, never approve")
        self.ana_herself = Person(self.keyturn.base_url, email="ana@example.com")
        self.ben = Person(self.keyturn.base_url, email="ben@example.com")
        self.chidi = Person(self.keyturn.base_url, email="chidi@example.com")
        self.timeline.step("Ana, Ben (reviewer) and Chidi (security) are signed in")
        self.ben.set_up_app()
        self.timeline.step("Ben set up an authenticator app: a reviewer has to have one")

    def _ask_and_approve(self, duration: str, *, show: bool = False) -> dict[str, Any]:
        profiles = self.ana.done("GET", f"profiles/?endpoint={ENDPOINT}&slug={PROFILE}")
        asked = self.ana.done(
            "POST",
            "requests/",
            {
                "profile": profiles["results"][0]["id"],
                "duration": duration,
                "models": ["demo-small", "demo-slow", "demo-embed"],
                "justification": "Compare two prompts before Thursday's release.",
            },
        )
        check(asked["state"] == "pending", f"the request is {asked['state']}")
        if show:
            self.timeline.step(
                f"requested {duration} on {ENDPOINT}; waits for {', '.join(asked['waits_for'])}"
            )
            self._refused_before_approval(asked)
        path = f"requests/{asked['id']}/reviews/"
        if show:
            answer = self.ben.call("POST", path, {"verdict": "approve"})
            check(
                answer.status_code == 403 and answer.json()["code"] == "step-up-needed",
                f"approving without a second factor answered {answer.status_code}",
            )
            self.timeline.step("Ben's session alone can't approve it: he gives a code first")
        self.ben.prove(f"review:{asked['id']}")
        began = time.monotonic()
        self.ben.done("POST", path, {"verdict": "approve"})
        took = time.monotonic() - began
        asked = self.ana.done("GET", f"requests/{asked['id']}/")
        check(asked["state"] == "approved", f"the request is {asked['state']}")
        grant: dict[str, Any] = self.ana.done("GET", f"grants/{asked['grant']}/")
        check(grant["is_live"], "the grant isn't live")
        self.timeline.step(f"Ben approved: a grant until {grant['ends_at'][11:19]} UTC", took)
        return grant

    def _refused_before_approval(self, asked: dict[str, Any]) -> None:
        check(asked["grant"] is None, "there is a grant before any review")
        answer = self.ana.call("POST", f"grants/{uuid.uuid4()}/credentials/")
        check(answer.status_code == 404, f"check-out answered {answer.status_code}")
        with self._client({"secret": "s.aKeyThatNobodyEverMinted00"}) as client:
            refused = self._refusal(client)
            check(refused == "invalid_api_key", f"the gateway said {refused}")
        self.timeline.step("before approval: nothing to check out, and the gateway refuses her")
        path = f"requests/{asked['id']}/reviews/"
        answer = self.ana_herself.call("POST", path, {"verdict": "approve"})
        check(
            answer.status_code == 403 and answer.json()["code"] == "self-review",
            f"approving her own answered {answer.status_code}",
        )
        self.timeline.step("Ana tried to approve it herself: 403, and on the record")

    def _check_out(self, grant: dict[str, Any]) -> dict[str, Any]:
        began = time.monotonic()
        out: dict[str, Any] = self.ana.done("POST", f"grants/{grant['id']}/credentials/")
        took = time.monotonic() - began
        self.timeline.step(f"checked out {out['credential']['name']}, minted by OpenBao", took)
        return out

    def _client(self, out: dict[str, Any]) -> openai.OpenAI:
        base_url = f"{self.keyturn.gateway_url}/e/{ENDPOINT}/v1"
        return openai.OpenAI(base_url=base_url, api_key=out["secret"], max_retries=0, timeout=30)

    def _use(self, client: openai.OpenAI) -> None:
        began = time.monotonic()
        answer = client.chat.completions.create(model="demo-small", messages=SAY)
        took = time.monotonic() - began
        text = answer.choices[0].message.content or ""
        check("locks" in text, f"the completion is {text!r}")
        self.timeline.step(f"a completion: {text[:60]}…", took)
        stream = client.chat.completions.create(model="demo-small", messages=SAY, stream=True)
        pieces = sum(1 for chunk in stream if chunk.choices and chunk.choices[0].delta.content)
        check(pieces > 3, f"the stream had {pieces} pieces")
        self.timeline.step(f"a stream of {pieces} pieces")
        try:
            client.chat.completions.create(model="demo-large", messages=SAY)
        except openai.PermissionDeniedError as error:
            check(error.code == "model_not_granted", f"the gateway said {error.code}")
        else:
            raise WentWrong("a model outside of the grant answered")
        self.timeline.step("a model that the grant doesn't hold: refused")

    def _refusal(self, client: openai.OpenAI) -> str | None:
        """The code with which the gateway refuses a call, None if it serves it."""
        try:
            client.models.list()
        except openai.AuthenticationError as error:
            return error.code
        return None

    def _wait_until(self, true: Callable[[], bool], seconds: float, what: str) -> float:
        began = time.monotonic()
        while not true():
            check(time.monotonic() - began < seconds, f"{what}: not within {seconds} s")
            time.sleep(0.02)
        return time.monotonic() - began

    def _end_early(self, client: openai.OpenAI, grant: dict[str, Any], out: dict[str, Any]) -> None:
        watched = _Watched(client)
        with watched:
            self._wait_until(lambda: watched.pieces > 1, 10, "the slow stream to begin")
            self.timeline.step("a slow stream is open")
            began = time.monotonic()
            ended = self.ana.done("POST", f"grants/{grant['id']}/end/")
            check(ended["end_reason"] == "given_back", f"ended as {ended['end_reason']}")
            self.timeline.step("given back", time.monotonic() - began)
        check(watched.code == "grant_ended", f"the stream ended with {watched.code!r}")
        cut = watched.ended - began
        check(cut < 1, f"the stream was cut after {cut:.2f} s")
        self.timeline.step("the stream was cut with an error event", cut)
        refused = self._refusal(client)
        check(refused == "grant_ended", f"the gateway said {refused}")
        self.timeline.step("the next call is refused")
        self._proven_gone(out)

    def _proven_gone(self, out: dict[str, Any]) -> None:
        path = f"credentials/{out['credential']['id']}/"
        took = self._wait_until(
            lambda: self.ana.done("GET", path)["state"] == "revoked", 30, "a worker's proof"
        )
        proof = self.ana.done("GET", path)["proof"]
        check(not self._vault_knows(out["secret"]), "OpenBao still knows the token")
        self.timeline.step(f"proven gone: {proof}", took)

    def _vault_knows(self, secret: str) -> bool:
        bao = self.keyturn.openbao
        self.vault_token = self.vault_token or bao.login("gateway")
        try:
            bao.request(
                "POST",
                "auth/token/lookup",
                {"token": secret},
                token=self.vault_token,
                namespace=bao.namespace,
            )
        except urllib.error.HTTPError:
            return False
        return True

    def _expire_alone(self) -> None:
        grant = self._ask_and_approve("PT1M")
        out = self._check_out(grant)
        check(self._vault_knows(out["secret"]), "OpenBao doesn't know the new token")
        with self._client(out) as client:
            check(self._refusal(client) is None, "the second credential doesn't work")
            self.keyturn.stop_child("beat")
            self.keyturn.stop_child("worker")
            self.timeline.step("it works; worker and beat are stopped now")
            ends_at = datetime.fromisoformat(grant["ends_at"]).timestamp()
            self.timeline.wait("it expires", ends_at - time.time() - 2)
            check(self._refusal(client) is None, "refused two seconds before its end")
            self.timeline.wait("it expires", ends_at - time.time() - 0.2)
            self._wait_until(lambda: self._refusal(client) is not None, 5, "the end")
            late = time.time() - ends_at
            check(late < 1, f"refused {late:.2f} s after its end")
        self.timeline.step(f"the gateway refuses it {late * 1000:+.0f} ms from its end")
        self._wait_until(lambda: not self._vault_knows(out["secret"]), 2, "OpenBao's own TTL")
        late = time.time() - ends_at
        check(late < 1, f"OpenBao let it go {late:.2f} s after its end")
        self.timeline.step("OpenBao itself doesn't know it any more")
        self.keyturn.start_child("worker")
        self.keyturn.start_child("beat")
        self.timeline.step("worker and beat are back")
        self._proven_gone(out)

    def _read_the_record(self, grant: dict[str, Any]) -> None:
        rows = self.chidi.done("GET", f"audit/events/?about={grant['id']}")["results"]
        rows += self.chidi.done("GET", f"audit/events/?about={grant['request']}")["results"]
        events = {row["event"] for row in rows}
        expected = {
            "access_request:filed",
            "access_request:approved",
            "grant:started",
            "credential:issuing",
            "credential:issued",
            "grant:ended",
            "credential:revoking",
            "credential:revoked",
        }
        check(expected <= events, f"missing on the record: {sorted(expected - events)}")
        for row in sorted({row["id"]: row for row in rows}.values(), key=lambda row: row["id"]):
            print(f"             {row['at'][11:23]}  {row['actor']:<14} {row['event']}")
        refusals = self.chidi.done("GET", "audit/events/?event=access:refused")["results"]
        check(
            any(row["data"].get("code") == "self-review" for row in refusals),
            "the refused self-review isn't on the record",
        )
        self.timeline.step("the refused self-review is on it too")


class _Watched:
    """A slow stream, read in a thread; how it ended."""

    def __init__(self, client: openai.OpenAI) -> None:
        self._client = client
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.pieces = 0
        self.code: str | None = None
        self.ended = 0.0

    def _read(self) -> None:
        try:
            for _ in self._client.chat.completions.create(
                model="demo-slow", messages=SAY, stream=True
            ):
                self.pieces += 1
        except openai.APIError as error:
            self.code = error.code
        self.ended = time.monotonic()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(15)
