"""What an attempt reports: one event in the log, and counts."""

import pytest
import structlog

from hookseal.dispatcher.core.model import Outcome, Reply, State, Verdict, WaitingFor
from hookseal.errors import CannotSign
from tests.dispatcher.scene import GONE, OK, Scene
from tests.doubles.claims import CLAIM, DELIVERY, RING, target
from tests.doubles.replaced import replace
from tests.doubles.signers import FixedSigners
from tests.doubles.transport import ScriptedTransport


async def test_each_attempt_is_counted_with_its_duration() -> None:
    """Each attempt is counted with its outcome and duration; the first one also with the age of its delivery."""
    scene = Scene()

    def last() -> None:
        scene.clock.elapsed += 1.25

    scene.parts = replace(scene.parts, transport=ScriptedTransport(Reply(status=500, snippet=""), OK, during=last))
    scene.clock.elapsed += 2
    await scene.run()
    scene.clock.elapsed += 30
    await scene.run()

    assert [(Outcome.SERVER_ERROR, 1.25, 2.0), (Outcome.DELIVERED, 1.25, None)] == scene.meter.attempts
    assert [
        Verdict(state=State.PENDING, retry_in_seconds=30),
        Verdict(state=State.DELIVERED),
    ] == scene.meter.verdicts
    assert [1250, 1250] == [row.duration_ms for row in scene.row.attempts]


@pytest.mark.parametrize("waiting_for", [WaitingFor.SECRET, WaitingFor.ENDPOINT_DISABLED])
async def test_a_waiting_delivery_is_counted_by_its_reason(waiting_for: WaitingFor) -> None:
    """A delivery that waits is counted by what it waits for, and not as an attempt."""
    scene = Scene(signers=FixedSigners(error=CannotSign()))
    scene.ledger.target(DELIVERY, target(enabled=waiting_for is WaitingFor.SECRET))
    await scene.run()

    assert ([waiting_for], [], 0) == (scene.meter.holds, scene.meter.attempts, scene.meter.leases_lost)


@pytest.mark.req("OPS-03", part="logs")
@pytest.mark.req("OPS-03", part="correlation-id")
async def test_an_attempt_is_logged_once() -> None:
    """An attempt is logged once, with all its facts except the path of the URL, which may contain a token."""
    scene = Scene()
    with structlog.testing.capture_logs() as logs:
        await scene.run()

    assert [
        {
            "event": "delivery.attempted",
            "log_level": "info",
            "tenant_id": "acme",
            "delivery_id": DELIVERY,
            "endpoint_id": RING.endpoint_id,
            "event_id": "evt_1",
            "event_type": "invoice.paid",
            "correlation_id": "corr-1",
            "attempt": 1,
            "state": "delivered",
            "retry_in_seconds": None,
            "outcome": "delivered",
            "status": 204,
            "duration_ms": 0,
            "signed_by": ["db:acme:n:2", "db:acme:n:1"],
            "host": "receiver.example",
            "bytes": len(CLAIM.body),
            "detail": None,
            "recorded": True,
        }
    ] == logs


@pytest.mark.req("OPS-03", part="logs")
async def test_a_late_410_is_logged_as_a_due_delivery() -> None:
    """A 410 of an endpoint that was changed meanwhile is logged as a due delivery, and nothing as disabled."""
    scene = Scene(answers=[GONE])

    def move() -> None:
        scene.ledger.target(DELIVERY, target(generation=2))

    scene.parts = replace(scene.parts, transport=ScriptedTransport(GONE, during=move))
    [line] = await scene.run_logged()

    assert ("delivery.attempted", "gone", "pending", 0.0, True) == tuple(
        line[name] for name in ("event", "outcome", "state", "retry_in_seconds", "recorded")
    )
    assert [Verdict(state=State.PENDING)] == scene.meter.verdicts


@pytest.mark.req("OPS-03", part="logs")
async def test_a_failed_attempt_is_logged_with_its_reason() -> None:
    """A failed attempt is logged as a warning with its reason and the seconds until the next attempt."""
    scene = Scene(answers=[Reply(status=500, snippet="")])
    logs = await scene.run_logged()

    assert [("warning", "server_error", "pending", 30.0, "the receiver answered 500", True)] == [
        tuple(line[name] for name in ("log_level", "outcome", "state", "retry_in_seconds", "detail", "recorded"))
        for line in logs
    ]
