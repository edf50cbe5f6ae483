"""`hookseal endpoint rotation-status`: what an overlap stands at, and whether the receiver has switched."""

from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from hookseal.cli import canary
from hookseal.cli.endpoint_options import Endpoint, Tenant
from hookseal.cli.older_claims import older_claims, require_known
from hookseal.cli.operating import NEEDS, operating
from hookseal.cli.output import Json, emit, rfc3339
from hookseal.cli.runtime import connect, require_schema, run, start
from hookseal.config.settings import Part, Settings
from hookseal.dispatcher import waiting
from hookseal.dispatcher.canary import CanaryVerdict
from hookseal.ground import ids
from hookseal.ground.errors import Conflict
from hookseal.operations import rotation as operations
from hookseal.operations.operator import Operator
from hookseal.schema.database import Connection
from hookseal.secrets import evidence, rotation, schedule
from hookseal.secrets.evidence import Evidence
from hookseal.secrets.schedule import Scheduled

_LOOKING_NEEDS: Final = frozenset({Part.DATABASE})
_ROTATIONS: Final = 10
_NONE_SENT: Final = "none at this generation: --probe sends one"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Where a rotation stands: the row, the canary that counts, and the generation that its end led to, if it did."""

    standing: dict[str, Any]
    canary: Evidence | None
    ended_at: int | None = None


def rotation_status(
    *,
    tenant: Tenant,
    endpoint: Endpoint,
    probe: Annotated[bool, typer.Option("--probe", help="Ask the receiver now whether it has switched.")] = False,
    end_when_switched: Annotated[
        bool, typer.Option("--end-when-switched", help="Ask it now, and end the overlap if it has; else exit 1.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show which secrets sign for an endpoint, how long the overlap still runs, its schedule and last ten rotations.

    `canary` is the last answer of the receiver at this generation: switched, not_switched, does_not_verify (it
    takes anything, so nothing is proven) or no_answer; --probe alone exits with 0 whichever it is. `older_claims`
    are requests in flight that began before the last change: they may sign as it was before.

    Example: hookseal endpoint rotation-status --tenant acme --endpoint ID --end-when-switched
    """
    owner, wanted = ids.tenant_id(tenant), ids.endpoint_id(endpoint)
    asking = probe or end_when_switched
    settings = start(NEEDS if asking else _LOOKING_NEEDS)
    found = run(
        _asked(settings, owner, wanted, ending=end_when_switched) if asking else _looked(settings, owner, wanted)
    )
    left = found.standing["older_claims"]
    if found.ended_at is not None:
        left = older_claims(settings, owner, wanted, found.ended_at, wait=True)
    shown = found.standing | {
        "older_claims": left,
        "canary": None if found.canary is None else canary.shape(found.canary),
        "overlap_ended": found.ended_at is not None,
    }
    emit(shown, as_json=as_json, text=lambda: _text(shown, found.canary))
    require_known(left)
    if end_when_switched and found.ended_at is None:
        raise typer.Exit(1)


async def _looked(settings: Settings, tenant: ids.TenantId, endpoint: ids.EndpointId) -> _Found:
    async with connect(settings.database) as connection:
        await require_schema(connection)
        standing = await _standing(connection, tenant, endpoint)
        last = await evidence.last(connection, tenant, endpoint, standing["generation"])
    return _Found(standing=standing, canary=last)


async def _asked(settings: Settings, tenant: ids.TenantId, endpoint: ids.EndpointId, *, ending: bool) -> _Found:
    async with operating(settings) as operator:
        standing = await _standing(operator.connection, tenant, endpoint)
        if ending and not standing["overlapping"]:
            raise Conflict("no overlap is running: there is none to end; --probe asks the receiver", field="endpoint")
        found = await canary.probed(settings, operator, tenant, endpoint, expect_generation=standing["generation"])
        ended_at = await end_if_switched(operator, found) if ending else None
        standing = await _standing(operator.connection, tenant, endpoint)
    return _Found(standing=standing, canary=found, ended_at=ended_at)


async def end_if_switched(operator: Operator, found: Evidence) -> int | None:
    """End the overlap of exactly the generation that was proven; return the new one, None if nothing was proven.

    Raises `Conflict` if the endpoint is at another generation by now, and as `rotation.end_overlap` does.
    """
    if found.verdict != CanaryVerdict.SWITCHED:
        return None
    after = await operations.end_overlap(
        operator, tenant=found.tenant_id, endpoint_id=found.endpoint_id, expect_generation=found.generation
    )
    return after.generation


async def _standing(connection: Connection, tenant: ids.TenantId, endpoint: ids.EndpointId) -> dict[str, Any]:
    standing = await rotation.standing(connection, tenant, endpoint, limit=_ROTATIONS)
    older = await waiting.older_claims(connection, tenant, endpoint, standing["generation"])
    due = await schedule.of_endpoint(connection, tenant, endpoint)
    return standing | {"older_claims": older, "schedule": None if due is None else _schedule(due)}


def _schedule(due: Scheduled) -> dict[str, Any]:
    return {
        "rotate_every_days": due.rotate_every_days,
        "due_at": due.due_at,
        "announced_at": due.announced_at if due.is_announced else None,
        "rotates_at": due.rotates_at if due.is_announced else None,
    }


def _text(shown: dict[str, Any], found: Evidence | None) -> str:
    lines = (
        ["PUT BACK      to an older state: nothing is signed; see `hookseal restore check`"]
        if shown["put_back"]
        else []
    )
    lines.append(f"current       {shown['secret_ref'] or '-'} ({shown['scheme']}, {shown['algorithm']})")
    if shown["overlapping"]:
        until = rfc3339(shown["previous_secret_expires_at"])
        how = f"{shown['previous_scheme']}, {shown['previous_algorithm']}"
        lines.append(f"previous      {shown['previous_secret_ref']} ({how})")
        lines.append(f"overlap       until {until}, {shown['seconds_left']} s from now; lead {shown['lead']}")
    else:
        ended = ": the overlap was ended, for the receiver has switched" if shown["overlap_ended"] else ""
        lines.append(f"previous      none signs{ended}")
    lines += [f"generation    {shown['generation']}", f"older claims  {_count(shown['older_claims'])}"]
    lines += _schedule_text(shown["schedule"])
    lines.append(
        f"canary        {'none at this generation; --probe sends one' if found is None else canary.text(found)}"
    )
    lines += [
        f"rotation      {rfc3339(one['created_at'])}  version {one['version']}  {one['rotation_id']}"
        for one in shown["rotations"]
    ]
    return "\n".join(lines)


def _schedule_text(due: dict[str, Any] | None) -> list[str]:
    if due is None:
        return []
    every = f"every {due['rotate_every_days']} d"
    if due["announced_at"] is None:
        return [f"schedule      {every}; next {rfc3339(due['due_at'])}, not announced yet"]
    return [f"schedule      {every}; announced {rfc3339(due['announced_at'])}, rotates {rfc3339(due['rotates_at'])}"]


def _count(older: int | None) -> str:
    return "not known" if older is None else str(older)
