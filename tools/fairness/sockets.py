"""Measures with real sockets what endpoints that fail cost those of other tenants: ratios within one run."""

import asyncio
import json
import os
import statistics
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import asyncpg

from hookseal.client import Publisher
from hookseal.demo.installation import Installation
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoint.endpoints import add_endpoint
from hookseal.operations.operator import Operator
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.ref import Provider
from tools.bench.processes import ended, hookseal_workers, line, module
from tools.bench.queued import stored_only
from tools.bench.results import percentile
from tools.bench.site import Site, environment_of, site

BACKLOG: Final = 10_000
TENANTS: Final = 10
ENDPOINTS_OF_EACH: Final = 5
PER_SECOND: Final = 40
BAD: Final = "bad"
_BODY_BYTES: Final = 1_024
_CONCURRENCY: Final = 500
_TIMEOUT_MS: Final = 5_000
_BEFORE_SECONDS: Final = 2.0  # the traffic begins so long before the backlog: each endpoint gets some of it
_SETTLE_SECONDS: Final = 1.0
_WAITS: Final = """
SELECT extract(epoch FROM min(a.started_at) - d.created_at) * 1000
FROM hookseal.deliveries AS d JOIN hookseal.attempts AS a ON a.tenant_id = d.tenant_id AND a.delivery_id = d.id
WHERE d.tenant_id LIKE 'well-%' AND d.created_at > $1 GROUP BY d.tenant_id, d.id, d.created_at
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The milliseconds from publish to the first attempt of healthy endpoints, beside a kind of failing endpoints."""

    kind: str
    sent: int
    published: int
    p50_ms: float
    p99_ms: float


# The kind of failing endpoint: what its receiver does, and how many endpoints there are.
KINDS: Final = {
    "none": ("answer", 0),
    "black hole": ("hang", 1),
    "refused secret": ("answer", 1),
    "429 without end": ("throttle", 1),
    "reset": ("reset", 1),
    "a byte a second": ("dribble", 1),
    "500 black holes": ("hang", 500),
}


@asynccontextmanager
async def _listening(here: Site, handler: str) -> AsyncIterator[str]:
    """Run a receiver for the length of the block, and yield its url."""
    log_file = here.folder / f"{handler}.log"
    with log_file.open("ab") as log:
        process = await module(
            Path(sys.executable), "tools.fairness.listening", handler, environment=os.environ, log=log
        )
    try:
        yield f"http://127.0.0.1:{int(await line(process, log_file))}"
    finally:
        await ended(process)


async def _add(
    connection: "asyncpg.Connection[asyncpg.Record]", installation: Installation, wanted: Iterable[tuple[str, str, str]]
) -> None:
    """Add endpoints, each of a tenant, for one type of events, with a url."""
    unlocked = await unlock(connection, Provider.DB, installation.keyring)
    operator = Operator(connection=connection, unlocked=unlocked, who="bench")
    for tenant, kind, url in wanted:
        new = NewEndpoint(tenant_id=TenantId(tenant), url=url, event_types=(kind,), timeout_ms=_TIMEOUT_MS)
        await add_endpoint(operator, new, None, own_drain_seconds=25)


