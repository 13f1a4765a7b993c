"""The command of each process. `manage.py up` and docker-compose.yml run the same ones.

Where a process listens is said by its server's own variables (GRANIAN_HOST, GRANIAN_PORT,
UVICORN_HOST, UVICORN_PORT), so that the commands are the same wherever they run.
"""

import sys

COMMANDS: dict[str, tuple[str, ...]] = {
    "migrate": ("python", "manage.py", "migrate", "--noinput"),
    "demo-data": ("python", "manage.py", "demo_data"),
    "web": (
        "granian",
        "--interface=wsgi",
        "--no-ws",
        # Each holds a connection to PostgreSQL; by itself granian takes hundreds.
        "--blocking-threads=16",
        "--respawn-failed-workers",
        "--workers-kill-timeout=5s",
        "broker.wsgi:application",
    ),
    "gateway": (
        "python",
        "-m",
        "gateway",
        "--no-access-log",
        "--no-server-header",
        # Who calls is on record: anybody on this host could say that they're somebody else.
        "--no-proxy-headers",
        # Streams that are still open after this many seconds are cut.
        "--timeout-graceful-shutdown=15",
    ),
    "worker": (
        "celery",
        "--app=broker",
        "worker",
        "--pool=prefork",
        "--concurrency=2",
        "--hostname=worker@%h",
        "--without-gossip",
        "--without-mingle",
        "--loglevel=INFO",
    ),
    "beat": (
        "celery",
        "--app=broker",
        "beat",
        # The schedule is static and each entry repeatable: nothing needs to be remembered.
        "--schedule={scratch}/beat",
        "--loglevel=INFO",
    ),
    "upstream": ("python", "-m", "broker.demo.upstream"),
}


def command(role: str, *, scratch: str) -> tuple[str, ...]:
    """The command of `role` as one would type it; `scratch` is a folder it may write to."""
    return tuple(part.format(scratch=scratch) for part in COMMANDS[role])


def argv(role: str, *, scratch: str) -> list[str]:
    """The command of `role` for this very Python, whatever PATH says."""
    program, *rest = command(role, scratch=scratch)
    as_module = [] if program == "python" else ["-m", program]
    return [sys.executable, *as_module, *rest]
