"""The memory of a process with a key cannot be dumped, and a worker may open many files."""

import asyncio
import sys

import pytest

_PROGRAM = """
import ctypes, resource
from hookseal.config.load import harden_process
harden_process()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_GET_DUMPABLE is Linux's")
async def test_a_hardened_process_cannot_be_dumped() -> None:
    """The kernel reports the process as not dumpable, and core files cannot be enabled again."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _PROGRAM, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert (0, b"0 (0, 0)\n") == (process.returncode, out)


_FILES = """
import resource
from hookseal.config.load import raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (50, 90))
print(raise_descriptor_limit(), resource.getrlimit(resource.RLIMIT_NOFILE))
"""


async def test_the_file_limit_is_raised() -> None:
    """The process may open as many files as the system permits."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _FILES, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert (0, b"90 (90, 90)\n") == (process.returncode, out)
