"""Runs all mutants of the table, or one: `make mutants`, `make mutants ARGS='--only lease-ended-early'`."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tools.mutants.table import Mutant, mutants, problems
from tools.mutants.trial import Verdict, copied, ran, tried

ROOT: Final = Path(__file__).resolve().parents[2]
_LAST_LINES: Final = 15


def run(wanted: Sequence[Mutant]) -> dict[str, Verdict] | None:
    """Run each of them and print the progress; None if their tests fail without any mutant."""
    found: dict[str, Verdict] = {}
    with copied(ROOT) as tree:
        _say("the tests of the table, without a mutant")
        ended = ran(tree, sorted({test for mutant in wanted for test in mutant.tests}), seconds=None)
        if ended.code != 0:
            _say(_last(ended.out))
            return None
        for number, mutant in enumerate(wanted, start=1):
            began = time.monotonic()
            ended = tried(tree, mutant)
            found[mutant.name] = ended.verdict
            _say(f"[{number}/{len(wanted)}] {ended.verdict}: {mutant.name} ({time.monotonic() - began:.0f} s)")
            if ended.verdict is Verdict.BROKEN:
                _say(_last(ended.out))
    return found


def main(arguments: Sequence[str]) -> int:
    """Return 0 if every mutant was killed, 1 if not, or if the table is out of date."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--only", metavar="NAME", action="append", help="this mutant only; may be given again")
    parser.add_argument("--json", action="store_true", help="print the verdicts as one JSON object")
    options = parser.parse_args(arguments)
    table = mutants()
    stale = problems(table, ROOT)
    unknown = set(options.only or ()) - {mutant.name for mutant in table}
    if stale or unknown:
        _say("\n".join([*stale, *(f"{name}: this mutant does not exist" for name in sorted(unknown))]))
        return 1
    wanted = [mutant for mutant in table if options.only is None or mutant.name in options.only]
    found = run(wanted)
    if found is None:
        return 1
    print(json.dumps(found) if options.json else _summary(wanted, found))
    return 0 if {*found.values()} <= {Verdict.KILLED} else 1


def _summary(wanted: Sequence[Mutant], found: dict[str, Verdict]) -> str:
    left = [mutant for mutant in wanted if found[mutant.name] is not Verdict.KILLED]
    lines = [f"{found[mutant.name]}: {mutant.name}, in {mutant.file}: no test noticed: {mutant.law}" for mutant in left]
    return "\n".join([*lines, f"{len(found) - len(left)} of {len(found)} killed"])


def _last(out: str) -> str:
    return "\n".join(out.splitlines()[-_LAST_LINES:])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
