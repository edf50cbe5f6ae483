"""Runs the rounds, interleaved, and prints medians and ratios; `.reports/bench.json` holds every round."""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Final

from hookseal.demo.installation import Installation, install
from hookseal.dispatcher.endpoints import NewEndpoint
from hookseal.embedded.stack import passing_stack
from hookseal.ground.ids import TenantId
from hookseal.operations.endpoints import add_endpoint
from hookseal.operations.operator import Operator
from hookseal.schema.connect import connection_pool
from hookseal.secrets.boot import unlock
from hookseal.secrets.ref import Provider
from tools.bench import measure
from tools.bench.measure import Cost, Load, Sink

DRAIN_SECONDS = 25
ROOT = Path(__file__).resolve().parents[2]


# Our transport alone: the first one is what the others are held beside.
TRANSPORT: Final[dict[str, tuple[bool, bool]]] = {
    "kept": (False, True),
    "anew": (False, False),
    "TLS, kept": (True, True),
    "TLS, anew": (True, False),
}


async def _rounds(load: Load, number: int) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = {name: [] for name in ("bare aiohttp", "stock arq", "hookseal", *TRANSPORT)}
    with tempfile.TemporaryDirectory(prefix="hookseal-bench-") as name:
        async with passing_stack() as stack, measure.sinking() as sink:
            installation = await install(stack, Path(name))
            await _endpoint(installation, sink)
            for round_ in range(1, number + 1):
                print(f"  round {round_} of {number} ...", file=sys.stderr, flush=True)
                costs["bare aiohttp"].append(await measure.bare(sink, load))
                costs["stock arq"].append(await measure.stock(sink, load, installation.redis_url))
                costs["hookseal"].append(await measure.ours(sink, load, installation, Path(name)))
                for name_, (secure, kept) in TRANSPORT.items():
                    costs[name_].append(await measure.transport(sink, load, secure=secure, kept=kept))
    return costs


async def _endpoint(installation: Installation, sink: Sink) -> None:
    async with connection_pool(installation.database_url, size=2) as pool, pool.acquire() as one:
        unlocked = await unlock(pool, Provider.DB, installation.keyring)
        new = NewEndpoint(
            tenant_id=TenantId(measure.TENANT), url=sink.url, event_types=("*",), name=None, timeout_ms=5000
        )
        await add_endpoint(
            Operator(connection=one, unlocked=unlocked, who="bench"), new, None, own_drain_seconds=DRAIN_SECONDS
        )


def _table(costs: dict[str, list[Cost]]) -> dict[str, dict[str, float]]:
    rates = {name: median(cost.per_second for cost in rounds) for name, rounds in costs.items()}
    cpu = {name: median(cost.microseconds for cost in rounds) for name, rounds in costs.items()}
    return {
        name: {
            "per_second": round(rates[name], 1),
            "cpu_us_per_delivery": round(cpu[name], 1),
            "rate_to_bare": round(rates[name] / rates["bare aiohttp"], 3),
            "rate_to_stock": round(rates[name] / rates["stock arq"], 3),
            "cpu_to_bare": round(cpu[name] / cpu["bare aiohttp"], 2),
            "handshakes_per_1000": round(median(cost.connections_per_1000 for cost in costs[name]), 1),
        }
        for name in costs
    }


def main() -> None:
    """Run `make bench`."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--requests", type=int, default=2_000, help="requests of one round (2000)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (3)")
    parser.add_argument("--concurrency", type=int, default=100, help="requests in flight at most (100)")
    parser.add_argument("--body-bytes", type=int, default=1_024, help="bytes of a body (1024)")
    asked = parser.parse_args()
    load = Load(requests=asked.requests, concurrency=asked.concurrency, body_bytes=asked.body_bytes)
    costs = asyncio.run(_rounds(load, asked.rounds))
    table = _table(costs)
    report = ROOT / ".reports" / "bench.json"
    report.parent.mkdir(exist_ok=True)
    rounds = {
        name: [
            {"per_second": cost.per_second, "cpu_us": cost.microseconds, "connections": cost.connections}
            for cost in all_
        ]
        for name, all_ in costs.items()
    }
    report.write_text(json.dumps({"load": vars(asked), "medians": table, "rounds": rounds}, indent=2), encoding="utf-8")
    columns = list(table["hookseal"])
    print(f"{'':14}" + "".join(f"{column.replace('_', ' '):>22}" for column in columns))
    for name, row in table.items():
        print(f"{name:14}" + "".join(f"{row[column]:>22}" for column in columns))
    us = {name: row["cpu_us_per_delivery"] for name, row in table.items()}
    print(
        f"our transport alone: TLS costs {us['TLS, kept'] - us['kept']:.0f} us of CPU a delivery on a kept connection "
        f"({us['TLS, kept'] / us['kept']:.2f}x), and {us['TLS, anew'] - us['kept']:.0f} us on one of its own "
        f"({us['TLS, anew'] / us['kept']:.2f}x); kept ones save {us['TLS, anew'] / us['TLS, kept']:.1f}x"
    )


if __name__ == "__main__":
    main()
