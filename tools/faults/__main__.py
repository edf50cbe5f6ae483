"""Runs the long form of the fault suite, prints the counts, and writes a record for each requirement that it proves."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Final

from tests.faults.comparison import Report
from tests.faults.site import Site
from tests.faults.suite import SUITE, Scenario, site_for
from tools import records
from tools.governance.evidence import BENCHMARKS, misses, read, record_of, write
from tools.pages import faults
from tools.records import ROOT, is_dirty

_PROGRESS_SECONDS: Final = 10.0


def proven_by(names: set[str]) -> list[str]:
    """Return the ids whose scenarios are all among these."""
    suites = {name: benchmark.suite for name, benchmark in BENCHMARKS.items() if benchmark.suite is not None}
    ours = {name: suite for name, suite in suites.items() if set(suite.scenarios) <= set(SUITE)}
    return [name for name, suite in ours.items() if set(suite.scenarios) <= names]


async def run_scenario(name: str, scenario: Scenario, chance: Random) -> Report:
    """Run one scenario to its end, and print its progress."""
    async with site_for(scenario) as site:
        progress = asyncio.create_task(_print_progress(name, site))
        try:
            return await scenario.run(site, scenario.size, chance)
        finally:
            progress.cancel()


async def _print_progress(name: str, site: Site) -> None:
    while True:
        await asyncio.sleep(_PROGRESS_SECONDS)  # the interval of progress lines
        published, received, workers = len(site.published), len(site.receiver.requests), len(site.fleet.workers)
        print(f"{name}: published {published}, received {received}, workers {workers}", file=sys.stderr, flush=True)


def run(wanted: Mapping[str, Scenario], seed: int) -> dict[str, Report]:
    """Run the scenarios one after the other."""
    found: dict[str, Report] = {}
    for name, scenario in wanted.items():
        began = time.monotonic()
        chance = Random(f"{seed} {name}")  # noqa: S311 -- it decides when to kill, and can be had again
        found[name] = asyncio.run(run_scenario(name, scenario, chance))
        print(f"{name}, {time.monotonic() - began:.0f} s, {found[name]}", file=sys.stderr, flush=True)
    return found


def table(found: Mapping[str, Report]) -> str:
    """Return the counts as a table."""
    columns = list(dict.fromkeys(column for each in found.values() for column in each.counts))
    lines = [f"{'':20}" + "".join(f"{column:>12}" for column in columns)]
    for name, each in found.items():
        lines.append(f"{name:20}" + "".join(f"{each.counts.get(column, ''):>12}" for column in columns))
    return "\n".join(lines)


def _asked(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make test-faults", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(SUITE), help="this scenario (again for more)")
    parser.add_argument("--scale", type=float, default=1.0, help="the share of the events that are published (1.0)")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the random numbers (0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--record", action="store_true", help="write a record for each requirement that is proven")
    asked = parser.parse_args(arguments)
    if asked.record and (asked.scale < 1 or is_dirty(ROOT)):
        parser.error("a record needs a commit and the whole size: commit first, and remove --scale")
    return asked


def main(arguments: list[str]) -> int:
    """Run `make test-faults`; return 0 if every law and every bound is met, else 1."""
    asked = _asked(arguments)
    wanted = {
        name: replace(each, size=replace(each.size, events=max(1, round(each.size.events * asked.scale))))
        for name, each in SUITE.items()
        if not asked.only or name in asked.only
    }
    found = run(wanted, asked.seed)
    counts = {name: each.counts for name, each in found.items()}
    problems = [f"{name}: {line}" for name, each in found.items() for line in each.violations]
    for proven in proven_by(set(wanted)):
        suite = BENCHMARKS[proven].suite
        own = {name: counts[name] for name in (suite.scenarios if suite else ())}
        if asked.scale >= 1:
            problems += [f"{proven}: {line}" for line in misses(proven, {}, own)]
        if asked.record:
            write(ROOT, record_of(ROOT, proven, {}, own))
    if asked.record:
        records.write(ROOT, {faults.PAGE: faults.faults_page(read(ROOT))})
    print(json.dumps({"counts": counts, "missed": problems}) if asked.json else table(found))
    for line in problems:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
