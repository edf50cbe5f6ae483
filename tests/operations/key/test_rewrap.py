"""Re-wraps on a real database: audited batch by batch, and only stale records are called stale."""

import hashlib
from collections.abc import Sequence
from dataclasses import astuple

import pytest

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import Conflict, KeyRetired, Refused, StaleRow
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import framed
from hookseal.operations.key.keys import altered
from hookseal.operations.restore import accept_restore
from hookseal.secrets.core.envelope import HEAD_BYTES, seal
from hookseal.secrets.core.keyring import KeyRing, MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretContext, SecretRef
from hookseal.secrets.key import rewrap
from tests.doubles import master_keys
from tests.doubles.logbook import audited
from tests.doubles.master_keys import (
    KEEP,
    NEW,
    NEWER,
    OLD,
    PUT_BACK,
    changed,
    finish,
    holding,
    opened,
    promote,
    replaced,
    require_sound_log,
    retire,
    stale_now,
    under,
)
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("SEC-05")

ACME = TenantId("acme")
ORDERED = "SELECT * FROM hookseal.secret_records WHERE sealed IS NOT NULL ORDER BY tenant_id, name, version"


async def add(installation: Installation, number: int, **headers: bytes) -> EndpointId:
    """Add an endpoint of acme with these header values."""
    new = NewEndpoint(tenant_id=ACME, url=f"https://receiver.example/{number}", event_types=("*",))
    return (await installation.add(new, headers=headers)).pointer.endpoint_id


@pytest.fixture
async def many(installation: Installation) -> Installation:
    """An installation with records in every state, of two tenants and its own; one was destroyed."""
    await add(installation, 0, token=b"header value")
    await installation.rotate(await add(installation, 1), overlap_seconds=600, force=True)
    revoked = await add(installation, 2)
    for _ in range(3):
        await installation.rotate(revoked, overlap_seconds=0, force=True)
    await installation.endpoint("bmce")
    ref = SecretRef.parse(f"db:acme:webhook-endpoint-{revoked}:1")
    await installation.unlocked.store.destroy(ref)
    return installation


async def pointers(installation: Installation) -> Sequence[Pointer]:
    """Publish for acme, and return the claimed pointers of its endpoints."""
    return [await installation.claimed(ring) for ring in await installation.deliveries()]


async def signed(process: Installation, of: Sequence[Pointer]) -> list[list[str]]:
    """Return the signatures of `x` by a worker with these secrets, for each pointer."""
    return [await process.signed(pointer) for pointer in of]


async def test_each_batch_is_one_audit_row(many: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrap, "BATCH", 4)
    before = await many.pool.fetch(ORDERED)
    process = await changed(many, OLD, NEW)
    assert len(before) == await replaced(process, OLD)
    assert 0 == await replaced(process, OLD)

    entries = [row for row in await audited(many.pool, "_system") if row["action"] in {"key.rewrapped", "key.drained"}]
    assert [4, 4, 2] == [row["after"]["records"] for row in entries[:-1]]
    after = await many.pool.fetch(ORDERED)
    left = list(after)
    for row in entries[:-1]:
        digest = hashlib.sha256(b"hookseal.rewrap.batch.v1")
        for _ in range(row["after"]["records"]):
            each = left.pop(0)
            place = (each["tenant_id"].encode(), each["name"].encode(), str(each["version"]).encode())
            digest.update(framed(*place, each["sealed"][:HEAD_BYTES]))
        assert {
            "action": "key.rewrapped",
            "subject": f"key:{OLD.key_id}",
            "who": "ada@desk",
            "before": None,
            "after": {"to": NEW.key_id, "records": row["after"]["records"], "digest": digest.hexdigest()},
        } == row
    assert ("key.drained", f"key:{OLD.key_id}", {"records": 0}) == (
        *(entries[-1][name] for name in ("action", "subject", "after")),
    )
    await require_sound_log(process)


