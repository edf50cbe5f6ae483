"""What an import of hookseal loads."""

import subprocess
import sys

import pytest

import hookseal

IMPORT = """
import sys
import hookseal
before = set(sys.modules)
print(sorted({"aiohttp", "arq", "asyncpg", "cryptography", "pydantic", "redis", "structlog"} & before))
print(hookseal.Publisher.__name__, hookseal.Published.__name__, "asyncpg" in sys.modules, "aiohttp" in sys.modules)
"""


def test_an_import_loads_no_library() -> None:
    """Importing hookseal loads none of its libraries; the first use of the Publisher loads what publishing needs."""
    run = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=False)

    assert ("[]\nPublisher Published True False\n", "") == (run.stdout, run.stderr)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """Everything in `__all__` exists, and another name is an AttributeError."""
    assert all(hasattr(hookseal, name) for name in hookseal.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Publishr'"):
        hookseal.Publishr  # noqa: B018 -- asking is the test
