"""Which data an event may have: JSON values, and nothing that would be converted to one silently."""

import json
import math
from collections import namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from hookseal.dispatcher.core.payload import MOST_LEVELS, content, encoded, require_json
from hookseal.errors import Malformed
from hookseal.ground.unset import UNSET
from hookseal.ground.wire import MAX_BODY_BYTES

pytestmark = pytest.mark.req("DEL-14", part="publish-limits")

Pair = namedtuple("Pair", "one other")  # noqa: PYI024 -- callers may pass one
CANARY = "canary-4711"


@dataclass
class Data:
    """A dataclass."""

    value: str = CANARY


class Model(BaseModel):
    """A model of pydantic."""

    value: str = CANARY


class Struct(msgspec.Struct):
    """A struct of msgspec."""

    value: str = CANARY


class Plain(Enum):
    """An enumeration that is neither a text nor a number."""

    VALUE = CANARY


class Text(StrEnum):
    """An enumeration of texts."""

    VALUE = "text"


class Number(IntEnum):
    """An enumeration of numbers."""

    VALUE = 1


class Floating(float):
    """A subclass of float, as other libraries have."""


class Whole(int):
    """A subclass of int, as other libraries have."""


class Marked(str):
    """A subclass of str, as other libraries have."""

    __slots__ = ()


def nested(levels: int, inside: object = 1) -> object:
    """Return a value inside that many lists."""
    for _ in range(levels):
        inside = [inside]
    return inside


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(values)
def test_json_values_are_read_back_unchanged(data: object) -> None:
    text = encoded(data)
    assert data == json.loads(text)
    require_json(text)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"z": 1, "a": (1, [2], Pair(3, 4))}, '{"z":1,"a":[1,[2],[3,4]]}'),
        ({Text.VALUE: [Text.VALUE, Number.VALUE]}, '{"text":["text",1]}'),
        ([(), {}, True, None, 2**80, -0.0], f"[[],{{}},true,null,{2**80},-0.0]"),
        ("]" * 300, f'"{"]" * 300}"'),
        ("[" * 300, f'"{"[" * 300}"'),
        ([[1]] * 300, "[" + ",".join(["[1]"] * 300) + "]"),
    ],
)
def test_tuples_and_enumerations_are_converted(data: object, text: str) -> None:
    """A tuple becomes a list, an enumeration its text or number, and the same list may occur twice."""
    assert text == encoded(data)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "must be a finite number: JSON has no NaN and no infinity: give null (None)"),
        (math.inf, "must be a finite number: JSON has no NaN and no infinity: give null (None)"),
        (Floating("nan"), "must be a finite number: JSON has no NaN and no infinity: give null (None)"),
        (Decimal(1), "is of type Decimal, which JSON does not have: give str(value), or float(value)"),
        (b"x", "is of type bytes, which JSON does not have: give text, for instance base64.b64encode(value).decode()"),
        (frozenset([1]), "is of type frozenset, which JSON does not have: give a list, for instance sorted(value)"),
        (datetime(2026, 1, 2, tzinfo=UTC), "is of type datetime, which JSON does not have: give value.isoformat()"),
        (date(2026, 1, 2), "is of type date, which JSON does not have: give value.isoformat()"),
        (UUID(int=1), "is of type UUID, which JSON does not have: give str(value)"),
        (Plain.VALUE, "is of type Plain, which JSON does not have: give value.value"),
        (Struct(), "is of type Struct, which JSON does not have: give msgspec.to_builtins(value)"),
        (Data(), "is of type Data, which JSON does not have: give dataclasses.asdict(value)"),
        (Model(), 'is of type Model, which JSON does not have: give value.model_dump(mode="json")'),
        (Marked("x"), "is of type Marked, which JSON does not have: give str(value)"),
        (Floating(1), "is of type Floating, which JSON does not have: give float(value)"),
        (Whole(1), "is of type Whole, which JSON does not have: give int(value)"),
        (
            object(),
            "is of type object, which JSON does not have: give dict, list, tuple, str, int, float, bool or None",
        ),
        ({1: 1}, "has a key of type int, and keys are text: give str(key)"),
        ({(1, 2): 1}, "has a key of type tuple, and keys are text: give str(key)"),
        ("\ud800", "contains a lone surrogate, which is not a character: remove it"),
        ({"\ud800": 1}, "contains a lone surrogate, which is not a character: remove it"),
    ],
)
def test_a_value_without_json_form_names_its_path(value: object, message: str) -> None:
    for data, path in (
        (value, "data"),
        ({"ok": 1, "items": [{"price": 1}, {"price": value, "later": math.nan}]}, "data.items[1].price"),
        ({"a key": ({"\u00e4": value},)}, 'data["a key"][0]["\\u00e4"]'),
    ):
        with pytest.raises(Malformed) as caught:
            encoded(data)
        assert (f"{path} {message}", "data") == (str(caught.value), caught.value.field)
        assert CANARY not in str(caught.value)


