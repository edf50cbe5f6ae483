"""Keeps a worker on a core of its own: elsewhere the servers run on other machines, here they share its cores."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tools.bench.cpu import GONE, tree


def are_enough() -> bool:
    """Return whether there is a core for a worker and one for everything else."""
    return len(os.sched_getaffinity(0)) > 1


@contextmanager
def apart(servers: Sequence[int]) -> Iterator[Callable[[int], None]]:
    """Keep this process and the servers, with their descendants, off the first core for the length of the block.

    The yielded function keeps a worker, with its descendants, on the first core. What a process starts later inherits
    its cores.
    """
    every = os.sched_getaffinity(0)
    first = min(every)
    others = [os.getpid(), *servers]
    try:
        _keep(others, every - {first})
        yield lambda worker: _keep([worker], {first})
    finally:
        for pid in others:
            with suppress(PermissionError):  # a process of another user, which was not kept off the core either
                _keep([pid], every)


def _keep(pids: Sequence[int], cores: set[int]) -> None:
    for pid in tree(pids):
        with suppress(*GONE):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with suppress(*GONE):
                    os.sched_setaffinity(int(thread.name), cores)
