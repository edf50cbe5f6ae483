"""Reports the versions of an endpoint's secret to an operator, without their material."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from hookseal.errors import Malformed, NotFound
from hookseal.ground import ids
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.postgres.pool import Executor
from hookseal.secrets.core.ref import SecretRef, endpoint_secret_name
from hookseal.secrets.statements import statements
from hookseal.secrets.store.port import VersionState

_SQL: Final = statements("version_report.sql", package="hookseal.secrets.store")
_PREFIX: Final = endpoint_secret_name(EndpointId(""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Whether a version is still needed, and the reason as text. A version that is not may be destroyed."""

    needed: bool
    reason: str


_PURGED: Final = (
    "safe to destroy; a worker does it when it has been retired for SECRETS_RETIRED_RETENTION_DAYS, "
    "`hookseal secret purge --older-than DAYS` does it sooner"
)
_AT_REST: Final = {
    VersionState.ACTIVE: Need(
        needed=True,
        reason="it is active and its endpoint does not name it: find out who changed one of them before you destroy it",
    ),
    VersionState.PREVIOUS: Need(
        needed=False,
        reason=f"its overlap is over and nothing in flight holds it: {_PURGED}",
    ),
    VersionState.RETIRED: Need(
        needed=False,
        reason=f"it signs no more and nothing in flight holds it: {_PURGED}",
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

    `signs`: an attempt that is claimed now is signed with it, at most until `signs_until` if that is set.
    `claims_in_flight` counts the claims with a valid lease that read it. `named_by_old_row`: its endpoint's row names
    it but is stale, so nothing is signed. Waiting deliveries and retries need no old version: an attempt is signed with
    the secrets that are current at its claim.
    """
    if signs:
        return _signing(state, signs_until)
    if named_by_old_row:
        return Need(needed=True, reason="its endpoint's row, which is stale, names it: see `hookseal restore check`")
    if claims_in_flight > 0:
        return Need(needed=True, reason="requests in flight were claimed while it signed: wait until they end")
    return _AT_REST[state]


def _signing(state: VersionState, signs_until: datetime | None) -> Need:
    if state is VersionState.DESTROYED:
        return Need(needed=True, reason="it must sign and its material was destroyed, so deliveries wait: rotate")
    if signs_until is None:
        return Need(needed=True, reason="every new attempt is signed with it")
    return Need(needed=True, reason="every new attempt is signed with it too, until its overlap ends")


async def of_endpoint(executor: Executor, tenant: TenantId, endpoint_id: EndpointId) -> list[dict[str, Any]]:
    """Return every version of the endpoint's secret, oldest first, and whether it signs attempts that are claimed now.

    The versions of a deleted endpoint are listed, too. Raises `NotFound` if the tenant never had such an endpoint, and
    `SecretUnavailable`.
    """
    name = endpoint_secret_name(endpoint_id)
    rows = await _SQL.rows(executor, "of_endpoint", tenant, name, endpoint_id)
    exists = rows or await _SQL.value(executor, "has_endpoint", tenant, endpoint_id)
    if not exists:
        raise NotFound("the tenant has no such endpoint", field="endpoint_id")
    return [dict(row) for row in rows]


def signing_ref(text: str) -> tuple[SecretRef, EndpointId]:
    """Return the ref of a text, and the endpoint that it is the signing secret of.

    Raises `Malformed` if it is not a ref, has a reserved tenant, or is not the signing secret of an endpoint.
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
    """Raise `NotFound` if the version never existed, and `SecretUnavailable`. A destroyed version did exist."""
    exists = await _SQL.value(executor, "has_version", ref.tenant, ref.name, ref.version, ref.provider.value)
    if not exists:
        raise NotFound("there is no such version of a secret, and never was", field="signed_by")
