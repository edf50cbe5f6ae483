"""The canary of a rotation, as commands send and show it."""

from typing import Final

from hookseal.cli.output import printable, rfc3339
from hookseal.config.settings import Settings
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.version import VERSION
from hookseal.operations import canary, sending
from hookseal.operations.operator import Operator
from hookseal.secrets.evidence import Evidence

_UNKNOWN: Final = {"verdict": None, "status": None, "control_status": None, "sent_at": None}


async def probed(
    settings: Settings,
    operator: Operator,
    tenant: TenantId,
    endpoint_id: EndpointId,
    *,
    expect_generation: int | None = None,
) -> Evidence:
    """Ask the endpoint's receiver, as a worker with these settings would send to it. Raises as `canary.probe` does."""
    async with sending.transport(settings.egress) as transport:
        how = canary.Sending(
            transport=transport,
            clock=SystemClock(),
            allow_http=settings.egress.allow_http,
            user_agent=f"hookseal/{VERSION}",
        )
        return await canary.probe(
            operator, how, tenant=tenant, endpoint_id=endpoint_id, expect_generation=expect_generation
        )


def shape(found: Evidence) -> dict[str, object]:
    """Return the canary as JSON shows it."""
    return {
        "verdict": found.verdict,
        "status": found.status,
        "control_status": found.control_status,
        "detail": found.detail,
        "sent_at": found.sent_at,
        "generation": found.generation,
    }


def unknown(reason: str, *, generation: int) -> dict[str, object]:
    """Return the same shape for one that was to be sent and of which nothing is known."""
    return _UNKNOWN | {"detail": reason, "generation": generation}


def text(found: Evidence) -> str:
    """Return the canary as a person reads it, on one line."""
    return f"{found.verdict}, {rfc3339(found.sent_at)}: {printable(found.detail or '-')}"
