"""A client generated from the document: typed without a fault, and enough for the whole story."""

import base64
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

from accounts.scopes import Verb
from tests.accounts.authenticator import authenticator
from tests.conftest import Running, running_worker
from tests.openapi.conftest import token_of
from tests.servers import Servers
from tests.world import World

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
TOOLS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("client")
    call_command("spectacular", "--file", str(folder / "openapi.yaml"))
    arguments = "generate --path openapi.yaml --meta none --output-path keyturn_client"
    done = run(folder, str(TOOLS / "openapi-python-client"), *arguments.split())
    # What it couldn't make sense of it leaves out, and says so.
    told = done.stdout.replace("ruff is not in PATH", "").replace("Skipping Integration", "")
    assert "WARNING" not in told, told
    shutil.copy(HERE / "story.py", folder)
    return folder


def run(folder: Path, *argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        argv, cwd=folder, env=os.environ | environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done


def test_it_is_typed(generated: Path) -> None:
    run(generated, sys.executable, "-m", "mypy", "--strict", "keyturn_client", "story.py")


@pytest.mark.usefixtures("committed")
def test_it_plays_the_story(
    generated: Path, portal: Running, servers: Servers, world: World
) -> None:
    profile = world.profile(with_key=True)
    asker, reviewer = world.person(profile.requesters), world.person(profile.reviewers)
    told = ""
    with running_worker(servers):
        told = run(
            generated,
            sys.executable,
            "story.py",
            KEYTURN_URL=portal.url,
            KEYTURN_TOKEN=token_of(asker, Verb.READ, Verb.REQUEST, Verb.CHECK_OUT, Verb.END),
            REVIEWER_TOKEN=token_of(reviewer, Verb.READ, Verb.REVIEW),
            AUTHENTICATOR=base64.b32encode(authenticator(reviewer)).decode(),
            PROFILE=profile.slug,
        ).stdout
    assert told.startswith("revoked: ")
