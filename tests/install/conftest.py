"""The package index, built once for each process of a run."""

import pytest

from tests.install.index import Index, build


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """An index with all locked packages and newer versions of each."""
    return build(tmp_path_factory.mktemp("index"))
