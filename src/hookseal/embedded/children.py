"""The children of a process, and whether they stand still, as the system lists it.

PostgreSQL puts each of its children into a session of its own, so that a signal to its group misses them.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    pid: int
    parent: int
    state: str


def children(pid: int) -> tuple[int, ...]:
    """Return the process ids of the direct children that it has now."""
    entries = _from_proc(Path("/proc")) if sys.platform == "linux" else _from_ps()
    return tuple(entry.pid for entry in entries if entry.parent == pid)


def stands_still(pid: int) -> bool:
    """Tell whether every thread of the process is stopped, or the process is gone."""
    return all(entry.state[0] in "TZX" for entry in _threads(pid))


def _threads(pid: int) -> Iterator[_Entry]:
    if sys.platform == "linux":
        return _from_proc(Path(f"/proc/{pid}/task"))
    else:  # noqa: RET505 -- mypy reads the platforms apart only so
        return (entry for entry in _from_ps() if entry.pid == pid)


def _from_proc(folder: Path) -> Iterator[_Entry]:
    for file in folder.glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended since the listing
            # The name, in parentheses, may hold anything; then come the state and the parent.
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
            yield _Entry(pid=int(file.parent.name), parent=int(parent), state=state)


def _from_ps() -> Iterator[_Entry]:
    command = ["/bin/ps", "-A", "-o", "pid=,ppid=,state="]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        pid, parent, state = line.split()
        yield _Entry(pid=int(pid), parent=int(parent), state=state)
