"""The settings of an endpoint that Svix does not have: its order, its retries, its limits, and how it signs."""

from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from msgspec import UNSET, UnsetType, defstruct

from hookseal.api.call import OWN, Asked, Call, In, NoQuery, Once, Out, manage, read
from hookseal.api.calls.endpoints import NAMES, EndpointIn, EndpointOut, added_with, by_id, found_id
from hookseal.api.forms import form, shown_as
from hookseal.dispatcher.core.endpoint_settings import SETTINGS
from hookseal.ground.wire import Algorithm, Scheme

_ALL: Final = OWN + "/endpoint"
_ONE: Final = _ALL + "/{endpoint_id}/settings"
# Those of Svix's own dialect are members of its endpoint, and the rate of requests has the name that it has there.
_SVIX: Final = frozenset({"uid", "description", "metadata", "channels"})
_RATE: Final = "throttle_rate"
_OWN: Final = {_RATE if name == "rate" else name: name for name in SETTINGS if name not in _SVIX}


def _members(*, new: bool) -> list[tuple[str, Any, Any]]:
    """Return the members of a request that sets what Svix does not have, or changes it."""
    listed = list[tuple[str, Any, Any]]()
    for member, name in _OWN.items():
        if new and member != _RATE:  # which Svix's own endpoint has
            listed.append((member, form(name) | None, None))
        elif not new and SETTINGS[name].fixed is None:
            nothing = None if SETTINGS[name].removable else UnsetType
            listed.append((member, form(name) | UnsetType | nothing, UNSET))
    return listed


SettingsIn: Any = defstruct(
    "SettingsIn",
    [*_members(new=True), ("scheme", Scheme | None, None), ("algorithm", Algorithm | None, None)],
    bases=(EndpointIn,),
    kw_only=True,
    module=__name__,
    namespace={
        "__doc__": "A new endpoint, with settings that Svix does not have. What is left out gets its default.",
    },
)
SettingsPatch: Any = defstruct(
    "SettingsPatch",
    _members(new=False),
    bases=(In,),
    module=__name__,
    namespace={"__doc__": "What to change of the settings; null removes a limit, a schedule or a period."},
)
_STATE: Final = (
    *(("attempts_allowed", int), ("scheme", str), ("algorithm", str), ("state", str), ("disabled_reason", str | None)),
    *(("failing_since", datetime | None), ("stopped_by", str | None)),
    *(("pending_deliveries", int), ("waiting_deliveries", int)),
)
SettingsOut: Any = defstruct(
    "SettingsOut",
    [*((member, shown_as(name)) for member, name in _OWN.items()), *_STATE],
    bases=(Out,),
    module=__name__,
    namespace={
        "__doc__": "The settings of an endpoint, and its state.\n\n"
        "`retrySchedule`, in seconds, replaces `maxAttempts` and the back-off; `attemptsAllowed` is what follows from "
        "them. `state` is disabled, held, stopped, failing or healthy, and `stoppedBy` the delivery that stops an "
        "ordered endpoint.",
    },
)


async def get(asked: Asked[NoQuery, None]) -> Any:
    """Return the settings of an endpoint that Svix does not have, and its state."""
    return await _found(asked, await found_id(asked))


async def patch(asked: Asked[NoQuery, Any]) -> Any:
    """Change what is given of the settings of an endpoint."""
    body, endpoint_id = asked.body, await found_id(asked)
    given = {_OWN[member]: getattr(body, member) for member in body.__struct_fields__}
    given = {name: value for name, value in given.items() if value is not UNSET}
    if given:
        await asked.admin.endpoints.update(
            tenant_id=asked.tenant, endpoint_id=endpoint_id, actor=asked.access.actor, **given
        )
    return await _found(asked, endpoint_id)


async def create(asked: Asked[NoQuery, Any]) -> EndpointOut:
    """Add an endpoint with settings that Svix does not have: only a new one may be ordered, or choose how it signs."""
    body = asked.body
    own = {*_OWN, "scheme", "algorithm"} - {_RATE}
    given = {name: getattr(body, name) for name in own if getattr(body, name) is not None}
    return await added_with(asked, body, uid=body.uid, headers=body.headers, secret=body.secret, **given)


async def _found(asked: Asked[NoQuery, Any], endpoint_id: str) -> Any:
    endpoint = asdict(await asked.admin.endpoints.get(tenant_id=asked.tenant, endpoint_id=endpoint_id))
    members = {**_OWN, **{name: name for name, _ in _STATE}}
    return SettingsOut(**{member: endpoint[name] for member, name in members.items()})


CALLS: Final[tuple[Call, ...]] = (
    read("hookseal.settings.get", _ONE, get, result=SettingsOut),
    manage("hookseal.settings.patch", "PATCH", _ONE, patch, body=SettingsPatch, result=SettingsOut, names=NAMES),
    manage(
        *("hookseal.endpoint.create", "POST", _ALL, create),
        body=SettingsIn,
        result=EndpointOut,
        status=201,
        once=Once(result_id="id", again=by_id),
        names=NAMES,
    ),
)
