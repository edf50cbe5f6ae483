"""A process that holds a key cannot be dumped."""

import asyncio
import sys

import pytest

_PROGRAM = """
import ctypes, resource
from hookseal.config.hardening import harden_process
harden_process()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_GET_DUMPABLE is Linux's")
async def test_a_hardened_process() -> None:
    """The kernel says that the process is not dumpable, and no core file may be written or allowed again."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _PROGRAM, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert (0, b"0 (0, 0)\n") == (process.returncode, out)