async def test_a_re_wrap_changes_no_body(many: Installation) -> None:
    before = {tuple(row)[:3]: row for row in await many.pool.fetch("SELECT * FROM hookseal.secret_records")}
    process = await changed(many, OLD, NEW)
    await replaced(process, OLD)

    rows = {tuple(row)[:3]: row for row in await many.pool.fetch("SELECT * FROM hookseal.secret_records")}
    assert ("_system", "integrity", 1) in rows
    for place, row in rows.items():
        was = before[place]
        moved = {name for name in row.keys() if row[name] != was[name]}  # noqa: SIM118 -- a record is no mapping
        if was["sealed"] is None:
            assert set() == moved
            continue
        assert {"sealed", "key_id", "wrapped_by"} == moved
        assert was["sealed"][HEAD_BYTES:] == row["sealed"][HEAD_BYTES:]
        assert was["sealed"][:HEAD_BYTES] != row["sealed"][:HEAD_BYTES]
        assert (NEW.key_id, [OLD.key_id, NEW.key_id]) == (row["key_id"], row["wrapped_by"])


@pytest.mark.req("SEC-24", part="stale")
@pytest.mark.parametrize(
    "history",
    [
        pytest.param([(OLD, NEW)], id="once"),
        pytest.param([(OLD, NEW), (NEW, NEWER)], id="twice"),
        pytest.param([(OLD, NEW), (NEW, OLD)], id="and-back"),
        pytest.param([(OLD, NEW), (NEW, OLD), (OLD, NEW), (NEW, NEWER), (NEWER, OLD)], id="round-and-round"),
    ],
)
async def test_nothing_looks_stale(many: Installation, history: list[tuple[MasterKey, MasterKey]]) -> None:
    known = await pointers(many)
    signatures = await signed(many, known)
    held = [OLD]
    for number, (older, newer) in enumerate(history):
        if newer not in held:
            await master_keys.stage(many, newer)
            held.append(newer)
        warm = await holding(many, *held)
        assert signatures == await signed(warm, known)
        await promote(warm, newer)
        await warm.rotate(await add(warm, 10 + number, token=b"v"), overlap_seconds=60, force=True)
        assert [] == await stale_now(many)
        before = await opened(warm)
        await replaced(warm, older)
        assert [] == await stale_now(many)
        assert before == await opened(warm) == await opened(await holding(many, *held))
        assert signatures == await signed(warm, known)
        assert 0 == await under(many, older)
    await require_sound_log(many)


@pytest.mark.req("SEC-24", part="stale")
async def test_records_under_two_key_changes_open(many: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrap, "BATCH", 3)
    before = await opened(many)
    process = await changed(many, OLD, NEW)
    first = await master_keys.batch(process, OLD)
    assert first is not None
    assert (3, NEW.key_id) == (first.moved, first.to)
    process = await changed(process, OLD, NEW, NEWER)
    await process.rotate(await add(process, 9), overlap_seconds=60, force=True)
    assert [] == await stale_now(many)
    for key, moved in ((NEW, 3), (OLD, len(before) - 3)):
        assert moved == await replaced(process, key)
        assert [] == await stale_now(many)

    after = await opened(await holding(many, NEWER))  # a process that starts now needs no older key
    assert before == {ref: secret for ref, secret in after.items() if ref in before}
    assert len(before) + 2 == len(after)


@pytest.mark.req("SEC-24", part="stale")
async def test_a_stale_record_is_re_wrapped_once_accepted(many: Installation) -> None:
    await many.pool.execute(KEEP)
    before = await opened(many)
    process = await changed(many, OLD, NEW)
    await replaced(process, OLD)
    known = await pointers(process)
    endpoint = known[0].endpoint_id
    await many.pool.execute(f"{PUT_BACK} AND r.tenant_id = 'acme' AND r.name LIKE '%' || $1", endpoint)

    assert [endpoint] == await stale_now(many)
    for each in (process, await holding(many, NEW, OLD)):
        with pytest.raises(StaleRow, match="that a re-wrap left no record of"):
            await signed(each, known[:1])
    returned = await under(many, OLD)
    assert returned > 0
    assert 0 == await master_keys.rewrap(process, OLD)  # a stale record is not re-wrapped
    assert returned == await finish(process, OLD)
    with pytest.raises(Conflict, match=f"{returned} record"):
        await retire(process, OLD)

    accepted = await process.act(accept_restore, ())
    assert ([endpoint], []) == ([found.endpoint_id for found in accepted.endpoints], [*accepted.refused])
    assert returned == await replaced(process, OLD)
    assert [] == await stale_now(many)
    assert before == await opened(await holding(many, NEW))
    assert "retired" == (await retire(process, OLD)).life.state
    await require_sound_log(process)


