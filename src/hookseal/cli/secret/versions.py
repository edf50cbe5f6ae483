"""`hookseal secret versions`: list the versions of an endpoint's secret, with their use."""

from typing import Any, Final

from hookseal.cli.endpoint.options import Endpoint, Tenant
from hookseal.cli.shared.output import Json, emit, rfc3339, table
from hookseal.cli.shared.runtime import reading, start
from hookseal.config.settings import Part
from hookseal.ground import ids
from hookseal.operations.endpoint import reports

_NEEDS: Final = frozenset({Part.DATABASE})
_COLUMNS: Final = ("ref", "state", "scheme", "signs", "attempts", "needed")


def versions(*, tenant: Tenant, endpoint: Endpoint, as_json: Json = False) -> None:
    """List every version of an endpoint's secret, oldest first: whether it signs, how often it did, if it is needed.

    A version that is not needed may be destroyed. `hookseal delivery list --signed-by REF` lists what it signed.

    Example: hookseal secret versions --tenant acme --endpoint 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    owner, wanted = ids.owner_id(tenant), ids.endpoint_id(endpoint)
    items = reading(start(_NEEDS), lambda connection: reports.versions(connection, owner, wanted))
    emit({"items": items, "next_cursor": None}, as_json=as_json, text=lambda: _text(items))


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
