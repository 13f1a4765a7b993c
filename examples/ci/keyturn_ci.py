#!/usr/bin/env python3
"""Run a command with access to a model, from a job that has no stored secret.

The job's platform signs a token that says whose job it is. Keyturn takes it in exchange for one of
its own, for minutes, by a rule that two administrators agreed to (docs/workloads.md):

    keyturn_ci.py --url https://keyturn.acme.example --profile research-models/experiment \\
      --why "Nightly evaluation" -- ./evaluate.sh

The command finds OPENAI_BASE_URL and OPENAI_API_KEY in its environment. However it ends, the access
ends with it. Needs Python 3.9 or newer, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"
AGAIN = {429, 502, 503, 504}  # worth another try, after what Retry-After says
PATIENCE = 5  # tries of one call
# What tells one run of a job from another: GitHub, GitLab, anything else that says so.
RUNS = (("GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "GITHUB_JOB"), ("CI_JOB_ID",), ("WORKLOAD_RUN",))


def call(
    method: str,
    url: str,
    headers: dict[str, str],
    body: bytes | None = None,
    *,
    repeatable: bool = True,
) -> Any:
    """The JSON that this answers. One that isn't `repeatable` isn't sent again where its answer is
    lost. Raises urllib.error.HTTPError."""
    left = PATIENCE
    while True:
        left -= 1
        request = urllib.request.Request(url, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code not in AGAIN or not left:
                raise
            time.sleep(min(int(error.headers.get("Retry-After") or 2), 60))
        except (urllib.error.URLError, TimeoutError):
            if not left or not repeatable:
                raise
            time.sleep(2)


def platforms_token(audience: str) -> str:
    """What this job's platform says of it, for Keyturn alone."""
    if "ACTIONS_ID_TOKEN_REQUEST_URL" in os.environ:  # GitHub: permissions: id-token: write
        url = os.environ["ACTIONS_ID_TOKEN_REQUEST_URL"]
        url += "&audience=" + urllib.parse.quote(audience, safe="")
        bearer = "bearer " + os.environ["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]
        return str(call("GET", url, {"Authorization": bearer})["value"])
    if "WORKLOAD_TOKEN" in os.environ:  # GitLab: id_tokens
        return os.environ["WORKLOAD_TOKEN"]
    if "WORKLOAD_TOKEN_FILE" in os.environ:  # Kubernetes: a projected volume
        return Path(os.environ["WORKLOAD_TOKEN_FILE"]).read_text().strip()
    sys.exit("No token of a platform: see docs/workloads.md for how a job gets one.")


class Keyturn:
    """Calls of the API, with a token that is exchanged anew once it has ended."""

    def __init__(self, url: str, audience: str, service_account: str | None) -> None:
        self.url, self.audience, self.service_account = url, audience, service_account
        self.token = ""

    def exchange(self) -> None:
        """Get an API token for the platform's."""
        said = {
            "grant_type": EXCHANGE,
            "subject_token_type": JWT,
            "subject_token": platforms_token(self.audience),
        }
        if self.service_account:
            said["service_account"] = self.service_account
        body = urllib.parse.urlencode(said).encode()
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        where = f"{self.url}/oauth/token"
        self.token = call("POST", where, form, body, repeatable=False)["access_token"]

    def api(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The JSON that the API answers."""
        fresh = not self.token
        while True:
            if not self.token:
                self.exchange()
            said = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            data = None if body is None else json.dumps(body).encode()
            try:
                return call(method, f"{self.url}/api/v1/{path}", {**said, **headers}, data)
            except urllib.error.HTTPError as error:
                if error.code != 401 or fresh:
                    raise
                self.token, fresh = "", True


def run_name() -> str:
    """What tells this run from others, so that a repeated call files no second request."""
    for names in RUNS:
        if names[0] in os.environ:
            return "-".join(os.environ[name] for name in names if name in os.environ)
    return ""


def wait_for_grant(keyturn: Keyturn, request: dict[str, Any], minutes: float) -> str:
    """The id of the grant, once it is approved."""
    deadline = time.monotonic() + 60 * minutes
    while request["state"] == "pending" and time.monotonic() < deadline:
        before = time.monotonic()
        request = keyturn.api("GET", f"requests/{request['id']}/?wait=30")
        if request["state"] == "pending":  # however soon it answered
            time.sleep(max(2 - (time.monotonic() - before), 0))
    if request["state"] != "approved":
        sys.exit(f"The request {request['id']} is {request['state']}.")
    return str(request["grant"])


def main() -> int:
    """Ask, wait, check out, run, end."""
    about = argparse.ArgumentParser(description="Run a command with access to a model.")
    about.add_argument("--url", required=True, help="Keyturn's address")
    about.add_argument("--audience", help="`aud` of the platform's token; else the address")
    about.add_argument("--profile", required=True, help="endpoint/profile, by short names")
    about.add_argument("--why", required=True, help="what for: a reviewer reads it")
    about.add_argument("--duration", default="PT15M", help="ISO 8601 (%(default)s)")
    about.add_argument("--wait", type=float, default=60, help="minutes (%(default)s)")
    about.add_argument("--service-account", help="e-mail, where rules fit several")
    about.add_argument("command", nargs="+", help="what to run, after --")
    said = about.parse_args()
    url = said.url.rstrip("/")
    keyturn = Keyturn(url, said.audience or url, said.service_account)

    endpoint, _, slug = said.profile.partition("/")
    query = urllib.parse.urlencode({"endpoint": endpoint, "slug": slug})
    found = keyturn.api("GET", f"profiles/?{query}")["results"]
    if not found:
        sys.exit(f"This job may not ask for {said.profile}.")
    run = run_name()
    body = {"profile": found[0]["id"], "duration": said.duration, "justification": said.why}
    once = {}
    if run:
        body["run"] = run
        once["Idempotency-Key"] = f"ci-{run}-{said.profile}"
    request = keyturn.api("POST", "requests/", body, **once)
    print(f"Asked: {url}/requests/{request['id']}/", file=sys.stderr)
    grant = wait_for_grant(keyturn, request, said.wait)
    out = keyturn.api("POST", f"grants/{grant}/credentials/", {})
    access = {"OPENAI_API_KEY": out["secret"], "OPENAI_BASE_URL": out["base_url"] + "/v1"}
    # A job that is cancelled ends its access, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return subprocess.call(said.command, env={**os.environ, **access})
    finally:
        keyturn.api("POST", f"grants/{grant}/end/", {})


if __name__ == "__main__":
    try:
        sys.exit(main())
    except urllib.error.HTTPError as error:
        # What Keyturn says is wrong; no answer with a secret in it is an error.
        sys.exit(f"{error.url}: {error.code} {error.read().decode(errors='replace')[:2000]}")
