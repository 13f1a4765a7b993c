"""examples/ci/: from the token of a job's platform to a completion, with no stored secret."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from accessrequests.actions import review_request
from accessrequests.models import AccessRequest, Grant, Review
from accounts.models import ApiToken, User
from tests.conftest import Running
from tests.fakes.issuers import AUDIENCE, Issuer
from tests.workloads.conftest import rule_of, trusted
from tests.world import PROVED, UPSTREAM_KEY, World

SCRIPT = settings.BASE_DIR / "examples" / "ci" / "keyturn_ci.py"
# A job's own program: it knows two variables, and no Keyturn.
PROGRAM = """
import json, os, urllib.request
body = {"model": "demo-small", "messages": [{"role": "user", "content": "Say hello to CI"}]}
request = urllib.request.Request(
    os.environ["OPENAI_BASE_URL"] + "/chat/completions",
    json.dumps(body).encode(),
    {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"},
)
print(urllib.request.urlopen(request).read().decode())
"""
PATIENCE = 120


def github(issuer: Issuer, folder: Path) -> dict[str, str]:
    """A job with `permissions: id-token: write` is told where to ask for its token."""

    def token(call: Any) -> Any:
        assert call.headers["Authorization"] == "bearer of-this-job-alone"
        return {"value": issuer.github(aud=AUDIENCE)}

    issuer.served["/id-token?api-version=2.0&audience=https%3A%2F%2Fkeyturn.acme.example"] = token
    return {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{issuer.url}/id-token?api-version=2.0",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-this-job-alone",
        "GITHUB_RUN_ID": "4711",
        "GITHUB_RUN_ATTEMPT": "1",
    }


def gitlab(issuer: Issuer, folder: Path) -> dict[str, str]:
    """A job with `id_tokens` has it in its environment."""
    return {"WORKLOAD_TOKEN": issuer.gitlab(), "CI_JOB_ID": "302"}


def kubernetes(issuer: Issuer, folder: Path) -> dict[str, str]:
    """A pod has it in a projected volume."""
    path = folder / "token"
    path.write_text(issuer.kubernetes())
    return {"WORKLOAD_TOKEN_FILE": str(path)}


CLAIMS: dict[str, Any] = {
    "github": {"repository_id": "74", "ref": "refs/heads/main", "event_name": "schedule"},
    "gitlab": {"project_id": "20", "ref_protected": "true"},
    "kubernetes": {
        "/kubernetes.io/namespace": "evaluation",
        "/kubernetes.io/serviceaccount/name": "nightly",
    },
}


def pending(requester: User, job: subprocess.Popen[str]) -> AccessRequest:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = AccessRequest.objects.filter(requester=requester).first()
        if found is not None:
            return found
        assert job.poll() is None, job.communicate()
        time.sleep(0.1)
    raise AssertionError("the job asked for nothing")


@pytest.mark.parametrize(
    ("platform", "algorithm"),
    [
        (github, "RS256"),
        pytest.param(gitlab, "RS256", marks=pytest.mark.slow),
        pytest.param(kubernetes, "ES256", marks=pytest.mark.slow),
    ],
)
def test_a_job_gets_from_its_platforms_token_to_a_completion(
    platform: Any,
    algorithm: str,
    committed: None,
    portal: Running,
    world: World,
    tmp_path: Path,
) -> None:
    profile = world.profile(with_key=True)
    reviewer = world.person(profile.reviewers)
    robot = world.person(profile.requesters, owner=world.person())
    with Issuer(algorithm) as issuer:
        rule_of(
            trusted(issuer),
            world,
            claims=CLAIMS[platform.__name__],
            service_account=robot,
            verbs=["read", "request", "check_out", "end"],
            endpoints=[profile.endpoint_id],
        )
        name = f"{profile.endpoint.slug}/{profile.slug}"
        argv = [sys.executable, str(SCRIPT), "--profile", name, "--why", "Nightly evaluation"]
        argv += ["--url", portal.url, "--audience", AUDIENCE, "--wait", "5"]
        own = {"PATH": os.environ["PATH"], **platform(issuer, tmp_path)}
        with subprocess.Popen(
            [*argv, "--", sys.executable, "-c", PROGRAM],
            env=own,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as job:
            request = pending(robot, job)
            review_request(
                by=reviewer,
                request_id=request.pk,
                verdict=Review.Verdict.APPROVE,
                proofs=PROVED,
            )
            out, errors = job.communicate(timeout=PATIENCE)
    assert job.returncode == 0, errors
    assert "Say hello to CI" in json.loads(out)["choices"][0]["message"]["content"]
    grant = Grant.objects.get(request=request)
    assert grant.ended_by == str(robot)
    token = ApiToken.objects.get(owner=robot)
    assert token.claims.keys() >= {*CLAIMS[platform.__name__], "iss", "sub"}
    # What opened the endpoint is nowhere in what a log of the job would keep.
    assert "kt_wl_" not in out + errors
    assert UPSTREAM_KEY not in out + errors
