"""The values that an operator may set for an endpoint, with their limits, which the table also checks. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from hookseal.dispatcher.core.model import OnDeadLetter
from hookseal.errors import Malformed, Refused
from hookseal.ground import durations

MAX_NAME_CHARACTERS: Final = 128
MAX_UID_CHARACTERS: Final = 256
MAX_DESCRIPTION_CHARACTERS: Final = 1_024
MAX_METADATA: Final = 50
MAX_METADATA_KEY_CHARACTERS: Final = 128
MAX_METADATA_BYTES: Final = 4_096  # of all keys and values, in UTF-8
MAX_REASON_CHARACTERS: Final = 256
NO_REASON: Final = "disabled by an operator"  # of somebody who disables an endpoint and does not say why
MIN_TIMEOUT_MS: Final = 100
MAX_TIMEOUT_MS: Final = 20_000
RECORDING_SECONDS: Final = 5  # a request must end, and its outcome be recorded, before the drain of a worker ends
LIVE_SECONDS: Final = 30.0  # a worker whose last heartbeat is older is not live
HELD_DAYS: Final = 7  # the default of HOOKSEAL_HELD_DAYS, which only the workers know
MAX_ATTEMPTS: Final = 100
MAX_BACKOFF_BASE_SECONDS: Final = 86_400
MAX_BACKOFF_CAP_SECONDS: Final = 604_800
MAX_DELAYS: Final = 30
MAX_DELAY_SECONDS: Final = 604_800
MAX_SCHEDULE_SECONDS: Final = 2_592_000
MAX_ROTATE_EVERY_DAYS: Final = 30
# About three days, so that a receiver which is down over a weekend still gets its deliveries. The table has the same.
DEFAULT_RETRY_SCHEDULE: Final = (5, 30, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
DEFAULT_BACKOFF: Final = {"max_attempts": 10, "backoff_base_seconds": 30, "backoff_cap_seconds": 43_200}
MAX_CONCURRENCY: Final = 1_000
MAX_RATE: Final = 10_000

_RATE: Final = re.compile(r"([0-9]{1,5})/s")
UID_FORM: Final = r"(?!\.{1,2}\Z)[A-Za-z0-9_.-]+"
_UID: Final = re.compile(UID_FORM)
_LINE_BREAKS: Final = frozenset("\n\r\t")


def endpoint_name(text: str | None) -> str | None:
    """Return the name if it has 1 to 128 printable characters. Raises `Malformed`."""
    return None if text is None else _printable(text, "name", MAX_NAME_CHARACTERS)


def endpoint_uid(text: str) -> str:
    """Return the id of the product's own if it has 1 to 256 characters of its grammar. Raises `Malformed`.

    In a path `.` and `..` are steps that a client takes by itself: the call for what it deletes would be another one.
    """
    if len(text) > MAX_UID_CHARACTERS or not _UID.fullmatch(text):
        raise Malformed(
            f"uid must be 1 to {MAX_UID_CHARACTERS} characters of A-Z, a-z, 0-9, '.', '_' and '-', not '.' or '..'",
            field="uid",
        )
    return text


def description(text: str) -> str:
    """Return the description if it has at most 1,024 characters, which may be of several lines. Raises `Malformed`."""
    if len(text) > MAX_DESCRIPTION_CHARACTERS or not all(c.isprintable() or c in _LINE_BREAKS for c in text):
        raise Malformed(
            f"description must be at most {MAX_DESCRIPTION_CHARACTERS} printable characters and line breaks",
            field="description",
        )
    return text


def metadata(values: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata if it has at most 50 keys of 1 to 128 characters, and 4,096 bytes in all.

    Raises `Malformed`, which never contains any of it.
    """
    try:
        size = sum(len(text.encode()) for pair in values.items() for text in pair)
    except UnicodeEncodeError:
        raise Malformed("metadata must be text in UTF-8", field="metadata") from None
    if any("\0" in text for pair in values.items() for text in pair):
        raise Malformed("metadata must not contain the character U+0000", field="metadata")
    if len(values) > MAX_METADATA or size > MAX_METADATA_BYTES:
        raise Malformed(
            f"metadata must have at most {MAX_METADATA} keys, and {MAX_METADATA_BYTES} bytes of keys and values in all",
            field="metadata",
        )
    if not all(1 <= len(key) <= MAX_METADATA_KEY_CHARACTERS for key in values):
        raise Malformed(f"a key of metadata must have 1 to {MAX_METADATA_KEY_CHARACTERS} characters", field="metadata")
    return dict(values)


def label(text: str) -> str:
    """Return the name of a tenant if it has 1 to 256 printable characters. Raises `Malformed`."""
    return _printable(text, "name", MAX_REASON_CHARACTERS)


def disabled_reason(text: str) -> str:
    """Return the reason for disabling an endpoint if it has 1 to 256 printable characters. Raises `Malformed`."""
    return _printable(text, "reason", MAX_REASON_CHARACTERS)


