"""Traces of a real worker, by the official SDK, at a collector that decodes the official messages."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
import structlog
from aiohttp import web
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from hookseal import Admin, Publisher
from hookseal.client import Event
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import ConfigError
from hookseal.ground.ids import TenantId
from hookseal.worker import spans
from hookseal.worker.tracing import tracer_provider
from tests import rows
from tests.api import alone
from tests.doubles.collector import Collector, attributes, collecting
from tests.worker.environment import environment, settings
from tests.worker.waiting import eventually
from tests.worker.world import Receiver, World, status

pytestmark = [pytest.mark.req("OPS-03", part="spans")]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as running:
        yield running


def otlp(collector: Collector, **more: str) -> dict[str, str]:
    """Return the settings of a worker that sends spans to this collector."""
    return {"HOOKSEAL_TRACING": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **QUICK, **more}


def application(collector: Collector) -> TracerProvider:
    """Return the tracer provider of an application that sends its spans to this collector."""
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    exporter = OTLPSpanExporter(f"{collector.url}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=50))
    return provider


def once(code: int, receiver: Receiver) -> Callable[[], Awaitable[web.Response]]:
    """Return an answer of this status that is given only once."""

    async def answer() -> web.Response:
        del receiver.answers["/hook"]
        return web.Response(status=code)

    return answer


def named(traceparent: str | None) -> tuple[str, str, bool]:
    """Return the trace and the span that it names, and whether that is sampled. Other flags are the SDK's."""
    _, trace_id, span_id, flags = (traceparent or "").split("-")
    return trace_id, span_id, bool(int(flags, 16) & 1)


async def wait_for(collector: Collector, name: str, number: int = 1) -> list[Span]:
    async def look() -> list[Span] | None:
        found = collector.named(name)
        return found if len(found) >= number else None

    return await eventually(look)


async def test_a_trace_leads_from_the_producer_to_each_attempt(
    world: World, receiver: Receiver, collector: Collector
) -> None:
    """The publish is below the span of the application, each attempt below the publish, and a claim is linked to it.

    Each attempt sends the id of its own span. The spans follow the conventions of HTTP clients.
    """
    await world.endpoint(f"{receiver.base_url}/hook")
    receiver.answers["/hook"] = once(500, receiver)
    provider = application(collector)
    try:
        async with (
            world.worker(**otlp(collector)) as worker,
            Publisher.connect(world.database_url, world.redis_url, tracer_provider=provider) as publisher,
        ):
            with provider.get_tracer("shop").start_as_current_span("order") as order:
                published = await asyncio.create_task(
                    publisher.publish(tenant_id="acme", event_type="invoice.paid", data=1)
                )
            [ring] = published.deliveries
            await world.tried(ring)
            await rows.change(world.pool, "deliveries", where="state = 'pending'", next_attempt_at=rows.NOW)
            await world.delivered(ring)
            [line] = await eventually(
                lambda: [each for each in worker.logged("delivery.attempted") if each["status"] == 204]
            )
            first, second = await wait_for(collector, "POST", 2)
    finally:
        await asyncio.to_thread(provider.shutdown)

    [publish], claims = collector.named("publish"), collector.named("claim")
    context = order.get_span_context()
    trace_id = trace.format_trace_id(context.trace_id)
    assert {trace_id} == {each.trace_id.hex() for each in (publish, first, second)}
    assert trace_id == line["trace_id"]
    assert (trace.format_span_id(context.span_id), Span.SPAN_KIND_PRODUCER) == (
        publish.parent_span_id.hex(),
        publish.kind,
    )
    assert [(publish.span_id, Span.SPAN_KIND_CLIENT)] * 2 == [
        (each.parent_span_id, each.kind) for each in (first, second)
    ]
    assert [(trace_id, each.span_id.hex(), True) for each in (first, second)] == [
        named(each.headers["traceparent"]) for each in receiver.received
    ]
    assert [[(publish.trace_id, publish.span_id)]] * 2 == [
        [(link.trace_id, link.span_id) for link in each.links] for each in claims
    ]
    assert [Span.SPAN_KIND_CONSUMER] * 2 == [each.kind for each in claims]
    assert trace_id not in {each.trace_id.hex() for each in claims}
    assert {"shop", "hookseal-worker"} == collector.services

    port = int(receiver.base_url.rpartition(":")[2])
    common = {
        "http.request.method": "POST",
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "server.port": port,
        "hookseal.tenant_id": "acme",
        "hookseal.endpoint_id": ring.endpoint_id,
        "hookseal.delivery_id": ring.delivery_id,
        "hookseal.event_id": published.event_id,
        "hookseal.event_type": "invoice.paid",
    }
    assert attributes(first) == common | {
        "hookseal.attempt": 1,
        "http.response.status_code": 500,
        "hookseal.outcome": "server_error",
        "error.type": "500",
    }
    assert attributes(second) == common | {
        "hookseal.attempt": 2,
        "http.request.resend_count": 1,
        "http.response.status_code": 204,
        "hookseal.outcome": "delivered",
    }
    assert [Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET] == [each.status.code for each in (first, second)]
    assert attributes(publish)["messaging.message.id"] == published.event_id


