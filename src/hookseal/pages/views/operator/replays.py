"""Replay jobs of every tenant: the number before, the start, the progress, and the end."""

from datetime import timedelta
from functools import partial
from typing import Any, Final

from hookseal.api import problems
from hookseal.api.paging import SEARCHED
from hookseal.dispatcher.core.replay_job import DEFAULT_RATE, NOT_DELIVERED
from hookseal.errors import Conflict, Malformed, NotFound, Refused
from hookseal.ground.ids import EVERY_TENANT
from hookseal.pages import words
from hookseal.pages.forms import Fields
from hookseal.pages.page import Asked, Moved, Shown, act, listed, read
from hookseal.pages.views.operator.overview import TENANT

_NEW: Final = TENANT + "/replay"
_JOB: Final = TENANT + "/replays/{replay_id}"
_FILTERS: Final = frozenset(
    {"endpoint_id", "event_type", "event_id", "states", "since", "until", "rate_per_second", "cursor", "state"}
)


async def listing(asked: Asked) -> Shown:
    """Show replay jobs of one tenant or all, the newest first."""
    chosen: dict[str, Any] = {name: asked.query.text(name) for name in ("tenant", "state")}  # any text: it is checked
    found = partial(asked.admin.replays.list, tenant_id=chosen["tenant"] or EVERY_TENANT, state=chosen["state"] or None)
    values = await listed(asked, found, chosen=chosen, fields=_FILTERS | {"tenant_id"})
    return Shown(template="operator/replays.html", values=values)


def _selected(asked: Asked, fields: Fields) -> dict[str, Any]:
    """Return what the fields select. Raises `Malformed`."""
    return {
        "tenant_id": asked.path["tenant_id"],
        "endpoint_id": fields.text("endpoint") or None,
        "event_type": fields.text("type") or None,
        "event_id": fields.text("event") or None,
        "states": fields.every("states") or [*NOT_DELIVERED],
        "since": fields.moment("since", asked.look.zone),
        "until": fields.moment("until", asked.look.zone),
    }


async def new(asked: Asked) -> Shown:
    """Show how many deliveries a job would send again; it begins only by the form below the number."""
    query, errors = asked.query, dict[str, str]()
    count, until = None, None
    try:
        if query.text("since"):
            selected = _selected(asked, query)
            until = selected["until"] or asked.now  # so that what is sent is what was counted
            count = await asked.admin.replays.count(**{**selected, "until": until}, searched=SEARCHED)
    except Malformed as error:
        errors = words.said_of(error, _FILTERS)
    values = {
        "tenant_id": asked.path["tenant_id"],
        "count": count,
        "until": until,
        "chosen": {
            "since": query.text("since") or asked.look.typed(asked.now - timedelta(days=1)),
            **{name: query.text(name) for name in ("until", "endpoint", "type", "event")},
            "states": query.every("states") or [*NOT_DELIVERED],
        },
        "states": ("dead_letter", "failed", "cancelled", "delivered"),
        "rate": DEFAULT_RATE,
        "errors": errors,
    }
    return Shown(template="operator/replay.html", values=values)


async def start(asked: Asked) -> Moved:
    """Start the job that was counted."""
    try:
        job = await asked.admin.replays.start(
            **_selected(asked, asked.form),
            rate_per_second=asked.form.number("rate") or DEFAULT_RATE,
            actor=asked.access.actor,
        )
    except (NotFound, Refused, Conflict) as error:
        raise problems.conflict(str(error)) from None
    return Moved(to=asked.link("operator.replays.job", tenant_id=job.tenant_id, replay_id=job.replay_id))


def _job(asked: Asked) -> dict[str, Any]:
    return {"tenant_id": asked.path["tenant_id"], "replay_id": asked.path["replay_id"]}


async def show(asked: Asked) -> Shown:
    """Show how far a job has come."""
    return Shown(template="operator/job.html", values={"job": await asked.admin.replays.get(**_job(asked))})


async def cancel(asked: Asked) -> Moved:
    """End a job: what it has not sent yet, it does not send."""
    try:
        await asked.admin.replays.cancel(**_job(asked), actor=asked.access.actor)
    except Conflict as error:
        raise problems.conflict(str(error)) from None
    return Moved(to=asked.link("operator.replays.job", {"done": "stopped"}, **_job(asked)))


PAGES: Final = (
    read(".replays", "/replays", listing),
    read(".replays.new", _NEW, new),
    act(".replays.start", _NEW, start),
    read(".replays.job", _JOB, show),
    act(".replays.cancel", _JOB + "/cancel", cancel),
)
