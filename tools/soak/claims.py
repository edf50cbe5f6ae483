"""How long claims took, from the log of PostgreSQL, which has a sample of all statements with their durations."""

import re
from pathlib import Path
from typing import Final

from hookseal.postgres.statements import statements

_STATEMENTS: Final = statements("hookseal.dispatcher.store", "batches.sql")
# Two lines, since other statements begin with the same one. PostgreSQL begins all lines but the first with a tab.
_BEGINNINGS: Final = b"|".join(
    rb"\n\t?".join(re.escape(line.encode()) for line in _STATEMENTS[name].splitlines()[:2])
    for name in ("claim_one", "claim_all")
)
_CLAIM: Final = re.compile(rb"duration: ([0-9.]+) ms  execute [^:]+: (?:" + _BEGINNINGS + rb")")


class ClaimLog:
    """Reads on where it ended."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._place = log.stat().st_size
        self._rest = b""

    def milliseconds(self) -> list[float]:
        """Return the durations of the sampled claims since the last call, without the last statement of the log."""
        with self._log.open("rb") as file:
            file.seek(self._place)
            text = self._rest + file.read()
            self._place = file.tell()
        last = max(0, text.rfind(b"duration: "))  # perhaps not whole yet
        whole, self._rest = text[:last], text[last:]
        return durations(whole)


def durations(log: bytes) -> list[float]:
    """Return the milliseconds of each claim in the log."""
    return [float(found) for found in _CLAIM.findall(log)]
