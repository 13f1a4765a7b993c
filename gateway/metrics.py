"""What operators see of a gateway: metrics for Prometheus, traces for OpenTelemetry.

Neither holds prompts, keys or people. Both are fed by the records of calls, after their answers.
"""

import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, Status, StatusCode
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.recording import Record

if TYPE_CHECKING:
    from gateway.app import Gateway

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Counts of one process. An endpoint's slug is the only label that grows with the company."""

    def __init__(self, gateway: "Gateway") -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Now(gateway))
        self._calls = Counter(
            "keyturn_gateway_calls",
            "Calls, by what came of them.",
            ["endpoint", "dialect", "status", "refusal"],
            registry=self.registry,
        )
        self._tokens = Counter(
            "keyturn_gateway_tokens",
            "Tokens as upstreams counted them.",
            ["endpoint", "direction"],
            registry=self.registry,
        )
        self._duration = Histogram(
            "keyturn_gateway_call_seconds",
            "From a call's first byte to its answer's last.",
            ["endpoint"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._first = Histogram(
            "keyturn_gateway_first_byte_seconds",
            "From a call's first byte to its answer's first.",
            ["endpoint"],
            buckets=SECONDS,
            registry=self.registry,
        )

    def serve(self, address: str) -> None:
        """Answer at http://<address>/metrics, from a thread. Raises OSError where it's taken."""
        parts = urlsplit(f"//{address}")
        start_http_server(parts.port or 9464, parts.hostname or "127.0.0.1", self.registry)

    def saw(self, record: Record) -> None:
        """A call is over."""
        # What strangers send has no endpoint: a label that they could choose would grow for ever.
        slug = record.slug
        self._calls.labels(slug, record.dialect, record.status, record.refusal).inc()
        if not slug:
            return
        if record.usage.input:
            self._tokens.labels(slug, "input").inc(record.usage.input)
        if record.usage.output:
            self._tokens.labels(slug, "output").inc(record.usage.output)
        self._duration.labels(slug).observe(record.ended - record.began)
        if record.first_byte:
            self._first.labels(slug).observe(record.first_byte - record.began)


class _Now(Collector):
    """What is looked up when somebody asks."""

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    def collect(self) -> Iterable[Metric]:
        """Open calls, how old its knowledge is, and which upstreams are up."""
        gateway = self._gateway
        for name, text, value in (
            ("open_calls", "Calls that are being served.", gateway.books.open_calls),
            ("credentials", "Live credentials in memory.", gateway.registry.live_count),
            (
                "confirmed_age_seconds",
                "Since the database was last asked what ended.",
                gateway.registry.confirmed_age,
            ),
            ("written_age_seconds", "Since calls were last written.", gateway.books.written_age),
        ):
            yield GaugeMetricFamily(f"keyturn_gateway_{name}", text, value)
        up = GaugeMetricFamily(
            "keyturn_gateway_upstream_up", "1 where it took the last connection.", labels=["url"]
        )
        for upstream in list(gateway.upstreams.known.values()):
            up.add_metric([upstream.url], float(upstream.is_up))
        yield up


def is_traced() -> bool:
    """Whether a collector is named, by OpenTelemetry's own variables."""
    return bool(
        os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    )


class Traces:
    """A span for each call, under the caller's own where it sent one (W3C Trace Context)."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        self._tracer = provider.get_tracer("keyturn.gateway")

    def saw(self, record: Record) -> None:
        """A call is over. Names are those of OpenTelemetry's conventions for generative AI."""
        began = time.time_ns() - int((time.perf_counter() - record.began) * 1e9)
        span = self._tracer.start_span(
            f"{record.method} {record.path}" if record.slug else record.method,
            context=extract({"traceparent": record.parent}) if record.parent else None,
            kind=SpanKind.SERVER,
            start_time=began,
            attributes={
                "http.request.method": record.method,
                "http.response.status_code": record.status,
                "keyturn.request_id": record.trace,
                "keyturn.endpoint": record.slug,
                "keyturn.grant": str(record.grant or ""),
                "keyturn.refusal": record.refusal,
                "gen_ai.request.model": record.model,
                "gen_ai.usage.input_tokens": record.usage.input or 0,
                "gen_ai.usage.output_tokens": record.usage.output or 0,
            },
        )
        if record.refusal or record.status >= 500:
            span.set_status(Status(StatusCode.ERROR, record.refusal))
        span.end(began + int((record.ended - record.began) * 1e9))


def traces() -> Traces:
    """Sends spans to the collector that the environment names."""
    # Imported here: it takes a tenth of a second that nobody else should wait for.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "keyturn-gateway"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider)
