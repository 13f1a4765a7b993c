"""The application's own processes, as the supervisor sees them."""

import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from broker.embedded.commands import argv
from broker.embedded.servers import BASE_DIR, http_status
from broker.embedded.state import State

TITLES = {
    "web": "Portal and API",
    "gateway": "Gateway",
    "worker": "Worker",
    "beat": "Beat",
    "upstream": "Demo upstream",
}


class Application:
    """One process of the application: web, gateway, worker, beat or upstream."""

    rank = 0
    stop_signal = signal.SIGTERM
    start_seconds = 60.0
    folder: Path | None = None
    cwd = BASE_DIR

    def __init__(
        self,
        name: str,
        state: State,
        environment: Callable[[], Mapping[str, str]],
        *,
        health: str = "",
        says: str = "",
    ) -> None:
        """It's ready when GET `health` answers 200, or its log says `says`."""
        self.name = name
        self.title = TITLES[name]
        self._state = state
        self._environment = environment
        self._health = health
        self._says = says.encode()
        self._log_start = 0

    @property
    def env(self) -> Mapping[str, str]:
        return self._environment()

    def prepare(self) -> None:
        self._log_start = self._state.log(self.name).stat().st_size

    def argv(self) -> Sequence[str]:
        return argv(self.name, scratch=str(self._state.scratch))

    def ready(self) -> bool:
        if self._health:
            return http_status(self._health) == 200
        with (self._state.logs / f"{self.name}.log").open("rb") as log:
            log.seek(self._log_start)
            return self._says in log.read(100_000)
