"""`make smoke`: rehearses the release of the commit, and uses its wheel and its source distribution as users do.

With `--record` it also does what needs the newest packages of an index: it follows the tutorial from an empty folder to
the first verified webhook, in seconds, and installs each extra beside the packages of a product.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from math import ceil
from pathlib import Path
from typing import Final

from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.server import ports
from tests.cli.tutorial import FIRST_WEBHOOK, Reader
from tests.install import extras
from tools.governance.evidence import misses, record_of, write
from tools.records import ROOT, is_dirty
from tools.smoke import released

TUTORIAL: Final = "UX-04"
EXTRAS: Final = "UX-01"


def main(arguments: Sequence[str]) -> int:
    """Return 0 if all works, and with `--record` every bound is met; else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help=f"write the records of {TUTORIAL} and {EXTRAS}")
    asked = parser.parse_args(arguments)
    if asked.record and is_dirty(ROOT):
        parser.error("a record needs a commit: commit first")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        asyncio.run(released.try_out(folder))
        if not asked.record:
            return 0
        with scratch(for_servers()) as empty:
            tutorial = asyncio.run(_first_webhook(empty))
        (wheel,) = (folder / "dist").glob("*.whl")
        counts = {TUTORIAL: {"tutorial": tutorial}, EXTRAS: extras.counts(wheel, folder)}
    missed = [f"{name}: {line}" for name, of in counts.items() for line in misses(name, {}, of)]
    for line in missed:
        print(f"make smoke: no record is written: {line}", file=sys.stderr)
    if missed:
        return 1
    for name, of in counts.items():
        write(ROOT, record_of(ROOT, name, {}, of))
    return 0


async def _first_webhook(empty: Path) -> dict[str, int]:
    """Follow the tutorial in an empty folder to its first webhook, and return the seconds that it took.

    As on a new machine: the checkout is installed as the page says, and pip has no cache.
    """
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.base_prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(empty),
        "TMPDIR": str(empty),
        "COLUMNS": "100",
        "PIP_NO_CACHE_DIR": "1",
    }
    free = ports(None)
    given = {"PATH_OF_THE_CHECKOUT": str(ROOT), **{port: str(next(free)) for port in ("8000", "8001", "8080")}}
    began = time.monotonic()
    async with AsyncExitStack() as opened:
        await Reader(empty, environment, given, opened, installs=True).follow(FIRST_WEBHOOK)
        seconds = ceil(time.monotonic() - began)
    print(f"tutorial: the first webhook was verified after {seconds} s of commands", flush=True)
    return {"verified": 1, "seconds": seconds}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
