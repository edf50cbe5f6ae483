"""What a change of an endpoint's secrets leaves behind: requests that began before, and may sign as it was."""

import sys

import typer

from hookseal.cli.operating import operating
from hookseal.cli.runtime import run
from hookseal.config.settings import Settings
from hookseal.dispatcher import waiting
from hookseal.ground.clock import SystemClock
from hookseal.ground.counted import counted
from hookseal.ground.errors import HooksealError, Unavailable
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations import rotation


def older_claims(
    settings: Settings, tenant: TenantId, endpoint_id: EndpointId, generation: int, *, wait: bool
) -> int | None:
    """Return how many older claims are left, none after waiting; None if that is not known, which has been told.

    What was changed stays changed, so its answer must be given whatever happens here.
    """

    async def left() -> int:
        async with operating(settings) as operator:
            if wait:
                await rotation.completed(
                    operator,
                    tenant=tenant,
                    endpoint_id=endpoint_id,
                    generation=generation,
                    clock=SystemClock(),
                    tell=_Progress(),
                )
            return await waiting.older_claims(operator.connection, tenant, endpoint_id, generation)

    try:
        return run(left())
    except HooksealError as error:
        reason = str(error)
    except KeyboardInterrupt:
        reason = "interrupted"
    print(f"hookseal: changed, but older claims may still be in flight: {reason}", file=sys.stderr, flush=True)
    return None


def require_known(left: int | None) -> None:
    """Return only if it is known how many are left; else the command ends as for what does not answer."""
    if left is None:
        raise typer.Exit(Unavailable.exit_code)


class _Progress:
    """Tells a person that waits, on standard error, whenever the number changes."""

    _last = 0

    def __call__(self, left: int) -> None:
        if left != self._last and sys.stderr.isatty():
            print(f"waiting for {counted(left, 'request', 'requests')} that began before", file=sys.stderr, flush=True)
        self._last = left
