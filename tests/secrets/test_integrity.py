"""The MAC over an endpoint's pointer."""

import copy
import hmac
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.errors import Defect, IntegrityKeyUnknown, SecretTampered, StaleRow
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.trust import IntegrityKey
from tests.doubles.replaced import replace
from tests.secrets.samples import BARE, INTEGRITY, OTHER_ENDPOINT, OTHER_TENANT, signed
from tests.vectors.reading import vectors

pytestmark = pytest.mark.req("SEC-24", part="pointer-mac")

KNOWN = vectors("pointer_mac.json")
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
OVERLAP = replace(
    BARE,
    previous_secret_ref="dev:acme:x:1",
    previous_secret_expires_at=MOMENT,
    previous_scheme="x-webhook",
    previous_algorithm="hmac",
    previous_due=True,
)
HEADERS = replace(OVERLAP, headers_ref="dev:acme:h:1")
TLS = replace(BARE, tls_ref="dev:acme:t:1")
BOTH = replace(HEADERS, tls_ref="dev:acme:t:1")
CHANGES: list[dict[str, Any]] = [
    {"tenant_id": OTHER_TENANT},
    {"endpoint_id": OTHER_ENDPOINT},
    {"url": "https://example.com/hook"},
    {"url": ""},
    {"scheme": "x-webhook"},
    {"algorithm": "ed25519"},
    {"secret_ref": "dev:acme:x:2"},
    {"secret_ref": None},
    {"secret_ref": ""},
    {"previous_secret_ref": None},
    {"previous_secret_ref": ""},
    {"previous_secret_expires_at": None},
    {"previous_secret_expires_at": MOMENT + timedelta(microseconds=1)},
    {"previous_secret_expires_at": datetime.max},  # noqa: DTZ901 -- asyncpg's value for infinity
    {"previous_secret_expires_at": datetime.min},  # noqa: DTZ901 -- and for minus infinity
    {"lead": "current"},
    {"headers_ref": "dev:acme:h:1"},
    {"headers_ref": ""},
    {"tls_ref": "dev:acme:t:1"},
    {"tls_ref": ""},
    {"headers_ref": "dev:acme:t:1", "tls_ref": None},
    {"headers_ref": None, "tls_ref": "dev:acme:h:1"},
    {"generation": 2},
    {"generation": 0},
    {"generation": -1},
    {"previous_scheme": "standard"},
    {"previous_scheme": None},
    {"previous_scheme": ""},
    {"previous_algorithm": "ed25519"},
    {"previous_algorithm": None},
    {"previous_scheme": "hmac", "previous_algorithm": "x-webhook"},
]


def second_opinion(key: bytes, pointer: dict[str, Any]) -> str:
    """Compute the MAC of a pointer as docs/CANONICAL/SECRETS.md describes it, without code of hookseal."""
    names = ["tenant_id", "endpoint_id", "url", "scheme", "algorithm", "secret_ref", "previous_secret_ref"]
    names += ["expires_us", "lead", "generation", "previous_scheme", "previous_algorithm", "headers_ref", "tls_ref"]
    parts = ["hookseal.endpoint.pointer.v1", *(pointer.get(name) for name in names)]
    framed = len(parts).to_bytes(2, "big")
    for part in parts:
        encoded = str(part).encode()
        framed += b"\xff" * 4 if part is None else len(encoded).to_bytes(4, "big") + encoded
    return hmac.new(key, framed, "sha256").hexdigest()


@pytest.mark.parametrize("case", KNOWN["macs"], ids=lambda case: case["comment"])
def test_macs_equal_a_second_implementation(case: dict[str, Any]) -> None:
    """The MAC equals that of a second implementation, and a recorded one."""
    assert case["mac"] == second_opinion(bytes.fromhex(KNOWN["key"]), case["pointer"])
    fields = dict(case["pointer"])
    expires = fields.pop("expires_us")
    headers, tls = fields.pop("headers_ref", None), fields.pop("tls_ref", None)
    pointer = Pointer(
        **fields,
        previous_secret_expires_at=None
        if expires is None
        else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=expires),
        previous_due=False,
        mac=None,
        mac_key_id=None,
        headers_ref=headers,
        tls_ref=tls,
        cache_epoch=0,
        restore_epoch=0,
        read_at=MOMENT,
        audited_generation=None,
    )
    key = IntegrityKey(key_id="1", material=SecretMaterial(bytes.fromhex(KNOWN["key"])))

    assert case["mac"] == key.mac(pointer).hex()


@pytest.mark.parametrize("change", CHANGES, ids=str)
@pytest.mark.parametrize(
    "pointer", [BARE, OVERLAP, HEADERS, TLS, BOTH], ids=["one", "overlap", "headers", "tls", "both"]
)
def test_every_field_is_covered_by_the_mac(pointer: Pointer, change: dict[str, Any]) -> None:
    """After a change of any field the old MAC no longer verifies."""
    changed = replace(signed(pointer), **change)
    if changed == signed(pointer):
        INTEGRITY.verify(changed)
    else:
        with pytest.raises(SecretTampered, match="altered"):
            INTEGRITY.verify(changed)


