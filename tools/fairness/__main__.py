"""`make fairness`: write docs/proof/fairness.md from a simulated outage; with --sockets, measure with real sockets.

The second measures what endpoints that fail cost those of other tenants, as ratios within one run.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Final

from hookseal.client import Publisher
from tools import records
from tools.fairness.simulation import Simulation, failing_between, healthy, in_flight_over_time, most_by_minute
from tools.harness import (
    KB,
    Site,
    add_endpoints,
    endpoint,
    environment_of,
    hookseal_workers,
    receiving,
    site,
    stored_only,
)
from tools.records import ROOT, number, percentile, table

PAGE: Final = "docs/proof/fairness.md"
MINUTES: Final = 30
OUTAGE: Final = range(5, 15)  # minutes
OTHERS: Final = 20
_PER_SECOND: Final = 5

BACKLOG: Final = 10_000
TENANTS: Final = 10
ENDPOINTS_OF_EACH: Final = 5
PER_SECOND: Final = 40
BAD: Final = "bad"
_CONCURRENCY: Final = 500
_TIMEOUT_MS: Final = 5_000
_BEFORE_SECONDS: Final = 2.0  # the traffic begins so long before the backlog: each endpoint gets some of it
_SETTLE_SECONDS: Final = 1.0
_DAMAGE: Final = """
UPDATE hookseal.secret_records SET sealed = overlay(sealed placing '\\x00' from 20) WHERE tenant_id = 'bad'
"""
_WAITS: Final = """
SELECT extract(epoch FROM min(a.started_at) - d.created_at) * 1000
FROM hookseal.deliveries AS d JOIN hookseal.attempts AS a ON a.tenant_id = d.tenant_id AND a.delivery_id = d.id
WHERE d.tenant_id LIKE 'well-%' AND d.created_at > $1 GROUP BY d.tenant_id, d.id, d.created_at
"""
# The kind of failing endpoint: what its receiver does, and how many endpoints there are.
KINDS: Final = {
    "none": ("0", 0),
    "black hole": ("hang", 1),
    "refused secret": ("0", 1),
    "429 without end": ("throttle", 1),
    "reset": ("reset", 1),
    "a byte a second": ("dribble", 1),
    "500 black holes": ("hang", 500),
}


def simulated() -> list[tuple[int, int, float]]:
    """Return for each minute the requests to an endpoint with an outage, what waits, and the longest wait of others."""
    simulation = Simulation(workers=3)
    sick = simulation.add("sick", 1, failing_between(OUTAGE.start * 60, OUTAGE.stop * 60, seconds=0.2))
    record = in_flight_over_time(simulation, sick)
    others = [simulation.add("well", each, healthy(0.05)) for each in range(OTHERS)]
    for each in range(MINUTES * 60 * _PER_SECOND):
        simulation.publish(each / _PER_SECOND, sick)
        simulation.publish(each / _PER_SECOND, others[each % OTHERS])
    waiting = []
    for minute in range(MINUTES):
        simulation.run((minute + 1) * 60)
        waiting.append(len(simulation.endpoints[sick].parked))
    longest = [0.0] * MINUTES
    for delivery in simulation.deliveries:
        minute = int(delivery.published_at // 60)
        if delivery.key != sick and delivery.begun_at is not None:
            longest[minute] = max(longest[minute], delivery.begun_at - delivery.published_at)
    return list(zip(most_by_minute(record, MINUTES), waiting, longest, strict=True))


def page() -> str:
    """Return docs/proof/fairness.md."""
    rows = [
        (f"{minute + 1}{', hangs' if minute in OUTAGE else ''}", str(most), f"{waiting:,}", f"{wait:.2f} s")
        for minute, (most, waiting, wait) in enumerate(simulated())
    ]
    head = ("minute", "most requests in flight", "deliveries that wait", "longest wait of all others")
    return f"""<!-- Written by `make fairness`: do not edit. -->
# An outage, simulated

One endpoint gets {_PER_SECOND} events a second, and hangs for ten minutes; {OTHERS} others get as many together, and
three workers deliver. Its requests, its deliveries that wait in PostgreSQL at the end of the minute, and how long any
delivery for another endpoint waited for its first request. [Fairness](../fairness.md) says what this shows.

