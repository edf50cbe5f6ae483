"""The data of an event: what it may hold, the same in every door, and the path of what it may not.

Data is `dict` with text as keys, `list`, `tuple`, `str`, `int`, `float`, `bool` and `None`. Nothing is converted on the
way: a receiver reads what the producer gave.
"""

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from datetime import date, time
from decimal import Decimal
from enum import Enum
from itertools import accumulate
from typing import Any, Final
from uuid import UUID

import msgspec

from hookseal.ground.errors import Malformed
from hookseal.ground.wire import MAX_BODY_BYTES

MOST_LEVELS: Final = 200  # of what holds something else; receivers stop at a few hundred
_MOST_KEY_CHARACTERS: Final = 64
_MOST_PATH_CHARACTERS: Final = 256
_STEPS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS: Final = bytes(set(range(256)) - _STEPS.keys())
_TEXT: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_PLAIN: Final = "dict, list, tuple, str, int, float, bool or None"
_ADVICE: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    (Decimal, "str(value), or float(value)"),
    ((bytes, bytearray, memoryview), "text, for instance base64.b64encode(value).decode()"),
    ((set, frozenset), "a list, for instance sorted(value)"),
    ((date, time), "value.isoformat()"),
    (UUID, "str(value)"),
    (Enum, "value.value"),
    (msgspec.Struct, "msgspec.to_builtins(value)"),
    (str, "str(value)"),
    (float, "float(value)"),
    (int, "int(value)"),
)


def encoded(data: object) -> str:
    """Return the data as JSON, its keys in their order.

    Raises `Malformed` naming the path of the first value that JSON does not have (`data.items[3].price`) and what to
    give in its place, never the value; and if the text is longer than a body may be.
    """
    try:
        raw = msgspec.json.encode(data)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raw = None
    if raw is not None and len(raw) > MAX_BODY_BYTES:
        raise Malformed(f"body must be at most {MAX_BODY_BYTES} bytes as sent", field="body")
    if raw is None or not _comes_back(raw, data):
        _require_plain(data)
    if raw is None:
        raise _malformed(f"data must be {_PLAIN}, and can be no JSON as it is")
    return raw.decode("utf-8")


def require_json(text: str) -> None:
    """Return only if the text is JSON that holds nothing which `encoded` would refuse.

    Numbers are any that JSON can spell. Raises `Malformed`, naming the path of a value if that is at fault.
    """
    try:
        text.encode("utf-8")  # a lone surrogate is no text
        data = json.loads(text, parse_int=str, parse_float=str)  # but NaN and Infinity, which it takes, are floats
    except ValueError:
        raise _malformed("data must be JSON") from None
    except RecursionError:
        raise _malformed(f"data is nested in more than {MOST_LEVELS} levels") from None
    _require_plain(data)


def _comes_back(raw: bytes, data: object) -> bool:
    """Return whether a reader of the JSON gets what was given.

    So most data needs no look at each value: the encoder turns a NaN into null, a Decimal into text and a set into a
    list, and none of these equals what it was made of. A tuple does not either, and is looked at.
    """
    # Only JSON of so many brackets can be nested too deeply. Counting its levels is cheaper than a look at each value.
    if raw.count(b"[") + raw.count(b"{") > MOST_LEVELS and _levels(raw) > MOST_LEVELS:
        return False
    try:
        return bool(msgspec.json.decode(raw) == data)
    except Exception:  # noqa: BLE001 -- what is compared is the caller's, and whatever it raises, it is looked at
        return False


def _levels(raw: bytes) -> int:
    """Return in how many levels the JSON is nested. The brackets within its texts are none of its levels."""
    brackets = _TEXT.sub(b"", raw).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)


class _Way:
    """The way from `data` to the value that is looked at, and what it leads through."""

    def __init__(self) -> None:
        self.steps: list[object] = []
        self.holders: list[int] = []

    def __str__(self) -> str:
        path = "data" + "".join(_step(step) for step in self.steps)
        return path if len(path) <= _MOST_PATH_CHARACTERS else f"{path[:_MOST_PATH_CHARACTERS]}..."


def _require_plain(data: object) -> None:
    """Return only if every value is one that JSON has. Raises `Malformed` with the path of the first that is not."""
    way = _Way()
    _require_value(way, data)
    open_levels = [_parts(way, data)]
    while open_levels:
        found = next(open_levels[-1], None)
        if found is None:
            open_levels.pop()
            continue
        step, value = found
        way.steps[len(open_levels) - 1 :] = [step]
        _require_value(way, value)
        open_levels.append(_parts(way, value))


def _parts(way: _Way, value: object) -> Iterator[tuple[object, object]]:
    """Yield what the value holds, with its keys or numbers; it may hold none of what holds it."""
    if not isinstance(value, dict | list | tuple):
        return
    if id(value) in way.holders:
        raise _malformed(f"{way} is what holds it: data that contains itself has no end")
    if len(way.holders) == MOST_LEVELS:
        raise _malformed(f"{way} is nested in more than {MOST_LEVELS} levels")
    way.holders.append(id(value))
    yield from value.items() if isinstance(value, dict) else enumerate(value)
    way.holders.pop()


def _require_value(way: _Way, value: object) -> None:
    if isinstance(value, dict):
        _require_keys(way, value)
    elif isinstance(value, list | tuple) or value is None:
        return
    elif type(value) is str or (isinstance(value, str) and isinstance(value, Enum)):
        _require_text(way, value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise _malformed(f"{way} must be a finite number: JSON has no NaN and no infinity: give null (None)")
    elif type(value) not in {int, float, bool} and not (isinstance(value, int) and isinstance(value, Enum)):
        raise _malformed(f"{way} is of type {type(value).__name__}, which JSON does not have: give {_advice(value)}")


def _require_keys(way: _Way, value: dict[Any, object]) -> None:
    for key in value:
        if not isinstance(key, str):
            raise _malformed(f"{way} has a key of type {type(key).__name__}, and keys are text: give str(key)")
        _require_text(way, key)


def _require_text(way: _Way, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _malformed(f"{way} holds a lone surrogate, which is no character: take it out") from None


def _advice(value: object) -> str:
    for types, advice in _ADVICE:
        if isinstance(value, types):
            return advice
    if dataclasses.is_dataclass(value):
        return "dataclasses.asdict(value)"
    return 'value.model_dump(mode="json")' if callable(getattr(value, "model_dump", None)) else _PLAIN


def _step(step: object) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    key = str(step)
    if key.isascii() and key.isidentifier() and len(key) <= _MOST_KEY_CHARACTERS:
        return f".{key}"
    return f"[{json.dumps(key[:_MOST_KEY_CHARACTERS])}]"


def _malformed(message: str) -> Malformed:
    return Malformed(message, field="data")
