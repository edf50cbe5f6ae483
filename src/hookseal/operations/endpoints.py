"""Adding an endpoint: its row, its sealed secret and the pointer from one to the other, or nothing."""

from dataclasses import dataclass

from hookseal.dispatcher import endpoints
from hookseal.dispatcher.database import translated
from hookseal.dispatcher.endpoints import NewEndpoint
from hookseal.ground.pointer import Pointer
from hookseal.schema.database import Connection
from hookseal.secrets import pointer
from hookseal.secrets.boot import Unlocked
from hookseal.secrets.context import Purpose
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import endpoint_secret_name
from hookseal.secrets.signer import generate_signing_secret


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedEndpoint:
    """The endpoint as it was stored. The secret is given out this once."""

    pointer: Pointer
    secret: SecretMaterial


async def add_endpoint(
    connection: Connection, unlocked: Unlocked, endpoint: NewEndpoint, secret: SecretMaterial | None
) -> AddedEndpoint:
    """Store the endpoint with this signing secret, or a fresh one, sealed; all of it or nothing.

    Raises `Conflict` if the tenant has an endpoint with this url, `Unavailable`.
    """
    material = secret or generate_signing_secret()
    with translated():
        async with connection.transaction():
            endpoint_id = await endpoints.insert(connection, endpoint)
            ref = await unlocked.store_on(connection).put(
                endpoint.tenant_id,
                endpoint_secret_name(endpoint_id),
                material,
                purpose=Purpose.WEBHOOK_SIGNING,
                scheme="standard",
            )
            stored = await pointer.first(
                connection, unlocked.integrity, tenant=endpoint.tenant_id, endpoint_id=endpoint_id, ref=ref
            )
    return AddedEndpoint(pointer=stored, secret=material)
