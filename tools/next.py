"""Tries versions that pyproject.toml does not admit yet, pre-releases too, of packages whose inner parts are used.

It changes nothing. If all tests pass, raise the bound in pyproject.toml, and then run `make lock`.
"""

import sys
import tempfile
from pathlib import Path
from typing import Final

from tools.smoke import package

TESTS: Final = {"aiohttp": "tests/dispatcher/http", "redis": "tests/queue"}


def main() -> int:
    """Try each, and return 1 if a test fails."""
    failures = 0
    for name, tests in TESTS.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                said = package.run_tests_with(name, tests, Path(folder), "--prerelease", "allow", "--upgrade")
            except RuntimeError as error:
                said, failures = str(error), failures + 1
            found = [each.name for each in Path(folder).glob(f"{name}-*.dist-info")]
            print(f"{' '.join(found) or name}: {said}", flush=True)
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