async def measured(here: Site, kind: str, seconds: float) -> Found:
    """Return what healthy endpoints wait at a steady rate, beside a backlog for failing endpoints of that kind."""
    handler, endpoints = KINDS[kind]
    async with (
        here.fresh() as installation,
        here.observer(installation.database_url) as observer,
        _listening(here, "answer") as well,
        _listening(here, handler) as bad,
        Publisher.connect(installation.database_url, installation.redis_url) as publisher,
    ):
        wells = ((*_turn(number), f"{well}/{number}") for number in range(TENANTS * ENDPOINTS_OF_EACH))
        await _add(observer, installation, [*wells, *((BAD, "*", f"{bad}/{number}") for number in range(endpoints))])
        if kind == "refused secret":
            await observer.execute(
                "UPDATE hookseal.secret_records SET sealed = overlay(sealed placing '\\x00' from 20)"
                " WHERE tenant_id = $1",
                BAD,
            )
        environment = environment_of(installation, here.receiver, _CONCURRENCY)
        async with hookseal_workers(environment, 1, here.folder / "worker.log") as pids:
            await _steady(publisher, _BEFORE_SECONDS)
            begun = await observer.fetchval("SELECT now()")
            if endpoints:
                await stored_only(observer, BAD, BACKLOG // endpoints, _BODY_BYTES)
            number = await _steady(publisher, seconds)
            await asyncio.sleep(_SETTLE_SECONDS)
            waits = sorted(float(row[0]) for row in await observer.fetch(_WAITS, begun))
            for pid in pids:
                os.kill(pid, 9)  # a drain would wait for what hangs
    return Found(
        kind=kind,
        sent=len(waits),
        published=number,
        p50_ms=round(percentile(waits, 0.5), 2),
        p99_ms=round(percentile(waits, 0.99), 2),
    )


async def _steady(publisher: Publisher, seconds: float) -> int:
    """Publish one event for a healthy endpoint after another, each with one delivery; return their number."""
    loop = asyncio.get_running_loop()
    begun, number = loop.time(), 0
    for event in range(int(seconds * PER_SECOND)):
        await asyncio.sleep(max(0.0, begun + event / PER_SECOND - loop.time()))
        tenant, kind = _turn(event)
        published = await publisher.publish(tenant_id=tenant, event_type=kind, body=b"x" * _BODY_BYTES)
        number += len(published.deliveries)
    return number


def _turn(number: int) -> tuple[str, str]:
    """Return the tenant and the type of events of a healthy endpoint: tenants take turns, then their endpoints."""
    return f"well-{number % TENANTS}", f"bench.{number // TENANTS % ENDPOINTS_OF_EACH}"


async def run(kinds: Iterable[str], seconds: float, rounds: int) -> list[list[Found]]:
    """Return the rounds: each measures the healthy endpoints alone and then beside every kind, on the same servers.

    So a change of the machine meets all of them.
    """
    async with site() as here:
        return [[await measured(here, kind, seconds) for kind in ("none", *kinds)] for _ in range(rounds)]


def median(of_kind: Sequence[Found]) -> Found:
    """Return the medians of the waits, and the sums of what was sent and published."""
    return replace(
        of_kind[0],
        sent=sum(each.sent for each in of_kind),
        published=sum(each.published for each in of_kind),
        p50_ms=statistics.median(each.p50_ms for each in of_kind),
        p99_ms=statistics.median(each.p99_ms for each in of_kind),
    )


def report(rounds: Sequence[Sequence[Found]], *, as_json: bool) -> str:
    """Return the medians, and those of the ratios to the healthy endpoints alone in the same round."""
    alone = [each[0] for each in rounds]
    rows = [
        asdict(median(of_kind))
        | {
            "p50_ratio": _ratio([each.p50_ms for each in of_kind], [each.p50_ms for each in alone]),
            "p99_ratio": _ratio([each.p99_ms for each in of_kind], [each.p99_ms for each in alone]),
        }
        for of_kind in zip(*rounds, strict=True)
    ]
    if as_json:
        return json.dumps(rows)
    lines = [f"{'beside':18}{'sent':>12}{'p50 ms':>9}{'p99 ms':>9}{'p50 x':>8}{'p99 x':>8}"]
    lines += [
        f"{row['kind']:18}{row['sent']:>6}/{row['published']:<5}{row['p50_ms']:>9}{row['p99_ms']:>9}"
        f"{row['p50_ratio']:>8}{row['p99_ratio']:>8}"
        for row in rows
    ]
    return "\n".join(lines)


def _ratio(values: Sequence[float], to: Sequence[float]) -> float:
    return round(statistics.median(value / other for value, other in zip(values, to, strict=True)), 2)
