"""`make soak`: soaks, stores the record, and writes docs/proof/soak.md and its picture.

A soak with options writes to .reports/ instead of docs/, unless `--record` is given.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Final

import uvloop

from tools.soak import page, record
from tools.soak.record import Soak
from tools.soak.run import ROOT, Size, soaked

REPORTS: Final = ROOT / ".reports"


def write(soak: Soak, root: Path) -> None:
    """Write the record and its pages below that folder, under their names in the repository."""
    for name, text in {record.RECORD: record.written(soak).decode(), **page.pages(soak)}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        print(f"wrote {file.relative_to(ROOT)}", file=sys.stderr)


def main(arguments: list[str]) -> int:
    """Run it; return 0 if the bounds are met, else 1 with what was not met."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--deliveries", type=int, default=record.WHOLE, help=f"deliveries in all ({record.WHOLE})")
    parser.add_argument("--per-second", type=int, default=550, help="at most so many deliveries a second (550)")
    parser.add_argument("--keep-seconds", type=int, default=120, help="how long a delivery is kept (120)")
    parser.add_argument("--minutes", type=float, default=120.0, help="after this time it ends in any case (120)")
    parser.add_argument("--record", action="store_true", help="write docs/ after a soak with other options, too")
    asked = parser.parse_args(arguments)
    size = Size(
        deliveries=asked.deliveries,
        per_second=asked.per_second,
        keep_seconds=asked.keep_seconds,
        deadline_seconds=asked.minutes * 60,
    )
    options = " ".join(each for each in arguments if each != "--record")
    try:
        soak = uvloop.run(soaked(size, f"{record.COMMAND} ARGS='{options}'" if options else record.COMMAND))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    if len(soak.warm) < record.THIRDS:
        print(*record.problems(soak), "nothing was written", sep="\n", file=sys.stderr)
        return 1
    write(soak, ROOT if asked.record or not options else REPORTS)
    print(page.page(soak))
    missed = record.problems(soak)
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