async def test_the_producer_decides_what_is_sampled(world: World, receiver: Receiver, collector: Collector) -> None:
    """What it has not sampled makes no span, and is sent with the flag 00; the tracestate goes with both."""
    await world.endpoint(f"{receiver.base_url}/hook")
    async with (
        world.worker(**otlp(collector)),
        Publisher.connect(world.database_url, world.redis_url) as publisher,
    ):
        for traceparent in (UNSAMPLED, SAMPLED):
            await publisher.publish(
                tenant_id="acme", event_type="a", data=1, traceparent=traceparent, tracestate="a=1,b=2"
            )
            await receiver.wait_for(2 if traceparent == SAMPLED else 1)
        [attempt] = await wait_for(collector, "POST")

    sent = [each.headers["traceparent"].split("-") for each in receiver.received]
    assert [(TRACE, "00"), (TRACE, "01")] == [(each[1], each[3]) for each in sent]
    assert [attempt.span_id.hex()] == [each[2] for each in sent[1:]]
    assert SPAN not in {each[2] for each in sent}
    assert ["a=1,b=2"] * 2 == [each.headers["tracestate"] for each in receiver.received]
    assert (SPAN, "a=1,b=2") == (attempt.parent_span_id.hex(), attempt.trace_state)
    assert 1 == len(collector.named("claim"))


async def test_a_request_to_the_api_is_traced_through_all_processes(
    world: World, receiver: Receiver, collector: Collector
) -> None:
    """The publish of `hookseal api` is below the span of the request, and the attempt of a worker below the publish.

    The worker is one of several processes, which have the variables of OpenTelemetry from their parent.
    """
    await world.endpoint(f"{receiver.base_url}/hook")
    variables = environment(world.database_url, world.redis_url, **otlp(collector))
    async with Admin.connect(environ=variables) as admin:
        token = await admin.tokens.add(name="shop", tenant_id="acme", scopes=["publish"], actor="test")
    headers = {"authorization": f"Bearer {token.token.reveal().decode()}", "traceparent": SAMPLED, "tracestate": "a=1"}
    async with (
        world.worker(**otlp(collector, HOOKSEAL_PROCESSES="2")),
        alone.serving(variables) as (_, ready),
        httpx.AsyncClient(base_url=ready["url"], headers=headers) as client,
    ):
        answer = await client.post("/api/v1/app/acme/msg", json={"eventType": "a", "payload": {}})
        assert 202 == answer.status_code, answer.text
        got = await receiver.wait_for(1)
        [attempt], [publish] = await wait_for(collector, "POST"), await wait_for(collector, "publish")

    assert {"hookseal-api", "hookseal-worker"} == collector.services
    assert (SPAN, publish.span_id.hex()) == (publish.parent_span_id.hex(), attempt.parent_span_id.hex())
    assert (f"00-{TRACE}-{attempt.span_id.hex()}-01", "a=1") == (got.headers["traceparent"], got.headers["tracestate"])


