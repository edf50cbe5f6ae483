"""Beside the packages of a product the package moves none of them, on each Python.

All are pinned by hashes. `make next` tries the newest of them.
"""

from pathlib import Path

import pytest

from tests.install.extras import TOGETHER, WORKER, Limits, beside, installations, limits, moved, resolutions
from tests.install.pythons import SUPPORTED, oldest
from tests.install.versions import need_index
from tools.governance.evidence import BENCHMARKS

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def pinned(tmp_path: Path) -> Limits:
    """Return the files that pin what is installed."""
    need_index()
    return limits(tmp_path)


def test_what_has_moved_is_named() -> None:
    """Another version and a package that is gone, but no package that came."""
    assert {"a": ("==1", "==2"), "b": ("==1", None)} == moved(
        {"a": "==1", "b": "==1", "c": "==1"}, {"a": "==2", "c": "==1", "d": "==1"}
    )


def test_the_record_has_every_extra() -> None:
    """A new extra is installed, too, with three Pythons, before UX-01 can be claimed."""
    suite = BENCHMARKS["UX-01"].suite

    assert suite is not None
    assert {*beside(), TOGETHER, WORKER} == {*suite.scenarios}
    assert 3 * len([*beside(), WORKER]) == suite.at_least["installations"]


@pytest.mark.parametrize("python", SUPPORTED)
def test_nothing_of_a_product_moves(python: str, built: tuple[Path, Path], pinned: Limits) -> None:
    """All extras together require nothing else, also on a Python that is not here: nothing is installed."""
    found = resolutions(python, built[1], pinned)

    assert {} == found[TOGETHER]
    assert {"redis"} == found[WORKER].keys()


@pytest.mark.parametrize("name", SUPPORTED)
def test_each_extra_leaves_an_environment_as_it_was(
    name: str, built: tuple[Path, Path], pinned: Limits, tmp_path: Path
) -> None:
    """Installed into the environment of a product, one after the other, none changes a package that was there.

    An installer replaces a package without a word, so what was there is compared after each.
    """
    python = oldest(name)
    if python is None:
        pytest.skip(f"there is no Python {name}, neither on PATH nor in pyenv")

    assert {extra: {} for extra in (*beside(), WORKER)} == installations(python.path, built[1], tmp_path, pinned)
