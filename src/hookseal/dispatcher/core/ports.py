"""The protocols through which the pipeline reaches everything outside. Each has a real implementation and a double.

Both pass the same tests (tests/dispatcher/test_*_laws.py).
"""

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from hookseal.dispatcher.core.model import (
    Answer,
    Attempt,
    Claim,
    Claimed,
    FinishedAttempt,
    Masked,
    Outcome,
    Recorded,
    Request,
    Ring,
    State,
    Target,
    TlsIdentity,
    Verdict,
    WaitingFor,
)
from hookseal.dispatcher.core.policy import Wait
from hookseal.ground.clock import Clock
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Scheme


class Claims(Protocol):
    """Claims deliveries: takes each under a lease, with all that an attempt needs."""

    async def claim_all(self, rings: Sequence[Ring], token: str | None = None, *, most_bytes: int) -> Claimed:
        """Take every due, pending delivery of these rings under a new lease, at most `most_bytes` of bodies.

        A ring must match in all three ids. A held delivery is not due. Of several claims at the same time at most one
        gets a delivery. `token`, a UUID, becomes the token of the lease, so that the caller knows it even if the answer
        is lost; without one a token is made. Raises `Unavailable`: all or none of the deliveries may then be claimed.
        """
        ...


class ClaimStore(Claims, Protocol):
    """Where deliveries are claimed, and a claim whose answer did not arrive is undone."""

    async def give_back(self, tokens: list[str]) -> list[str]:
        """Make the deliveries claimed under these lease tokens due at once and unspent; return the tokens found.

        Raises `Unavailable`.
        """
        ...


class Ledger(Protocol):
    """Stores what became of claimed deliveries. Every write is fenced: with a lost lease it changes nothing."""

    def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Awaitable[Verdict | None]:
        """Record the attempt and apply the verdict in one transaction; return the verdict that was applied.

        The attempt is spent from the budget. If the verdict disables an endpoint whose generation has changed since the
        claim, the endpoint stays enabled, and the delivery is due at once and unspent. Returns None if the lease was
        lost: nothing is written then. Awaiting raises `Unavailable`, and `OutcomeKept` if the database refused the
        outcome, which is kept to be recorded later. If the caller is cancelled while it awaits, the
        cancellation is raised once the attempt is recorded, or could not be.
        """
        ...

    async def release(self, claim: Claim, wait: Wait | None) -> bool:
        """Give the delivery back without an attempt; False if the lease was lost.

        It is due at once, or after the wait that follows an error in hookseal. If it waits for its endpoint, it is held
        until the endpoint is released; if the reason no longer exists, it is due at once. Raises `Unavailable`.
        """
        ...

    async def end(self, claim: Claim, state: State, error: str) -> bool:
        """Leave the delivery in that final state without an attempt; False if the lease was lost.

        Raises `Unavailable`.
        """
        ...


class BatchedLedger(Ledger, Protocol):
    """A ledger that also records many outcomes in one statement, without waiting for a lock."""

    async def record_all(self, finished: Sequence[FinishedAttempt], *, again: bool = False) -> list[Recorded]:
        """Record these attempts; return the result of each, in order.

        `again` says that a batch has found the row of one of them busy: this call then keeps no batch waiting.
        None may disable an endpoint, or be the probe of a held endpoint. Raises `Unavailable`: all or none of them may
        then be recorded. If the database refuses one of them, none is recorded.
        """
        ...

    async def keep(self, finished: FinishedAttempt, reason: str) -> bool:
        """Keep an outcome that the database refused, until it is recorded; False if the lease was lost.

        The delivery is not sent again meanwhile. Raises `Unavailable`.
        """
        ...

    async def are_tables_locked(self) -> bool:
        """Return whether another session has locked a whole table that a record writes. Raises `Unavailable`."""
        ...

    async def recorded(self, finished: Sequence[FinishedAttempt]) -> set[str]:
        """Return the delivery ids of those attempts that are recorded with this outcome. Raises `Unavailable`."""
        ...


class Transport(Protocol):
    """Sends one request."""

    async def send(self, request: Request) -> Answer:
        """Return the answer to the request, within its time-out. Failures of the receiver are values, not exceptions.

        Raises `Defect`, and begins nothing, if the sealed headers must not be sent. The values of these headers are
        neither in the answer nor in an error or its frames.
        """
        ...


class Tracing(Protocol):
    """Makes a span of each attempt."""

    def send(self, transport: Transport, claim: Claim, request: Request) -> Awaitable[Answer]:
        """Send the request by this transport, with a `traceparent` of its own. Raises as the transport does."""
        ...


