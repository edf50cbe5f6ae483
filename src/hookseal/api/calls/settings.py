"""The settings of an endpoint that Svix does not have: its order, its retries, its limits, and how it signs."""

from datetime import datetime
from typing import Final, Literal

from msgspec import UNSET, UnsetType

from hookseal.admin import EndpointDetails
from hookseal.api.call import OWN, Asked, Call, In, NoQuery, Once, Out, manage, read
from hookseal.api.calls.endpoints import NAMES, EndpointIn, EndpointOut, added_with, by_id, found_id
from hookseal.api.forms import (
    BackoffBase,
    BackoffCap,
    Concurrency,
    EndpointName,
    MaxAttempts,
    RetrySchedule,
    RotateEveryDays,
    ThrottleRate,
    TimeoutMs,
)
from hookseal.ground.wire import Algorithm, Scheme

_ALL: Final = OWN + "/endpoint"
_ONE: Final = _ALL + "/{endpoint_id}/settings"
# What a new endpoint may have; the last three stay as they are from then on, except by a rotation.
_SETTINGS: Final = (
    *("name", "timeout_ms", "max_attempts", "backoff_base_seconds", "backoff_cap_seconds", "retry_schedule"),
    *("rotate_every_days", "concurrency", "on_dead_letter", "ordered", "scheme", "algorithm"),
)


class SettingsOut(Out):
    """The settings of an endpoint, and its state.

    `retrySchedule`, in seconds, replaces `maxAttempts` and the back-off; `attemptsAllowed` is what follows from them.
    `state` is disabled, held, stopped, failing or healthy, and `stoppedBy` the delivery that stops an ordered endpoint.
    """

    name: str | None
    timeout_ms: int
    max_attempts: int
    backoff_base_seconds: int
    backoff_cap_seconds: int
    retry_schedule: list[int] | None
    attempts_allowed: int
    rotate_every_days: int | None
    concurrency: int | None
    throttle_rate: int | None
    ordered: bool
    on_dead_letter: str
    scheme: str
    algorithm: str
    state: str
    disabled_reason: str | None
    failing_since: datetime | None
    stopped_by: str | None
    pending_deliveries: int
    waiting_deliveries: int


class SettingsIn(EndpointIn, kw_only=True):
    """A new endpoint, with settings that Svix does not have. What is left out gets its default."""

    name: EndpointName | None = None
    timeout_ms: TimeoutMs | None = None
    max_attempts: MaxAttempts | None = None
    backoff_base_seconds: BackoffBase | None = None
    backoff_cap_seconds: BackoffCap | None = None
    retry_schedule: RetrySchedule | None = None
    rotate_every_days: RotateEveryDays | None = None
    concurrency: Concurrency | None = None
    ordered: bool | None = None
    on_dead_letter: Literal["stop", "skip"] | None = None
    scheme: Scheme | None = None
    algorithm: Algorithm | None = None


class SettingsPatch(In):
    """What to change of the settings; null removes a limit, a schedule or a period."""

    name: EndpointName | UnsetType = UNSET
    timeout_ms: TimeoutMs | UnsetType = UNSET
    max_attempts: MaxAttempts | UnsetType = UNSET
    backoff_base_seconds: BackoffBase | UnsetType = UNSET
    backoff_cap_seconds: BackoffCap | UnsetType = UNSET
    retry_schedule: RetrySchedule | UnsetType | None = UNSET
    rotate_every_days: RotateEveryDays | UnsetType | None = UNSET
    concurrency: Concurrency | UnsetType | None = UNSET
    throttle_rate: ThrottleRate | UnsetType | None = UNSET
    on_dead_letter: Literal["stop", "skip"] | UnsetType = UNSET


def _shown(endpoint: EndpointDetails) -> SettingsOut:
    return SettingsOut(
        name=endpoint.name,
        timeout_ms=endpoint.timeout_ms,
        max_attempts=endpoint.max_attempts,
        backoff_base_seconds=endpoint.backoff_base_seconds,
        backoff_cap_seconds=endpoint.backoff_cap_seconds,
        retry_schedule=None if endpoint.retry_schedule is None else [*endpoint.retry_schedule],
        attempts_allowed=endpoint.attempts_allowed,
        rotate_every_days=endpoint.rotate_every_days,
        concurrency=endpoint.concurrency,
        throttle_rate=endpoint.rate,
        ordered=endpoint.ordered,
        on_dead_letter=endpoint.on_dead_letter,
        scheme=endpoint.scheme,
        algorithm=endpoint.algorithm,
        state=endpoint.state,
        disabled_reason=endpoint.disabled_reason,
        failing_since=endpoint.failing_since,
        stopped_by=endpoint.stopped_by,
        pending_deliveries=endpoint.pending_deliveries,
        waiting_deliveries=endpoint.waiting_deliveries,
    )


async def get(asked: Asked[NoQuery, None]) -> SettingsOut:
    """Return the settings of an endpoint that Svix does not have, and its state."""
    return await _found(asked, await found_id(asked))


async def patch(asked: Asked[NoQuery, SettingsPatch]) -> SettingsOut:
    """Change what is given of the settings of an endpoint."""
    body, endpoint_id = asked.body, await found_id(asked)
    given = {name: getattr(body, name) for name in body.__struct_fields__ if getattr(body, name) is not UNSET}
    if "throttle_rate" in given:
        given["rate"] = given.pop("throttle_rate")
    if given:
        await asked.admin.endpoints.update(
            tenant_id=asked.tenant, endpoint_id=endpoint_id, actor=asked.access.actor, **given
        )
    return await _found(asked, endpoint_id)


async def create(asked: Asked[NoQuery, SettingsIn]) -> EndpointOut:
    """Add an endpoint with settings that Svix does not have: only a new one may be ordered, or choose how it signs."""
    body = asked.body
    given = {name: getattr(body, name) for name in _SETTINGS if getattr(body, name) is not None}
    return await added_with(asked, body, uid=body.uid, headers=body.headers, secret=body.secret, **given)


async def _found(asked: Asked[NoQuery, None] | Asked[NoQuery, SettingsPatch], endpoint_id: str) -> SettingsOut:
    return _shown(await asked.admin.endpoints.get(tenant_id=asked.tenant, endpoint_id=endpoint_id))


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
