"""Checks the data of an event: the same rules for every way of publishing, and the path of a value that breaks one.

Data consists of `dict` with `str` keys, `list`, `tuple`, `str`, `int`, `float`, `bool` and `None`. No value is
converted: a receiver reads what the producer published.
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

from hookseal.errors import Malformed
from hookseal.ground import json_problem
from hookseal.ground.unset import UNSET
from hookseal.ground.wire import MAX_BODY_BYTES

MOST_LEVELS: Final = 200  # of nested objects and arrays; the parsers of receivers stop at a few hundred
_MOST_KEY_CHARACTERS: Final = 64
_MOST_PATH_CHARACTERS: Final = 256
_STEPS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS: Final = bytes(set(range(256)) - _STEPS.keys())
# It never goes back, and one that does not end goes to the end: else the text of a stranger takes hours.
_TEXT: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
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


def content(data: object, body: object) -> str | bytes:
    """Return the data as JSON text, or the body. Raises `Malformed` with the field and the path of the faulty value.

    Data that are not given are `UNSET`: None is valid data, the JSON null.
    """
    if (data is UNSET) == (body is None):
        raise Malformed("pass exactly one of data and body", field="data")
    if body is None:
        return encoded(data)
    if not isinstance(body, bytes | bytearray | memoryview):
        raise Malformed("body must be bytes: pass `data` for a payload that is to be sent as JSON", field="body")
    if memoryview(body).nbytes > MAX_BODY_BYTES:
        raise Malformed(f"body must be at most {MAX_BODY_BYTES} bytes as sent", field="body")
    return bytes(body)


def encoded(data: object) -> str:
    """Return the data as JSON; the order of keys is not changed.

    Raises `Malformed` if a value has no JSON form. The error contains the path of the first such value, for instance
    `data.items[3].price`, and what to use instead, but never the value. Raises `Malformed` if the JSON is too long for
    a body.
    """
    try:
        raw = msgspec.json.encode(data)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raw = None
    if raw is not None and len(raw) > MAX_BODY_BYTES:
        raise Malformed(f"body must be at most {MAX_BODY_BYTES} bytes as sent", field="body")
    if raw is None or not _round_trips(raw, data):
        _require_plain(data)
    if raw is None:
        raise _malformed(f"data must be {_PLAIN}, and cannot be written as JSON")
    return raw.decode("utf-8")


def require_json(text: str) -> None:
    """Raise `Malformed` unless the text is JSON that contains nothing that `encoded` would refuse.

    All numbers of JSON are allowed. If a value is not allowed, the error contains its path; if the text does not parse,
    its line and column, and why.
    """
    try:
        text.encode("utf-8")  # fails for a lone surrogate
        data = json.loads(text, parse_int=str, parse_float=str)  # NaN and Infinity still become floats, to be refused
    except UnicodeEncodeError:
        raise _malformed("data must be JSON in UTF-8") from None
    except ValueError:
        raise _malformed(f"data must be JSON{json_problem.said(text)}") from None
    except RecursionError:
        raise _malformed(f"data is nested in more than {MOST_LEVELS} levels") from None
    _require_plain(data)


def _round_trips(raw: bytes, data: object) -> bool:
    """Return whether decoding the JSON gives data that equals `data`.

    If so, the values need not be checked one by one: the encoder turns a NaN into null, a Decimal into a string and a
    set into a list, and none of these equals the original. A tuple does not either, and is then checked.
    """
    if is_too_deep(raw):  # cheaper than checking every value
        return False
    try:
        return bool(msgspec.json.decode(raw) == data)
    except Exception:  # noqa: BLE001 -- `==` of the caller's objects may raise anything; the values are then checked
        return False


def is_too_deep(raw: bytes) -> bool:
    """Return whether this JSON has more than 200 levels of nesting. Brackets inside its strings do not count."""
    if raw.count(b"[") + raw.count(b"{") <= MOST_LEVELS:
        return False
    brackets = _TEXT.sub(b"", raw).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > MOST_LEVELS


class _Path:
    """The path from `data` to the value that is being checked, and the ids of the containers on it."""

    def __init__(self) -> None:
        self.steps: list[object] = []
        self.containers: list[int] = []

    def __str__(self) -> str:
        text = "data" + "".join(_step(step) for step in self.steps)
        return text if len(text) <= _MOST_PATH_CHARACTERS else f"{text[:_MOST_PATH_CHARACTERS]}..."


def _require_plain(data: object) -> None:
    """Raise `Malformed`, with the path, for the first value that has no JSON form."""
    path = _Path()
    _require_value(path, data)
    open_levels = [_children(path, data)]
    while open_levels:
        child = next(open_levels[-1], None)
        if child is None:
            open_levels.pop()
            continue
        step, value = child
        path.steps[len(open_levels) - 1 :] = [step]
        _require_value(path, value)
        open_levels.append(_children(path, value))


def _children(path: _Path, value: object) -> Iterator[tuple[object, object]]:
    """Yield the children of a container with their keys or indexes. Raises `Malformed` if it contains itself."""
    if not isinstance(value, dict | list | tuple):
        return
    if id(value) in path.containers:
        raise _malformed(f"{path} is the object or array that contains it: data must not contain itself")
    if len(path.containers) == MOST_LEVELS:
        raise _malformed(f"{path} is nested in more than {MOST_LEVELS} levels")
    path.containers.append(id(value))
    yield from value.items() if isinstance(value, dict) else enumerate(value)
    path.containers.pop()


def _require_value(path: _Path, value: object) -> None:
    if isinstance(value, dict):
        _require_keys(path, value)
    elif isinstance(value, list | tuple) or value is None:
        return
    elif type(value) is str or (isinstance(value, str) and isinstance(value, Enum)):
        _require_text(path, value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise _malformed(f"{path} must be a finite number: JSON has no NaN and no infinity: give null (None)")
    elif type(value) not in {int, float, bool} and not (isinstance(value, int) and isinstance(value, Enum)):
        raise _malformed(f"{path} is of type {type(value).__name__}, which JSON does not have: give {_advice(value)}")


def _require_keys(path: _Path, value: dict[Any, object]) -> None:
    for key in value:
        if not isinstance(key, str):
            raise _malformed(f"{path} has a key of type {type(key).__name__}, and keys are text: give str(key)")
        _require_text(path, key)


def _require_text(path: _Path, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _malformed(f"{path} contains a lone surrogate, which is not a character: remove it") from None


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
