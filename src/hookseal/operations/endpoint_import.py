"""Importing an endpoint of an older system with the secret that its receiver has: once, however often it is asked."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn

from hookseal.dispatcher import endpoints
from hookseal.dispatcher.endpoints import NewEndpoint
from hookseal.ground.errors import Conflict
from hookseal.ground.ids import EndpointId
from hookseal.operations.endpoint_state import disable_endpoint
from hookseal.operations.endpoints import add_endpoint
from hookseal.operations.operator import Operator
from hookseal.secrets import overlap, pointer
from hookseal.secrets.context import Purpose
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import SecretRef
from hookseal.secrets.signer import require_signing_secret

DISABLED: Final = "imported as disabled"


class Import(StrEnum):
    """What became of an endpoint that was to be imported: it is there now, or was before."""

    ADDED = "added"
    PRESENT = "present"


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """An endpoint that is there; after a dry run, that would be."""

    what: Import
    endpoint_id: EndpointId


class _TakenBack(Exception):
    """Ends a transaction that was only to foretell this."""

    def __init__(self, imported: Imported) -> None:
        super().__init__()
        self.imported = imported


async def import_endpoint(
    operator: Operator,
    endpoint: NewEndpoint,
    secret: SecretMaterial,
    *,
    own_drain_seconds: int,
    enabled: bool = True,
    is_dry: bool = False,
) -> Imported:
    """Add the endpoint, unless the tenant has one at its url with the same secret, which then stays as it is.

    In one transaction, which is taken back if it was only to foretell (`is_dry`). Raises as `add_endpoint`, `Conflict`
    if the endpoint at that url has another secret, scheme, algorithm or id, or a plaintext that is not migrated, what
    opening its secret raises, and `Unavailable`.
    """
    overlap.require_signable(endpoint.scheme, endpoint.algorithm)
    require_signing_secret(secret, endpoint.scheme, endpoint.algorithm, is_older=True)
    try:
        async with operator.changing():
            imported = await _imported(operator, endpoint, secret, own_drain_seconds=own_drain_seconds, enabled=enabled)
            return _foretold(imported) if is_dry else imported
    except _TakenBack as taken_back:
        return taken_back.imported


def _foretold(imported: Imported) -> NoReturn:
    raise _TakenBack(imported)


async def _imported(
    operator: Operator, endpoint: NewEndpoint, secret: SecretMaterial, *, own_drain_seconds: int, enabled: bool
) -> Imported:
    connection = operator.connection
    there = await endpoints.at_url(connection, endpoint.tenant_id, endpoint.url)
    if there is None:
        added = await _added(operator, endpoint, secret, own_drain_seconds=own_drain_seconds, enabled=enabled)
        if added is not None:
            return Imported(what=Import.ADDED, endpoint_id=added)
        there = await endpoints.at_url(connection, endpoint.tenant_id, endpoint.url)
    if there is None:
        raise Conflict("the endpoint at this url was deleted at this moment: import it again", field="url")
    await _require_same(operator, endpoint, there, secret)
    return Imported(what=Import.PRESENT, endpoint_id=there)


async def _added(
    operator: Operator, endpoint: NewEndpoint, secret: SecretMaterial, *, own_drain_seconds: int, enabled: bool
) -> EndpointId | None:
    """Return the id of the endpoint that was added, None if somebody else has added one at its url meanwhile."""
    try:
        added = await add_endpoint(operator, endpoint, secret, own_drain_seconds=own_drain_seconds, is_older=True)
    except Conflict as error:
        if error.field == "url":
            return None
        if error.field == "name":  # of the secret, which is made of the id
            raise Conflict(
                "an endpoint of this id was there before: leave the id out, or take another", field="endpoint_id"
            ) from None
        raise
    if not enabled:
        await disable_endpoint(operator, endpoint.tenant_id, added.pointer.endpoint_id, reason=DISABLED)
    return added.pointer.endpoint_id


async def _require_same(operator: Operator, endpoint: NewEndpoint, there: EndpointId, secret: SecretMaterial) -> None:
    found = await pointer.locked(operator.connection, tenant=endpoint.tenant_id, endpoint_id=there)
    if endpoint.endpoint_id not in {None, there}:
        raise Conflict("the endpoint at this url has another id", field="endpoint_id")
    if found.secret_ref is None:
        raise Conflict(
            "the endpoint at this url has no sealed secret: if it has plaintext, run `hookseal migrate-secrets`",
            field="url",
        )
    operator.unlocked.integrity.verify(found)
    ref = SecretRef.parse(found.secret_ref)
    pointer.require_own(ref, tenant=found.tenant_id, endpoint_id=found.endpoint_id)
    store = operator.unlocked.store_on(operator.connection)
    if await store.get(ref, purpose=Purpose.WEBHOOK_SIGNING) != secret:
        raise Conflict(
            "the endpoint at this url has another secret: to sign with this one use "
            "`hookseal endpoint rotate --secret-file F`",
            field="secret",
        )
    if (found.scheme, found.algorithm) != (endpoint.scheme.value, endpoint.algorithm.value):
        raise Conflict(
            f"the endpoint at this url has this secret and signs as {found.scheme} with {found.algorithm}",
            field="scheme",
        )
