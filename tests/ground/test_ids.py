"""Ids, pages, errors and other small values."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hookseal
from hookseal import errors
from hookseal.errors import Malformed
from hookseal.ground import ids
from hookseal.ground.ids import Place, before, decode_cursor, encode_cursor, paged, plural, require_limit
from hookseal.ground.unset import UNSET
from hookseal.ground.version import VERSION

UUID7 = "01900000-0000-7000-8000-000000000001"
PARSERS: list[Callable[[str], str]] = [
    ids.tenant_id,
    ids.tenant_uid,
    ids.token_name,
    ids.user_name,
    ids.session_id,
    ids.token_id,
    ids.idempotency_key,
    ids.endpoint_id,
    ids.delivery_id,
    ids.replay_id,
    ids.resend_id,
    ids.event_id,
    ids.event_type,
    ids.subscription,
    ids.correlation_id,
]
IDS = [f"0197c1f0-5e6a-7c3b-9d2e-4f506172839{number}" for number in range(3)]
ROWS = [{"id": each} for each in IDS]


@pytest.mark.parametrize(
    ("parse", "texts"),
    [
        (ids.tenant_id, ["a", "acme", "0.a_b-c", "Org_2aB", "A" * 63]),
        (ids.tenant_uid, ["a", "-", "...", "_x", "A" * 256]),
        (ids.token_name, ["a", "billing.2_b-c", "A" * 63]),
        (ids.user_name, ["a", "jane doe", "jane@acme.example", "~" * 64]),
        (ids.session_id, ["a", "~" * 128]),
        (ids.token_id, [UUID7]),
        (ids.idempotency_key, ["a", "auto_7d2f", "a b", "!~", "x" * 256]),
        (ids.endpoint_id, [UUID7]),
        (ids.delivery_id, [UUID7]),
        (ids.replay_id, [UUID7]),
        (ids.resend_id, ["r-1", "A.b_c", "x" * 128]),
        (ids.attempt_id, [f"{UUID7}.1", f"{UUID7}.2147483647"]),
        (ids.event_id, ["a", "A-b_9", "evt.1:b", "...", ".a", "x" * 256]),
        (ids.event_type, ["a", "invoice.paid", "a_1.b.c", "Invoice.payment-failed", "-", "x" * 128]),
        (ids.subscription, ["a", "invoice.paid", "a_1.b.c", "-", "x" * 128, "*", "a.*", "a.b.*", "User.sign-in.*"]),
        (ids.correlation_id, ["~" * 128]),
    ],
)
def test_a_valid_id_is_accepted(parse: Callable[[str], str], texts: list[str]) -> None:
    for text in texts:
        assert text == parse(text)


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize(
    ("parse", "field", "texts"),
    [
        (
            *(ids.tenant_id, "tenant_id"),
            ["", "_system", "_operator", ".a", "-a", "a b", "a:b", "a/b", "a" * 64, "a\n", "é", "a\x00"],
        ),
        (
            ids.tenant_uid,
            "tenant_id",
            ["", ".", "..", "_system", "_operator", "*", "a b", "a/b", "a" * 257, "a\n", "é"],
        ),
        (ids.token_name, "name", ["", "a/b", "-a", "a b", "a" * 64, "a\n", "é"]),
        (ids.user_name, "user", ["", " ", "a ", " a", "a\n", "é", "x" * 65]),
        (ids.session_id, "session_id", ["", "a b", "é", "x" * 129, "a\n"]),
        (ids.token_id, "token_id", ["", "billing", UUID7.replace("-7", "-4"), UUID7 + "\n"]),
        (ids.resend_id, "resend_id", ["", "a b", "é", "x" * 129, "a\n"]),
        (ids.idempotency_key, "idempotency_key", ["", " ", " a", "a ", "a\n", "a\x00b", "é", "x" * 257]),
        (ids.event_id, "event_id", ["", ".", "..", "..\n", "a/b", "a b", "a\n", "x" * 257, "é"]),
        (
            *(ids.attempt_id, "attempt_id"),
            ["", UUID7, f"{UUID7}.0", f"{UUID7}.01", f"{UUID7}.1.1", f"{UUID7}.2147483648", f"{UUID7}.1\n", "x.1"],
        ),
        (ids.event_type, "event_type", ["", ".", "a.", ".a", "a..b", "a b", "a.*", "*", "x" * 129, "a\n"]),
        (ids.subscription, "event_type", ["**", "a*", "*.a", "a.*.b", "", ".*"]),
        (ids.correlation_id, "correlation_id", ["", "a b", "é", "x" * 129]),
    ],
)
def test_an_invalid_id_is_refused(parse: Callable[[str], str], field: str, texts: list[str]) -> None:
    """Any other text, a reserved tenant too, is refused with its field; none of the texts is repeated (see below)."""
    for text in texts:
        with pytest.raises(Malformed) as caught:
            parse(text)
        assert field == caught.value.field, text


@pytest.mark.parametrize("parse", [ids.endpoint_id, ids.delivery_id, ids.replay_id])
@pytest.mark.parametrize(
    "text", ["", UUID7.upper().replace("0", "A"), UUID7[:-1], UUID7 + "\n", "{" + UUID7 + "}", UUID7.replace("-", "")]
)
def test_an_invalid_uuid_is_refused(parse: object, text: str) -> None:
    """Only a UUID in lower case, with dashes, is the id of an endpoint, a delivery or a replay job."""
    with pytest.raises(Malformed):
        parse(text)  # type: ignore[operator]


@pytest.mark.parametrize("other", [UUID7.replace("-7", "-4"), "00000000-0000-0000-0000-000000000000"])
def test_an_endpoint_may_have_any_uuid(other: str) -> None:
    """An imported endpoint keeps its id, a UUID of any version; hookseal itself creates the ids of deliveries."""
    assert other == ids.endpoint_id(other)
    with pytest.raises(Malformed, match="UUIDv7"):
        ids.delivery_id(other)
    with pytest.raises(Malformed, match="UUIDv7"):
        ids.replay_id(other)


@pytest.mark.parametrize("milliseconds", [-1, 0, 1, 1_767_225_600_123, 253_402_300_799_999])
def test_the_first_id_of_a_time_begins_with_it(milliseconds: int) -> None:
    """The first id of a time is a UUIDv7 that begins with it, up to the year 9999; earlier times have that of 1970."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    first = UUID(ids.delivery_id(ids.first_uuid7(at)))

    assert max(milliseconds, 0) == first.int >> 80
    assert first.int & (2**62 - 1) == first.int >> 64 & 0xFFF == 0


