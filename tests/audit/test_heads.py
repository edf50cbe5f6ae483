"""Saved heads: how a file of them is read, and which log contradicts one."""

import json
from typing import Any

import pytest

from hookseal.audit.chain import (
    MAX_HEADS,
    Contradiction,
    Head,
    find_contradiction,
    heads_from_json,
    heads_to_json,
    parse_heads,
)
from hookseal.errors import Malformed

pytestmark = pytest.mark.req("SEC-24", part="whole-database")

MAC = bytes(range(32))
HEAD = Head(tenant_id="acme", sequence=3, mac=MAC)


def printed(**changes: Any) -> str:
    """Return the output of `audit verify --json` for one chain, with these fields changed."""
    chain = {"tenant_id": "acme", "rows": 3, "head_sequence": 3, "head_mac": MAC.hex(), "broken": None}
    return json.dumps({"intact": True, "tenants": [chain | changes]})


ONE = json.dumps({"tenant_id": "acme", "head_sequence": 3, "head_mac": MAC.hex()})


def test_the_output_of_verify_is_read() -> None:
    """The output of `audit verify --json` is read; a chain without a head or without a row is left out."""
    assert (HEAD,) == parse_heads(printed())
    without = json.loads(printed(tenant_id="b", head_sequence=None, head_mac=None))["tenants"]
    empty = json.loads(printed(tenant_id="c", head_sequence=0, head_mac="0" * 64))["tenants"]
    assert (HEAD,) == parse_heads(json.dumps({"tenants": [*without, *empty, *json.loads(printed())["tenants"]]}))


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


@pytest.mark.parametrize(
    "changes",
    [{"tenant_id": "Acme \u202e"}, {"tenant_id": ""}, {"head_mac": "00"}, {"head_mac": ""}, {"head_sequence": -1}],
)
def test_a_forged_head_is_contradicted(changes: dict[str, Any]) -> None:
    """A head that hookseal never wrote stays as it is and does not affect the others; every log contradicts it."""
    odd, ours = parse_heads(json.dumps({"tenants": json.loads(printed(**changes))["tenants"] + [json.loads(ONE)]}))

    assert (False, True, HEAD) == (odd.is_plausible, ours.is_plausible, ours)
    assert find_contradiction(odd, ends_at=3, mac_there=None, accepted=()) is not None


def test_the_number_of_heads_is_limited() -> None:
    """A file has a maximum number of heads."""
    [chain] = json.loads(printed())["tenants"]

    assert MAX_HEADS == len(parse_heads(json.dumps({"tenants": [chain] * MAX_HEADS})))
    with pytest.raises(Malformed, match="audit verify --json"):
        parse_heads(json.dumps({"tenants": [chain] * (MAX_HEADS + 1)}))


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


def test_heads_are_read_back_from_an_audit_row() -> None:
    """The heads in the row of an accepted restore are read back; other facts contain none."""
    facts = {"heads": json.loads(json.dumps(heads_to_json([HEAD])))}

    assert (HEAD,) == heads_from_json(facts)
    assert () == heads_from_json({}) == heads_from_json(None) == heads_from_json("not in our spelling")
