"""The wall clock of a worker process, set by a test while it runs. Its monotonic clock goes on, as a machine's does."""

from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SHARED = ("/dev/shm/faketime_shm_{}", "/dev/shm/sem.faketime_sem_{}")
LIBRARY = "vendor/libfaketime/src/libfaketime.so.1"


def library() -> Path | None:
    """Return the library that a process is to load first; None where there is no wheel of it."""
    found = find_spec("libfaketime")
    places = found.submodule_search_locations if found is not None else None
    return Path(places[0]) / LIBRARY if places else None


class WallClock:
    """Says in a file by how much it is wrong. Start the process with `settings`, and `forget` it once it has ended."""

    def __init__(self, preloaded: Path, folder: Path, *, wrong_by: timedelta) -> None:
        self._file = folder / "clock"
        self.settings: dict[str, Any] = {
            "LD_PRELOAD": str(preloaded),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",  # it is asked anew each time: a step is seen at once
            "DONT_FAKE_MONOTONIC": "1",
        }
        self.step_to(wrong_by)

    def step_to(self, wrong_by: timedelta) -> None:
        """Have it be wrong by so much from now on."""
        unfinished = self._file.with_suffix(".new")
        unfinished.write_text(f"{wrong_by.total_seconds():+.0f}\n", encoding="ascii")
        unfinished.replace(self._file)

    @staticmethod
    def forget(pid: int) -> None:
        """Remove what the library leaves of a process that became another program, as every worker of a test does."""
        for name in SHARED:
            Path(name.format(pid)).unlink(missing_ok=True)
