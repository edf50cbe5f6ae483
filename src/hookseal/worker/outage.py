"""Outages: how each is told when it begins and ends, however often a loop tries."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hookseal.ground.errors import Unavailable


class Outage:
    """Keeps what one loop of a worker cannot do now. `name` begins the events that tell of it."""

    def __init__(self, name: str, log: Any) -> None:
        self._name = name
        self._log = log
        self._told: str | None = None

    @property
    def lasts(self) -> bool:
        """Whether the last try failed."""
        return self._told is not None

    @contextmanager
    def survived(self) -> Iterator[None]:
        """Let nothing that the block raises reach the loop: told once, and again only if it becomes another kind."""
        try:
            yield
        except Unavailable as error:
            self._begins(str(error))
        except Exception as error:  # noqa: BLE001 -- told, and the next try may fare better
            self._begins(type(error).__name__, defect=True)
        else:
            self.over()

    def over(self) -> None:
        """Tell that it is over, if there was one."""
        if self._told is not None:
            self._told = None
            self._log.info(f"{self._name}.resumed")

    def _begins(self, reason: str, *, defect: bool = False) -> None:
        if reason == self._told:
            return
        self._told = reason
        if defect:
            self._log.exception(f"{self._name}.defect")
        else:
            self._log.warning(f"{self._name}.failed", reason=reason)
