"""Our transport alone, under load: what a connection costs, and what it saves to keep one."""

import asyncio
import json
import resource
import ssl
import sys
from ipaddress import ip_network
from pathlib import Path

import uvloop

from hookseal.dispatcher.address import AddressRules, AllowedNetwork
from hookseal.dispatcher.course import Limits
from hookseal.dispatcher.model import Reply, Request
from hookseal.dispatcher.transport import HttpTransport
from hookseal.dispatcher.trust import client_context
from hookseal.ground.ids import TenantId


async def main(url: str, trust: ssl.SSLContext, load: tuple[int, int, int], *, kept: bool) -> None:
    """Send so many requests, on kept connections or each on its own, and print what they cost this process."""
    requests, concurrency, body_bytes = load
    rules = AddressRules((AllowedNetwork(network=ip_network("127.0.0.0/8"), tenant=None),))
    limits = Limits(kept=concurrency, kept_each=concurrency) if kept else Limits(kept=0)
    request = Request(
        tenant_id=TenantId("bench"),
        url=url,
        headers={"content-type": "application/json", "user-agent": "hookseal/bench", "accept-encoding": "identity"},
        body=b"x" * body_bytes,
        start_within_seconds=60,
        timeout_seconds=60,
    )
    left = iter(range(requests))
    async with HttpTransport(rules, trust=trust, limits=limits) as transport:

        async def send() -> None:
            for _ in left:
                answer = await transport.send(request)
                if answer != Reply(status=204, snippet=""):
                    raise RuntimeError(answer)

        before = resource.getrusage(resource.RUSAGE_SELF)
        await asyncio.gather(*(send() for _ in range(concurrency)))
        after = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}))


if __name__ == "__main__":
    sizes = (int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    trusted = client_context(extra=Path(sys.argv[2]).read_text(encoding="ascii"), only=True)
    uvloop.run(main(sys.argv[1], trusted, sizes, kept=sys.argv[6] == "kept"))