async def test_an_event_without_a_trace_begins_one(world: World, receiver: Receiver, collector: Collector) -> None:
    """As the sampler says: here all, which is the default."""
    await world.endpoint(f"{receiver.base_url}/hook")
    async with world.worker(**otlp(collector)):
        await world.publish()
        got = await receiver.wait_for(1)
        [attempt] = await wait_for(collector, "POST")

    assert (attempt.trace_id.hex(), attempt.span_id.hex(), True) == named(got.headers["traceparent"])
    assert (b"", []) == (attempt.parent_span_id, collector.named("claim"))


@pytest.mark.req("OPS-03", part="trace-context")
@pytest.mark.parametrize(
    "tracing", [{}, {"HOOKSEAL_TRACING": "off", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}]
)
async def test_without_tracing_the_headers_go_through(
    world: World, receiver: Receiver, tracing: dict[str, str]
) -> None:
    await world.endpoint(f"{receiver.base_url}/hook")
    async with (
        world.worker(**tracing) as worker,
        Publisher.connect(world.database_url, world.redis_url) as publisher,
    ):
        await publisher.publish(tenant_id="acme", event_type="a", data=1, traceparent=SAMPLED, tracestate=" a=1, b=2")
        got = await receiver.wait_for(1)
        [line] = await eventually(lambda: worker.logged("delivery.attempted"))

    assert (SAMPLED, "a=1,b=2", TRACE) == (got.headers["traceparent"], got.headers["tracestate"], line["trace_id"])


@pytest.mark.parametrize("answers", [True, False])
async def test_a_collector_that_is_away_costs_no_delivery(
    world: World, receiver: Receiver, collector: Collector, answers: bool
) -> None:
    """One that refuses, and one that is not there. It is logged once, and a stop waits at most two seconds for it."""
    collector.status = 400
    endpoint = collector.url if answers else "http://127.0.0.1:1"
    await world.endpoint(f"{receiver.base_url}/hook")
    async with world.worker(**otlp(collector, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)) as worker:
        rings = [ring for _ in range(10) for ring in await world.publish()]
        await world.delivered(*rings)
        await eventually(lambda: not answers or collector.requests >= 1)
        began = asyncio.get_running_loop().time()
        await worker.stop()
        seconds = asyncio.get_running_loop().time() - began

    assert [] == [each for each in worker.log if each.get("logger", "").startswith(("opentelemetry", "urllib3"))]
    assert len(worker.logged("traces.failed")) == answers or not answers
    assert seconds < 10
    assert 10 == len(receiver.received)


