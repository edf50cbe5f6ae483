"""`hookseal endpoint rotation-status`: the state of an overlap, and whether the receiver has switched."""

from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from hookseal.cli.endpoint import canary
from hookseal.cli.endpoint.older_claims import older_claims, require_known
from hookseal.cli.endpoint.options import Endpoint, Tenant
from hookseal.cli.shared.operating import NEEDS, OperatorSession, operator_session
from hookseal.cli.shared.output import Json, emit, rfc3339
from hookseal.cli.shared.runtime import reading, start
from hookseal.config.settings import Part, Settings
from hookseal.dispatcher.core.probe import CanaryVerdict
from hookseal.errors import Conflict
from hookseal.ground import ids
from hookseal.operations.endpoint import rotation as operations
from hookseal.operations.endpoint.reports import rotation_state
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Connection
from hookseal.secrets.endpoint import canary_results
from hookseal.secrets.endpoint.canary_results import Evidence

_LOOKING_NEEDS: Final = frozenset({Part.DATABASE})
_NONE_SENT: Final = "none at this generation: --probe sends one"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """The state of a rotation: the row, its latest canary, and the generation after its overlap was ended."""

    state: dict[str, Any]
    canary: Evidence | None
    ended_at: int | None = None


def rotation_status(
    *,
    tenant: Tenant,
    endpoint: Endpoint,
    probe: Annotated[bool, typer.Option("--probe", help="Ask the receiver now whether it has switched.")] = False,
    end_when_switched: Annotated[
        bool, typer.Option("--end-when-switched", help="Ask it now; if it has, end the overlap, else exit 1.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the secrets that sign for an endpoint, the rest of the overlap, the schedule and the last ten rotations.

    `canary` is the last answer of the receiver at this generation: switched, not_switched, does_not_verify (it
    accepts any signature, so nothing is proven) or no_answer; --probe alone exits with 0 for each of them.
    `older_claims` counts requests in flight from before the last change: they may use an older secret.

    Example: hookseal endpoint rotation-status --tenant acme --endpoint ID --end-when-switched
    """
    owner, wanted = ids.owner_id(tenant), ids.endpoint_id(endpoint)
    asking = probe or end_when_switched
    settings = start(NEEDS if asking else _LOOKING_NEEDS)
    if asking:
        with operator_session(settings) as session:
            found = session.run(lambda operator: _ask(settings, operator, owner, wanted, ending=end_when_switched))
            left = _count_older_claims(session, owner, wanted, found)
            _answer(found, left, as_json=as_json)
    else:
        found = reading(settings, lambda connection: _read(connection, owner, wanted))
        left = found.state["older_claims"]
        _answer(found, left, as_json=as_json)
    require_known(left)
    if end_when_switched and found.ended_at is None:
        raise typer.Exit(1)


def _count_older_claims(
    session: OperatorSession, tenant: ids.TenantId, endpoint: ids.EndpointId, found: _Found
) -> int | None:
    if found.ended_at is None:
        left: int = found.state["older_claims"]
        return left
    return older_claims(session, tenant, endpoint, found.ended_at, wait=True)


def _answer(found: _Found, left: int | None, *, as_json: bool) -> None:
    shown = found.state | {
        "older_claims": left,
        "canary": None if found.canary is None else canary.shape(found.canary),
        "overlap_ended": found.ended_at is not None,
    }
    emit(shown, as_json=as_json, text=lambda: _text(shown, found.canary))


async def _read(connection: Connection, tenant: ids.TenantId, endpoint: ids.EndpointId) -> _Found:
    state = await rotation_state(connection, tenant, endpoint)
    last = await canary_results.last(connection, tenant, endpoint, state["generation"])
    return _Found(state=state, canary=last)


async def _ask(
    settings: Settings, operator: Operator, tenant: ids.TenantId, endpoint: ids.EndpointId, *, ending: bool
) -> _Found:
    state = await rotation_state(operator.connection, tenant, endpoint)
    if ending and not state["overlapping"]:
        raise Conflict("no overlap is running, so none can be ended; --probe asks the receiver", field="endpoint")
    found = await canary.probed(settings, operator, tenant, endpoint, expect_generation=state["generation"])
    ended_at = await end_if_switched(operator, found) if ending else None
    state = await rotation_state(operator.connection, tenant, endpoint)
    return _Found(state=state, canary=found, ended_at=ended_at)


async def end_if_switched(operator: Operator, found: Evidence) -> int | None:
    """End the overlap if the receiver has switched, and return the new generation; else return None.

    Raises `Conflict` if the endpoint is at another generation by now, and as `rotation.end_overlap` does.
    """
    if found.verdict != CanaryVerdict.SWITCHED:
        return None
    after = await operations.end_overlap(
        operator, tenant=found.tenant_id, endpoint_id=found.endpoint_id, expect_generation=found.generation
    )
    return after.generation


def _text(shown: dict[str, Any], found: Evidence | None) -> str:
    lines = (
        ["STALE         an older copy replaced the row, so nothing is signed: run `hookseal restore check`"]
        if shown["stale"]
        else []
    )
    lines.append(f"current       {shown['secret_ref'] or '-'} ({shown['scheme']}, {shown['algorithm']})")
    if shown["overlapping"]:
        until = rfc3339(shown["previous_secret_expires_at"])
        how = f"{shown['previous_scheme']}, {shown['previous_algorithm']}"
        lines.append(f"previous      {shown['previous_secret_ref']} ({how})")
        lines.append(f"overlap       until {until}, {_left(shown['seconds_left'])} from now; lead {shown['lead']}")
    else:
        ended = ": the receiver has switched, so the overlap was ended" if shown["overlap_ended"] else ""
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


def _left(seconds: int) -> str:
    hours, minutes = divmod(seconds // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds} s"


def _count(older: int | None) -> str:
    return "not known" if older is None else str(older)