{table(head, rows)}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The milliseconds from publish to the first attempt of healthy endpoints, beside a kind of failing endpoints."""

    kind: str
    sent: int
    published: int
    p50_ms: float
    p99_ms: float


async def measured(here: Site, kind: str, seconds: float) -> Found:
    """Return what healthy endpoints wait at a steady rate, beside a backlog for failing endpoints of that kind."""
    does, endpoints = KINDS[kind]
    async with (
        here.fresh() as (installation, observer),
        receiving() as well,
        receiving() as bad,
        Publisher.connect(installation.database_url, installation.redis_url) as publisher,
    ):
        wells = [(*_turn(each), well.url(name=str(each))) for each in range(TENANTS * ENDPOINTS_OF_EACH)]
        bads = [(BAD, "*", bad.url(does=does, name=str(each))) for each in range(endpoints)]
        new = (
            replace(endpoint(tenant, url, event_type), settings={"timeout_ms": _TIMEOUT_MS})
            for tenant, event_type, url in (*wells, *bads)
        )
        await add_endpoints(observer, installation.keyring, new)
        if kind == "refused secret":
            await observer.execute(_DAMAGE)
        environment = environment_of(installation, here.receiver, _CONCURRENCY)
        async with hookseal_workers(environment, here.worker_log) as running:
            await _steady(publisher, _BEFORE_SECONDS)
            begun = await observer.fetchval("SELECT now()")
            if endpoints:
                await stored_only(observer, [BAD], BACKLOG // endpoints)
            published = await _steady(publisher, seconds)
            await asyncio.sleep(_SETTLE_SECONDS)
            waits = [float(row[0]) for row in await observer.fetch(_WAITS, begun)]
            running.kill()
    return Found(
        kind=kind,
        sent=len(waits),
        published=published,
        p50_ms=round(percentile(waits, 0.5), 2),
        p99_ms=round(percentile(waits, 0.99), 2),
    )


async def _steady(publisher: Publisher, seconds: float) -> int:
    """Publish one event for a healthy endpoint after another, each with one delivery; return their number."""
    loop = asyncio.get_running_loop()
    begun, deliveries = loop.time(), 0
    for event in range(int(seconds * PER_SECOND)):
        await asyncio.sleep(max(0.0, begun + event / PER_SECOND - loop.time()))
        tenant, event_type = _turn(event)
        published = await publisher.publish(tenant_id=tenant, event_type=event_type, body=b"x" * KB)
        deliveries += len(published.deliveries)
    return deliveries


def _turn(place: int) -> tuple[str, str]:
    """Return the tenant and the type of events of a healthy endpoint: tenants take turns, then their endpoints."""
    return f"well-{place % TENANTS}", f"bench.{place // TENANTS % ENDPOINTS_OF_EACH}"


async def run(kinds: Iterable[str], seconds: float, rounds: int) -> list[list[Found]]:
    """Return the rounds: each measures the healthy endpoints alone and then beside every kind, on the same servers.

    So a change of the machine meets all of them.
    """
    async with site() as here:
        return [[await measured(here, kind, seconds) for kind in ("none", *kinds)] for _ in range(rounds)]


def report(rounds: Sequence[Sequence[Found]], *, as_json: bool) -> str:
    """Return the medians, and those of the ratios to the healthy endpoints alone in the same round."""
    alone = [each[0] for each in rounds]
    found = [
        {
            **asdict(of_kind[0]),
            "sent": sum(each.sent for each in of_kind),
            "published": sum(each.published for each in of_kind),
            "p50_ms": median(each.p50_ms for each in of_kind),
            "p99_ms": median(each.p99_ms for each in of_kind),
            "p50_ratio": _ratio([each.p50_ms for each in of_kind], [each.p50_ms for each in alone]),
            "p99_ratio": _ratio([each.p99_ms for each in of_kind], [each.p99_ms for each in alone]),
        }
        for of_kind in zip(*rounds, strict=True)
    ]
    if as_json:
        return json.dumps(found)
    columns = ("p50_ms", "p99_ms", "p50_ratio", "p99_ratio")
    rows = [
        (each["kind"], f"{each['sent']} of {each['published']}", *(number(each[column]) for column in columns))
        for each in found
    ]
    return table(("beside", "sent", "p50 ms", "p99 ms", "p50, to alone", "p99, to alone"), rows)


def _ratio(values: Sequence[float], to: Sequence[float]) -> float:
    return round(median(value / other for value, other in zip(values, to, strict=True)), 2)


def main(arguments: list[str]) -> None:
    """Do what the arguments ask for."""
    parser = argparse.ArgumentParser(prog="make fairness", description=__doc__)
    parser.add_argument("--sockets", action="store_true", help="measure with real sockets, in ten minutes")
    parser.add_argument("--only", default="", metavar="KINDS", help=f"some of {', '.join(KINDS)}, with commas")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each measurement lasts")
    parser.add_argument("--rounds", type=int, default=5, help="how often; the medians are printed")
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    asked = parser.parse_args(arguments)
    kinds = [kind.strip() for kind in asked.only.split(",") if kind.strip()] or [*KINDS][1:]
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"--only does not know {', '.join(sorted(unknown))}")
    if asked.sockets:
        print(report(asyncio.run(run(kinds, asked.seconds, max(asked.rounds, 1))), as_json=asked.json))
    else:
        records.write(ROOT, {PAGE: page()})


if __name__ == "__main__":
    main(sys.argv[1:])
