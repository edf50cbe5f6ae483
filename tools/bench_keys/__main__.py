"""Runs the rounds, prints rows and deliveries a second with their baselines, and writes the record for SEC-05."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Final

import uvloop

from tools.bench_keys.rounds import Found, Lap, Load, measured
from tools.governance.evidence import Figure, figure, misses, place, write
from tools.governance.recording import record_of

ROOT: Final = Path(__file__).resolve().parents[2]
PROVES: Final = "SEC-05"
_MICROSECONDS: Final = 1e6


def figures_of(laps: Sequence[Lap], records: int) -> dict[str, Figure]:
    """Return the microseconds a record with those of its rows alone, and a delivery with those of a quiet time."""
    each = _MICROSECONDS / records
    return {
        "rewrap": figure([lap.seconds * each for lap in laps], [lap.baseline_seconds * each for lap in laps]),
        "delivery": figure([lap.meanwhile.p50_ms * 1e3 for lap in laps], [lap.quiet.p50_ms * 1e3 for lap in laps]),
    }


def missed(found: Found, figures: dict[str, Figure]) -> list[str]:
    """Return what the run did not meet: a bound, a delivery, or a record."""
    wanted = (
        (found.failures, "secrets were not had, or deliveries not made at once"),
        (found.left, "records are left under the old key"),
        (found.unopened, "records do not open to what they were"),
    )
    return [*misses(PROVES, figures), *(f"{number} {what}" for number, what in wanted if number)]


def table(found: Found, figures: dict[str, Figure]) -> str:
    """Return the figures as a table."""
    row, quiet = figures["rewrap"], [lap.quiet for lap in found.laps]
    meanwhile = [lap.meanwhile for lap in found.laps]
    return "\n".join(
        (
            f"re-wrapped           {_MICROSECONDS / row.us:>9,.0f} rows/s  ({row.us:.1f} us a row)",
            f"the same UPDATE      {_MICROSECONDS / row.baseline_us:>9,.0f} rows/s  (random heads, no cryptography)",
            f"{'':21}{'deliveries/s':>14}{'p50 ms':>9}{'p99 ms':>9}",
            *(
                f"{name:21}{median(s.per_second for s in all_):>14.1f}"
                f"{median(s.p50_ms for s in all_):>9.1f}{median(s.p99_ms for s in all_):>9.1f}"
                for name, all_ in (("while re-wrapping", meanwhile), ("otherwise", quiet))
            ),
            f"failed {found.failures}, left under the old key {found.left}, not to be opened {found.unopened}",
        )
    )


def main(arguments: list[str]) -> int:
    """Run `make bench-keys`; return 0 if every bound is met and nothing failed, else 1."""
    parser = argparse.ArgumentParser(prog="make bench-keys", description=__doc__)
    parser.add_argument("--records", type=int, default=50_000, help="records to re-wrap (50000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count, after a warm-up round (5)")
    parser.add_argument("--deliveries", type=float, default=50.0, help="deliveries a second during the re-wraps (50)")
    parser.add_argument("--quiet-seconds", type=float, default=3.0, help="seconds of each round without a re-wrap (3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--record", action="store_true", help=f"write the record {place(PROVES)}")
    asked = parser.parse_args(arguments)
    load = Load(
        records=asked.records,
        rounds=asked.rounds,
        deliveries_per_second=asked.deliveries,
        quiet_seconds=asked.quiet_seconds,
    )
    found = uvloop.run(measured(load))
    figures = figures_of(found.laps, load.records)
    problems = missed(found, figures)
    if asked.record and not (found.failures or found.left or found.unopened):
        write(ROOT, record_of(ROOT, PROVES, figures))
        print(f"wrote {place(PROVES)}", file=sys.stderr)
    print(json.dumps(asdict(found) | {"missed": problems}) if asked.json else table(found, figures))
    for line in problems:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
