"""docs/quick-start.md does what it says: its commands are run as they stand there."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.conf import settings
from django.db import connection
from django.test import override_settings

from accessrequests.actions import review_request
from accessrequests.models import AccessRequest, Review
from accessrequests.states import RequestState
from accounts.models import User
from broker.demo import data
from tests.conftest import Running, process_environment
from tests.servers import Servers
from tests.upstream import Upstream
from tests.world import PROVED, UPSTREAM_KEY

pytestmark = pytest.mark.slow
BASH = ("/bin/bash", "-euo", "pipefail", "-c")
TEXT = (settings.BASE_DIR / "docs" / "quick-start.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@contextmanager
def ben_approves() -> Iterator[None]:
    over = threading.Event()

    def approve() -> None:
        try:
            while not over.wait(0.2):
                for request in AccessRequest.objects.filter(state=RequestState.PENDING):
                    review_request(
                        by=User.objects.get(email="ben@example.com"),
                        request_id=request.pk,
                        verdict=Review.Verdict.APPROVE,
                        proofs=PROVED,
                    )
        finally:
            connection.close()

    thread = threading.Thread(target=approve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def environment(servers: Servers, portal: Running) -> dict[str, str]:
    return process_environment(servers, "web") | {"BROKER_URL": portal.url}


@pytest.fixture(scope="module")
def token(committed_once: None, servers: Servers, portal: Running, upstream: Upstream) -> str:
    with override_settings(
        KEYTURN_DEMO_UPSTREAM_URL=upstream.url, KEYTURN_DEMO_UPSTREAM_KEY=UPSTREAM_KEY
    ):
        data.create()
    script = blocks("sh")[0].replace("http://localhost:8000", portal.url) + "echo $BROKER_TOKEN"
    done = subprocess.run(
        [*BASH, script],
        env=environment(servers, portal),
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("language", ["sh", "python"])
def test_it_goes_from_asking_to_a_completion_and_back(
    language: str, token: str, servers: Servers, portal: Running
) -> None:
    if language == "sh":
        argv = [*BASH, "".join(blocks("sh")[1:])]
    else:
        argv = [sys.executable, "-c", *blocks("python")]
    with ben_approves():
        done = subprocess.run(
            argv,
            env=environment(servers, portal) | {"BROKER_TOKEN": token},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    said, why = done.stdout.splitlines()[:2]
    assert said
    assert why == "given_back"
