"""CPU and memory of processes and all their descendants, as Linux counts them (proc(5))."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_KB: Final = 1024
GONE: Final = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    parent: int
    own_ticks: int
    ended_children_ticks: int


def tree_seconds(pids: Iterable[int], without: Iterable[int] = ()) -> float:
    """Return the CPU seconds so far of these processes and their descendants, also of those that have ended.

    `without` names descendants that are not counted; each must still run at the next call.
    """
    processes, left_out = _processes(), frozenset(without)
    ticks = sum(
        processes[pid].ended_children_ticks + (0 if pid in left_out else processes[pid].own_ticks)
        for pid in _below(pids, processes)
    )
    return ticks / _TICKS


def tree(pids: Iterable[int]) -> list[int]:
    """Return these processes and their descendants, without those that have ended."""
    return list(_below(pids, _processes()))


def resident_mb(pids: Iterable[int]) -> float:
    """Return the resident megabytes of these processes and their descendants."""
    return sum(_resident_kb(pid) for pid in _below(pids, _processes())) / _KB


def parent_of(pid: int) -> int:
    """Return the parent process. Raises `FileNotFoundError` if the process is gone."""
    return _read(pid).parent


def _below(pids: Iterable[int], processes: dict[int, _Process]) -> Iterator[int]:
    waiting = [pid for pid in pids if pid in processes]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting.extend(child for child, process in processes.items() if process.parent == pid)


def _processes() -> dict[int, _Process]:
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(*GONE):
            found[int(folder.name)] = _read(int(folder.name))
    return found


def _read(pid: int) -> _Process:
    # The name may contain anything, also brackets; the other fields follow the last bracket.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return _Process(
        parent=int(fields[1]),
        own_ticks=int(fields[11]) + int(fields[12]),
        ended_children_ticks=int(fields[13]) + int(fields[14]),
    )


def _resident_kb(pid: int) -> int:
    with suppress(*GONE):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0
