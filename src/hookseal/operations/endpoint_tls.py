"""The part of an endpoint's update that is its TLS identity: what it was, what it becomes, and keeping that."""

from dataclasses import dataclass

from hookseal.ground.pointer import Pointer
from hookseal.operations.endpoints import require_usable
from hookseal.operations.operator import Operator
from hookseal.secrets import endpoint_tls
from hookseal.secrets.endpoint_tls import TlsChange
from hookseal.secrets.errors import SecretError
from hookseal.secrets.tls_identity import TlsIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsMove:
    """The identity before and after a change; an empty one before if it could not be opened."""

    before: TlsIdentity
    after: TlsIdentity


async def moved(operator: Operator, found: Pointer, wanted: TlsChange | None) -> TlsMove | None:
    """Return what the change makes of the identity of the locked pointer, None if nothing.

    Raises `SecretTampered` if the row was altered, `NotFound` for what is to be removed and is not there, `Malformed`
    for a certificate that is not valid now, and what opening the identity raises, unless all of it is decided anew.
    """
    if wanted is None:
        return None
    operator.unlocked.integrity.verify(found)
    try:
        before = await endpoint_tls.opened(operator.unlocked.store_on(operator.connection), found)
    except SecretError:
        if not wanted.decides_all:
            raise
        move = TlsMove(before=endpoint_tls.NONE, after=wanted.anew())  # what is spoilt is mended so
    else:
        move = TlsMove(before=before, after=wanted.applied(before))
        if move.before == move.after:
            return None
    given = TlsIdentity(client=wanted.client, authorities=wanted.authorities)
    await require_usable(operator, given)  # what stays may have expired since: that is no reason to refuse the rest
    return move


async def kept(operator: Operator, found: Pointer, move: TlsMove) -> str | None:
    """Seal what the identity becomes, and return its ref as text, None if there is none any more."""
    connection = operator.connection
    ref = await endpoint_tls.keep(
        connection,
        operator.unlocked.store_on(connection),
        tenant=found.tenant_id,
        endpoint_id=found.endpoint_id,
        identity=move.after,
    )
    return None if ref is None else str(ref)
