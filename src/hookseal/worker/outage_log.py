"""Logs the beginning and the end of an outage, not every failed try of a loop."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hookseal.errors import Unavailable, with_advice
from hookseal.ground.log import calls
from hookseal.worker.passes import Passes


class Outage:
    """The outage of one loop of a worker. The names of its log events begin with `name`.

    Each block of `survived` is a pass of the loop, which `passes` records.
    """

    def __init__(self, name: str, log: Any, *, passes: Passes | None = None) -> None:
        self._name = name
        self._log = log
        self._passes = passes
        self._logged = set[str]()

    @property
    def lasts(self) -> bool:
        """Whether the last try failed."""
        return bool(self._logged)

    @contextmanager
    def survived(self) -> Iterator[None]:
        """Catch and log every exception of the block. Each reason is logged once for each outage."""
        try:
            yield
        except Unavailable as error:
            self._begins(with_advice(error))
            if self._passes is not None:
                self._passes.interrupted()
        except Exception as error:  # noqa: BLE001 -- it is logged, and the loop tries again
            self._begins(calls(error), defect=True)
        else:
            self.over()
            if self._passes is not None:
                self._passes.passed()

    def over(self) -> None:
        """Log that the outage is over, if there was one."""
        if self._logged:
            self._logged.clear()
            self._log.info(f"{self._name}.resumed")

    def _begins(self, reason: str, *, defect: bool = False) -> None:
        if reason in self._logged:
            return
        self._logged.add(reason)
        if defect:
            self._log.exception(f"{self._name}.defect")
        else:
            self._log.warning(f"{self._name}.failed", reason=reason)
