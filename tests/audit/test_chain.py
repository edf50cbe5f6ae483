"""The chain of audit rows, and its heads."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.audit.chain import (
    MAX_HEADS,
    ORIGIN,
    Broken,
    Contradiction,
    Flaw,
    Head,
    Link,
    Row,
    check_end,
    find_contradiction,
    follow_chain,
    heads_from_json,
    heads_to_json,
    json_text,
    mac_message,
    parse_heads,
)
from hookseal.errors import Malformed
from hookseal.ground.wire import framed
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.trust import IntegrityKey
from tests.audit.logs import FORGERS_KEY, KEY, NEXT_KEY, second_opinion
from tests.vectors.reading import vectors

KNOWN = vectors("audit_row.json")
ROW = Row(
    tenant_id="acme",
    sequence=1,
    at_us="1767323045678901",
    actor="hookseal/ada@example",
    action="secret.rotated",
    subject="endpoint:1",
    before='{"generation":1}',
    after='{"generation":2}',
    correlation_id="corr-1",
    previous_mac=bytes(32),
    mac_key_id="1",
)
CHANGES: list[dict[str, Any]] = [
    {"tenant_id": "bmce"},
    {"tenant_id": ""},
    {"sequence": 2},
    {"sequence": -1},
    {"at_us": "1767323045678902"},
    {"at_us": "Infinity"},
    {"actor": "hookseal/eve@example"},
    {"action": "secret.revealed"},
    {"subject": "endpoint:2"},
    {"before": None},
    {"before": "null"},
    {"before": '{"generation": 1}'},
    {"after": None},
    {"after": ""},
    {"correlation_id": None},
    {"correlation_id": ""},
    {"previous_mac": bytes(31) + b"\1"},
    {"previous_mac": b""},
    {"mac_key_id": "2"},
    {"before": '{"generation":2}', "after": '{"generation":1}'},
]
MAC = bytes(range(32))
HEAD = Head(tenant_id="acme", sequence=3, mac=MAC)
ONE = json.dumps({"tenant_id": "acme", "head_sequence": 3, "head_mac": MAC.hex()})


def links(length: int, key: IntegrityKey = KEY) -> Iterator[tuple[Row, bytes]]:
    """Return an intact chain of that many rows."""
    previous = ORIGIN.mac
    for sequence in range(1, length + 1):
        row = replace(ROW, sequence=sequence, previous_mac=previous, mac_key_id=key.key_id)
        previous = key.authenticate(mac_message(row))
        yield row, previous


def linked(row: Row, key: IntegrityKey = KEY) -> tuple[Row, bytes]:
    return row, key.authenticate(mac_message(row))


@pytest.mark.req("SEC-14", part="append")
@pytest.mark.parametrize("case", KNOWN["macs"], ids=lambda case: case["comment"])
def test_macs_equal_a_second_implementation(case: dict[str, Any]) -> None:
    assert case["mac"] == second_opinion(bytes.fromhex(KNOWN["key"]), case["row"])
    row = Row(**{**case["row"], "previous_mac": bytes.fromhex(case["row"]["previous_mac"])})
    key = IntegrityKey(key_id="1", material=SecretMaterial(bytes.fromhex(KNOWN["key"])))

    assert case["mac"] == key.authenticate(mac_message(row)).hex()


@pytest.mark.req("SEC-14", part="verify")
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_every_field_is_covered_by_the_mac(changes: dict[str, Any]) -> None:
    assert {*changes} <= {*Row.__dataclass_fields__}
    assert not KEY.is_authentic(mac_message(replace(ROW, **changes)), KEY.authenticate(mac_message(ROW)), "1")


def test_the_table_of_changes_has_every_field() -> None:
    assert {*Row.__dataclass_fields__} == {name for changes in CHANGES for name in changes}


@given(st.lists(st.tuples(*[st.text("ab", max_size=2)] * 3, *[st.none() | st.text("ab", max_size=1)] * 3), min_size=2))
def test_text_cannot_move_between_fields(rows: list[tuple[Any, ...]]) -> None:
    """Text that moves from one field to the next changes the authenticated bytes."""
    names = ("actor", "action", "subject", "before", "after", "correlation_id")
    made = [replace(ROW, **dict(zip(names, row, strict=True))) for row in rows]

    assert len({*made}) == len({mac_message(row) for row in made})


def test_a_row_begins_with_its_own_label() -> None:
    beginning = framed(*[b"hookseal.audit.row.v1"] * 12)[: 2 + 4 + 21]

    assert beginning == mac_message(ROW)[: len(beginning)]


@pytest.mark.req("SEC-14", part="verify")
@pytest.mark.parametrize("length", [0, 1, 3])
def test_an_intact_chain_verifies_in_any_batches(length: int) -> None:
    """An intact chain is followed to its last row, however it is split into batches."""
    rows = list(links(length))
    end = Link(length, rows[-1][1]) if rows else ORIGIN
    for cut in range(length + 1):
        middle, nothing = follow_chain(ORIGIN, rows[:cut], KEY)
        assert None is nothing
        assert (end, None) == follow_chain(middle, rows[cut:], KEY)
    assert None is check_end(end, end)


@pytest.mark.req("SEC-14", part="verify")
def test_the_first_wrong_row_is_named() -> None:
    one, two, three = links(3)
    other_two = linked(replace(two[0], subject="endpoint:other"))
    theirs, nexts = list(links(3, FORGERS_KEY)), list(links(3, NEXT_KEY))
    zero = linked(replace(ROW, sequence=0))
    for rows, sequence, reason in (
        ([two, three], 1, Flaw.MISSING),
        ([one, three], 2, Flaw.MISSING),
        ([zero, one, two], 0, Flaw.OUT_OF_PLACE),
        ([one, one, two], 1, Flaw.OUT_OF_PLACE),
        ([one, two, one], 1, Flaw.OUT_OF_PLACE),
        ([one, (two[0], three[1]), three], 2, Flaw.ALTERED),
        ([one, (replace(two[0], actor="eve"), two[1]), three], 2, Flaw.ALTERED),
        ([one, (two[0], b""), three], 2, Flaw.ALTERED),
        (theirs, 1, Flaw.ALTERED),
        ([one, theirs[1]], 2, Flaw.ALTERED),
        ([one, nexts[1]], 2, Flaw.UNKNOWN_KEY),
        ([one, other_two, three], 3, Flaw.UNCHAINED),
        ([linked(replace(ROW, previous_mac=bytes(31)))], 1, Flaw.UNCHAINED),
    ):
        last, broken = follow_chain(ORIGIN, rows, KEY)
        assert Broken(sequence, reason) == broken
        assert last.sequence == max(0, sequence - 1) or reason is Flaw.OUT_OF_PLACE


@pytest.mark.req("SEC-14", part="verify")
@pytest.mark.parametrize(
    ("last", "head", "expected"),
    [
        (ORIGIN, None, None),
        (ORIGIN, ORIGIN, None),
        (Link(2, b"2"), Link(2, b"2"), None),
        (ORIGIN, Link(1, b"1"), (1, Flaw.TRUNCATED)),
        (Link(2, b"2"), Link(4, b"4"), (3, Flaw.TRUNCATED)),
        (Link(2, b"2"), Link(1, b"1"), (2, Flaw.HEAD)),
        (Link(2, b"2"), Link(2, b"3"), (2, Flaw.HEAD)),
        (Link(2, b"2"), None, (2, Flaw.HEAD)),
    ],
)
def test_the_head_must_match_the_last_row(last: Link, head: Link | None, expected: tuple[int, Flaw] | None) -> None:
    """A head with a later number means missing rows; any other disagreement means that the head was changed."""
    assert expected == check_end(last, head)


def test_facts_are_compact_ascii_json() -> None:
    """Facts become compact JSON in ASCII, in their order; times are RFC 3339 in UTC with microseconds."""
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    facts = {
        "z": moment,
        "a": moment.astimezone(timezone(timedelta(hours=13))),
        "unending": datetime.max,  # noqa: DTZ901 - what asyncpg gives for infinity
        "name": "\u00e9\n",
        "list": ["*", None, True, 1, 1.5],
        "nested": MappingProxyType({"b": MappingProxyType({"c": moment})}),
    }
    z = '"2026-01-02T03:04:05.678901Z"'

    assert None is json_text(None)
    assert "{}" == json_text({})
    assert (
        f'{{"z":{z},"a":{z},"unending":"9999-12-31T23:59:59.999999Z","name":"\\u00e9\\n",'
        f'"list":["*",null,true,1,1.5],"nested":{{"b":{{"c":{z}}}}}}}'
    ) == json_text(facts)


@pytest.mark.req("SEC-15", part="secrets")
@pytest.mark.parametrize(
    "value", [SecretMaterial(b"canary"), b"canary", {1}, object()], ids=["secret", "bytes", "set", "object"]
)
def test_values_without_json_form_are_refused(value: object) -> None:
    """A secret, bytes and other objects are refused, and the error does not show them."""
    with pytest.raises(TypeError) as refused:
        json_text({"value": value})
    assert "canary" not in str(refused.value)
    with pytest.raises(ValueError, match="JSON"):
        json_text({"value": float("nan")})


def printed(**changes: Any) -> str:
    """Return the output of `audit verify --json` for one chain, with these fields changed."""
    chain = {"tenant_id": "acme", "rows": 3, "head_sequence": 3, "head_mac": MAC.hex(), "broken": None}
    return json.dumps({"intact": True, "tenants": [chain | changes]})


@pytest.mark.req("SEC-24", part="whole-database")
def test_the_output_of_verify_is_read() -> None:
    """The output of `audit verify --json` is read; a chain without a head or without a row is left out."""
    assert (HEAD,) == parse_heads(printed())
    without = json.loads(printed(tenant_id="b", head_sequence=None, head_mac=None))["tenants"]
    empty = json.loads(printed(tenant_id="c", head_sequence=0, head_mac="0" * 64))["tenants"]
    assert (HEAD,) == parse_heads(json.dumps({"tenants": [*without, *empty, *json.loads(printed())["tenants"]]}))


@pytest.mark.req("SEC-24", part="whole-database")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "{}",
        '{"tenants": 3}',
        '{"tenants": [3]}',
        '{"tenants": [{}]}',
        "[" * 100_000,
        printed(tenant_id=3),
        printed(head_sequence="3"),
        printed(head_sequence=True),
        printed(head_sequence=2**63),
        printed(head_mac=None),
        printed(head_mac="0"),
        printed(tenant_id="a\0b"),
        printed(tenant_id="\ud800"),
        printed(head_sequence=-(2**63) - 1),
        printed(head_mac=MAC.hex().upper()),
    ],
)
def test_another_file_is_refused(text: str) -> None:
    """A file that is not such an output is refused, and the error names the command that writes one."""
    with pytest.raises(Malformed, match="audit verify --json"):
        parse_heads(text)


@pytest.mark.req("SEC-24", part="whole-database")
@pytest.mark.parametrize(
    "changes",
    [{"tenant_id": "Acme \u202e"}, {"tenant_id": ""}, {"head_mac": "00"}, {"head_mac": ""}, {"head_sequence": -1}],
)
def test_a_forged_head_is_contradicted(changes: dict[str, Any]) -> None:
    """A head that hookseal never wrote stays as it is and does not affect the others; every log contradicts it."""
    odd, ours = parse_heads(json.dumps({"tenants": json.loads(printed(**changes))["tenants"] + [json.loads(ONE)]}))

    assert (False, True, HEAD) == (odd.is_plausible, ours.is_plausible, ours)
    assert find_contradiction(odd, ends_at=3, mac_there=None, accepted=()) is not None


@pytest.mark.req("SEC-24", part="whole-database")
def test_the_number_of_heads_is_limited() -> None:
    [chain] = json.loads(printed())["tenants"]

    assert MAX_HEADS == len(parse_heads(json.dumps({"tenants": [chain] * MAX_HEADS})))
    with pytest.raises(Malformed, match="audit verify --json"):
        parse_heads(json.dumps({"tenants": [chain] * (MAX_HEADS + 1)}))


@pytest.mark.req("SEC-24", part="whole-database")
@pytest.mark.parametrize(
    ("ends_at", "mac_there", "accepted", "expected"),
    [
        (3, MAC, (), None),
        (9, MAC, (), None),
        (2, None, (), Contradiction.OLDER),
        (0, None, (), Contradiction.OLDER),
        (3, bytes(32), (), Contradiction.FORKED),
        (9, None, (), Contradiction.FORKED),
        (2, None, (HEAD,), None),
        (9, bytes(32), (HEAD,), None),
        (2, None, (Head(tenant_id="bmce", sequence=3, mac=MAC),), Contradiction.OLDER),
    ],
)
def test_an_older_or_different_log_contradicts_a_head(
    ends_at: int, mac_there: bytes | None, accepted: tuple[Head, ...], expected: Contradiction | None
) -> None:
    """A log that ends before a head is older, one with another row there has another history; unless accepted."""
    assert expected is find_contradiction(HEAD, ends_at=ends_at, mac_there=mac_there, accepted=accepted)


@pytest.mark.req("SEC-24", part="whole-database")
def test_heads_are_read_back_from_an_audit_row() -> None:
    """The heads in the row of an accepted restore are read back; other facts contain none."""
    facts = {"heads": json.loads(json.dumps(heads_to_json([HEAD])))}

    assert (HEAD,) == heads_from_json(facts)
    assert () == heads_from_json({}) == heads_from_json(None) == heads_from_json("not in our spelling")
