"""The options that `endpoint add` and `endpoint update` share, and the values that they give."""

from typing import Annotated, Any, Final

import typer

from hookseal.config.settings import Settings
from hookseal.dispatcher.core import endpoint_rules
from hookseal.dispatcher.core.model import OnDeadLetter
from hookseal.errors import Malformed
from hookseal.ground import ids
from hookseal.operations.endpoint import values

NONE: Final = "none"
DEFAULT: Final = "default"
_MOST_DIGITS: Final = 9

Tenant = Annotated[str, typer.Option(help="The tenant of the endpoint.")]
Endpoint = Annotated[str, typer.Option(help="The id of the endpoint.")]
Name = Annotated[str | None, typer.Option(help="A name for people, at most 128 characters.")]
MaxAttempts = Annotated[
    int | None,
    typer.Option(metavar="N", help="Attempts before a dead letter, 1 to 100; replaces the default schedule."),
]
BackoffBase = Annotated[
    int | None,
    typer.Option(metavar="N", help="Wait after the first attempt, 1 to 86400; each later wait is twice as long."),
]
BackoffCap = Annotated[int | None, typer.Option(metavar="N", help="The longest wait between attempts, 1 to 604800.")]
RotateEvery = Annotated[
    str | None,
    typer.Option(
        "--rotate-every", metavar="DAYS", help="Rotate the secret at this age, 1 to 30 days; none: never by itself."
    ),
]

Concurrency = Annotated[
    str | None,
    typer.Option(
        metavar="N",
        help="The most requests in flight, 1 to 1000, over all workers; none: HOOKSEAL_ENDPOINT_CONCURRENCY.",
    ),
]
Rate = Annotated[
    str | None,
    typer.Option(metavar="N/s", help="The most requests a second, 1/s to 10000/s, over all workers; none: no limit."),
]


AfterDeadLetter = Annotated[
    OnDeadLetter | None,
    typer.Option(
        "--on-dead-letter",
        metavar="WHAT",
        help="Of an ordered endpoint: a dead letter or a failed delivery stops the others (stop, the default) or not "
        "(skip).",
    ),
]


def decided(
    settings: Settings,
    owner: ids.TenantId,
    *,
    url: str | None,
    event_type: list[str] | None,
    name: str | None,
    timeout_ms: int | None,
) -> dict[str, Any]:
    """Return the values of the given options by the names of their fields, each event type once.

    Raises `Malformed` and `Refused`.
    """
    given = {"timeout_ms": timeout_ms, "url": url, "event_types": event_type or None, "name": name}
    return values.checked(settings.egress, owner, {name: value for name, value in given.items() if value is not None})


def rotation_period(text: str | None) -> dict[str, Any]:
    """Return the period of rotation in days by the name of its field: None for `none`, no field if not given.

    Raises `Malformed`.
    """
    if text is None:
        return {}
    if text == NONE:
        return {"rotate_every_days": None}
    return {"rotate_every_days": endpoint_rules.rotate_every_days(_number(text))}


def limits(concurrency: str | None, rate: str | None) -> dict[str, Any]:
    """Return the given limits of the lane by the names of their fields: None for `none`, no field if not given.

    Raises `Malformed`.
    """
    given: dict[str, Any] = {}
    if concurrency is not None:
        given["concurrency"] = None if concurrency == NONE else endpoint_rules.concurrency(_number(concurrency))
    if rate is not None:
        given["rate"] = None if rate == NONE else endpoint_rules.rate(rate)
    return given


def order(*, ordered: bool, on_dead_letter: OnDeadLetter | None) -> dict[str, Any]:
    """Return what a new endpoint is to have of order, by the names of the fields.

    Raises `Malformed` if `on_dead_letter` is given for an endpoint that is not ordered.
    """
    endpoint_rules.require_order(ordered=ordered, on_dead_letter=on_dead_letter)
    return {"ordered": ordered} | ({} if on_dead_letter is None else {"on_dead_letter": on_dead_letter})


def _number(text: str) -> int:
    """Return a whole number, 0 if it is none: that is out of every range here."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else 0


def pace(
    backoff: tuple[int | None, int | None, int | None], schedule: str | None, rotate_every_days: str | None
) -> dict[str, Any]:
    """Return the given retry settings (`backoff`: attempts, base, cap) and the given period of rotation.

    Raises `Malformed`.
    """
    attempts, base, cap = backoff
    return retries(max_attempts=attempts, base=base, cap=cap, schedule=schedule) | rotation_period(rotate_every_days)


def retries(*, max_attempts: int | None, base: int | None, cap: int | None, schedule: str | None) -> dict[str, Any]:
    """Return the given retry settings by the names of their fields.

    Raises `Malformed` for a value out of its limits, and for a schedule together with the options that it replaces.
    """
    backoff = {"max_attempts": max_attempts, "backoff_base_seconds": base, "backoff_cap_seconds": cap}
    given: dict[str, Any] = {name: value for name, value in backoff.items() if value is not None}
    if schedule == DEFAULT:
        schedule = ",".join(f"{seconds}s" for seconds in endpoint_rules.DEFAULT_RETRY_SCHEDULE)
    if schedule not in {None, NONE} and given:
        raise Malformed(
            "--retry-schedule replaces --max-attempts, --backoff-base-seconds and --backoff-cap-seconds: "
            "give it without them",
            field="retry_schedule",
        )
    if schedule is not None:
        given["retry_schedule"] = None if schedule == NONE else endpoint_rules.retry_schedule(schedule)
    return values.retries(given)
