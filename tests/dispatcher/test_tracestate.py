"""A tracestate goes with the traceparent of its event, and is left out if it is none: it never refuses an event."""

import pytest

from hookseal.dispatcher.store.publish import NewEvent, batch, publish_json, publish_many, publish_raw
from hookseal.ground.ids import TenantId
from hookseal.postgres.pool import Pool
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("OPS-03", part="trace-context")

ACME = TenantId("acme")
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
# What is given, and what is stored: https://www.w3.org/TR/trace-context/#tracestate-header
STATES: list[tuple[str, str | None]] = [
    ("congo=t61rcWkgMzE", "congo=t61rcWkgMzE"),
    ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
    (" a=1 ,\t, b=x y ,", "a=1,b=x y"),
    ("fw529a3039@dt=FfhuYo,0t-_*/x@a-_*/9=1", "fw529a3039@dt=FfhuYo,0t-_*/x@a-_*/9=1"),
    ("a=!\"#$%&'()*+-./0:;<>?@[]^`{|}~", "a=!\"#$%&'()*+-./0:;<>?@[]^`{|}~"),
    ("a" * 256 + "=1", "a" * 256 + "=1"),
    ("a=" + "1" * 256, "a=" + "1" * 256),
    ("a" * 241 + "@" + "b" * 14 + "=1", "a" * 241 + "@" + "b" * 14 + "=1"),
    (",".join(f"a{n}=1" for n in range(32)), ",".join(f"a{n}=1" for n in range(32))),
    ("a=" + "1" * 254 + ",b=" + "1" * 253, "a=" + "1" * 254 + ",b=" + "1" * 253),
    ("", None),
    (" , ", None),
    ("a", None),
    ("a=", None),
    ("=1", None),
    ("A=1", None),
    ("1=1", None),
    ("a=1=2", None),
    ("a=1,a=2", None),
    ("a=1,b", None),
    ("a@1b=1", None),
    ("a@b@c=1", None),
    ("a=\u00e9", None),
    ("a=1\r\nx: y", None),
    ("a=1\x00", None),
    ("a=1\ud800", None),
    ("a=1\tb", None),
    ("a" * 257 + "=1", None),
    ("a=" + "1" * 257, None),
    ("a" * 242 + "@b=1", None),
    ("a@" + "b" * 15 + "=1", None),
    (",".join(f"a{n}=1" for n in range(33)), None),
    ("a=" + "1" * 254 + ",b=" + "1" * 254, None),
]


async def in_rows(pool: Pool) -> list[str | None]:
    found = await pool.fetch("SELECT tracestate FROM hookseal.events ORDER BY id")
    return [row["tracestate"] for row in found]


async def test_a_tracestate_is_stored_if_it_is_one(pool: Pool) -> None:
    """As the standard defines it, at most 512 characters, without spaces around its members; else there is none."""
    for given, stored in STATES:
        if given.isascii() and "\x00" not in given:
            read = await pool.fetchval("SELECT hookseal.read_tracestate($1)", given)
            assert stored == read, given


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("many", [False, True])
async def test_it_is_stored_however_the_event_is_published(pool: Pool, raw: bool, many: bool) -> None:
    """Beside a traceparent only: one without names no trace."""
    given = [
        NewEvent(tenant_id=ACME, event_type="a", traceparent=traceparent, tracestate=tracestate)
        for traceparent, tracestate in ((TRACEPARENT, " a=1"), (TRACEPARENT, "a"), (None, "a=1"), (TRACEPARENT, None))
    ]
    if many:
        await publish_many(pool, ACME, batch((each, b"1" if raw else "1") for each in given))
    for each in () if many else given:
        await (publish_raw(pool, each, b"1") if raw else publish_json(pool, each, "1"))

    assert ["a=1", None, None, None] == await in_rows(pool)


async def test_a_claim_has_it(stored: Installation) -> None:
    """A delivery that is claimed alone, and one of a batch."""
    event = NewEvent(tenant_id=ACME, event_type="invoice.paid", traceparent=TRACEPARENT, tracestate="a=1")
    rings = [(await publish_json(stored.pool, event, "1")).deliveries[0] for _ in range(3)]
    ledger = stored.ledger("w1", lease_seconds=45)
    alone = await ledger.claim_all(rings[:1], most_bytes=1_000_000)
    batched = await ledger.claim_all(rings[1:], most_bytes=1_000_000)

    assert [(TRACEPARENT, "a=1")] * 3 == [
        (each.traceparent, each.tracestate) for each in (*alone.claims, *batched.claims)
    ]
