"""Which port each part listens on, all on loopback."""

import random
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

from broker.embedded.errors import StartError

# Below the range from which Linux takes the near end of outgoing connections (32768 and up),
# so that a port which was free when it was chosen is still free when its server binds it.
FREE_RANGE = range(20_000, 32_000)


@dataclass(frozen=True)
class Ports:
    """TCP ports. `openbao` takes the next one too, for its cluster traffic."""

    web: int = 8000
    gateway: int = 8080
    upstream: int = 8090
    postgres: int = 55432
    valkey: int = 56379
    openbao: int = 58200

    @classmethod
    def free(cls) -> "Ports":
        """Ports that nothing listens on now."""
        ports = _free_ports()
        return cls(**{field.name: next(ports) for field in fields(cls)})


# What each port is for, and the setting that changes it.
PURPOSE = {
    "web": ("portal and REST API", "KEYTURN_WEB_PORT"),
    "gateway": ("gateway", "KEYTURN_GATEWAY_PORT"),
    "upstream": ("demo upstream", "KEYTURN_DEMO_UPSTREAM_PORT"),
    "postgres": ("PostgreSQL", "KEYTURN_POSTGRES_PORT"),
    "valkey": ("Valkey", "KEYTURN_VALKEY_PORT"),
    "openbao": ("OpenBao", "KEYTURN_OPENBAO_PORT"),
}


def _free_ports() -> Iterator[int]:
    candidates = list(FREE_RANGE)[::2]
    random.SystemRandom().shuffle(candidates)
    return (port for port in candidates if is_free(port) and is_free(port + 1))


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of 127.0.0.1 now."""
    with socket.socket() as attempt:
        # As servers do, so that connections in TIME_WAIT don't count.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
            attempt.listen(1)
        except OSError:
            return False
    return True


def refuse_busy(ports: Ports, used: Iterable[str]) -> None:
    """Check the ports of the parts named in `used` before anything starts.

    Raises StartError naming each port that is taken or given twice, what it is for, and the
    setting that changes it.
    """
    wrong = []
    taken: dict[int, str] = {}
    for name in used:
        what, setting = PURPOSE[name]
        port: int = getattr(ports, name)
        for number in (port, port + 1) if name == "openbao" else (port,):
            if number in taken:
                wrong.append(
                    f"port {number} is given to both {taken[number]} and {what}: change {setting}"
                )
            elif not is_free(number):
                wrong.append(
                    f"port {number} ({what}) is in use by another program: "
                    f"free it, or set {setting} to another port"
                )
            taken[number] = what
    if wrong:
        raise StartError("\n".join(wrong))
