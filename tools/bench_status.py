"""`make bench-status`: how long an operator waits for an answer, while very many deliveries wait.

Each command is a process of its own, from the start of Python to its end, and so is the baseline, `hookseal --version`.
PostgreSQL has the rows of `tests/many_rows.py`, and the workers as they would report themselves.
"""

import argparse
import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Final

import uvloop

from hookseal.postgres.pool import Connection
from tests import many_rows, rows
from tools.governance.evidence import BENCHMARKS, Figure, figure, misses, place, record_of, write
from tools.harness import environment_of, site
from tools.records import ROOT, table

PROVES: Final = "OPS-15"
OF_TENANT: Final = 1_000  # deliveries
COMMANDS: Final = {
    "status": ("status",),
    "tenants": ("tenant", "list"),
    "held": ("endpoint", "list", "--state", "held"),
    "failing": ("endpoint", "list", "--state", "failing"),
    "waiting": ("endpoint", "stats", "--sort", "waiting"),
}
_BASELINE: Final = ("--version",)
_ANSWERS: Final = frozenset({0, 1})  # 1: a person must act
_STEP: Final = 50_000  # deliveries that are stored in one transaction
_LIMITS: Final = {f"w-{number}": ["connections"] if number == 1 else [] for number in range(1, 11)}
_COUNTS: Final = """
SELECT (SELECT count(*) FROM hookseal.deliveries WHERE state = 'pending') AS pending,
       (SELECT count(*) FROM hookseal.endpoints) AS endpoints
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The seconds of each command and of the baseline in each round, and what was stored meanwhile."""

    seconds: Mapping[str, tuple[float, ...]]
    baseline_seconds: tuple[float, ...]
    stored: Mapping[str, int]


async def measured(deliveries: int, rounds: int) -> Found:
    """Return the result of that many rounds with so many pending deliveries; no process and no file is left."""
    async with site() as here, here.observer(here.installation.database_url) as connection:
        await _fill(connection, deliveries)
        stored = dict(await connection.fetchrow(_COUNTS) or {})
        environment = environment_of(here.installation, here.receiver)
        took: dict[str, list[float]] = {name: [] for name in (*COMMANDS, "")}
        for number in range(rounds + 1):
            print(f"  round {number} of {rounds} ..." if number else "  warming up ...", file=sys.stderr, flush=True)
            for name, words in {**COMMANDS, "": _BASELINE}.items():
                await rows.change(connection, "workers", beaten_at=rows.NOW)
                took[name].append(await timed(words, environment))
    return Found(
        seconds={name: tuple(took[name][1:]) for name in COMMANDS}, baseline_seconds=tuple(took[""][1:]), stored=stored
    )


async def _fill(connection: Connection, deliveries: int) -> None:
    for least in range(0, deliveries, _STEP):
        most = min(least + _STEP, deliveries)
        await many_rows.grow(connection, least, most, of_tenant=OF_TENANT)
        print(f"  {most} of {deliveries} pending deliveries ...", file=sys.stderr, flush=True)
    for name, limits in _LIMITS.items():
        await rows.worker(connection, name, limited_by=limits)
    await rows.change(connection, "control", "outbox", holder="w-1", until=rows.ahead(hours=1))
    await connection.execute("VACUUM ANALYZE")  # as autovacuum does meanwhile


async def timed(words: Sequence[str], environment: Mapping[str, str]) -> float:
    """Return the seconds of the command, from its start to its end. Raises `RuntimeError` if it gives no answer."""
    started = perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "hookseal", *words, "--json"), env=dict(environment), stdout=PIPE, stderr=PIPE
    )
    answer, said = await process.communicate()
    took = perf_counter() - started
    if process.returncode not in _ANSWERS or not isinstance(json.loads(answer), dict):
        raise RuntimeError(f"`hookseal {' '.join(words)}` ended with {process.returncode}: {said.decode()}")
    return took


def figures_of(found: Found) -> dict[str, Figure]:
    """Return the microseconds of each command, with those of the baseline."""
    baseline = [seconds * 1e6 for seconds in found.baseline_seconds]
    return {name: figure([each * 1e6 for each in seconds], baseline) for name, seconds in found.seconds.items()}


def counts_of(found: Found) -> dict[str, dict[str, int]]:
    """Return what was stored, as the record has it."""
    return {"stored": dict(found.stored)}


def shown(figures: Mapping[str, Figure]) -> str:
    """Return the table that is printed."""
    bounds = BENCHMARKS[PROVES].at_most_us
    lines = [
        (
            f"`hookseal {' '.join(COMMANDS[name])}`",
            *(f"{us / 1e3:,.0f}" for us in (each.us, max(each.rounds_us), each.baseline_us)),
            f"{bounds[name] / 1e3:,.0f}" if name in bounds else "",
        )
        for name, each in figures.items()
    ]
    return table(("", "ms", "slowest ms", "baseline ms", "at most ms"), lines)


def main(arguments: list[str]) -> int:
    """Run `make bench-status`; return 0 if every bound is met, else 1."""
    parser = argparse.ArgumentParser(prog="make bench-status", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="pending deliveries, in thousands (1000000)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count, after a warm-up round (15)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--record", action="store_true", help=f"write the record {place(PROVES)}")
    asked = parser.parse_args(arguments)
    if asked.rows < OF_TENANT or asked.rows % OF_TENANT:
        parser.error(f"--rows must be a multiple of {OF_TENANT}: each tenant has so many")
    found = uvloop.run(measured(asked.rows, asked.rounds))
    figures, counts = figures_of(found), counts_of(found)
    problems = misses(PROVES, figures, counts)
    if asked.record:
        write(ROOT, record_of(ROOT, PROVES, figures, counts))
    print(json.dumps(asdict(found) | {"missed": problems}) if asked.json else shown(figures))
    for line in problems:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
