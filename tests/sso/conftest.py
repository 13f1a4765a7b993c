from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.sso.providers import FakeProvider, configured


@pytest.fixture(scope="module")
def running() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


@pytest.fixture
def acme(running: FakeProvider) -> FakeProvider:
    """A provider whose answers the test says."""
    running.reset()
    return running


@pytest.fixture
def configure(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """`configure(issuer, …)` puts a provider in the configuration; its slug."""
    with ExitStack() as stack:

        def one(issuer: str, **said: Any) -> str:
            return stack.enter_context(configured(tmp_path, issuer, **said))

        yield one
