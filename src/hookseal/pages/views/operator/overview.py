"""The first page of an operator: how much there is of what needs somebody, and the search for one id."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from hookseal.admin import Found, Overview, TroubleName
from hookseal.errors import Malformed
from hookseal.ground.ids import EVERY_TENANT
from hookseal.pages import words
from hookseal.pages.page import Asked, Links, Moved, Shown, listed, read

_FEW: Final = 10
TENANT: Final = "/tenant/{tenant_id}"
TROUBLES: Final[tuple[TroubleName, ...]] = ("held", "stopped", "failing")
_WAITING: Final = {"endpoint_disabled": "disabled", "secret": "held", "breaker": "held", "order": "stopped"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number of the overview, and where its rows are. `is_most`: so many or more."""

    label: str
    number: int
    to: str
    is_most: bool = False
    more: str = ""


async def overview(asked: Asked) -> Shown:
    """Show what is to be done, how much is due, waits, was given up and runs, whose it is, and endpoints in trouble."""
    status = await asked.admin.status()
    troubled = await asked.admin.endpoints.list(tenant_id=EVERY_TENANT, states=TROUBLES, limit=_FEW)
    values = {
        "must_act": status.must_act,
        "tenants": [(each, _age(each.oldest_seconds)) for each in status.tenants],
        "others": status.other_tenants,
        "most": status.overview.most,
        "figures": figures(status.overview, asked.link),
        "endpoints": troubled.items,
        "are_more": troubled.next_cursor is not None,
        "troubles": TROUBLES,
        "searched": "",
        "errors": {},
    }
    return Shown(template="operator/overview.html", values=values)


def figures(counts: Overview, link: Links) -> dict[str, list[Figure]]:
    """Return the figures of the page by subject."""

    def figure(label: str, number: int, to: str, more: str = "") -> Figure:
        return Figure(label=label, number=number, to=to, is_most=number == counts.most, more=more)

    def deliveries(state: str) -> str:
        return link("operator.deliveries", {"state": state})

    def endpoints(state: str) -> str:
        return link("operator.endpoints", {"state": state})

    oldest = f"the oldest for {_duration(counts.oldest_due_seconds)}" if counts.due else ""
    waiting = [
        figure(
            f"Waiting: {words.OPERATOR_WAITING[reason]}",
            number,
            endpoints(_WAITING[reason]) if reason in _WAITING else deliveries("pending"),
        )
        for reason, number in counts.waiting_for.items()
    ]
    keys = ", ".join(f"{number} {state.replace('_', ' ')}" for state, number in counts.master_keys.items())
    return {
        "Deliveries": [
            figure("Due now", counts.due, deliveries("pending"), oldest),
            figure("Being sent", counts.sending, deliveries("sending")),
            figure("Pending", counts.pending, deliveries("pending")),
            *waiting,
            figure("Dead letters of the last 24 hours", counts.dead_letters_of_day, deliveries("dead_letter")),
            figure("Dead letters", counts.dead_letters, deliveries("dead_letter")),
            figure("Failed for good", counts.failed, deliveries("failed")),
            figure("Replay jobs that run", counts.running_replays, link("operator.replays", {"state": "running"})),
        ],
        "Endpoints": [
            figure("Failing", counts.failing_endpoints, endpoints("failing")),
            figure("Held", counts.held_endpoints, endpoints("held")),
            figure("Stopped", counts.stopped_endpoints, endpoints("stopped")),
            figure("Disabled", counts.disabled_endpoints, endpoints("disabled")),
            figure("Rotations due", counts.rotations_due, endpoints("rotation_due")),
            figure("All", counts.endpoints, link("operator.endpoints")),
        ],
        "Installation": [
            figure("Workers alive", counts.live_workers, link("operator.keys")),
            figure("Master keys", sum(counts.master_keys.values()), link("operator.keys"), keys),
            figure("Tenants", counts.tenants, link("operator.tenants")),
        ],
    }


def _duration(seconds: float) -> str:
    """Return a duration in its largest unit: `40 s`, `12 min`, `5 h`, `3 days`."""
    span = timedelta(seconds=seconds)
    for unit, length in (("days", timedelta(days=1)), ("h", timedelta(hours=1)), ("min", timedelta(minutes=1))):
        if span >= 2 * length:
            return f"{span // length} {unit}"
    return f"{seconds:.0f} s"


def _age(seconds: float | None) -> str:
    return "" if seconds is None else _duration(seconds)


async def search(asked: Asked) -> Shown | Moved:
    """Show what has an id; if that is one delivery, event or tenant, its page follows at once."""
    text = asked.query.text("q")
    errors: dict[str, str] = {}
    found = None
    try:
        if text:
            found = await asked.admin.find(identifier=text)
            if to := _only(found, asked.link):
                return Moved(to=to)
    except Malformed:
        errors = {"q": "An id has 1 to 256 characters that are visible, without spaces."}
    return Shown(
        template="operator/search.html",
        values={"searched": text, "found": found, "errors": errors},
    )


def _only(found: Found, link: Links) -> str | None:
    """Return the address of what was found, None if it is nothing, or more than one."""
    events = [] if found.delivery is not None else found.events
    match found.tenant, found.delivery, events:
        case None, None, [event]:
            return link("operator.event", tenant_id=event.tenant_id, event_id=event.event_id)
        case None, delivery, [] if delivery is not None:
            return link("operator.delivery", tenant_id=delivery.tenant_id, delivery_id=delivery.delivery_id)
        case tenant, None, [] if tenant is not None:
            return link("operator.tenant", tenant_id=tenant.tenant_id)
        case _:
            return None


async def tenants(asked: Asked) -> Shown:
    """Show the tenants, the newest first."""
    values = await listed(asked, lambda limit, cursor: asked.admin.tenants.list(limit=limit, after=cursor))
    return Shown(template="operator/tenants.html", values=values)


async def tenant(asked: Asked) -> Shown:
    """Show a tenant: its endpoints in trouble, its newest deliveries, and what can be looked at of it."""
    tenant_id = asked.path["tenant_id"]
    known = await asked.admin.tenants.get(tenant_id=tenant_id)
    troubled = await asked.admin.endpoints.list(tenant_id=known.tenant_id, states=TROUBLES, limit=_FEW)
    newest = await asked.admin.deliveries.list(tenant_id=known.tenant_id, limit=_FEW)
    values = {
        "tenant": known,
        "endpoints": troubled.items,
        "are_more": troubled.next_cursor is not None,
        "troubles": TROUBLES,
        "deliveries": newest.items,
    }
    return Shown(template="operator/tenant.html", values=values)


async def keys(asked: Asked) -> Shown:
    """Show the master keys, their state, and how many live workers have each."""
    found = await asked.admin.keys.status()
    values = {"keys": found.items, "plaintext": found.plaintext_endpoints}
    return Shown(template="operator/keys.html", values=values)


PAGES: Final = (
    read("", "", overview),
    read(".search", "/search", search),
    read(".tenants", "/tenants", tenants),
    read(".tenant", TENANT, tenant),
    read(".keys", "/keys", keys),
)
