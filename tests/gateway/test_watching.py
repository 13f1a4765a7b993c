"""Metrics, traces, readiness: what operators see of a gateway."""

import asyncio
import time
from typing import Any

import httpx
import pytest
from aiohttp import web
from django.db import connection
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conftest import free_port, running_gateway
from tests.gateway.test_limits import Pass
from tests.servers import Servers
from tests.upstream import Upstream
from tests.world import UPSTREAM_KEY, World

pytestmark = pytest.mark.usefixtures("committed")


class Collector:
    """A collector of traces."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    async def receive(self, request: web.Request) -> web.Response:
        message = ExportTraceServiceRequest.FromString(await request.read())
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return web.Response(content_type="application/x-protobuf")


def test_metrics_and_traces_without_prompts_and_keys(
    servers: Servers, world: World, upstream: Upstream
) -> None:
    collector, port, metrics = Collector(), free_port(), f"127.0.0.1:{free_port()}"

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/v1/traces", collector.receive)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.to_thread(play_and_close)
        await runner.cleanup()

    def play_and_close() -> None:
        try:
            play()
        finally:
            connection.close()

    def play() -> None:
        with running_gateway(
            servers,
            KEYTURN_GATEWAY_METRICS=metrics,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            OTEL_BSP_SCHEDULE_DELAY="100",
        ) as own:
            got = Pass(world, token_budget=5000)
            said = [{"role": "user", "content": "canary-prompt"}]
            caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
            answer = httpx.post(
                f"{own.base(got.slug)}/chat/completions",
                json={"model": "demo-small", "messages": said},
                headers={"Authorization": f"Bearer {got.secret}", "traceparent": caller},
            )
            assert answer.status_code == 200
            assert "traceparent" not in {n.lower() for n in upstream.calls[-1]["headers"]}
            got.call(own, model="demo-nothing")
            httpx.get(f"{own.url}/e/no-such-{got.slug}/v1/models")
            text = httpx.get(f"http://{metrics}/metrics").text
            assert f'endpoint="{got.slug}",refusal="model_not_granted",status="403"' in text
            assert (
                f'keyturn_gateway_tokens_total{{direction="output",endpoint="{got.slug}"}}' in text
            )
            assert f'url="{upstream.url}"}} 1.0' in text
            assert "no-such" not in text, "strangers don't make labels"
            for secret in (got.secret, UPSTREAM_KEY, "canary-prompt"):
                assert secret not in text
            assert httpx.get(f"{own.url}/metrics").status_code == 404
            deadline = time.monotonic() + 5
            while len(collector.spans) < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
            first = collector.spans[0]
            assert first.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
            assert first.parent_span_id.hex() == "00f067aa0ba902b7"
            told = str(collector.spans)
            assert "demo-small" in told
            for secret in (got.secret, UPSTREAM_KEY, "canary-prompt", got.grant.holder.email):
                assert secret not in told

    asyncio.run(run())


def test_readiness_tells_the_truth(servers: Servers, world: World) -> None:
    down = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    with running_gateway(servers, DATABASE_URL=down) as own:
        ready = httpx.get(f"{own.url}/readyz")
        deadline = time.monotonic() + 8
        while ready.status_code == 200 and time.monotonic() < deadline:
            time.sleep(0.1)
            ready = httpx.get(f"{own.url}/readyz")
        assert ready.status_code == 503
        assert "database" in str(ready.json()["faults"])
        assert httpx.get(f"{own.url}/healthz").status_code == 200
