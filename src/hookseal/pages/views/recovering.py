"""Recovering: sending again all that an endpoint did not get since a time, after the number of it was shown."""

from datetime import timedelta
from typing import Final

from hookseal.admin import ReplayJob, Scope
from hookseal.api import problems
from hookseal.api.paging import SEARCHED
from hookseal.errors import Conflict, Malformed, NotFound, Refused
from hookseal.pages import words
from hookseal.pages.page import Asked, Moved, Shown, act, read
from hookseal.pages.views.endpoints import ONE

_ONE: Final = ONE + "/recover"
_JOB: Final = _ONE + "/{replay_id}"
_FIELDS: Final = frozenset({"since", "until"})


async def count(asked: Asked) -> Shown:
    """Show how much would be sent again since the time that was chosen; without one only ask for it."""
    query, zone = asked.query, asked.look.zone
    endpoint = await asked.admin.endpoints.find(tenant_id=asked.tenant, endpoint_id=asked.path["endpoint_id"])
    errors: dict[str, str] = {}
    found, since = None, None
    try:
        since = query.moment("since", zone)
        if since is not None:
            found = await asked.admin.replays.count(
                tenant_id=asked.tenant,
                endpoint_id=endpoint.endpoint_id,
                since=since,
                until=asked.now,
                searched=SEARCHED,
            )
    except Malformed as error:
        errors = words.said_of(error, _FIELDS)
    values = {
        "endpoint": endpoint,
        "asked_for": query.text("since") or asked.look.typed(asked.now - timedelta(days=1)),
        "since": since,
        "until": asked.now,
        "count": found,
        "errors": errors,
    }
    return Shown(template="recover.html", values=values)


async def start(asked: Asked) -> Moved:
    """Send again what the page has counted."""
    endpoint_id = asked.path["endpoint_id"]
    await asked.admin.endpoints.find(tenant_id=asked.tenant, endpoint_id=endpoint_id)
    since, until = (asked.form.moment(name, asked.look.zone) for name in ("since", "until"))
    if since is None or until is None:
        raise problems.Problem(400, "bad_form", "the form is not complete")
    try:
        job = await asked.admin.replays.start(
            tenant_id=asked.tenant, endpoint_id=endpoint_id, since=since, until=until, actor=asked.access.actor
        )
    except NotFound:
        return Moved(to=asked.link("recover", {"done": "nothing"}, endpoint_id=endpoint_id))
    except Conflict:
        raise problems.conflict("five of these run already: wait until one is done") from None
    except Refused:
        raise problems.conflict("the endpoint is disabled: enable it first") from None
    return Moved(to=asked.link("recovery", endpoint_id=endpoint_id, replay_id=job.replay_id))


async def show(asked: Asked) -> Shown:
    """Show how far it has come."""
    endpoint = await asked.admin.endpoints.find(tenant_id=asked.tenant, endpoint_id=asked.path["endpoint_id"])
    return Shown(template="recovery.html", values={"endpoint": endpoint, "job": await _job(asked)})


async def _job(asked: Asked) -> ReplayJob:
    """Return the job, which is of this endpoint. Raises `Problem`."""
    job = await asked.admin.replays.get(tenant_id=asked.tenant, replay_id=asked.path["replay_id"])
    if job.filter["endpoint_id"] != asked.path["endpoint_id"]:
        raise problems.absent()
    return job


async def cancel(asked: Asked) -> Moved:
    """Send nothing more of it again."""
    job = await _job(asked)
    try:
        await asked.admin.replays.cancel(tenant_id=asked.tenant, replay_id=job.replay_id, actor=asked.access.actor)
    except Conflict:
        raise problems.conflict("it has ended already") from None
    to = asked.link("recovery", {"done": "stopped"}, endpoint_id=asked.path["endpoint_id"], replay_id=job.replay_id)
    return Moved(to=to)


PAGES: Final = (
    read("recover", _ONE, count, Scope.OPERATE),
    act("recover.start", _ONE, start, Scope.READ, Scope.OPERATE),
    read("recovery", _JOB, show),
    act("recovery.cancel", _JOB + "/cancel", cancel, Scope.READ, Scope.OPERATE),
)
