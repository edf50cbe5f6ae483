"""The ten steps over doubles, with one pending delivery."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from hookseal.dispatcher.core.deliver import finish, prepare
from hookseal.dispatcher.core.endpoint_health import FailingEndpoints
from hookseal.dispatcher.core.model import Answer, Claim, Reply, Ring, State
from hookseal.dispatcher.core.ports import Parts
from hookseal.ground.wire import MAX_BODY_BYTES
from tests.doubles.claims import CLAIM, DELIVERY, RING
from tests.doubles.clock import FakeClock
from tests.doubles.ledger import MemoryLedger, Row
from tests.doubles.meter import ListMeter
from tests.doubles.signers import FixedSigners
from tests.doubles.transport import ScriptedTransport

OK = Reply(status=204, snippet="thanks")
GONE = Reply(status=410, snippet="")


async def take(ring: Ring, parts: Parts) -> tuple[Claim, float] | None:
    """Claim the delivery of one ring; return the claim and the time just before it, or None if nothing was claimed."""
    asked_at = parts.clock.monotonic()
    claimed = await parts.claims.claim_all([ring], most_bytes=MAX_BODY_BYTES)
    return (claimed.claims[0], asked_at) if claimed.claims else None


async def attempt(claimed: Claim, asked_at: float, parts: Parts) -> None:
    """Take one claim through the remaining steps."""
    [prepared] = await prepare([claimed], asked_at, parts)
    await finish(prepared, parts)


@dataclass
class Scene:
    """A pipeline over doubles with one pending delivery."""

    answers: list[Answer] = field(default_factory=lambda: [OK])
    signers: FixedSigners = field(default_factory=lambda: FixedSigners("db:acme:n:2", "db:acme:n:1"))
    during: Callable[[], object] | None = None

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.ledger = MemoryLedger(self.clock)
        self.ledger.add(CLAIM)
        self.meter = ListMeter()
        self.transport = ScriptedTransport(*self.answers, during=self.during, clock=self.clock)
        self.parts = Parts(
            claims=self.ledger,
            ledger=self.ledger,
            transport=self.transport,
            signers=self.signers,
            clock=self.clock,
            jitter=lambda: 0.5,
            allow_http=False,
            user_agent="hookseal/test",
            longest_seconds=20,
            meter=self.meter,
            health=FailingEndpoints(self.clock),
            log=structlog.get_logger(),
            success_log=structlog.get_logger(),
        )

    @property
    def row(self) -> Row:
        return self.ledger.rows[DELIVERY]

    async def take(self) -> tuple[Claim, float]:
        """Claim the delivery, which must be due; return the claim and the time just before it."""
        taken = await take(RING, self.parts)
        assert taken is not None
        return taken

    async def run(self) -> None:
        """Process one ring."""
        await attempt(*await self.take(), self.parts)

    def require_unsent(self) -> None:
        """Require that nothing was sent, that no attempt is on record or spent, and that the delivery is pending."""
        found = (self.transport.sent, self.row.attempts, self.row.budget_spent, self.row.state)
        assert ([], [], 0, State.PENDING) == found

    def lose_lease(self) -> None:
        """Change the lease, as the sweep does once it has expired."""
        self.row.lease = "another"

    async def run_logged(self) -> list[Any]:
        """Process one ring and return what was logged."""
        with structlog.testing.capture_logs() as logs:
            await self.run()
        return logs
