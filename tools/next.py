"""Tries the newest releases of an index, and names what broke with which: no other command depends on them.

The tests run with the newest versions of packages whose inner parts are used, pre-releases too where `pyproject.toml`
does not admit them yet; and each extra is installed beside the newest packages of a product. It changes nothing.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.install import extras
from tests.install.pythons import SUPPORTED
from tools.smoke import package

QUEUE: Final = "tests/queue"
NOT_ADMITTED: Final = ("--prerelease", "allow", "--upgrade")
# What uv installs, how, and the tests that run with it.
TRIED: Final = (
    ("aiohttp", NOT_ADMITTED, "tests/dispatcher/http"),
    ("redis<9", ("--no-deps",), QUEUE),
    ("redis", NOT_ADMITTED, QUEUE),
)


def tests() -> Iterator[str]:
    """Run the tests with each, print the version, and yield a line for each that failed."""
    for wanted, options, of in TRIED:
        with tempfile.TemporaryDirectory() as folder:
            try:
                said, failed = package.run_tests_with(of, Path(folder), *options, wanted), False
            except RuntimeError as error:
                said, failed = str(error), True
            name = wanted.partition("<")[0]
            found = " ".join(each.name.removesuffix(".dist-info") for each in Path(folder).glob(f"{name}-*.dist-info"))
        print(f"{found or wanted}: {said}", flush=True)
        if failed:
            yield f"{found or wanted}: {of} fails"


def moves() -> Iterator[str]:
    """Install each extra beside a product, and yield a line for each package that moved, or the error."""
    with tempfile.TemporaryDirectory() as folder:
        _, wheel = package.build(Path(folder, "dist"))
        for python in SUPPORTED:
            try:
                for trial in extras.newest(python, wheel, Path(folder)):
                    for name, (before, after) in trial.moved.items():
                        pins = f"{name}{before} becomes {name}{after}" if after else f"{name}{before} is removed"
                        yield f"{pins}, by the extra {trial.extra} on Python {python} ({trial.kind})"
            except RuntimeError as error:
                yield f"Python {python}: {error}"


def main() -> int:
    """Try all, name what broke, and return 1 if anything did."""
    broken = [*tests(), *moves()]
    for line in broken:
        print(f"make next: {line}", file=sys.stderr)
    print("nothing broke" if not broken else f"{len(broken)} broke", flush=True)
    return min(len(broken), 1)


if __name__ == "__main__":
    sys.exit(main())
