"""The state of one request, which the parts of a transport share."""

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
    """How long each part of a request may take, within the request's own time-out, and how many connections stay open.

    `name_seconds` is less than the two seconds within which a request must begin. So with a name server that is always
    slow, attempts are spent; otherwise the deliveries would be given back again and again. A look-up occupies its
    thread until the system gives up, which may be long after the request has ended. `idle_each` is at least the number
    of requests that may be in flight to one place: with fewer, requests that end together would close connections that
    the next ones open again.
    """

    name_seconds: float = 1.5
    connect_seconds: float = 3.0
    handshake_seconds: float = 3.0
    body_seconds: float = 2.0
    look_ups_each: int = 8
    look_ups: int = 256
    idle_each: int = 500
    idle: int = 1_000
    idle_seconds: float = 30.0


@dataclass(slots=True, kw_only=True)
class Progress:
    """One request: its tenant, how far it has come, and the monotonic time by which it must have begun.

    After it has begun it may still connect to the next address of its name. `missing_resource` names what this machine
    had none left of when a socket was needed, if anything. `connection` is the connection on which it is written,
    `lost_by` the error that ended that connection, and `cut_off` the reason if hookseal ended it. `watch`, if it is
    set, is called with the connection just before the request is written.
    """

    tenant: TenantId
    begin_by: float
    clock: Clock
    begun: bool = False
    missing_resource: str | None = None
    phase: Phase = Phase.NAME
    connection: Any = field(default=None, repr=False)
    lost_by: BaseException | None = field(default=None, repr=False)
    cut_off: str | None = None
    watch: Callable[[BaseTransport], None] | None = None

    def begin(self) -> bool:
        """Begin the request if its time is not over; return whether it has begun, now or before."""
        self.begun = self.begun or self.clock.monotonic() < self.begin_by
        return self.begun


PROGRESS: Final[ContextVar[Progress]] = ContextVar("progress")
