"""A collector of OpenTelemetry on this machine: takes spans by OTLP over HTTP, as the official messages decode them."""

import gzip
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.doubles.serving import serving


@dataclass(slots=True)
class Collector:
    """Keeps every span, and all bytes and headers that it got. Refuses all with `status` if that is not 200."""

    url: str = ""
    status: int = 200
    spans: list[Span] = field(default_factory=list)
    services: set[str] = field(default_factory=set)
    raw: list[bytes] = field(default_factory=list)
    requests: int = 0

    async def serve(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests += 1
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.status != web.HTTPOk.status_code:
            return web.Response(status=self.status)
        assert ("/v1/traces", "application/x-protobuf") == (request.path, request.headers["content-type"])
        self.raw.append(body + str(request.headers).encode())
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services.add(str(_by_name(of_resource.resource.attributes)["service.name"]))
            for of_scope in of_resource.scope_spans:
                self.spans.extend(of_scope.spans)
        return web.Response(content_type="application/x-protobuf")

    def named(self, name: str) -> list[Span]:
        """Return the spans of this name, in the order in which they began."""
        return sorted((each for each in self.spans if each.name == name), key=lambda each: each.start_time_unix_nano)


def attributes(span: Span) -> dict[str, str | int]:
    """Return the attributes of a span by their names."""
    return _by_name(span.attributes)


def _by_name(given: Iterable[KeyValue]) -> dict[str, str | int]:
    return {
        each.key: each.value.int_value if each.value.HasField("int_value") else each.value.string_value
        for each in given
    }


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    async with serving(collector.serve) as collector.url:
        yield collector
