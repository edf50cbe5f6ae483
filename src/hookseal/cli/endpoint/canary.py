"""How commands send and print the canary of a rotation."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from hookseal.cli.shared.output import printable, rfc3339
from hookseal.config.settings import Egress, Settings
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations import sending
from hookseal.operations.endpoint.probe import ask_whether_switched
from hookseal.operations.operator import Operator
from hookseal.operations.sending import Sending
from hookseal.secrets.endpoint.canary_results import Evidence

_UNKNOWN: Final = {"verdict": None, "status": None, "control_status": None, "sent_at": None}


@asynccontextmanager
async def sending_as_worker(egress: Egress) -> AsyncIterator[Sending]:
    """Give a sender that works as a worker with these settings does, until the block ends."""
    clock = SystemClock()
    async with sending.transport(egress, clock) as opened:
        yield sending.as_worker(opened, egress, clock)


async def probed(
    settings: Settings,
    operator: Operator,
    tenant: TenantId,
    endpoint_id: EndpointId,
    *,
    expect_generation: int | None = None,
) -> Evidence:
    """Send the canary and the control to the receiver, and return its answers as evidence.

    Raises as `ask_whether_switched` does.
    """
    async with sending_as_worker(settings.egress) as how:
        return await ask_whether_switched(
            operator, how, tenant=tenant, endpoint_id=endpoint_id, expect_generation=expect_generation
        )


def shape(found: Evidence) -> dict[str, object]:
    """Return the evidence as the commands print it as JSON."""
    return {
        "verdict": found.verdict,
        "status": found.status,
        "control_status": found.control_status,
        "detail": found.detail,
        "sent_at": found.sent_at,
        "generation": found.generation,
    }


def unknown(reason: str, *, generation: int) -> dict[str, object]:
    """Return the same shape for a canary whose answer is unknown, with the reason."""
    return _UNKNOWN | {"detail": reason, "generation": generation}


def text(found: Evidence) -> str:
    """Return the evidence as one line of text."""
    return f"{found.verdict}, {rfc3339(found.sent_at)}: {printable(found.detail or '-')}"