def test_a_value_with_a_failing_comparison_is_checked() -> None:
    class Wrong(dict[str, Any]):
        def __eq__(self, _other: object) -> bool:
            raise ValueError

        __hash__ = None

    assert '[{"a":1}]' == encoded([Wrong(a=1)])
    with pytest.raises(Malformed, match=r"^data\[0\]\.a must be a finite number"):
        encoded([Wrong(a=math.nan)])


def test_data_that_contains_itself_is_refused() -> None:
    data: dict[str, Any] = {"name": "a", "children": [{}]}
    data["children"][0]["parent"] = data
    with pytest.raises(Malformed) as caught:
        encoded(data)

    expected = "data.children[0].parent is the object or array that contains it: data must not contain itself"
    assert expected == str(caught.value)


@pytest.mark.parametrize("inside", [1, "]" * 5])
def test_the_depth_is_limited(inside: object) -> None:
    """MOST_LEVELS levels are accepted as data and as text, one more is refused, and the path in the error is short."""
    text = encoded(nested(MOST_LEVELS, inside))
    require_json(text)
    for refusing in (
        lambda: encoded(nested(MOST_LEVELS + 1, inside)),
        lambda: require_json(f"[{text}]"),
        lambda: require_json("[" * 100_000),
    ):
        with pytest.raises(Malformed, match=f"is nested in more than {MOST_LEVELS} levels$") as caught:
            refusing()
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["]" * 400, '"]' * 400, "}" * 400])
def test_brackets_in_texts_do_not_count(text: str) -> None:
    """Brackets inside texts do not count as levels, neither opening nor closing ones."""
    for data in ({"a": text, "b": nested(MOST_LEVELS)}, {"a": nested(MOST_LEVELS), "b": text}, [text, nested(400)]):
        for refusing in (lambda data=data: encoded(data), lambda data=data: require_json(json.dumps(data))):
            with pytest.raises(Malformed, match=f"is nested in more than {MOST_LEVELS} levels$"):
                refusing()
    for taken in (
        {"a": text, "b": nested(MOST_LEVELS - 1)},
        {"a": "\\[{" * 400, "b": nested(MOST_LEVELS - 1)},
        "[" * 400,
    ):
        require_json(encoded(taken))


def test_huge_numbers_and_texts_are_refused() -> None:
    """A number with more digits than Python writes and a text longer than a body are refused, too."""
    with pytest.raises(Malformed, match=r"and cannot be written as JSON$"):
        encoded([10**5_000])
    with pytest.raises(Malformed, match=f"^body must be at most {MAX_BODY_BYTES} bytes as sent$") as caught:
        encoded("x" * MAX_BODY_BYTES)
    assert "body" == caught.value.field


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "data must be JSON: line 1, column 1: expecting value"),
        ("{'a': 1}", "data must be JSON: line 1, column 2: expecting property name"),
        ('"\udcff"', "data must be JSON in UTF-8"),
        ("NaN", "data must be a finite number"),
        ('{"a": [1, Infinity]}', "data.a[1] must be a finite number"),
        ('{"a": "\\ud800"}', "data.a contains a lone surrogate"),
    ],
)
def test_refused_text_names_its_path(text: str, message: str) -> None:
    """The same rules apply to JSON text, and the error has the path of the refused value."""
    with pytest.raises(Malformed) as caught:
        require_json(text)

    assert ("data", True) == (caught.value.field, str(caught.value).startswith(message))


def test_numbers_in_text_have_any_length() -> None:
    """In JSON text a number of any length is accepted: PostgreSQL stores it as it is written."""
    require_json(f"[1e400, 1.10, {'9' * 5_000}]")
    with pytest.raises(Malformed):
        require_json("[Infinity]")


def test_the_content_is_data_or_a_body() -> None:
    """Exactly one of them is given; None is data, and a body is bytes of any type, within the limit."""
    assert ("null", b"1", b"1") == (content(None, None), content(UNSET, b"1"), content(UNSET, memoryview(b"1")))
    for data, body, field in (
        *((UNSET, None, "data"), (1, b"1", "data"), ({1}, None, "data")),
        *((UNSET, "text", "body"), (UNSET, bytes(MAX_BODY_BYTES + 1), "body")),
    ):
        with pytest.raises(Malformed) as caught:
            content(data, body)
        assert field == caught.value.field