@pytest.mark.req("SEC-24", part="accept")
@pytest.mark.parametrize("whose", ["r.tenant_id = '_system'", "r.name IN (SELECT 'webhook-endpoint-' || $1)"])
async def test_records_without_an_endpoint_are_accepted(many: Installation, whose: str) -> None:
    await many.pool.execute(KEEP)
    process = await changed(many, OLD, NEW)
    await replaced(process, OLD)
    [gone, *_] = [row["id"] for row in await many.pool.fetch("SELECT id::text FROM hookseal.endpoints ORDER BY id")]
    await many.pool.execute("DELETE FROM hookseal.endpoints WHERE id = $1::text::uuid", gone)
    await process.act(accept_restore, ())  # the missing row counts as deleted
    await many.pool.execute(f"{PUT_BACK} AND ({whose} OR $1::text IS NULL)", gone)
    returned = await under(many, OLD)
    assert returned > 0
    assert (0, returned) == (await master_keys.rewrap(process, OLD), await finish(process, OLD))

    await process.act(accept_restore, ())

    [*_, entry] = await audited(many.pool, "_system")
    assert ("restore.accepted", [OLD.key_id]) == (entry["action"], entry["after"]["keys_with_records_again"])
    assert returned == await replaced(process, OLD)
    await opened(await holding(many, NEW))
    assert "retired" == (await retire(process, OLD)).life.state


@pytest.mark.req("SEC-24", part="stale")
async def test_a_record_restored_meanwhile_is_re_wrapped_again(
    many: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrap, "BATCH", 4)
    await many.pool.execute(KEEP)
    before = await opened(many)
    process = await changed(many, OLD, NEW)
    done = await master_keys.batch(process, OLD)
    assert done is not None
    await many.pool.execute(PUT_BACK)
    assert [] == await stale_now(many)
    assert len(before) == await replaced(process, OLD)
    assert before == await opened(await holding(many, NEW))
    rows = await many.pool.fetch(ORDERED)
    assert [[OLD.key_id, NEW.key_id]] * len(before) == [row["wrapped_by"] for row in rows]


async def forge(installation: Installation, pointer: Pointer, key: MasterKey) -> None:
    """Put a secret of the attacker into the endpoint's current record, sealed under that key."""
    ref = SecretRef.parse(pointer.secret_ref or "")
    sealed = seal(KeyRing(key), SecretMaterial(b"f" * 32), SecretContext.of(ref, Purpose.WEBHOOK_SIGNING))
    await installation.pool.execute(
        "UPDATE hookseal.secret_records SET sealed = $1 WHERE tenant_id = $2 AND name = $3 AND version = $4",
        *(sealed, ref.tenant, ref.name, ref.version),
    )


@pytest.mark.req("SEC-24", part="stale")
async def test_a_record_under_an_unexpected_key_is_refused(many: Installation) -> None:
    process = await changed(many, OLD, NEW)
    process = await changed(process, OLD, NEW, NEWER)
    await replaced(process, OLD)  # from the first key to the third
    known = await pointers(process)
    await forge(many, known[0], NEW)

    with pytest.raises(StaleRow, match="under another master key"):
        await signed(process, known[:1])
    assert [known[0].endpoint_id] == await stale_now(many)