@given(
    st.lists(
        st.tuples(*[st.text("ab:", max_size=2)] * 5, *[st.none() | st.text("ab", max_size=1)] * 6),
        min_size=2,
        max_size=2,
    )
)
def test_text_cannot_move_between_fields(rows: list[tuple[Any, ...]]) -> None:
    """Text that moves from one field to its neighbour changes the MAC."""
    one, other = (
        replace(
            BARE,
            tenant_id=TenantId(row[0]),
            endpoint_id=EndpointId(row[1]),
            url=row[2],
            scheme=row[3],
            algorithm=row[4],
            secret_ref=row[5],
            previous_secret_ref=row[6],
            headers_ref=row[7],
            tls_ref=row[8],
            previous_scheme=row[9],
            previous_algorithm=row[10],
        )
        for row in rows
    )

    assert (one == other) == (INTEGRITY.mac(one) == INTEGRITY.mac(other))


def test_previous_due_is_not_covered_by_the_mac() -> None:
    """The MAC does not cover `previous_due`, which the database computes from the time."""
    INTEGRITY.verify(replace(signed(OVERLAP), previous_due=False))


def test_the_mac_does_not_depend_on_the_time_zone() -> None:
    """The MAC covers the time of the expiry in microseconds, whatever its time zone is."""
    elsewhere = MOMENT.astimezone(timezone(timedelta(hours=13)))

    assert INTEGRITY.mac(OVERLAP) == INTEGRITY.mac(replace(OVERLAP, previous_secret_expires_at=elsewhere))


@pytest.mark.parametrize(
    "change",
    [
        {"mac": None},
        {"mac": b""},
        {"mac": bytes(32)},
        {"mac_key_id": None},
        {"mac_key_id": ""},
        {"mac_key_id": "2"},
        {"mac": INTEGRITY.mac(BARE)[:-1]},
    ],
    ids=str,
)
def test_an_absent_wrong_or_foreign_mac_is_refused(change: dict[str, Any]) -> None:
    """A pointer without a valid MAC under a known key id is refused."""
    with pytest.raises(SecretTampered):
        INTEGRITY.verify(replace(signed(BARE), **change))


@pytest.mark.parametrize(
    ("generation", "audited", "is_old"), [(1, None, False), (1, 1, False), (2, 1, False), (1, 2, True), (0, 1, True)]
)
@pytest.mark.req("SEC-24", part="stale")
def test_a_generation_below_the_audited_one_is_stale(generation: int, audited: int | None, is_old: bool) -> None:
    """A row with a valid MAC but a lower generation than the audited one is stale."""
    pointer = replace(signed(replace(BARE, generation=generation)), audited_generation=audited)

    if is_old:
        with pytest.raises(StaleRow, match=f"generation {generation}, the audit log knows {audited}"):
            INTEGRITY.verify(pointer)
    else:
        INTEGRITY.verify(pointer)


@pytest.mark.req("SEC-24", part="integrity-key")
def test_older_key_versions_only_verify() -> None:
    """Older versions of the key verify; new MACs are made with the newest, in whatever order versions were adopted."""
    first, second, third = (SecretMaterial(bytes([number]) * 32) for number in (1, 2, 3))
    old, key = IntegrityKey(key_id="9", material=first), IntegrityKey(key_id="9", material=first)
    made_before = replace(BARE, mac=old.mac(BARE), mac_key_id=old.key_id)

    key.adopt("10", second)
    key.adopt("8", third)
    made_now = replace(BARE, mac=key.mac(BARE), mac_key_id=key.key_id)

    key.verify(made_before)
    key.verify(made_now)
    assert "10" == key.key_id
    IntegrityKey(key_id="10", material=second, older={"9": first}).verify(made_before)
    with pytest.raises(IntegrityKeyUnknown):
        old.verify(made_now)
    with pytest.raises(SecretTampered, match="altered"):
        key.verify(replace(made_before, mac_key_id="8"))


def test_the_key_is_masked_and_not_copied() -> None:
    """The repr of the key is its id, and it can be neither copied nor pickled."""
    assert "IntegrityKey(1)" == repr(INTEGRITY)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither copied nor pickled"):
            attempt(INTEGRITY)
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        INTEGRITY.__getstate__()


def test_a_mac_under_another_key_is_refused() -> None:
    """A MAC of another key is refused, even if it names the right id."""
    other = IntegrityKey(key_id="1", material=SecretMaterial(bytes(32)))

    with pytest.raises(SecretTampered, match="altered"):
        other.verify(signed(BARE))


@pytest.mark.req("SEC-14", part="verify")
def test_a_message_is_authentic_only_with_its_own_mac() -> None:
    """A message is authentic only with its own MAC, under a known id and with that key."""
    other = IntegrityKey(key_id="1", material=SecretMaterial(bytes(32)))
    mac = INTEGRITY.authenticate(b"message")

    assert (True, False) == (INTEGRITY.knows("1"), INTEGRITY.knows("2"))
    assert INTEGRITY.is_authentic(b"message", mac, "1")
    assert not INTEGRITY.is_authentic(b"massage", mac, "1")
    assert not INTEGRITY.is_authentic(b"message", mac, "2")
    assert not INTEGRITY.is_authentic(b"message", mac[:-1], "1")
    assert not INTEGRITY.is_authentic(b"message", other.authenticate(b"message"), "1")


def test_an_unknown_key_version_cannot_be_selected() -> None:
    """An unknown version cannot be selected for new MACs, and the selection stays unchanged."""
    key = IntegrityKey(key_id="9", material=SecretMaterial(bytes(32)))

    with pytest.raises(Defect):
        key.make_under("10")
    assert "9" == key.key_id
