"""The wall clock of a worker process, which a test sets while it runs. The monotonic clock is not changed."""

from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SHARED = ("/dev/shm/faketime_shm_{}", "/dev/shm/sem.faketime_sem_{}")
LIBRARY = "vendor/libfaketime/src/libfaketime.so.1"


def library() -> Path | None:
    """Return the library that a process must preload, or None if this machine has no wheel of it."""
    found = find_spec("libfaketime")
    places = found.submodule_search_locations if found is not None else None
    return Path(places[0]) / LIBRARY if places else None


class WallClock:
    """Writes the clock's offset to a file. Start the process with `settings`, and `forget` it when it has ended."""

    def __init__(self, preloaded: Path, folder: Path, *, offset: timedelta) -> None:
        self._file = folder / "clock"
        self.settings: dict[str, Any] = {
            "LD_PRELOAD": str(preloaded),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",  # the file is read at each query, so that a step takes effect at once
            "DONT_FAKE_MONOTONIC": "1",
        }
        self.step_to(offset)

    def step_to(self, offset: timedelta) -> None:
        """Set the clock to the true time plus this offset."""
        unfinished = self._file.with_suffix(".new")
        unfinished.write_text(f"{offset.total_seconds():+.0f}\n", encoding="ascii")
        unfinished.replace(self._file)

    @staticmethod
    def forget(pid: int) -> None:
        """Remove the files that the library leaves when a process executes another program, as workers in tests do."""
        for name in SHARED:
            Path(name.format(pid)).unlink(missing_ok=True)