@pytest.mark.req("SEC-24", part="stale")
async def test_a_record_under_a_drained_key_is_refused(many: Installation) -> None:
    process = await changed(many, OLD, NEW)
    await replaced(process, OLD)
    known = await pointers(process)
    await forge(many, known[0], OLD)

    with pytest.raises(StaleRow):
        await signed(process, known[:1])
    assert [known[0].endpoint_id] == await stale_now(many)
    assert 1 == await finish(process, OLD)


async def test_a_record_with_a_wrong_key_id_prevents_the_end(many: Installation) -> None:
    """Such a record was altered: the key that sealed it is neither drained nor retired until the record is repaired."""
    process = await changed(many, OLD, NEW)
    ref = SecretRef.parse((await pointers(process))[0].secret_ref or "")
    name = (
        "UPDATE hookseal.secret_records SET sealed = overlay(sealed PLACING decode($1, 'hex') FROM 3)"
        " WHERE tenant_id = $2 AND name = $3 AND version = $4"
    )
    await many.pool.execute(name, NEW.key_id, ref.tenant, ref.name, ref.version)
    await master_keys.rewrap(process, OLD)

    assert 1 == await finish(process, OLD)
    [found] = await process.act(altered, OLD.key_id)
    assert ("acme", ref.name, ref.version, "record_tampered") == astuple(found)
    with pytest.raises(Conflict, match="1 record"):
        await retire(process, OLD)

    await many.pool.execute(name, OLD.key_id, ref.tenant, ref.name, ref.version)
    assert 1 == await replaced(process, OLD)


async def test_a_re_wrap_needs_the_older_key(many: Installation) -> None:
    with pytest.raises(Conflict, match="is the active one"):
        await master_keys.batch(many, OLD)
    await master_keys.stage(many, NEW)
    process = await holding(many, OLD, NEW)
    assert await master_keys.batch(process, NEW) is None
    assert 0 == await finish(process, NEW)
    await promote(process, NEW)

    lacking = await without_old(many)
    before = await many.pool.fetch(ORDERED)
    with pytest.raises(Refused, match="SECRETS_MASTER_KEY_PREVIOUS"):
        await master_keys.batch(lacking, OLD)
    assert before == await many.pool.fetch(ORDERED)


async def without_old(installation: Installation) -> Installation:
    """Return a process with the new key only, by records that are under it or appear to be."""
    await installation.pool.execute(
        "UPDATE hookseal.secret_records SET sealed = overlay(sealed PLACING decode($1, 'hex') FROM 3)"
        " WHERE sealed IS NOT NULL AND tenant_id <> '_system'",
        NEW.key_id,
    )
    for name, purpose in (("integrity", Purpose.INTEGRITY), ("sentinel", Purpose.SENTINEL)):
        ref = SecretRef.parse(f"db:_system:{name}:1", reserved=True)
        material = await installation.unlocked.store.get(ref, purpose=purpose)
        await installation.pool.execute(
            "UPDATE hookseal.secret_records SET sealed = $1 WHERE tenant_id = '_system' AND name = $2",
            *(seal(KeyRing(NEW), material, SecretContext.of(ref, purpose)), name),
        )
    return await holding(installation, NEW)


@pytest.mark.req("SEC-24", part="accept")
async def test_a_record_under_a_retired_key_is_not_accepted(many: Installation) -> None:
    await many.pool.execute(KEEP)
    process = await changed(many, OLD, NEW)
    await replaced(process, OLD)
    known = await pointers(process)
    before = (await retire(process, OLD)).life
    await many.pool.execute(f"{PUT_BACK} AND r.tenant_id = 'acme'")
    accepted = await process.act(accept_restore, ())

    assert {pointer.endpoint_id for pointer in known} == {found.endpoint_id for found, _ in accepted.refused}
    assert all("rotate it with --overlap 0" in why for _, why in accepted.refused)
    assert before == (await retire(process, OLD)).life
    for pointer in known:
        with pytest.raises(KeyRetired):
            await signed(process, [pointer])
        await process.rotate(pointer.endpoint_id, overlap_seconds=0, force=True)
