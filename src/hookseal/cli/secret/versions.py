"""`hookseal secret versions`: list the versions of an endpoint's secret, with their use."""

from typing import Any, Final

from hookseal.cli.endpoint.options import Endpoint, Tenant
from hookseal.cli.shared.output import Json, emit, rfc3339, table
from hookseal.cli.shared.runtime import Connection, reading, start
from hookseal.config.settings import Part
from hookseal.dispatcher import secret_usage
from hookseal.dispatcher.secret_usage import Use
from hookseal.ground import ids
from hookseal.secrets.store import version_report
from hookseal.secrets.store.port import VersionState

_NEEDS: Final = frozenset({Part.DATABASE})
_COLUMNS: Final = ("ref", "state", "scheme", "signs", "attempts", "needed")


def versions(*, tenant: Tenant, endpoint: Endpoint, as_json: Json = False) -> None:
    """List every version of an endpoint's secret, oldest first: whether it signs, how often it did, if it is needed.

    A version that is not needed may be destroyed. `hookseal delivery list --signed-by REF` lists what it signed.

    Example: hookseal secret versions --tenant acme --endpoint 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    owner, wanted = ids.owner_id(tenant), ids.endpoint_id(endpoint)
    items = reading(start(_NEEDS), lambda connection: _versions(connection, owner, wanted))
    emit({"items": items, "next_cursor": None}, as_json=as_json, text=lambda: _text(items))


async def _versions(connection: Connection, tenant: ids.TenantId, wanted: ids.EndpointId) -> list[dict[str, Any]]:
    # In one snapshot, so that the versions that sign and the requests in flight fit each other.
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        found = await version_report.of_endpoint(connection, tenant, wanted)
        uses = await secret_usage.of_endpoint(connection, tenant, wanted)
    return [_item(version, uses.get(version["ref"], Use())) for version in found]


def _item(version: dict[str, Any], use: Use) -> dict[str, Any]:
    need = version_report.need(
        VersionState(version["state"]),
        signs=version["signs"],
        signs_until=version["signs_until"],
        claims_in_flight=use.claims_in_flight,
        named_by_old_row=version.pop("named_by_old_row"),
    )
    return version | {
        "claims_in_flight": use.claims_in_flight,
        "attempts": use.attempts,
        "last_signed_at": use.last_signed_at,
        "needed": need.needed,
        "reason": need.reason,
    }


def _text(items: list[dict[str, Any]]) -> str:
    if not items:
        return "the endpoint has no sealed secret"
    shown = [item | {name: "yes" if item[name] else "no" for name in ("signs", "needed")} for item in items]
    return "\n".join([table(shown, _COLUMNS), "", *map(_reason, items)])


def _reason(item: dict[str, Any]) -> str:
    version = item["ref"].rpartition(":")[2]
    until = "" if item["signs_until"] is None else f" ({rfc3339(item['signs_until'])})"
    signed = "" if item["last_signed_at"] is None else f"; last signed {rfc3339(item['last_signed_at'])}"
    return f"version {version}: {item['reason']}{until}{signed}"
