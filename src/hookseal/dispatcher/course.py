"""How far a request has come: what the parts of a transport tell each other about one request."""

from asyncio import BaseTransport
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from hookseal.ground.clock import Clock
from hookseal.ground.ids import TenantId


class Phase(StrEnum):
    """What a request waits for."""

    NAME = "name"
    CONNECTION = "connection"
    PROXY = "proxy"
    HANDSHAKE = "handshake"
    ANSWER = "answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long each part of a request may take, all of them within the request's own time-out, and how much is kept.

    `name_seconds` is less than the two seconds within which a request must begin: so a name server that is always slow
    spends attempts, and does not have its deliveries given back for ever. A look-up holds its thread until the system
    gives up on it, which may be long after the request has ended. `kept_each` is no less than what may be in flight to
    one place: with fewer, requests that end together would close connections that the next ones dial again.
    """

    name_seconds: float = 1.5
    connect_seconds: float = 3.0
    handshake_seconds: float = 3.0
    body_seconds: float = 2.0
    look_ups_each: int = 8
    look_ups: int = 256
    kept_each: int = 500
    kept: int = 1_000
    kept_seconds: float = 30.0


@dataclass(slots=True, kw_only=True)
class Course:
    """One request under way, for whom, and by when it must have begun.

    `lack` is what this machine lacked when a socket was to be made, if it lacked anything.
    Once it has begun it may dial the next address of its name later. `connection` is the one that it is written on, and
    `lost_by` why that ended, and `cut_off` what the receiver did if we ended it for that; `watch`, if there is one, is
    shown the connection just before.
    """

    tenant: TenantId
    begin_by: float
    clock: Clock
    begun: bool = False
    lack: str | None = None
    phase: Phase = Phase.NAME
    connection: Any = field(default=None, repr=False)
    lost_by: BaseException | None = field(default=None, repr=False)
    cut_off: str | None = None
    watch: Callable[[BaseTransport], None] | None = None

    def begin(self) -> bool:
        """Return whether the request may begin, or has begun; from now on it has. The clock is looked at now."""
        self.begun = self.begun or self.clock.monotonic() < self.begin_by
        return self.begun


COURSE: Final[ContextVar[Course]] = ContextVar("course")