async def test_what_waits_for_a_collector_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20,000 spans no more than the queue holds are kept while the collector does not answer; then it gets these."""
    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        async with spans.provided("s", "i", log=structlog.get_logger()) as provider:
            tracer = provider.get_tracer("t")
            for _ in range(20_000):  # this loop runs on the event loop: the collector cannot answer meanwhile
                tracer.start_span("a").end()
        assert 0 < len(collector.spans) <= 2_048 + 512


async def test_no_secret_is_in_a_span(world: World, receiver: Receiver, collector: Collector) -> None:
    """Neither a header value, nor a signing secret, a signature, a body, nor the path or query of the url."""
    url = f"{receiver.base_url}/services/path-canary?token=query-canary"
    new = NewEndpoint(tenant_id=TenantId("acme"), url=url, event_types=("*",), settings={"timeout_ms": 10_000})
    added = await world.installation.add(new, headers={"authorization": b"Bearer header-canary"})
    receiver.answers["/services/path-canary"] = status(503)
    async with (
        world.worker(**otlp(collector)),
        Publisher.connect(world.database_url, world.redis_url) as publisher,
    ):
        await publisher.publish(
            tenant_id="acme", event_type="a", data="body-canary", correlation_id="c-1", traceparent=SAMPLED
        )
        got = await receiver.wait_for(1)
        await wait_for(collector, "POST")

    assert ("Bearer header-canary", True) == (got.headers["authorization"], b"body-canary" in got.body)
    secret = added.secret.reveal().decode().removeprefix("whsec_")
    signature = got.headers["webhook-signature"].removeprefix("v1,")
    seen = b"".join(collector.raw)
    for canary in (
        "path-canary",
        "query-canary",
        "header-canary",
        "body-canary",
        secret,
        signature,
        world.database_url,
    ):
        assert canary.encode() not in seen, canary
    assert b"hookseal.outcome" in seen


async def test_many_events_have_the_trace_of_their_call(world: World, collector: Collector) -> None:
    """One that has a trace of its own keeps it, and what is no traceparent is refused as without spans."""
    provider = application(collector)
    try:
        async with Publisher.connect(world.database_url, tracer_provider=provider) as publisher:
            events = [
                Event(event_type="a", data=1, event_id="e1"),
                Event(event_type="a", data=1, event_id="e2", traceparent=SAMPLED, tracestate="a=1"),
            ]
            await publisher.publish_many(tenant_id="acme", events=events)
            await publisher.publish(
                tenant_id="acme", event_type="a", data=1, event_id="e3", traceparent=SAMPLED, tracestate="a=1"
            )
            for publish in (
                publisher.publish(tenant_id="acme", event_type="a", data=1, traceparent="nonsense"),
                publisher.publish_many(
                    tenant_id="acme", events=[Event(event_type="a", data=1, traceparent="nonsense")]
                ),
            ):
                with pytest.raises(Exception, match="traceparent must be a W3C traceparent"):
                    await publish
    finally:
        await asyncio.to_thread(provider.shutdown)

    many, single, *refused = await wait_for(collector, "publish", 4)
    found = await world.pool.fetch("SELECT traceparent, tracestate FROM hookseal.events ORDER BY id")
    assert [
        ((many.trace_id.hex(), many.span_id.hex(), True), None),
        (named(SAMPLED), "a=1"),
        ((TRACE, single.span_id.hex(), True), "a=1"),
    ] == [(named(row["traceparent"]), row["tracestate"]) for row in found]
    assert (2, "Malformed", "Malformed") == (
        attributes(many)["messaging.batch.message_count"],
        *(attributes(each)["error.type"] for each in refused),
    )


async def test_a_provider_without_spans_changes_nothing(world: World) -> None:
    """An application whose tracing is switched off publishes as without a provider."""
    async with Publisher.connect(world.database_url, tracer_provider=trace.NoOpTracerProvider()) as publisher:
        await publisher.publish(tenant_id="acme", event_type="a", data=1)
        await publisher.publish(tenant_id="acme", event_type="a", data=1, traceparent=SAMPLED)

    found = await world.pool.fetch("SELECT traceparent FROM hookseal.events ORDER BY occurred_at")
    assert [None, SAMPLED] == [row["traceparent"] for row in found]


async def test_a_missing_package_is_named(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "hookseal.worker.spans")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    given = settings(database_url, redis_url, HOOKSEAL_TRACING="otlp")
    with pytest.raises(ConfigError, match=r"pip install 'hookseal\[otel\]'"):
        async with tracer_provider(given, service="s", instance="i", log=structlog.get_logger()):
            pass


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100", "max_queue_size"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1", "schedule_delay"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "x", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"),
    ],
)
async def test_what_the_sdk_refuses_is_an_error_of_the_settings(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    """Not a defect of hookseal: it says what the SDK says."""
    monkeypatch.setenv(name, value)
    given = settings(database_url, redis_url, HOOKSEAL_TRACING="otlp")
    with pytest.raises(ConfigError, match=f"OpenTelemetry .*{said}"):
        async with tracer_provider(given, service="s", instance="i", log=structlog.get_logger()):
            pass
