"""What an operator reads of the versions of an endpoint's secret, without their material."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from hookseal.ground import ids
from hookseal.ground.errors import Malformed, NotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.sql import statements
from hookseal.schema.database import Executor
from hookseal.secrets.database import outages_translated
from hookseal.secrets.ref import SecretRef, endpoint_secret_name
from hookseal.secrets.store import VersionState

_SQL: Final = statements("hookseal.secrets", "inventory.sql")
_PREFIX: Final = endpoint_secret_name(EndpointId(""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Whether a version is still needed, and why in words. One that is not may be destroyed."""

    needed: bool
    reason: str


_AT_REST: Final = {
    VersionState.ACTIVE: Need(
        needed=True,
        reason="it is active and its endpoint does not name it: find out who changed one of them before you destroy it",
    ),
    VersionState.PREVIOUS: Need(
        needed=False,
        reason="its overlap is over and nothing in flight holds it: safe to destroy (`hookseal secret purge`)",
    ),
    VersionState.RETIRED: Need(
        needed=False,
        reason="it signs no more and nothing in flight holds it: safe to destroy (`hookseal secret purge`)",
    ),
    VersionState.DESTROYED: Need(needed=False, reason="its material was destroyed; what it signed stays on record"),
}


def need(
    state: VersionState,
    *,
    signs: bool,
    signs_until: datetime | None,
    claims_in_flight: int,
    named_by_old_row: bool = False,
) -> Need:
    """Return whether a version of that state is still needed. Pure.

    `signs` says that what is claimed now is signed with it, `signs_until` when that ends by itself, and
    `claims_in_flight` how many claims whose lease still runs read it. `named_by_old_row` tells that its endpoint's
    row names it, and was put back, so that nothing is signed. What waits or is tried again later needs
    no old version: an attempt is signed with what is current when it is claimed.
    """
    if signs:
        return _signing(state, signs_until)
    if named_by_old_row:
        return Need(needed=True, reason="its endpoint's row names it and was put back: see `hookseal restore check`")
    if claims_in_flight > 0:
        return Need(needed=True, reason="requests in flight were claimed while it signed: wait until they end")
    return _AT_REST[state]


def _signing(state: VersionState, signs_until: datetime | None) -> Need:
    if state is VersionState.DESTROYED:
        return Need(needed=True, reason="it must sign and its material was destroyed, so deliveries wait: rotate")
    if signs_until is None:
        return Need(needed=True, reason="every attempt is signed with it")
    return Need(needed=True, reason="every attempt is signed with it too, until its overlap ends")


async def of_endpoint(executor: Executor, tenant: TenantId, endpoint_id: EndpointId) -> list[dict[str, Any]]:
    """Return every version of the endpoint's secret, oldest first, and whether it signs what is claimed now.

    The versions of an endpoint that was deleted stay known. Raises `NotFound` if the tenant neither has nor
    had such an endpoint, and `SecretUnavailable`.
    """
    name = endpoint_secret_name(endpoint_id)
    with outages_translated():
        rows = await executor.fetch(_SQL["of_endpoint"], tenant, name, endpoint_id)
        known = rows or await executor.fetchval(_SQL["has_endpoint"], tenant, endpoint_id)
    if not known:
        raise NotFound("the tenant has no such endpoint", field="endpoint")
    return [dict(row) for row in rows]


def signing_ref(text: str) -> tuple[SecretRef, EndpointId]:
    """Return the ref that is spelled so and the endpoint whose secret it is a version of.

    Raises `Malformed` if it is no ref, of a reserved tenant, or of a secret that signs for no endpoint.
    """
    try:
        ref = SecretRef.parse(text)
    except Malformed as error:
        raise Malformed(str(error), field="signed_by") from None
    with suppress(Malformed):
        owner = ids.endpoint_id(ref.name.removeprefix(_PREFIX))
        if ref.name == endpoint_secret_name(owner):
            return ref, owner
    raise Malformed("secret ref: its name must be that of an endpoint's signing secret", field="signed_by")


async def require_known(executor: Executor, ref: SecretRef) -> None:
    """Return only if the version was ever there; one that was destroyed was. Raises `NotFound`, `SecretUnavailable`."""
    with outages_translated():
        known = await executor.fetchval(_SQL["has_version"], ref.tenant, ref.name, ref.version, ref.provider.value)
    if not known:
        raise NotFound("there is no such version of a secret, and never was", field="signed_by")
