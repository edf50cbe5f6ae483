"""The transport of hookseal alone, under load: the cost of a connection, and the gain of reusing one."""

import asyncio
import ssl
from ipaddress import ip_network
from pathlib import Path

from hookseal.dispatcher.core.model import Reply, Request
from hookseal.dispatcher.core.url import AddressRules, AllowedNetwork
from hookseal.dispatcher.http.observation import Limits
from hookseal.dispatcher.http.transport import HttpTransport
from hookseal.dispatcher.http.trust import client_context
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import TenantId
from tools.bench.contenders.job import Order, main, ready


async def enqueue(ordered: Order) -> None:
    """Do nothing: there is no queue."""


async def work(ordered: Order) -> None:
    """Send everything, on reused or on new connections, then wait to be killed."""
    rules = AddressRules((AllowedNetwork(network=ip_network("127.0.0.0/8"), tenant=None),))
    limits = Limits(idle=ordered.concurrency, idle_each=ordered.concurrency) if ordered.kept else Limits(idle=0)
    request = _request(ordered)
    left = iter(ordered.numbers)
    async with HttpTransport(rules, trust=_trust(ordered.authority), limits=limits) as transport:

        async def send() -> None:
            for _ in left:
                answer = await transport.send(request)
                if answer != Reply(status=204, snippet=""):
                    raise RuntimeError(answer)

        ready()
        await asyncio.gather(*(send() for _ in range(ordered.concurrency)))
        await asyncio.Event().wait()


def _request(ordered: Order) -> Request:
    return Request(
        tenant_id=TenantId("bench"),
        url=ordered.url,
        headers={"content-type": "application/json", "user-agent": "hookseal/bench", "accept-encoding": "identity"},
        body=ordered.body.encode(),
        start_by=SystemClock().monotonic() + 60,
        timeout_seconds=60,
    )


def _trust(authority: str) -> ssl.SSLContext:
    return client_context(extra=Path(authority).read_text(encoding="ascii"), only=True)


if __name__ == "__main__":
    main(enqueue, work)
