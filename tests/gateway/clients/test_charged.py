"""What a grant is charged for calls of each SDK, beside what the upstream counted itself."""

import contextlib
import time
from typing import Any

import pytest
from django.db.models import Sum

from gateway.models import Call, Meter
from tests.conftest import RunningGateway
from tests.gateway.clients.conftest import (
    Ask,
    Granted,
    ask_chat,
    ask_llama,
    ask_message,
    ask_response,
)
from tests.gateway.clients.test_same import CALLS
from tests.upstream import Upstream
from tests.world import World

pytestmark = pytest.mark.usefixtures("committed")


@pytest.mark.slow
def test_what_is_charged_is_what_the_upstream_counted(
    world: World, gateway: RunningGateway, upstream: Upstream
) -> None:
    """Of every kind of call there is here, in every dialect."""
    granted = Granted(world, gateway, upstream, ["*"])
    for call in CALLS.values():
        call(granted.route)
    spent = upstream.spent(key=granted.upstream_key)
    until = time.monotonic() + 5
    written: Any = {}
    while written.get("charged_tokens") != spent and time.monotonic() < until:
        time.sleep(0.1)
        written = Meter.objects.filter(grant=granted.grant).values().first() or {}
    assert spent > 0
    assert written["charged_tokens"] == spent
    assert written["input_tokens"] + written["output_tokens"] == spent
    assert written["calls"] == len(CALLS)
    rows = Call.objects.filter(grant=granted.grant).aggregate(Sum("charged_tokens"))
    assert rows["charged_tokens__sum"] == spent


LIMITED: dict[Ask, dict[str, Any]] = {
    ask_chat: {"max_tokens": 99},
    ask_response: {"max_output_tokens": 99},
    ask_message: {},
    ask_llama: {"options": {"num_predict": 99}},
}
HIDDEN: list[dict[str, Any]] = [
    {"usage": "missing"},
    {"usage": "partial"},
    {"dies_after": 5},
    {"pause": 0.02},  # and hangs up
]


@pytest.mark.parametrize("limits", [{}, {"token_budget": 10_000_000}], ids=["free", "budget"])
def test_what_the_upstream_does_not_tell_is_charged_no_less(
    limits: dict[str, int], world: World, gateway: RunningGateway, upstream: Upstream, reached: Any
) -> None:
    """Whatever hides a call's tokens: a budget is charged as much at least, and where there is
    none to keep, what was seen."""
    granted = Granted(world, gateway, upstream, [], **limits)
    made: list[tuple[str, int]] = []  # a call, and the pieces of its answer that came
    for ask, asked in LIMITED.items():
        for hidden in HIDDEN:
            for streamed in (False, True):
                if "pause" in hidden and not streamed:
                    continue
                pieces = 0
                with upstream.behaving(**hidden), contextlib.suppress(Exception):
                    answer = ask(granted.route, stream=streamed, **asked)
                    for event in answer if streamed else ():
                        pieces += _is_text(event)
                        if "pause" in hidden and pieces == 5:
                            answer.close()
                            break
                upstream.wait(lambda it: it.open == 0, 3)
                made.append((f"{ask.__name__} {hidden} streamed={streamed}", pieces))
    calls = reached()
    rows: list[Call] = []
    until = time.monotonic() + 5
    while len(rows) < len(made) and time.monotonic() < until:
        time.sleep(0.1)
        rows = list(Call.objects.filter(grant=granted.grant).order_by("at"))
    for (name, pieces), call, row in zip(made, calls, rows, strict=True):
        cost = call["prompt_tokens"] + call["completion_tokens"]
        assert row.charged_tokens >= (cost if limits else pieces), name


def _is_text(event: Any) -> bool:
    """Whether this is a piece of an answer, in any dialect."""
    dumped = event.model_dump()
    if choices := dumped.get("choices"):
        return bool(choices[0]["delta"].get("content"))
    return dumped.get("type") in {"response.output_text.delta", "content_block_delta"} or (
        dumped.get("done") is False
    )
