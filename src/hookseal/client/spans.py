"""Spans of a Publisher, made by the tracer provider of OpenTelemetry that its caller has given."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, TracerProvider, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from hookseal.dispatcher.store.publish import NewEvent
from hookseal.ground.ids import EventId, TenantId
from hookseal.ground.version import VERSION
from hookseal.ground.wire import is_traceparent

_PROPAGATOR: Final = TraceContextTextMapPropagator()


class Spans:
    """Makes a span of each call of a Publisher."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("hookseal", VERSION)

    @contextmanager
    def publishing(self, tenant_id: TenantId, event: NewEvent | None = None) -> Iterator["Publishing"]:
        """Make the block a span: a child of the trace that the event has, else of the current span."""
        attributes: dict[str, str] = {
            "messaging.system": "hookseal",
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "hookseal.tenant_id": tenant_id,
        }
        if event is not None:
            attributes["messaging.destination.name"] = event.event_type
        with self._tracer.start_as_current_span(
            "publish",
            _parent(event),
            SpanKind.PRODUCER,
            attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield Publishing(span, event)
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(StatusCode.ERROR)
                raise


class Publishing:
    """The span of a call that publishes, and the event of which it continues the trace."""

    def __init__(self, span: Span, event: NewEvent | None) -> None:
        self._span = span
        self._event = event

    def traced(self, event: NewEvent) -> NewEvent:
        """Return the event with the trace of this span.

        An event among many keeps the one that it has, and what is no `traceparent` stays, so that it is refused.
        """
        if event.traceparent is not None and (event is not self._event or not is_traceparent(event.traceparent)):
            return event
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, set_span_in_context(self._span, Context()))
        if not carrier:  # the provider makes no spans
            return event
        return replace(event, traceparent=carrier["traceparent"], tracestate=carrier.get("tracestate"))

    def stored(self, event_ids: Sequence[EventId], deliveries: int) -> None:
        """Note the events that are stored, and how many deliveries they have."""
        if len(event_ids) == 1:
            self._span.set_attribute("messaging.message.id", event_ids[0])
        self._span.set_attribute("messaging.batch.message_count", len(event_ids))
        self._span.set_attribute("hookseal.deliveries", deliveries)


def _parent(event: NewEvent | None) -> Context | None:
    """Return the context of the span that the event names; None, which means the current one, if it names none."""
    if event is None or event.traceparent is None:
        return None
    return _PROPAGATOR.extract({"traceparent": event.traceparent, "tracestate": event.tracestate or ""}, Context())
