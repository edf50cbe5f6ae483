"""Revealing what an endpoint's requests are signed with now, to an operator, audited before it is given out."""

from dataclasses import dataclass

from hookseal.audit.entry import Action, Change
from hookseal.ground.errors import NotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm
from hookseal.operations.operator import Operator
from hookseal.secrets import pointer
from hookseal.secrets.context import Purpose
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.pointer import require_own
from hookseal.secrets.ref import SecretRef
from hookseal.secrets.signer import public_key_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Revealed:
    """The current secret of an endpoint; of a key pair the public key alone, and the secret is None."""

    pointer: Pointer
    secret: SecretMaterial | None
    public_key: str | None


async def reveal(operator: Operator, tenant: TenantId, endpoint_id: EndpointId) -> Revealed:
    """Return what the receiver of the endpoint must know of its current secret. It is on record by then.

    Raises `NotFound` if there is no such endpoint or it has no secret, `SecretTampered` if its row was altered or
    put back, `SecretDenied` if the row names what is not its own, what the store raises, and `Unavailable`.
    """
    async with operator.changing() as connection:
        found = await pointer.locked(connection, tenant=tenant, endpoint_id=endpoint_id)
        if found.mac is not None:
            operator.unlocked.integrity.verify(found)
        if found.mac is None or found.secret_ref is None:
            raise NotFound("the endpoint has no secret of ours yet", field="endpoint")
        ref = SecretRef.parse(found.secret_ref)
        require_own(ref, tenant=tenant, endpoint_id=endpoint_id)
        secret = await operator.unlocked.store_on(connection).get(ref, purpose=Purpose.WEBHOOK_SIGNING)
        is_pair = found.algorithm == Algorithm.ED25519
        await operator.tell(_change(found, shown="public key" if is_pair else "secret"))
    if is_pair:
        return Revealed(pointer=found, secret=None, public_key=public_key_of(secret))
    return Revealed(pointer=found, secret=secret, public_key=None)


def _change(found: Pointer, *, shown: str) -> Change:
    return Change(
        tenant_id=found.tenant_id,
        action=Action.SECRET_REVEALED,
        subject=f"endpoint:{found.endpoint_id}",
        after={"generation": found.generation, "secret_ref": found.secret_ref, "shown": shown},
    )
