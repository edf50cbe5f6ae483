"""The installed version."""

from importlib.metadata import version

import hookseal
from hookseal.ground.version import VERSION


def test_it_is_that_of_the_distribution() -> None:
    """The version of the package is that of its distribution."""
    assert version("hookseal") == VERSION == hookseal.__version__
