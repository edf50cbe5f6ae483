"""What the pipeline needs from outside: three seams, each with a real adapter and a double.

Both pass the same laws (tests/dispatcher/test_*_laws.py).
"""

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from hookseal.dispatcher.model import (
    Answer,
    Attempt,
    Claim,
    Claimed,
    Made,
    Masked,
    Outcome,
    Recorded,
    Request,
    Ring,
    State,
    TlsIdentity,
    Verdict,
    WaitingFor,
)
from hookseal.dispatcher.policy import Wait
from hookseal.ground.clock import Clock
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Scheme


class Ledger(Protocol):
    """Where deliveries stand. Every write is fenced: a lease that has moved on changes nothing."""

    async def claim_all(self, rings: Sequence[Ring], token: str | None, *, most_bytes: int) -> Claimed:
        """Take every due, pending delivery of these rings under a new lease, at most `most_bytes` of bodies.

        A ring must match in all three ids, and what waits for something is not due. Of many claims at the same time
        at most one gets a delivery. `token`, a UUID, names the lease for who must know it even if the answer is lost;
        without one it is drawn. Raises `Unavailable`: then all or none of the deliveries may be taken.
        """
        ...

    def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Awaitable[Verdict | None]:
        """Write the attempt and do what the verdict says, in one transaction; return what was done.

        The attempt is spent from the budget. That is the verdict; but one that disables an endpoint whose generation is
        not the claim's any more leaves it enabled and the delivery due at once, unspent. None if the lease was lost:
        then nothing was written. Awaiting raises `Unavailable`.
        """
        ...

    async def release(self, claim: Claim, wait: Wait | None) -> bool:
        """Give the delivery back without an attempt; False if the lease was lost.

        It is due at once, or after the wait of a fault of ours. One that waits for something is held until that is
        released, with all deliveries of its endpoint; if it is over already, it is due at once. Raises `Unavailable`.
        """
        ...

    async def end(self, claim: Claim, state: State, error: str) -> bool:
        """Leave the delivery in that final state without an attempt; False if the lease was lost.

        Raises `Unavailable`.
        """
        ...


class BatchedLedger(Ledger, Protocol):
    """A ledger that also takes many outcomes in one statement, which waits for no lock."""

    async def record_all(self, made: Sequence[Made]) -> list[Recorded]:
        """Write these attempts; return what became of each, in order.

        None may disable an endpoint, or be the probe of one that is held. Raises `Unavailable`: then all or none of
        them may be recorded. What is refused of one of them keeps all of them from being recorded.
        """
        ...

    async def recorded(self, made: Sequence[Made]) -> set[str]:
        """Return the delivery ids of those attempts that are on record as they were made. Raises `Unavailable`."""
        ...


class Transport(Protocol):
    """Sends one request."""

    async def send(self, request: Request) -> Answer:
        """Return what became of it within its time-out. The receiver's faults are values, never exceptions.

        A `Defect` says that nothing was begun: the request's sealed headers are not such as may be sent. No value
        of theirs is in an answer, nor in an error or the frames that it came through.
        """
        ...


class Signer(Protocol):
    """Something that signs. The key stays where it is."""

    @property
    def ref(self) -> str:
        """The secret reference that this signs with."""
        ...

    @property
    def scheme(self) -> Scheme:
        """The scheme that the secret was made for: it says what is signed, and how the signature is spelled."""
        ...

    def sign(self, content: bytes) -> str:
        """Return the signature as the scheme's headers spell it: `v1,<base64>` or `sha256=<hex>`."""
        ...


class Tls(Protocol):
    """What an endpoint with a client certificate, or trust of its own, is dialled with."""

    @property
    def key(self) -> str:
        """What tells it from every other; it holds no secret."""
        ...

    @property
    def context(self) -> ssl.SSLContext:
        """The context, ready for use."""
        ...

    @property
    def expires_at(self) -> float:
        """The monotonic time after which no connection is kept that was made with it."""
        ...


class Signers(Protocol):
    """Hands out what must sign for an endpoint, what its own headers say, and what it is dialled with."""

    def signers(self, pointer: Pointer) -> AbstractAsyncContextManager[tuple[Signer, ...]]:
        """Give every signer that is due, the current secret's first, for the length of the block.

        Raises `CannotSign` on entry if any one of them cannot be had: never fewer than are due.
        """
        ...

    def headers(self, pointer: Pointer) -> AbstractAsyncContextManager[Mapping[str, Masked]]:
        """Give the values of the endpoint's own headers by name, in lower case, for the length of the block.

        There are none without a ref. After the block the mapping is empty. Raises `CannotSign` on entry if they
        cannot be had.
        """
        ...

    def tls(self, pointer: Pointer) -> AbstractAsyncContextManager[Tls | None]:
        """Give what the endpoint is dialled with, None without a ref: then it is dialled as any other.

        Raises `CannotSign` on entry if it cannot be had.
        """
        ...


class Meter(Protocol):
    """Counts what happens. It never fails and never waits."""

    def attempted(self, outcome: Outcome, seconds: float, *, first_after: float | None) -> None:
        """Count an attempt that took so long; `first_after` is the age of the delivery at its first attempt."""
        ...

    def decided(self, verdict: Verdict) -> None:
        """Count what a recorded attempt led to: a dead letter, an endpoint that was disabled."""
        ...

    def held(self, waiting_for: WaitingFor) -> None:
        """Count a delivery that was held back."""
        ...

    def given_back(self) -> None:
        """Count a delivery that was given back, because its claim was too old to dial."""
        ...

    def exhausted(self) -> None:
        """Count a delivery that was given back, because this machine lacked what a connection takes."""
        ...

    def lease_lost(self) -> None:
        """Count a write that came after its lease had moved on."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the pipeline is given: the seams, time, chance and what this installation allows.

    No request takes longer than `longest_seconds`, whatever its endpoint row says: it must be over before
    the lease is, or it would be sent again.
    """

    ledger: Ledger
    transport: Transport
    signers: Signers
    clock: Clock
    jitter: Callable[[], float]
    allow_http: bool
    user_agent: str
    longest_seconds: float
    meter: Meter
    log: Any


def dialled_with(tls: Tls | None) -> TlsIdentity | None:
    """Return what an endpoint's TLS identity is in a request."""
    return None if tls is None else TlsIdentity(key=tls.key, context=tls.context, expires_at=tls.expires_at)
