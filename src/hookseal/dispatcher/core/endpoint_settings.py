"""The settings of an endpoint. Each is declared once, and everything else derives from `EndpointSettings`. Pure.

These are made from it: the arguments of `Admin.endpoints`, the columns that are written and read, the options of
`endpoint add` and `update`, the columns of an import, the settings that the HTTP API takes and shows, and what the
audit log says of a new endpoint. A new setting needs its column in a migration, a field here, and the same field in
`EndpointDetails`, which types what an `Admin` returns.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Final, Literal, TypedDict, Union, cast, get_args, get_origin, get_type_hints

from hookseal.dispatcher.core import endpoint_rules as rules
from hookseal.dispatcher.core.model import OnDeadLetter
from hookseal.errors import Malformed, Refused
from hookseal.ground import durations, ids
from hookseal.ground.literals import OnDeadLetterName

DEFAULT: Final = "default"
_MOST_DIGITS: Final = 9


def _number(text: str) -> int:
    """Return a whole number, 0 if it is none: that is out of every range here."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else 0


def _waits(text: str) -> tuple[int, ...]:
    return rules.DEFAULT_RETRY_SCHEDULE if text == DEFAULT else rules.retry_schedule(text)


def _duration(unit: Literal["ms", "s", "d"], name: str) -> Callable[[str], int]:
    return lambda text: durations.given(text, unit, name)


