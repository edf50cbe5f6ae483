"""Runs the rounds, prints every figure with its baseline and its bound, and writes the record that proves PERF-06."""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

import uvloop

from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.postgres import postgres
from hookseal.postgres.connect import connection_pool
from hookseal.postgres.schema.upgrade import upgrade
from tools.bench_secrets.comparisons import Load, comparisons
from tools.bench_secrets.endpoints import installed
from tools.bench_secrets.timing import measured
from tools.governance.benchmarks import BENCHMARKS
from tools.governance.evidence import Figure, misses, place, write
from tools.governance.recording import record_of

ROOT: Final = Path(__file__).resolve().parents[2]
PROVES: Final = "PERF-06"
# Pinned, so that two records differ by the code and the machine only.
LOAD: Final = Load(open=3_000, sign=3_000, fetch=500)
ROUNDS: Final = 11


async def _figures() -> dict[str, Figure]:
    with scratch(for_servers()) as folder:
        async with postgres(folder, durable=False) as server:
            await upgrade(server.url)
            async with connection_pool(server.url, size=1) as pool:
                return await measured(await comparisons(await installed(pool), LOAD), ROUNDS)


def table(figures: Mapping[str, Figure]) -> str:
    """Return the figures as a table."""
    bounds = BENCHMARKS[PROVES].at_most_us
    lines = [f"{'':26}{'us':>9}{'at most us':>12}{'baseline us':>13}{'ratio':>8}"]
    lines += [
        f"{name:26}{found.us:>9.1f}{bounds.get(name, ''):>12}{found.baseline_us:>13.1f}{found.ratio:>8.2f}"
        for name, found in figures.items()
    ]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run `make bench-secrets`; return 0 if every bound is met, else 1."""
    parser = argparse.ArgumentParser(prog="make bench-secrets", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--record", action="store_true", help=f"write the record {place(PROVES)}")
    asked = parser.parse_args(arguments)
    figures = uvloop.run(_figures())
    missed = misses(PROVES, figures)
    if asked.record:
        write(ROOT, record_of(ROOT, PROVES, figures))
        print(f"wrote {place(PROVES)}", file=sys.stderr)
    shown = {name: asdict(found) for name, found in figures.items()}
    print(json.dumps({"figures": shown, "missed": missed}) if asked.json else table(figures))
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
