"""Runs all mutants of the table, or one: `make mutants`, `make mutants ARGS='--only lease-ended-early'`."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tools.mutants import record
from tools.mutants.table import Mutant, mutants, problems
from tools.mutants.trial import Trial, Verdict, try_all

ROOT: Final = Path(__file__).resolve().parents[2]
_LAST_LINES: Final = 15


def run(wanted: Sequence[Mutant], *, jobs: int, keep: Callable[[Trial], None] | None) -> dict[str, Verdict]:
    """Try each of them, print the progress, and have each trial kept."""
    found: dict[str, Verdict] = {}

    def report(trial: Trial) -> None:
        verdict = found[trial.mutant.name] = trial.ended.verdict
        _say(f"[{len(found)}/{len(wanted)}] {verdict}: {trial.mutant.name} ({trial.seconds:.0f} s)")
        if verdict is Verdict.BROKEN:
            _say("\n".join(trial.ended.out.splitlines()[-_LAST_LINES:]))
        if keep is not None:
            keep(trial)

    try_all(ROOT, wanted, jobs=jobs, report=report)
    return found


def main(arguments: Sequence[str]) -> int:
    """Return 0 if every mutant was killed, 1 if not, or if the table is out of date."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--only", metavar="NAME", action="append", help="this mutant only; may be given again")
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="how many to try at once, by default one")
    parser.add_argument("--json", action="store_true", help="print the verdicts as one JSON object")
    parser.add_argument(
        "--record",
        action="store_true",
        help=f"keep the verdicts in {record.RECORD}, and try only mutants that it has no kill of as they are now",
    )
    options = parser.parse_args(arguments)
    table = mutants()
    stale = problems(table, ROOT)
    unknown = set(options.only or ()) - {mutant.name for mutant in table}
    if stale or unknown:
        _say("\n".join([*stale, *(f"{name}: this mutant does not exist" for name in sorted(unknown))]))
        return 1
    wanted = [mutant for mutant in table if options.only is None or mutant.name in options.only]
    keep = None
    if options.record:
        try:
            keeper = record.Keeper(ROOT)
        except ValueError as error:
            _say(str(error))
            return 1
        wanted, keep = [mutant for mutant in wanted if not keeper.is_known(mutant)], keeper.keep
    found = run(wanted, jobs=options.jobs, keep=keep)
    print(json.dumps(found) if options.json else _summary(wanted, found))
    return 0 if {*found.values()} <= {Verdict.KILLED} else 1


def _summary(wanted: Sequence[Mutant], found: dict[str, Verdict]) -> str:
    left = [mutant for mutant in wanted if found[mutant.name] is not Verdict.KILLED]
    lines = [f"{found[mutant.name]}: {mutant.name}, in {mutant.file}: no test noticed: {mutant.law}" for mutant in left]
    return "\n".join([*lines, f"{len(found) - len(left)} of {len(found)} killed"])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
