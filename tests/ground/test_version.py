"""The version that is installed."""

from importlib.metadata import version

import hookseal
from hookseal.ground.version import VERSION


def test_it_is_that_of_the_distribution() -> None:
    """The package says the version that its distribution has, wherever it is asked for it."""
    assert version("hookseal") == VERSION == hookseal.__version__
