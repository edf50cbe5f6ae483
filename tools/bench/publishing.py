"""The cost of publishing, and the latency from there to the request."""

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from hookseal.demo.installation import Installation
from tools.bench.meter import Meter
from tools.bench.processes import ended, hookseal_workers, line, module
from tools.bench.producer import ORDER, Order
from tools.bench.results import POSTGRESQL, PRODUCER, RECEIVER, REDIS, Round, percentile
from tools.bench.site import TENANT, Site, environment_of
from tools.bench.steady import hang, kill

_BODY_BYTES: Final = 1_024
_PATIENCE_SECONDS: Final = 20.0
_PATIENCE: Final = 2  # times the publishing time; what has not arrived by then is `unsent`
_WARM_UP: Final = 20
_LOOK_SECONDS: Final = 0.1
HUNG_REQUESTS: Final = 400

# The contender of the scenario, and the producer's way. A new way of publishing is one more row.
WAYS: Final = {
    "Publisher, one at a time": "publisher",
    "Publisher, 50 at once": "publisher-50",
    "SQL, one connection": "sql",
    "Publisher, 100 in one call": "publisher-many",
    "SQL, 100 in one call": "sql-many",
    "one INSERT and one ping": "insert-ping",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How a latency is measured: the way of publishing, its rate, and what the workers do besides.

    The worker and the endpoint are as installed, except for `listen` and for the endpoint of the hung requests.
    """

    scenario: str
    title: str
    way: str
    listen: bool = False
    per_second: float = 20.0
    hung: int = 0  # requests in flight to a receiver that does not answer


LATENCIES: Final = (
    Latency(scenario="latency-20", title="by ring", way="publisher-50"),
    Latency(scenario="latency-20", title="by SQL, LISTEN off", way="sql-pool"),
    Latency(scenario="latency-20", title="by SQL, LISTEN on", way="sql-pool", listen=True),
    Latency(scenario="latency-20", title="by ring, 400 hung", way="publisher-50", hung=HUNG_REQUESTS),
    Latency(scenario="latency-500", title="by ring", way="publisher-50", per_second=500.0),
    Latency(scenario="latency-500", title="by SQL, LISTEN off", way="sql-pool", per_second=500.0),
    Latency(scenario="latency-500", title="by SQL, LISTEN on", way="sql-pool", listen=True, per_second=500.0),
)


async def publishing(site: Site, way: str, seconds: float) -> Round:
    """Return the cost of publishing in that way, while no worker runs."""
    async with site.fresh() as installation, site.observer(installation.database_url) as observer:
        meter = Meter(site, observer)
        before = await meter.read()
        order = Order(
            way=WAYS[way],
            tenant=TENANT,
            database_url=installation.database_url,
            seconds=seconds,
            body_bytes=_BODY_BYTES,
        )
        result = await _produced(site, installation, order)
        cpu, counts = before.until(await meter.read())
    events = int(result["events"])
    return Round(
        deliveries=events,
        seconds=result["seconds"],
        cpu={PRODUCER: result["cpu_seconds"], POSTGRESQL: cpu[POSTGRESQL], REDIS: cpu[REDIS]},
        figures={
            "p50_ms": result["p50_ms"],
            "p99_ms": result["p99_ms"],
            "wal_bytes": counts["wal_bytes"] / (events + result["before"]),
        },
    )


async def latency(site: Site, asked: Latency, seconds: float) -> Round:
    """Return the milliseconds from the publishing call to the request, at a steady rate after a warm-up.

    Events that were not sent within twice the publishing time after the last event are counted as `unsent`.
    """
    async with site.fresh() as installation, site.observer(installation.database_url) as observer:
        await site.receiver.forget()
        listens = {"HOOKSEAL_LISTEN": "true"} if asked.listen else {}
        environment = environment_of(installation, site.receiver, **listens)
        async with hookseal_workers(environment, 1, site.folder / "worker.log") as pids:
            await hang(site, installation, observer, asked.hung)
            order = Order(
                way=asked.way,
                tenant=TENANT,
                database_url=installation.database_url,
                seconds=seconds,
                body_bytes=_BODY_BYTES,
                per_second=asked.per_second,
                warm_up=_WARM_UP,
            )
            meter = Meter(site, observer, pids)
            before = meter.cpu()
            result = await _produced(site, installation, order)
            milliseconds = await _arrived(site, int(result["events"]), _PATIENCE * seconds)
            share = len(milliseconds) / (len(milliseconds) + result["before"])  # the warm-up is counted, too
            cpu = {part: share * (now - before[part]) for part, now in meter.cpu().items()}
            if asked.hung:
                kill(pids)
    return Round(
        deliveries=len(milliseconds),
        seconds=result["seconds"],
        cpu={part: used for part, used in cpu.items() if part != RECEIVER},
        figures={
            "p50_ms": percentile(milliseconds, 0.5),
            "p99_ms": percentile(milliseconds, 0.99),
            "unsent": float(result["events"] - len(milliseconds)),
            "refused": float(result["failed"]),
            "published_per_second": result["events"] / result["seconds"],
        },
    )


async def _arrived(site: Site, events: int, patience_seconds: float) -> list[float]:
    loop = asyncio.get_running_loop()
    until = loop.time() + patience_seconds
    while len(found := (await site.receiver.counted()).milliseconds) < events and loop.time() < until:  # noqa: ASYNC110 -- it is another process
        await asyncio.sleep(_LOOK_SECONDS)
    if not found:
        raise RuntimeError("nothing of what was published came to the receiver")
    return found


async def _produced(site: Site, installation: Installation, order: Order) -> dict[str, Any]:
    environment = environment_of(installation, site.receiver) | {ORDER: json.dumps(asdict(order))}
    log_file = site.folder / "producer.log"
    with log_file.open("wb") as log:
        process = await module(Path(sys.executable), "tools.bench.producer", environment=environment, log=log)
    try:
        async with asyncio.timeout(order.seconds + _PATIENCE_SECONDS):
            result: dict[str, Any] = json.loads(await line(process, log_file))
        return result
    finally:
        await ended(process)
