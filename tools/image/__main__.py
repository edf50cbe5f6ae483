"""`make image`: builds deploy/Dockerfile, runs it alone and by deploy/compose.yaml, and removes what it started.

It uses docker, or podman, which it installs with Compose where it may (root, apt-get). Where no registry of images
answers it makes the base of Debian's packages, and for compose a PostgreSQL and a Valkey. What it cannot run it names:
then nothing was proven of that, and it ends with 0. A record is of a whole release: it needs both parts, and has what
`make smoke` counts.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import hookseal
from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.stack import stack
from tools.governance.evidence import misses, record_of, write
from tools.image import alone, composed
from tools.image.engine import CommandFailed, Engine, find
from tools.image.images import base, build
from tools.records import ROOT, is_dirty
from tools.smoke import released

ID: Final = "OPS-14"
PARTS: Final = ("image", "compose")


def main(arguments: Sequence[str]) -> int:
    """Return 0 if all that can run here works, or nothing can run; 1 if something does not work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", help="the image to build on, in place of that of deploy/Dockerfile")
    parser.add_argument("--only", choices=PARTS, help="run one of the two parts")
    parser.add_argument("--record", action="store_true", help=f"write the record of {ID}")
    asked = parser.parse_args(arguments)
    if asked.record and (asked.only or is_dirty(ROOT)):
        parser.error("a record needs a commit and both parts: commit first, and leave out --only")
    engine = find()
    if isinstance(engine, str):
        print(f"make image: NOTHING WAS PROVEN: {engine}", file=sys.stderr)
        return 0
    try:
        from_base = base(engine, asked.base)
    except CommandFailed as error:
        print(f"make image: NOTHING WAS PROVEN: there is no base to build on: {error}", file=sys.stderr)
        return 0
    tag = f"hookseal:{hookseal.__version__}"
    print(f"{engine.program} builds {tag} on {from_base}", flush=True)
    counts: dict[str, dict[str, int]] = {}
    try:
        build(engine, tag, from_base, label="first")
        if asked.only != "compose":
            counts["image"] = asyncio.run(_alone(engine, tag))
        if asked.only != "image" and (composed_counts := _composed(engine, tag, from_base)):
            counts["compose"] = composed_counts
    except CommandFailed as error:
        print(f"make image: {error}", file=sys.stderr)
        return 1
    if asked.record:
        with tempfile.TemporaryDirectory() as folder:
            counts["release"] = asyncio.run(released.try_out(Path(folder)))
        if missed := misses(ID, {}, counts):
            print(f"make image: no record is written: {'; '.join(missed)}", file=sys.stderr)
            return 1
        write(ROOT, record_of(ROOT, ID, {}, counts))
    return 0


async def _alone(engine: Engine, tag: str) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder, scratch(for_servers()) as state:
        async with stack(state) as servers:
            return await asyncio.to_thread(alone.try_out, engine, tag, servers, Path(folder))


def _composed(engine: Engine, tag: str, from_base: str) -> dict[str, int] | None:
    """Return the counts; None if there is no compose here, which it says."""
    command = engine.compose()
    if command is None:
        print("make image: NOTHING WAS PROVEN of deploy/compose.yaml: there is no Docker Compose", file=sys.stderr)
        return None
    with tempfile.TemporaryDirectory() as folder:
        return composed.try_out(engine, command, Path(folder), lambda: build(engine, tag, from_base, label="second"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