def timeout_ms(value: int) -> int:
    """Return the time-out of one request if it is 100 to 20,000 ms. Raises `Malformed`."""
    if not MIN_TIMEOUT_MS <= value <= MAX_TIMEOUT_MS:
        raise Malformed(f"time-out must be {MIN_TIMEOUT_MS} to {MAX_TIMEOUT_MS} ms", field="timeout_ms")
    return value


def require_drainable(value: int, drain_seconds: int) -> None:
    """Raise `Refused` if a request of `value` ms cannot end and be recorded within the drain of a worker."""
    longest = (drain_seconds - RECORDING_SECONDS) * 1000
    if value > longest:
        raise Refused(
            f"time-out must be at most {longest} ms",
            field="timeout_ms",
            advice="5 s less than HOOKSEAL_DRAIN_SECONDS: raise that first",
            joint=", ",
        )


def max_attempts(value: int) -> int:
    """Return how many attempts a delivery may spend, if that is 1 to 100. Raises `Malformed`."""
    return _within(value, 1, MAX_ATTEMPTS, "max_attempts")


def backoff_base_seconds(value: int) -> int:
    """Return the wait after the first attempt, if it is 1 to 86,400 s. Raises `Malformed`."""
    return _within(value, 1, MAX_BACKOFF_BASE_SECONDS, "backoff_base_seconds")


def backoff_cap_seconds(value: int) -> int:
    """Return the longest wait between attempts, if it is 1 to 604,800 s. Raises `Malformed`."""
    return _within(value, 1, MAX_BACKOFF_CAP_SECONDS, "backoff_cap_seconds")


def rotate_every_days(value: int) -> int:
    """Return after how many days the secret is rotated, if that is 1 to 30. Raises `Malformed`."""
    return _within(value, 1, MAX_ROTATE_EVERY_DAYS, "rotate_every_days")


def concurrency(value: int) -> int:
    """Return the most requests in flight, if that is 1 to 1,000. Raises `Malformed`."""
    return _within(value, 1, MAX_CONCURRENCY, "concurrency")


def rate(text: str) -> int:
    """Return the most requests a second from a text such as `50/s`, if that is 1 to 10,000. Raises `Malformed`."""
    match = _RATE.fullmatch(text.strip())
    if match is None or not 1 <= int(match[1]) <= MAX_RATE:
        raise Malformed(f"rate must be 1/s to {MAX_RATE}/s, as in 50/s", field="rate")
    return int(match[1])


def requests_a_second(value: int) -> int:
    """Return the most requests a second, if that is 1 to 10,000. Raises `Malformed`."""
    return _within(value, 1, MAX_RATE, "rate")


def on_dead_letter(text: str) -> OnDeadLetter:
    """Return what a dead letter does to the line of its endpoint. Raises `Malformed` unless it is stop or skip."""
    try:
        return OnDeadLetter(text)
    except ValueError:
        raise Malformed(f"on_dead_letter must be {' or '.join(OnDeadLetter)}", field="on_dead_letter") from None


def order_stays() -> Refused:
    """Return the error for a change of `ordered`."""
    return Refused(
        "an endpoint is ordered from its first delivery on, or never: add another endpoint with --ordered, "
        "and delete this one",
        field="ordered",
    )


def require_order(*, ordered: bool, on_dead_letter: object) -> None:
    """Raise `Malformed` if `on_dead_letter` is given for an endpoint that is not ordered."""
    if on_dead_letter is not None and not ordered:
        raise Malformed("on_dead_letter is only for an endpoint that is ordered", field="on_dead_letter")


def retry_schedule(text: str) -> tuple[int, ...]:
    """Return the seconds between attempts from a text such as `5s,5m,2h`, with the units s, m, h and d.

    Raises `Malformed` unless there are 1 to 30 delays of 1 s to 7 d, and at most 30 d in all.
    """
    return retry_delays(tuple(map(_delay, text.split(","))))


def retry_delays(seconds: Sequence[int]) -> tuple[int, ...]:
    """Return the seconds between attempts, if there are 1 to 30 of 1 s to 7 d each, and at most 30 d in all.

    Raises `Malformed`.
    """
    delays = tuple(seconds)
    is_schedule = 1 <= len(delays) <= MAX_DELAYS and sum(delays) <= MAX_SCHEDULE_SECONDS
    if not is_schedule or not all(1 <= delay <= MAX_DELAY_SECONDS for delay in delays):
        raise _no_schedule()
    return delays


def _delay(text: str) -> int:
    delay = durations.whole(text.strip(), "s", needs_unit=True)
    if delay is None:
        raise _no_schedule()
    return delay


def _no_schedule() -> Malformed:
    return Malformed(
        f"retry schedule must be 1 to {MAX_DELAYS} delays as in 5s,5m,2h (units s, m, h, d), "
        "each 1 s to 7 d, at most 30 d in all",
        field="retry_schedule",
    )


def _within(value: int, least: int, most: int, field: str) -> int:
    if not least <= value <= most:
        raise Malformed(f"{field.replace('_', ' ')} must be {least} to {most}", field=field)
    return value


def _printable(text: str, field: str, most: int) -> str:
    if not (0 < len(text) <= most and text.isprintable()):
        raise Malformed(f"{field} must be 1 to {most} printable characters", field=field)
    return text
