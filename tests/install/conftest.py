"""What the tests of the package share."""

from pathlib import Path

import pytest

from tools.smoke import package


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build the source distribution and the wheel."""
    return package.build(tmp_path_factory.mktemp("dist"))
