"""The HTTP client of hookseal alone: what it costs to send, without claims, secrets, records or logs."""

import ssl
from ipaddress import ip_network
from itertools import cycle
from pathlib import Path

from hookseal.dispatcher.core.model import Reply, Request
from hookseal.dispatcher.core.url import AddressRules, AllowedNetwork
from hookseal.dispatcher.http.transport import HttpTransport
from hookseal.dispatcher.http.trust import client_context
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import TenantId
from tools.bench.contenders.job import Order, main, nothing_to_queue, send_all


async def work(ordered: Order) -> None:
    """Send everything, as a worker would with its default limits, then wait to be killed."""
    rules = AddressRules((AllowedNetwork(network=ip_network("127.0.0.0/8"), tenant=None),))
    body, urls, clock = ordered.body.encode(), cycle(ordered.urls), SystemClock()
    async with HttpTransport(rules, trust=_trust(ordered.authority)) as transport:

        async def send() -> None:
            answer = await transport.send(_request(next(urls), body, clock.monotonic() + 60))
            if answer != Reply(status=204, snippet=""):
                raise RuntimeError(answer)

        await send_all(ordered, send)


def _request(url: str, body: bytes, start_by: float) -> Request:
    return Request(
        tenant_id=TenantId("bench"),
        url=url,
        headers={"content-type": "application/json", "user-agent": "hookseal/bench", "accept-encoding": "identity"},
        body=body,
        start_by=start_by,
        timeout_seconds=60,
    )


def _trust(authority: str) -> ssl.SSLContext | None:
    return client_context(extra=Path(authority).read_text(encoding="ascii"), only=True) if authority else None


if __name__ == "__main__":
    main(nothing_to_queue, work)