def test_an_id_says_when_it_was_made() -> None:
    """To the millisecond, if it is a UUIDv7; an id of another program says nothing, nor does one that is never made."""
    at = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
    assert at == ids.uuid7_made_at(ids.first_uuid7(at))
    assert [None, None] == [ids.uuid7_made_at(each) for each in (str(uuid4()), "ffffffff-ffff-7000-8000-000000000000")]


@pytest.mark.parametrize(("microseconds", "milliseconds"), [(-1, 0), (0, 0), (1, 1), (999, 1), (1_000, 1), (1_001, 2)])
def test_ids_of_a_time_or_later_begin_with_a_whole_millisecond(microseconds: int, milliseconds: int) -> None:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    first = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    assert ids.first_uuid7(first) == ids.first_uuid7_after(at)


@given(st.sampled_from(PARSERS), st.text(max_size=200))
def test_any_text_is_an_id_or_malformed(parse: Callable[[str], str], text: str) -> None:
    """Any text is a valid id, returned unchanged, or `Malformed` with one constant message without the text."""
    with pytest.raises(Malformed) as always:
        parse("\n")
    message = str(always.value)
    try:
        assert text == parse(text)
    except Malformed as error:
        message = str(error)

    assert str(always.value) == message


def test_the_operator_owns_endpoints() -> None:
    assert ["acme", ids.OPERATOR_TENANT] == [ids.owner_id("acme"), ids.owner_id("_operator")]
    with pytest.raises(Malformed):
        ids.owner_id("_system")


def test_a_page_has_1_to_1000_rows() -> None:
    require_limit(1)
    require_limit(1_000)
    for limit in (0, 1_001):
        with pytest.raises(Malformed):
            require_limit(limit)


@pytest.mark.parametrize("place", ["", "acme/7", "0197c1f0-5e6a-7c3b-9d2e-4f5061728390", "\u00e4"])
def test_a_cursor_decodes_to_its_position(place: str) -> None:
    assert encode_cursor(place).isascii()
    assert place == decode_cursor(encode_cursor(place))


@pytest.mark.parametrize("cursor", ["!", "abc", "\u00e4", base64.urlsafe_b64encode(b"\xff").decode()])
def test_an_invalid_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(Malformed, match="cursor must be one that an earlier page returned"):
        decode_cursor(cursor)


def test_channels_are_few_names() -> None:
    assert ("b", "A.b_c-1", "x" * 128) == ids.channels(["b", "A.b_c-1", "b", "x" * 128])
    assert () == ids.channels([])
    assert 10 == len(ids.channels([str(n) for n in range(10)] * 2))
    for names in ([""], ["a b"], ["a,b"], ["a\n"], ["é"], ["x" * 129], [str(n) for n in range(11)]):
        with pytest.raises(Malformed) as caught:
            ids.channels(names)
        assert "channels" == caught.value.field


