"""The options that `endpoint add` and `endpoint update` share, and what their values mean."""

from typing import Annotated, Any, Final

import typer

from hookseal.config.settings import Settings
from hookseal.dispatcher import endpoint_rules
from hookseal.dispatcher.address import AddressRules
from hookseal.dispatcher.url import endpoint_url
from hookseal.ground import ids
from hookseal.ground.errors import Malformed

NONE: Final = "none"
_MOST_DIGITS: Final = 9

Tenant = Annotated[str, typer.Option(help="Whose endpoint it is.")]
Endpoint = Annotated[str, typer.Option(help="The endpoint id.")]
Name = Annotated[str | None, typer.Option(help="A name for people, at most 128 characters.")]
MaxAttempts = Annotated[int | None, typer.Option(metavar="N", help="Attempts before the dead letter, 1 to 100 (10).")]
BackoffBase = Annotated[
    int | None, typer.Option(metavar="N", help="Wait after the first attempt, then doubled, 1 to 86400 (30).")
]
BackoffCap = Annotated[int | None, typer.Option(metavar="N", help="The longest wait between two, 1 to 604800 (43200).")]
RotateEvery = Annotated[
    str | None,
    typer.Option(
        "--rotate-every", metavar="DAYS", help="Rotate the secret when it is so old, 1 to 30 days; none: not by itself."
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
    """Return what was given, by the names of the fields, each subscription once. Raises `Malformed`, `Refused`."""
    given = {
        "timeout_ms": None if timeout_ms is None else endpoint_rules.timeout_ms(timeout_ms),
        "url": None if url is None else _url(settings, owner, url),
        "event_types": tuple(dict.fromkeys(map(ids.subscription, event_type or []))) or None,
        "name": endpoint_rules.endpoint_name(name),
    }
    return {field: value for field, value in given.items() if value is not None}


def _url(settings: Settings, owner: ids.TenantId, given: str) -> str:
    allowed = AddressRules(settings.egress.allow).networks_for(owner)
    return endpoint_url(given, allow_http=settings.egress.allow_http, allowed=allowed)


def rotation_period(text: str | None) -> dict[str, Any]:
    """Return after how many days the secret is rotated, by the name of its field; None for `none`, no field for None.

    Raises `Malformed`.
    """
    if text is None:
        return {}
    if text == NONE:
        return {"rotate_every_days": None}
    days = int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else 0
    return {"rotate_every_days": endpoint_rules.rotate_every_days(days)}


def pace(
    backoff: tuple[int | None, int | None, int | None], schedule: str | None, rotate_every_days: str | None
) -> dict[str, Any]:
    """Return retry settings (`backoff` is attempts, base and cap) and the period of rotation that were given.

    Raises `Malformed`.
    """
    attempts, base, cap = backoff
    return retries(max_attempts=attempts, base=base, cap=cap, schedule=schedule) | rotation_period(rotate_every_days)


def retries(*, max_attempts: int | None, base: int | None, cap: int | None, schedule: str | None) -> dict[str, Any]:
    """Return those retry settings that were given, by the names of their fields.

    Raises `Malformed` for a value out of its limits, and for a schedule beside what it stands in place of.
    """
    backoff = {
        "max_attempts": None if max_attempts is None else endpoint_rules.max_attempts(max_attempts),
        "backoff_base_seconds": None if base is None else endpoint_rules.backoff_base_seconds(base),
        "backoff_cap_seconds": None if cap is None else endpoint_rules.backoff_cap_seconds(cap),
    }
    given: dict[str, Any] = {name: value for name, value in backoff.items() if value is not None}
    if schedule is None:
        return given
    if schedule == NONE:
        return given | {"retry_schedule": None}
    if given:
        raise Malformed(
            "--retry-schedule stands in place of --max-attempts, --backoff-base-seconds and --backoff-cap-seconds: "
            "give it alone",
            field="retry_schedule",
        )
    return {"retry_schedule": endpoint_rules.retry_schedule(schedule)}