def _whole(least: int, most: int) -> Mapping[str, Any]:
    return {"minimum": least, "maximum": most}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a setting has besides its name and type.

    `check` returns the value to store, or raises `Malformed` with the field. A `removable` one may be None, which
    stores no value. `fixed` makes the error for a change, if it is chosen when the endpoint is added. `schema` is what
    its JSON schema says besides the type. `unit` completes "must be a whole number".

    The others are of its option: `option` is its name if it is spelled otherwise, `add` and `update` are its help,
    `remove` that of the option which removes it, and `new` the default of `add`, as a text. `read` makes the value of a
    text; without it the text, the number or the list is the value.
    """

    check: Callable[[Any], Any]
    default: Any = None
    removable: bool = False
    fixed: Callable[[], Refused] | None = None
    schema: Mapping[str, Any] = field(default_factory=dict)
    schema_of_items: Mapping[str, Any] = field(default_factory=dict)
    option: str | None = None
    metavar: str | None = None
    add: str
    update: str | None = None
    remove: str | None = None
    new: str | None = None
    read: Callable[[str], Any] | None = None
    unit: str = ""


class EndpointSettings(TypedDict, total=False):
    """What may be set of an endpoint, in the order in which it is shown.

    `uid` is an id of your own, 1 to 256 characters of A-Z, a-z, 0-9, `.`, `_` and `-`, which no other endpoint of the
    tenant has; that of a deleted one is free again. Nothing that is sent depends on `name` (128 characters),
    `description` (1,024) and `metadata` (50 keys of 1 to 128 characters, 4,096 bytes in all). With `channels`, up to 10
    names of 1 to 128 characters, it gets only events that share one. `timeout_ms` (100 to 20,000, by default 5,000)
    limits each request. `retry_schedule` has the seconds between the attempts, by default 5, 30, 300, 1,800, 7,200,
    18,000, 36,000, 50,400, 72,000 and 86,400: eleven attempts in about three days. None leaves them to `max_attempts`,
    `backoff_base_seconds` and `backoff_cap_seconds` (by default 10, 30 and 43,200), and so does giving one of these.
    `concurrency` limits the requests in flight, by default as `HOOKSEAL_ENDPOINT_CONCURRENCY` does, and `rate` those
    that begin in a second, by default not at all, over all workers. If it is `ordered`, which cannot be changed later,
    one delivery is sent at a time, in the order of publishing; `on_dead_letter` says whether one that is given up stops
    the others (`stop`, the default) or not (`skip`). The secret is rotated every `rotate_every_days` (1 to 30), by
    default never.
    """

    name: Annotated[
        str | None,
        Setting(
            check=rules.endpoint_name,
            schema={"minLength": 1, "maxLength": rules.MAX_NAME_CHARACTERS},
            add=f"A name for people, at most {rules.MAX_NAME_CHARACTERS} characters.",
        ),
    ]
    uid: Annotated[
        str | None,
        Setting(
            check=rules.endpoint_uid,
            removable=True,
            add="An id of your own: 1 to 256 of A-Z, a-z, 0-9, '.', '_' and '-', of one endpoint of the tenant.",
            remove="Leave it without an id of your own.",
        ),
    ]
    description: Annotated[
        str,
        Setting(
            check=rules.description,
            default="",
            schema={"maxLength": rules.MAX_DESCRIPTION_CHARACTERS},
            add=f"A text for people, at most {rules.MAX_DESCRIPTION_CHARACTERS} characters; '' is none.",
        ),
    ]
    metadata: Annotated[
        Mapping[str, str],
        Setting(
            check=rules.metadata,
            default=MappingProxyType({}),
            metavar="KEY=VALUE",
            add="What your product keeps with it: up to 50 keys, 4096 bytes in all. Repeatable.",
            update="What your product keeps with it, in place of all that there is. Repeatable.",
            remove="Remove all that your product keeps with it.",
        ),
    ]
    channels: Annotated[
        Sequence[str],
        Setting(
            check=ids.channels,
            default=(),
            option="--channel",
            metavar="CHANNEL",
            add="It gets only events with one of its channels, up to 10. Repeatable.",
            update="It gets only events with one of these channels, in place of all that it has. Repeatable.",
            remove="It gets events whatever their channels are.",
        ),
    ]
    timeout_ms: Annotated[
        int,
        Setting(
            check=rules.timeout_ms,
            default=5_000,
            schema=_whole(rules.MIN_TIMEOUT_MS, rules.MAX_TIMEOUT_MS),
            option="--timeout",
            metavar="DURATION",
            add="The limit for one request, 100ms to 20s. A number without a unit has milliseconds.",
            new="5s",
            read=_duration("ms", "timeout_ms"),
        ),
    ]
    max_attempts: Annotated[
        int,
        Setting(
            check=rules.max_attempts,
            default=rules.DEFAULT_BACKOFF["max_attempts"],
            schema=_whole(1, rules.MAX_ATTEMPTS),
            metavar="N",
            add="Attempts before a dead letter, 1 to 100; replaces the default schedule.",
        ),
    ]
    backoff_base_seconds: Annotated[
        int,
        Setting(
            check=rules.backoff_base_seconds,
            default=rules.DEFAULT_BACKOFF["backoff_base_seconds"],
            schema=_whole(1, rules.MAX_BACKOFF_BASE_SECONDS),
            option="--backoff-base",
            metavar="DURATION",
            add="Wait after the first attempt, 1s to 1d; each later wait is twice as long.",
            read=_duration("s", "backoff_base_seconds"),
        ),
    ]
    backoff_cap_seconds: Annotated[
        int,
        Setting(
            check=rules.backoff_cap_seconds,
            default=rules.DEFAULT_BACKOFF["backoff_cap_seconds"],
            schema=_whole(1, rules.MAX_BACKOFF_CAP_SECONDS),
            option="--backoff-cap",
            metavar="DURATION",
            add="The longest wait between attempts, 1s to 7d.",
            read=_duration("s", "backoff_cap_seconds"),
        ),
    ]
    retry_schedule: Annotated[
        Sequence[int] | None,
        Setting(
            check=rules.retry_delays,
            default=rules.DEFAULT_RETRY_SCHEDULE,
            removable=True,
            schema={"minItems": 1, "maxItems": rules.MAX_DELAYS},
            schema_of_items=_whole(1, rules.MAX_DELAY_SECONDS),
            add="The waits between attempts: 5s,5m,2h; default: ten waits, about three days in all.",
            update="The waits between attempts: 5s,5m,2h; none: use --max-attempts and the two back-off options; "
            "default: the default schedule.",
            read=_waits,
            unit=" of seconds for each wait, as in [5, 300]",
        ),
    ]
    concurrency: Annotated[
        int | None,
        Setting(
            check=rules.concurrency,
            removable=True,
            schema=_whole(1, rules.MAX_CONCURRENCY),
            metavar="N",
            add="The most requests in flight, 1 to 1000, over all workers; none: HOOKSEAL_ENDPOINT_CONCURRENCY.",
            read=_number,
        ),
    ]
    rate: Annotated[
        int | None,
        Setting(
            check=rules.requests_a_second,
            removable=True,
            schema=_whole(1, rules.MAX_RATE),
            metavar="N/s",
            add="The most requests a second, 1/s to 10000/s, over all workers; none: no limit.",
            read=rules.rate,
            unit=" of requests a second, as in 50",
        ),
    ]
    ordered: Annotated[
        bool,
        Setting(
            check=bool,
            default=False,
            fixed=rules.order_stays,
            add="Send its deliveries one after another, in the order of publishing. Cannot be changed later.",
            update="Refused: an endpoint is ordered when it is added, or never.",
        ),
    ]
    on_dead_letter: Annotated[
        OnDeadLetter | OnDeadLetterName,
        Setting(
            check=rules.on_dead_letter,
            default=OnDeadLetter.STOP,
            metavar="WHAT",
            add="Of an ordered endpoint: a dead letter or a failed delivery stops the others (stop, the default) "
            "or not (skip).",
        ),
    ]
    rotate_every_days: Annotated[
        int | None,
        Setting(
            check=rules.rotate_every_days,
            removable=True,
            schema=_whole(1, rules.MAX_ROTATE_EVERY_DAYS),
            option="--rotate-every",
            metavar="DURATION",
            add="Rotate the secret at this age, 1d to 30d; none: never by itself.",
            read=_duration("d", "rotate_every_days"),
        ),
    ]


_DECLARED: Final = {
    name: get_args(kind) for name, kind in get_type_hints(EndpointSettings, include_extras=True).items()
}
SETTINGS: Final[Mapping[str, Setting]] = MappingProxyType({name: setting for name, (_, setting) in _DECLARED.items()})
TYPES: Final[Mapping[str, Any]] = MappingProxyType({name: kind for name, (kind, _) in _DECLARED.items()})
COLUMNS: Final = ", ".join(SETTINGS)
CHANGEABLE: Final = ", ".join(name for name, setting in SETTINGS.items() if setting.fixed is None)


def kind(name: str) -> type:
    """Return what the values of a setting are: `str`, `int`, `bool`, `OnDeadLetter`, `Sequence` or `Mapping`."""
    one = TYPES[name]
    if get_origin(one) in {Union, UnionType}:
        one = get_args(one)[0]
    found: type = get_origin(one) or one
    return found


def kind_of_items(name: str) -> type:
    """Return what a setting is a sequence of: `str` or `int`."""
    one = TYPES[name]
    found: type = get_args(get_args(one)[0] if get_origin(one) in {Union, UnionType} else one)[0]
    return found


def complete(given: EndpointSettings) -> dict[str, Any]:
    """Return all settings of a new endpoint: those given, and the defaults of the others.

    One of back-off replaces the default schedule.
    """
    found: dict[str, Any] = {**{name: setting.default for name, setting in SETTINGS.items()}, **given}
    if replaces_schedule(found["retry_schedule"], given):
        found["retry_schedule"] = None
    return found


def replaces_schedule(schedule: Sequence[int] | None, given: Mapping[str, Any]) -> bool:
    """Return whether a setting of back-off is given, and so replaces the schedule, which is the default one."""
    return schedule == rules.DEFAULT_RETRY_SCHEDULE and not rules.DEFAULT_BACKOFF.keys().isdisjoint(given)


def within_rules(given: Mapping[str, Any]) -> EndpointSettings:
    """Return the values to store. Raises `Malformed` with the field, also for a schedule with what it replaces."""
    values = {
        name: None if value is None and SETTINGS[name].removable else SETTINGS[name].check(value)
        for name, value in given.items()
    }
    if values.get("retry_schedule") is not None and not rules.DEFAULT_BACKOFF.keys().isdisjoint(values):
        raise Malformed(
            "retry_schedule replaces max_attempts, backoff_base_seconds and backoff_cap_seconds: give it without them",
            field="retry_schedule",
        )
    return cast("EndpointSettings", values)
