"""What an operator may decide about an endpoint: each value with its limits, those of the table. Pure."""

import re
from typing import Final

from hookseal.ground.errors import Malformed, Refused

MAX_NAME_CHARACTERS: Final = 128
MAX_REASON_CHARACTERS: Final = 256
MIN_TIMEOUT_MS: Final = 100
MAX_TIMEOUT_MS: Final = 20_000
RECORDING_SECONDS: Final = 5  # a request must be over and recorded before a worker's drain is
LIVE_SECONDS: Final = 30.0  # a worker that was not heard of for longer is not live
MAX_ATTEMPTS: Final = 100
MAX_BACKOFF_BASE_SECONDS: Final = 86_400
MAX_BACKOFF_CAP_SECONDS: Final = 604_800
MAX_DELAYS: Final = 30
MAX_DELAY_SECONDS: Final = 604_800
MAX_SCHEDULE_SECONDS: Final = 2_592_000
MAX_ROTATE_EVERY_DAYS: Final = 30

_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DELAY: Final = re.compile(r"([0-9]{1,7})([smhd])")


def endpoint_name(text: str | None) -> str | None:
    """Return the name, for people, if it is 1 to 128 printable characters. Raises `Malformed`."""
    return None if text is None else _printable(text, "name", MAX_NAME_CHARACTERS)


def disabled_reason(text: str) -> str:
    """Return why an endpoint is disabled, if it is 1 to 256 printable characters. Raises `Malformed`."""
    return _printable(text, "reason", MAX_REASON_CHARACTERS)


def timeout_ms(value: int) -> int:
    """Return how long one request may take, if it is 100 to 20,000 ms. Raises `Malformed`."""
    if not MIN_TIMEOUT_MS <= value <= MAX_TIMEOUT_MS:
        raise Malformed(f"time-out must be {MIN_TIMEOUT_MS} to {MAX_TIMEOUT_MS} ms", field="timeout_ms")
    return value


def require_drainable(value: int, drain_seconds: int) -> None:
    """Return only if a request of so many ms ends, and is recorded, within a worker's drain. Raises `Refused`."""
    longest = (drain_seconds - RECORDING_SECONDS) * 1000
    if value > longest:
        raise Refused(
            f"time-out must be at most {longest} ms, 5 s less than HOOKSEAL_DRAIN_SECONDS: raise that first",
            field="timeout_ms",
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


def retry_schedule(text: str) -> tuple[int, ...]:
    """Return the seconds between attempts that `5s,5m,2h` spells, with the units s, m, h and d.

    Raises `Malformed` unless they are 1 to 30 delays of 1 s to 7 d, of 30 d in all.
    """
    delays = tuple(map(_delay, text.split(",")))
    if len(delays) > MAX_DELAYS or sum(delays) > MAX_SCHEDULE_SECONDS:
        raise _no_schedule()
    return delays


def _delay(text: str) -> int:
    found = _DELAY.fullmatch(text.strip())
    if found is None:
        raise _no_schedule()
    seconds = int(found[1]) * _SECONDS[found[2]]
    if not 1 <= seconds <= MAX_DELAY_SECONDS:
        raise _no_schedule()
    return seconds


def _no_schedule() -> Malformed:
    return Malformed(
        f"retry schedule must be 1 to {MAX_DELAYS} delays as in 5s,5m,2h (units s, m, h, d), "
        "each 1 s to 7 d, of 30 d in all",
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
