"""`hookseal endpoint`: the endpoints of a tenant."""

from typing import Annotated, Any, Final

import typer

from hookseal.cli.endpoint import options
from hookseal.cli.endpoint.add import add
from hookseal.cli.endpoint.extras import tls_lines
from hookseal.cli.endpoint.ping import send_ping
from hookseal.cli.endpoint.public_key import public_key
from hookseal.cli.endpoint.rotation import end_overlap, rollback, rotate, rotation_status
from hookseal.cli.endpoint.state import delete, disable, enable
from hookseal.cli.endpoint.stats import stats
from hookseal.cli.endpoint.update import update
from hookseal.cli.shared.output import Json, emit, key_values, rfc3339, table
from hookseal.cli.shared.runtime import reading, start
from hookseal.config.settings import Part
from hookseal.dispatcher.store import endpoint_queries
from hookseal.ground import ids

app: Final = typer.Typer(help="Add, change and show the endpoints of a tenant.", no_args_is_help=True)

_NEEDS: Final = frozenset({Part.DATABASE})
_FREE: Final = "free"  # a lane that nothing waits for
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_WITHOUT_SCHEDULE: Final = frozenset({"max_attempts", "backoff_base_seconds", "backoff_cap_seconds"})
_ONLY_IF_TRUE: Final = frozenset({"has_plaintext", "stale"})

app.command()(add)


@app.command(name="list")
def list_(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only endpoints of this tenant.")] = None,
    enabled: Annotated[
        bool | None, typer.Option("--enabled/--disabled", help="Only enabled, or only disabled, endpoints.")
    ] = None,
    limit: Annotated[int, typer.Option(help="How many to list, 1 to 1000.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    as_json: Json = False,
) -> None:
    """List endpoints, the highest id first: the newest, if hookseal made the ids.

    Example: hookseal endpoint list --tenant acme --disabled
    """
    sought = endpoint_queries.EndpointFilter(
        tenant_id=None if tenant is None else ids.owner_id(tenant), enabled=enabled
    )
    items, following = reading(
        start(_NEEDS), lambda connection: endpoint_queries.page(connection, sought, limit=limit, cursor=cursor)
    )
    emit({"items": items, "next_cursor": following}, as_json=as_json, text=lambda: _list_text(items, following))


@app.command()
def show(*, tenant: options.Tenant, endpoint: options.Endpoint, as_json: Json = False) -> None:
    """Show one endpoint: its settings, the secrets that sign for it, what waits for it, and what failed last.

    Example: hookseal endpoint show --tenant acme --endpoint 0197c1f0-5e6a-7c3b-9d2e-4f5061728394
    """
    owner, wanted = ids.owner_id(tenant), ids.endpoint_id(endpoint)
    found = reading(start(_NEEDS), lambda connection: endpoint_queries.show(connection, owner, wanted))
    emit(found, as_json=as_json, text=lambda: _show_text(found))


app.command()(stats)
app.command()(update)
app.command()(enable)
app.command()(disable)
app.command()(delete)
app.command(name="public-key")(public_key)
app.command()(rotate)
app.command()(rollback)
app.command(name="end-overlap")(end_overlap)
app.command(name="rotation-status")(rotation_status)
app.command(name="test")(send_ping)


def _show_text(found: dict[str, Any]) -> str:
    found = {name: fact for name, fact in found.items() if name not in _ONLY_IF_TRUE or fact}
    if found["previous_secret_ref"] is None:
        del found["lead"]  # it has an effect only while two secrets sign
    if found["retry_schedule"] is not None:
        waits = ",".join(map(_delay, found["retry_schedule"]))  # as the option takes it
        found = {name: fact for name, fact in found.items() if name not in _WITHOUT_SCHEDULE} | {
            "retry_schedule": waits
        }
    found["lane"] = found["lane"] or _FREE
    if (failure := found.pop("last_failure")) is not None:
        answer = failure["outcome"] if failure["status"] is None else f"{failure['status']} ({failure['outcome']})"
        found["last_failure"] = f"{rfc3339(failure['started_at'])} {answer}, delivery {failure['delivery_id']}"
    shown = [
        *key_values(found | {"tls": None if found["tls"] is None else "its own: see below"}),
        *tls_lines(found["tls"]),
    ]
    return "\n".join(shown)


def _delay(seconds: int) -> str:
    size, unit = next(each for each in _UNITS if seconds % each[0] == 0)
    return f"{seconds // size}{unit}"


def _list_text(items: list[dict[str, Any]], following: str | None) -> str:
    if not items:
        return "no endpoints"
    rows = [item | {"lane": item["lane"] or _FREE} for item in items]
    shown = table(rows, ["tenant_id", "endpoint_id", "name", "url", "state", "lane"])
    return shown if following is None else f"{shown}\nmore: --cursor {following}"
