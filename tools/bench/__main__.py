"""`make bench`: measures, stores the results, and writes docs/proof/performance.md and docs/scaling.md.

A quick run, one of some parts only, and one of a tree with uncommitted changes write to .reports/ instead of docs/.
"""

import argparse
import asyncio
import sys

import uvloop

from tools import records, soak
from tools.bench import pages, plan, results
from tools.bench.plan import PARTS
from tools.bench.run import measured
from tools.records import ROOT


def main(arguments: list[str]) -> int:
    """Run it; return 0, or 1 if a measurement failed, with its name printed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of each: ends within two minutes")
    parser.add_argument(
        "--long", action="store_true", help="10 million retained, and an hour with an old snapshot open"
    )
    parser.add_argument("--only", default="", metavar="PARTS", help=f"some of {', '.join(PARTS)}, with commas between")
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object, not as a page")
    asked = parser.parse_args(arguments)
    only = tuple(filter(None, asked.only.split(",")))
    if unknown := set(only) - set(PARTS):
        parser.error(f"--only does not know {', '.join(sorted(unknown))}")
    if asked.quick and asked.long:
        parser.error("--quick and --long exclude each other")
    size = plan.QUICK if asked.quick else plan.LONG if asked.long else plan.FULL
    given = ("--quick" * asked.quick, "--long" * asked.long, f"--only {asked.only}" * bool(only))
    options = " ".join(option for option in given if option)
    command = f"{results.COMMAND} ARGS='{options}'" if options else results.COMMAND
    earlier = results.read(ROOT) if (ROOT / results.RESULTS).is_file() else None  # before: it may be unreadable
    try:
        run = uvloop.run(measured(size, only, command))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    is_kept = not options and not run.is_dirty
    made = pages.pages(run, soak.read(ROOT))
    run = results.kept(run, earlier) if is_kept else run
    records.write(ROOT if is_kept else ROOT / ".reports", {results.RESULTS: records.stored(run), **made})
    print(records.stored(run) if asked.json else pages.performance(run))
    failures = [each for each in run.left_out if each.is_failure]
    for each in failures:
        print(f"failed: {each.scenario}: {each.contender}: {each.reason}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
