"""`hookseal secret versions`: which versions of an endpoint's secret sign, what they signed, which are still needed."""

from typing import Any, Final

from hookseal.cli.endpoint_options import Endpoint, Tenant
from hookseal.cli.output import Json, emit, rfc3339, table
from hookseal.cli.runtime import connect, require_schema, run, start
from hookseal.config.settings import Part, Settings
from hookseal.dispatcher import provenance
from hookseal.dispatcher.provenance import Use
from hookseal.ground import ids
from hookseal.secrets import inventory
from hookseal.secrets.store import VersionState

_NEEDS: Final = frozenset({Part.DATABASE})
_COLUMNS: Final = ("ref", "state", "scheme", "signs", "attempts", "needed")


def versions(*, tenant: Tenant, endpoint: Endpoint, as_json: Json = False) -> None:
    """List every version of an endpoint's secret, oldest first: which sign now, what they signed, which are needed.

    One that is not needed may be destroyed. What it signed: `hookseal delivery list --signed-by REF`.

    Example: hookseal secret versions --tenant acme --endpoint 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    items = run(_versions(start(_NEEDS), ids.tenant_id(tenant), ids.endpoint_id(endpoint)))
    emit({"items": items, "next_cursor": None}, as_json=as_json, text=lambda: _text(items))


async def _versions(settings: Settings, tenant: ids.TenantId, wanted: ids.EndpointId) -> list[dict[str, Any]]:
    async with connect(settings.database) as connection:
        await require_schema(connection)
        # At one moment: what signs and what is in flight must fit each other.
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            found = await inventory.of_endpoint(connection, tenant, wanted)
            uses = await provenance.of_endpoint(connection, tenant, wanted)
    return [_item(version, uses.get(version["ref"], Use())) for version in found]


def _item(version: dict[str, Any], use: Use) -> dict[str, Any]:
    need = inventory.need(
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
        return "no secret is sealed for it"
    shown = [item | {name: "yes" if item[name] else "no" for name in ("signs", "needed")} for item in items]
    return "\n".join([table(shown, _COLUMNS), "", *map(_why, items)])


def _why(item: dict[str, Any]) -> str:
    version = item["ref"].rpartition(":")[2]
    until = "" if item["signs_until"] is None else f" ({rfc3339(item['signs_until'])})"
    signed = "" if item["last_signed_at"] is None else f"; signed last {rfc3339(item['last_signed_at'])}"
    return f"version {version}: {item['reason']}{until}{signed}"
