"""Where tests keep their files, and their servers theirs: in memory, if this machine has enough free."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hookseal.embedded.folders import for_servers, scratch

_MEMORY: Final = Path("/dev/shm")
_PASSABLE: Final = 0o711  # the mode that `scratch` sets, because the servers run as another user if this one is root
# A run needs at most a few hundred megabytes. A container has 64 MB here by default.
_ROOM_BYTES: Final = 2 << 30


@contextmanager
def servers_state() -> Iterator[Path]:
    """Yield a new folder that servers can reach, in memory if there is room; it is deleted afterwards.

    On a disk, creating and dropping a database takes three times as long, nearly all of it in the kernel.
    """
    if not _has_room():
        with scratch(for_servers()) as folder:
            yield folder
        return
    folder = Path(tempfile.mkdtemp(prefix="hookseal-", dir=_MEMORY))
    folder.chmod(_PASSABLE)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def temporary_files() -> Iterator[None]:
    """Have temporary files made in memory, also by the processes that this one starts, unless TMPDIR is set.

    On a disk, the tests of `up`, the demo and the embedded servers took nearly twice the CPU: ext4 without a journal
    searches long for an inode that was not deleted in the last minutes.
    """
    if "TMPDIR" in os.environ or not _has_room() or os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC:
        yield
        return
    with servers_state() as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = None
            del os.environ["TMPDIR"]


def is_in_memory(folder: Path) -> bool:
    """Return whether the folder is one that `servers_state` created in memory."""
    return folder.is_relative_to(_MEMORY)


def _has_room() -> bool:
    return _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _ROOM_BYTES
