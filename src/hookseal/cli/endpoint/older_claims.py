"""Claims from before a change of secrets: their requests may still be signed with the older secret."""

import sys

import typer

from hookseal.cli.shared.operating import OperatorSession
from hookseal.cli.shared.output import note
from hookseal.dispatcher.store import held
from hookseal.errors import HooksealError, Unavailable
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import EndpointId, TenantId, plural
from hookseal.operations.endpoint import rotation
from hookseal.operations.operator import Operator


def older_claims(
    session: OperatorSession, tenant: TenantId, endpoint_id: EndpointId, generation: int, *, wait: bool
) -> int | None:
    """Return how many older claims are left: 0 after waiting; None, with the reason printed, if that is unknown.

    The change is committed by now, so the command must print it whatever happens here.
    """

    async def left(operator: Operator) -> int:
        if wait:
            await rotation.wait_until_complete(
                operator.connection,
                tenant=tenant,
                endpoint_id=endpoint_id,
                generation=generation,
                clock=SystemClock(),
                report=_Progress(),
            )
        return await held.older_claims(operator.connection, tenant, endpoint_id, generation)

    try:
        return session.run(left)
    except HooksealError as error:
        reason = str(error)
    except KeyboardInterrupt:
        reason = "interrupted"
    note(f"changed, but older claims may still be in flight: {reason}")
    return None


def require_known(left: int | None) -> None:
    """Return if the number is known; else end the command with the exit code for a server that does not answer."""
    if left is None:
        raise typer.Exit(Unavailable.exit_code)


class _Progress:
    """Prints the number on a terminal whenever it changes."""

    _last = 0

    def __call__(self, left: int) -> None:
        if left != self._last and sys.stderr.isatty():
            note(f"waiting for {plural(left, 'request', 'requests')} from before the change", prefix="")
        self._last = left
