"""The installed version."""

from importlib.metadata import version

import hookseal
from hookseal.ground.version import VERSION


def test_the_version_is_the_distributions() -> None:
    """The version of the package is that of its distribution."""
    assert version("hookseal") == VERSION == hookseal.__version__
