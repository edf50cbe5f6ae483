"""Spans of a worker: one for each claim of events whose trace is sampled, and one for each attempt.

The SDK of OpenTelemetry decides what is sampled, by default as the producer did, and reads its variables itself. A
thread of it sends them, and drops the oldest that it has no room for: a collector that is away costs no delivery.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec.structs import replace
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from hookseal.dispatcher.core.model import Answer, Claim, Claimed, Failure, NotBegun, Reply, Request, Ring
from hookseal.dispatcher.core.outcome import classify
from hookseal.dispatcher.core.ports import Claims, Transport
from hookseal.errors import ConfigError
from hookseal.ground.clock import Clock
from hookseal.ground.version import VERSION

CLOSE_SECONDS: Final = 2.0
MOST_LINKS: Final = 64  # of one claim
_ERRORS_FROM: Final = 400
_PORTS: Final = {"http": 80, "https": 443}
_PROPAGATOR: Final = TraceContextTextMapPropagator()


@asynccontextmanager
async def provided(service: str, instance: str, *, log: Any) -> AsyncIterator[TracerProvider]:
    """Yield a tracer provider that sends spans by OTLP. At the end it sends those that wait, for at most two seconds.

    The variables of OpenTelemetry come before these names of the service and of the process. Raises `ConfigError` if
    the SDK refuses one of them.
    """
    ours = {"service.name": service, "service.version": VERSION, "service.instance.id": instance}
    exporter = _Reporting(OTLPSpanExporter(), log)
    try:
        resource = Resource.create({**ours, **OTELResourceDetector().detect().attributes})
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    except ValueError as error:  # it is about a number, so its text has no secret
        raise ConfigError(f"OpenTelemetry does not accept one of its variables (OTEL_...): {error}") from None
    try:
        yield provider
    finally:
        closing = threading.Thread(target=provider.shutdown, name="traces", daemon=True)  # it may wait for longer
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_SECONDS)


class Spans:
    """Makes spans of claims and attempts."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("hookseal", VERSION)

    async def send(self, transport: Transport, claim: Claim, request: Request) -> Answer:
        """Send the request in a span of its own, which its `traceparent` names. Raises as the transport does.

        The span is a child of the producer's. A request that was not begun has none.
        """
        span = self._tracer.start_span("POST", _parent(claim), SpanKind.CLIENT)
        if span.is_recording():
            span.set_attributes(_attributes(claim, request.url))
        headers = dict(request.headers)
        _PROPAGATOR.inject(headers, trace.set_span_in_context(span, Context()))
        try:
            answer = await transport.send(replace(request, headers=headers))
        except BaseException as error:
            _failed(span, type(error).__name__)
            span.end()
            raise
        if not isinstance(answer, NotBegun):
            _answered(span, answer)
            span.end()
        return answer

    def claimed(self, claims: Sequence[Claim], began: int) -> None:
        """Make a span of a claim that began then, in ns since 1970, with a link to each event that is sampled."""
        contexts = [trace.get_current_span(_parent(each)).get_span_context() for each in claims if each.traceparent]
        links = [Link(each) for each in contexts if each.trace_flags.sampled]
        if links:
            attributes: dict[str, str | int] = {
                "messaging.system": "hookseal",
                "messaging.operation.name": "claim",
                "messaging.operation.type": "receive",
                "messaging.batch.message_count": len(claims),
            }
            self._tracer.start_span(
                "claim", Context(), SpanKind.CONSUMER, attributes, links[:MOST_LINKS], start_time=began
            ).end()


class TracedClaims:
    """Claims as the given claims do, and makes a span of each claim."""

    def __init__(self, claims: Claims, spans: Spans, clock: Clock) -> None:
        self._claims = claims
        self._spans = spans
        self._clock = clock

    async def claim_all(self, rings: Sequence[Ring], token: str | None = None, *, most_bytes: int) -> Claimed:
        """Claim as the given claims do."""
        began = int(self._clock.now().timestamp() * 1e9)
        claimed = await self._claims.claim_all(rings, token, most_bytes=most_bytes)
        self._spans.claimed(claimed.claims, began)
        return claimed


def _parent(claim: Claim) -> Context:
    """Return the context of the producer's span, or an empty one."""
    carrier = {"traceparent": claim.traceparent or "", "tracestate": claim.tracestate or ""}
    return _PROPAGATOR.extract(carrier, Context())


def _attributes(claim: Claim, url: str) -> Mapping[str, str | int]:
    """Return the attributes of an attempt, without the path and the query of the url: these may hold a token."""
    scheme, host, port = _address(url)
    resent: dict[str, int] = {"http.request.resend_count": claim.number - 1} if claim.number > 1 else {}
    return {
        "http.request.method": "POST",
        "url.scheme": scheme,
        "server.address": host,
        "server.port": port,
        **resent,
        "hookseal.tenant_id": claim.ring.tenant_id,
        "hookseal.endpoint_id": claim.ring.endpoint_id,
        "hookseal.delivery_id": claim.ring.delivery_id,
        "hookseal.event_id": claim.event_id,
        "hookseal.event_type": claim.event_type,
        "hookseal.attempt": claim.number,
    }


@lru_cache(maxsize=1_024)
def _address(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)


def _answered(span: Span, answer: Reply | Failure) -> None:
    span.set_attribute("hookseal.outcome", classify(answer).value)
    if isinstance(answer, Failure):
        _failed(span, answer.kind.value)
        return
    span.set_attribute("http.response.status_code", answer.status)
    if answer.status >= _ERRORS_FROM:
        _failed(span, str(answer.status))


def _failed(span: Span, kind: str) -> None:
    """Mark the span as failed. A message of an exception is left out: nobody has checked what it contains."""
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)


class _Reporting(SpanExporter):
    """Exports as the given exporter does, and logs once that it fails and once that it succeeds again."""

    def __init__(self, exporter: SpanExporter, log: Any) -> None:
        self._exporter = exporter
        self._log = log
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send the spans once; they are lost if that fails."""
        try:
            result = self._exporter.export(spans)
        except Exception:  # noqa: BLE001 -- whatever it is, the thread that sends must go on
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.FAILURE:
            if not self._lost:
                self._log.warning("traces.failed", reason="the collector (OTEL_EXPORTER_OTLP_ENDPOINT) takes no spans")
            self._lost += len(spans)
        elif self._lost:
            self._log.info("traces.resumed", lost=self._lost)
            self._lost = 0
        return result

    def shutdown(self) -> None:
        """Close the exporter."""
        self._exporter.shutdown()