def test_a_list_is_read_from_its_place() -> None:
    """Each order, in each direction, in pages of two: the ids of the page, and after which id the next one comes."""
    ids = [f"0190{n:04}-0000-7000-8000-000000000000" for n in range(5)]
    for place, page, following in (
        (Place(), [4, 3], 3),
        (Place(after=ids[3]), [2, 1], 1),
        (Place(after=ids[1]), [0], None),
        (Place(before=ids[1]), [3, 2], 2),
        (Place(before=ids[3]), [4], 4),
        (Place(before=ids[4]), [], None),
        (Place(cursor=encode_cursor(ids[1])), [0], None),
        (Place(oldest_first=True), [0, 1], 1),
        (Place(oldest_first=True, after=ids[2]), [3, 4], None),
        (Place(oldest_first=True, before=ids[3]), [1, 2], 2),
    ):
        start = place.begins_with
        found = [{"id": each} for each in (ids if place.is_rising else reversed(ids))]
        rows = [row for row in found if start is None or (row["id"] > start if place.is_rising else row["id"] < start)]
        items, cursor = place.page(rows[:3], 2, "id")
        assert [ids[n] for n in page] == [item["id"] for item in items], place
        assert (None if following is None else encode_cursor(ids[following])) == cursor, place


def test_a_list_has_one_place() -> None:
    for first, second in (("after", "before"), ("after", "cursor"), ("before", "cursor")):
        two: dict[str, Any] = {first: IDS[0], second: IDS[1]}
        with pytest.raises(Malformed) as caught:
            Place(**two)
        assert second == caught.value.field


def test_a_full_page_has_a_cursor() -> None:
    """If more rows are left, the cursor contains the id of the last row of the page."""
    items, cursor = paged(list(ROWS), 2, "id")

    assert ROWS[:2] == items
    assert IDS[1] == before(cursor)


@pytest.mark.parametrize("rows", [ROWS[:2], ROWS[:1], []])
def test_the_last_page_has_no_cursor(rows: list[dict[str, str]]) -> None:
    assert (rows, None) == paged(rows, 2, "id")
    assert before(None) is None


@pytest.mark.parametrize("text", ["", "x", IDS[0].upper(), IDS[0].replace("-", ""), "{" + IDS[0] + "}", "\udcff"])
def test_a_foreign_cursor_is_malformed(text: str) -> None:
    for cursor in (base64.urlsafe_b64encode(text.encode(errors="surrogatepass")).decode(), text or "!"):
        with pytest.raises(Malformed):
            before(cursor)


@pytest.mark.parametrize(("number", "phrase"), [(0, "0 workers do"), (1, "1 worker does"), (2, "2 workers do")])
def test_one_takes_the_singular(number: int, phrase: str) -> None:
    assert phrase == plural(number, "worker does", "workers do")


def test_the_version_is_the_distributions() -> None:
    assert version("hookseal") == VERSION == hookseal.__version__


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.Malformed, 2),
        (errors.NotFound, 3),
        (errors.Conflict, 4),
        (errors.Refused, 5),
        (errors.Unavailable, 69),
        (errors.Exhausted, 69),
        (errors.LocalFailure, 69),
        (errors.Defect, 70),
        (errors.CannotSign, 70),
    ],
)
def test_each_error_class_has_its_exit_code(kind: type[errors.HooksealError], code: int) -> None:
    """Each class has its documented exit code, and its docstring is its message unless another is passed."""
    assert code == kind.exit_code
    assert str(kind()) == (kind.__doc__ or "").splitlines()[0]
    assert ("text", "url") == (str(kind("text")), kind("text", field="url").field)


def test_config_error_holds_every_problem() -> None:
    error = errors.ConfigError(["a", "b"])

    assert (78, ["a", "b"], "a\nb") == (error.exit_code, error.problems, str(error))
    assert ["only"] == errors.ConfigError("only").problems


def test_only_a_uid_of_the_form_of_an_id_may_be_a_tenant() -> None:
    assert [True, True, False, False, False] == [
        ids.may_be_tenant(text) for text in ("acme", "A" * 63, "A" * 64, "-a", "_operator")
    ]


def test_a_page_of_attempts_begins_with_the_id_of_one() -> None:
    """After, before or with the cursor of an earlier page; a cursor of another list is none."""
    attempt = f"{UUID7}.3"
    for place in (Place(after=attempt), Place(before=attempt), Place(cursor=encode_cursor(attempt))):
        assert attempt == place.begins_with_attempt
    assert (UUID7, 3) == ids.parts_of(ids.attempt_id(attempt))
    assert Place().begins_with_attempt is None
    for cursor in (encode_cursor(UUID7), "!"):
        with pytest.raises(Malformed) as caught:
            _ = Place(cursor=cursor).begins_with_attempt
        assert "cursor" == caught.value.field


def test_a_default_that_is_not_given_shows_its_name() -> None:
    assert "UNSET" == repr(UNSET)


def test_the_audit_log_names_the_token_and_its_user() -> None:
    assert "token:product" == ids.token_actor("product", None)
    assert "token:product/jane doe" == ids.token_actor("product", "jane doe")