class Signer(Protocol):
    """Signs requests with a key that it does not reveal."""

    @property
    def ref(self) -> str:
        """The reference of the secret that signs."""
        ...

    @property
    def scheme(self) -> Scheme:
        """The signature scheme of the secret. It defines what is signed and the format of the signature."""
        ...

    def sign(self, content: bytes) -> str:
        """Return the signature in the format of the scheme: `v1,<base64>` or `sha256=<hex>`."""
        ...


class Tls(Protocol):
    """The TLS identity with which connections to an endpoint are made."""

    @property
    def key(self) -> str:
        """Its identifier, which contains no secret."""
        ...

    @property
    def context(self) -> ssl.SSLContext:
        """The context, ready for use."""
        ...

    @property
    def expires_at(self) -> float:
        """The monotonic time at which all connections that were made with it are closed."""
        ...


class Signers(Protocol):
    """Provides the signers, the header values and the TLS identity of an endpoint."""

    def signers(self, pointer: Pointer) -> AbstractAsyncContextManager[tuple[Signer, ...]]:
        """Provide every signer that must sign now, that of the current secret first, until the block ends.

        Raises `CannotSign` on entry if one of them is not available: it never provides only a part of them.
        """
        ...

    def headers(self, pointer: Pointer) -> AbstractAsyncContextManager[Mapping[str, Masked]]:
        """Provide the values of the endpoint's own headers by their names in lower case, until the block ends.

        Without a reference in the pointer there are none. After the block the mapping is empty. Raises `CannotSign` on
        entry if they are not available.
        """
        ...

    def tls(self, pointer: Pointer) -> AbstractAsyncContextManager[Tls | None]:
        """Provide the TLS identity of the endpoint until the block ends; None if the pointer has no reference to one.

        Raises `CannotSign` on entry if it is not available, and `LocalFailure` or `Exhausted` if only this process or
        this machine cannot prepare it now.
        """
        ...


class Meter(Protocol):
    """Counts what happens. It never fails and never waits."""

    def attempted(self, outcome: Outcome, seconds: float, *, first_after: float | None, was_held: bool = False) -> None:
        """Count an attempt of this duration; `first_after` is the time from publish to a first attempt.

        `was_held` says whether something held the delivery before that.
        """
        ...

    def decided(self, verdict: Verdict) -> None:
        """Count what a recorded attempt led to: a dead letter, an endpoint that was disabled."""
        ...

    def held(self, waiting_for: WaitingFor) -> None:
        """Count a delivery that was held."""
        ...

    def given_back(self) -> None:
        """Count a delivery that was given back: it came too late, is beyond a limit, or another worker must send it."""
        ...

    def exhausted(self) -> None:
        """Count a delivery that was given back because this machine had no file descriptor or memory left."""
        ...

    def lease_lost(self) -> None:
        """Count a write that changed nothing because its lease was lost."""
        ...


class EndpointHealth(Protocol):
    """Notices which endpoints fail. It never fails and never waits."""

    def attempted(self, target: Target, outcome: Outcome) -> None:
        """Notice the outcome of an attempt that was recorded."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything that the pipeline uses: the protocols above, time, chance and the rules of this installation.

    `answered` is called as soon as the outcome of a request is known, before it is recorded. No request begins while
    `may_begin` is false: its outcome could not be recorded. No request takes longer
    than `longest_seconds`, even if its endpoint has a longer time-out: a request that is still
    running when its lease expires would be sent again. Of the attempts that delivered, about one in
    `successes_per_line` is logged, none if that is 0; every other attempt is. `log` names the worker on each line, and
    `success_log`, for the attempts that delivered, does not: the attempt on record has it. Without `tracing` the
    `traceparent` of the producer is sent as it is.
    """

    claims: Claims
    ledger: Ledger
    transport: Transport
    signers: Signers
    clock: Clock
    jitter: Callable[[], float]
    allow_http: bool
    user_agent: str
    longest_seconds: float
    meter: Meter
    health: EndpointHealth
    log: Any
    success_log: Any
    answered: Callable[[Ring, Outcome], None] = lambda _ring, _outcome: None
    may_begin: Callable[[], bool] = lambda: True
    successes_per_line: int = 1
    tracing: Tracing | None = None


def tls_identity(tls: Tls | None) -> TlsIdentity | None:
    """Return the TLS identity of an endpoint in the form that a request has."""
    return None if tls is None else TlsIdentity(key=tls.key, context=tls.context, expires_at=tls.expires_at)
