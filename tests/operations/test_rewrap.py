"""Re-wraps on a real database: audited batch by batch, and nothing looks put back but what was."""

import hashlib
from collections.abc import Sequence

import pytest

from hookseal.dispatcher.endpoints import NewEndpoint
from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.ground.errors import Conflict, Refused
from hookseal.ground.framing import framed
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.operations import rotation
from hookseal.operations.restore import accept_restore
from hookseal.operations.rewrap import misnamed, records_of
from hookseal.secrets import rewrap
from hookseal.secrets.boot import Unlocked
from hookseal.secrets.context import Purpose, SecretContext
from hookseal.secrets.envelope import HEAD_BYTES, seal
from hookseal.secrets.errors import KeyRetired, SecretRolledBack
from hookseal.secrets.keyring import KeyRing, MasterKey
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import SecretRef
from hookseal.secrets.rotation import Wanted
from hookseal.secrets.signer import generate_signing_secret
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
    put_back_now,
    replaced,
    require_sound_log,
    retire,
    under,
)
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("SEC-05")

ACME = TenantId("acme")
ORDERED = "SELECT * FROM hookseal.secret_records WHERE sealed IS NOT NULL ORDER BY tenant_id, name, version"


async def rotate(installation: Installation, endpoint: EndpointId, *, overlap_seconds: int) -> None:
    """Rotate the secret of an endpoint of acme."""
    wanted = Wanted(
        tenant_id=ACME,
        endpoint_id=endpoint,
        overlap_seconds=overlap_seconds,
        secret=generate_signing_secret(),
        force=True,
    )
    async with installation.pool.acquire() as connection:
        await rotation.rotate(installation.operator(connection), wanted)


async def add(installation: Installation, number: int, **headers: bytes) -> EndpointId:
    """Add an endpoint of acme with these header values."""
    new = NewEndpoint(tenant_id=ACME, url=f"https://receiver.example/{number}", event_types=("*",))
    return (await installation.add(new, headers=headers)).pointer.endpoint_id


@pytest.fixture
async def many(installation: Installation) -> Installation:
    """An installation with records in every state, of two tenants and its own; one was destroyed."""
    await add(installation, 0, token=b"header value")
    await rotate(installation, await add(installation, 1), overlap_seconds=600)
    revoked = await add(installation, 2)
    for _ in range(3):
        await rotate(installation, revoked, overlap_seconds=0)
    await installation.endpoint("bmce")
    ref = SecretRef.parse(f"db:acme:webhook-endpoint-{revoked}:1")
    await installation.unlocked.store.destroy(ref)
    return installation


async def pointers(installation: Installation) -> Sequence[Pointer]:
    """Publish for acme, and return what claims read of its endpoints."""
    ledger = PostgresLedger(installation.pool, worker="w-1", lease_seconds=45)
    claims = [await ledger.claim(ring) for ring in await installation.deliveries()]
    return [claim.target.pointer for claim in claims if claim is not None and claim.target is not None]


async def signed(unlocked: Unlocked, of: Sequence[Pointer]) -> list[list[str]]:
    """Return what a worker with these secrets would sign `x` with, for each."""
    found = []
    for pointer in of:
        async with unlocked.service.signers(pointer) as signers:
            found.append([signer.sign(b"x") for signer in signers])
    return found


async def test_each_batch_is_one_row(many: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says to which key, how many and over what; the digest is over the new heads; the end is told once."""
    monkeypatch.setattr(rewrap, "BATCH", 4)
    before = await many.pool.fetch(ORDERED)
    process = await changed(many, OLD, NEW)
    assert len(before) == await replaced(process, OLD)
    assert 0 == await replaced(process, OLD)

    told = [row for row in await audited(many.pool, "_system") if row["action"] in {"key.rewrapped", "key.drained"}]
    assert [4, 4, 2] == [row["after"]["records"] for row in told[:-1]]
    after = await many.pool.fetch(ORDERED)
    left = list(after)
    for row in told[:-1]:
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
        *(told[-1][name] for name in ("action", "subject", "after")),
    )
    await require_sound_log(process)


async def test_bodies_and_times_stay(many: Installation) -> None:
    """Of every record, the integrity key's too, the body is the same byte for byte; nothing else of the row moved."""
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


@pytest.mark.req("SEC-24", part="put-back")
@pytest.mark.parametrize(
    "history",
    [
        pytest.param([(OLD, NEW)], id="once"),
        pytest.param([(OLD, NEW), (NEW, NEWER)], id="twice"),
        pytest.param([(OLD, NEW), (NEW, OLD)], id="and-back"),
        pytest.param([(OLD, NEW), (NEW, OLD), (OLD, NEW), (NEW, NEWER), (NEWER, OLD)], id="round-and-round"),
    ],
)
async def test_nothing_looks_put_back(many: Installation, history: list[tuple[MasterKey, MasterKey]]) -> None:
    """After each change everything opens, warm and cold, records that came in between too; nothing is called old."""
    known = await pointers(many)
    signatures = await signed(many.unlocked, known)
    held = [OLD]
    for number, (older, newer) in enumerate(history):
        if newer not in held:
            await master_keys.stage(many, newer)
            held.append(newer)
        warm = await holding(many, *held)
        assert signatures == await signed(warm.unlocked, known)
        await promote(warm, newer)
        await rotate(warm, await add(warm, 10 + number, token=b"v"), overlap_seconds=60)
        assert [] == await put_back_now(many)
        before = await opened(warm)
        await replaced(warm, older)
        assert [] == await put_back_now(many)
        assert before == await opened(warm) == await opened(await holding(many, *held))
        assert signatures == await signed(warm.unlocked, known)
        assert 0 == await under(many, older)
    await require_sound_log(many)


@pytest.mark.req("SEC-24", part="put-back")
async def test_one_key_change_meets_the_next(many: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some records went from the first key to the second and on to the third, others at once: all open, none is old."""
    monkeypatch.setattr(rewrap, "BATCH", 3)
    before = await opened(many)
    process = await changed(many, OLD, NEW)
    first = await master_keys.batch(process, OLD)
    assert first is not None
    assert (3, NEW.key_id) == (first.moved, first.to)
    process = await changed(process, OLD, NEW, NEWER)
    await rotate(process, await add(process, 9), overlap_seconds=60)
    assert [] == await put_back_now(many)
    for key, moved in ((NEW, 3), (OLD, len(before) - 3)):
        assert moved == await replaced(process, key)
        assert [] == await put_back_now(many)

    after = await opened(await holding(many, NEWER))  # who starts now needs no older one
    assert before == {ref: secret for ref, secret in after.items() if ref in before}
    assert len(before) + 2 == len(after)


@pytest.mark.req("SEC-24", part="put-back")
async def test_a_record_that_was_put_back(many: Installation) -> None:
    """One from before the re-wrap is found and not signed with; accepted, it is re-wrapped again, and all is well."""
    await many.pool.execute(KEEP)
    before = await opened(many)
    process = await changed(many, OLD, NEW)
    await replaced(process, OLD)
    known = await pointers(process)
    endpoint = known[0].endpoint_id
    await many.pool.execute(f"{PUT_BACK} AND r.tenant_id = 'acme' AND r.name LIKE '%' || $1", endpoint)

    assert [endpoint] == await put_back_now(many)
    for unlocked in (process.unlocked, (await holding(many, NEW, OLD)).unlocked):
        with pytest.raises(SecretRolledBack, match="that a re-wrap left no record of"):
            await signed(unlocked, known[:1])
    returned = await under(many, OLD)
    assert returned > 0
    assert 0 == await master_keys.rewrap(process, OLD)  # what was put back is not made to look new
    assert returned == await finish(process, OLD)
    with pytest.raises(Conflict, match=f"{returned} record"):
        await retire(process, OLD)

    async with many.pool.acquire() as connection:
        accepted = await accept_restore(process.operator(connection), ())
    assert ([endpoint], []) == ([found.endpoint_id for found in accepted.endpoints], [*accepted.refused])
    assert returned == await replaced(process, OLD)
    assert [] == await put_back_now(many)
    assert before == await opened(await holding(many, NEW))
    assert "retired" == (await retire(process, OLD)).life.state
    await require_sound_log(process)


@pytest.mark.req("SEC-24", part="accept")
@pytest.mark.parametrize("whose", ["r.tenant_id = '_system'", "r.name IN (SELECT 'webhook-endpoint-' || $1)"])
async def test_what_no_endpoint_has_is_accepted_too(many: Installation, whose: str) -> None:
    """The installation's own secrets, and those of a deleted endpoint: after `restore accept` a re-wrap has them."""
    await many.pool.execute(KEEP)
    process = await changed(many, OLD, NEW)
    await replaced(process, OLD)
    [gone, *_] = [row["id"] for row in await many.pool.fetch("SELECT id::text FROM hookseal.endpoints ORDER BY id")]
    await many.pool.execute("DELETE FROM hookseal.endpoints WHERE id = $1::text::uuid", gone)
    async with many.pool.acquire() as connection:
        await accept_restore(process.operator(connection), ())  # a row that is gone counts as deleted
    await many.pool.execute(f"{PUT_BACK} AND ({whose} OR $1::text IS NULL)", gone)
    returned = await under(many, OLD)
    assert returned > 0
    assert (0, returned) == (await master_keys.rewrap(process, OLD), await finish(process, OLD))

    async with many.pool.acquire() as connection:
        await accept_restore(process.operator(connection), ())

    [*_, told] = await audited(many.pool, "_system")
    assert ("restore.accepted", [OLD.key_id]) == (told["action"], told["after"]["keys_with_records_again"])
    assert returned == await replaced(process, OLD)
    await opened(await holding(many, NEW))
    assert "retired" == (await retire(process, OLD)).life.state


@pytest.mark.req("SEC-24", part="put-back")
async def test_put_back_in_the_middle(many: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put back while the re-wrap runs is the same version of the same secret: it is re-wrapped again."""
    monkeypatch.setattr(rewrap, "BATCH", 4)
    await many.pool.execute(KEEP)
    before = await opened(many)
    process = await changed(many, OLD, NEW)
    done = await master_keys.batch(process, OLD)
    assert done is not None
    await many.pool.execute(PUT_BACK)
    assert [] == await put_back_now(many)
    assert len(before) == await replaced(process, OLD)
    assert before == await opened(await holding(many, NEW))
    rows = await many.pool.fetch(ORDERED)
    assert [[OLD.key_id, NEW.key_id]] * len(before) == [row["wrapped_by"] for row in rows]


async def forge(installation: Installation, pointer: Pointer, key: MasterKey, *, column: MasterKey) -> None:
    """Put a secret of one's own into the endpoint's current record, sealed under that key."""
    ref = SecretRef.parse(pointer.secret_ref or "")
    sealed = seal(KeyRing(key), SecretMaterial(b"f" * 32), SecretContext.of(ref, Purpose.WEBHOOK_SIGNING))
    await installation.pool.execute(
        "UPDATE hookseal.secret_records SET sealed = $1, key_id = $2"
        " WHERE tenant_id = $3 AND name = $4 AND version = $5",
        *(sealed, column.key_id, ref.tenant, ref.name, ref.version),
    )


@pytest.mark.req("SEC-24", part="put-back")
@pytest.mark.parametrize("column", [OLD, NEW, NEWER])
async def test_a_key_that_no_re_wrap_led_to(many: Installation, column: MasterKey) -> None:
    """A record under a key that its batches never went to is refused and found, whatever the column beside it says."""
    process = await changed(many, OLD, NEW)
    process = await changed(process, OLD, NEW, NEWER)
    await replaced(process, OLD)  # from the first to the third
    known = await pointers(process)
    await forge(many, known[0], NEW, column=column)

    with pytest.raises(SecretRolledBack, match="under another master key"):
        await signed(process.unlocked, known[:1])
    assert [known[0].endpoint_id] == await put_back_now(many)


@pytest.mark.req("SEC-24", part="put-back")
@pytest.mark.parametrize("column", [OLD, NEW])
async def test_a_drained_key_under_another_name(many: Installation, column: MasterKey) -> None:
    """A record under a key of which none was left is refused and found, whatever the column beside it says."""
    process = await changed(many, OLD, NEW)
    await replaced(process, OLD)
    known = await pointers(process)
    await forge(many, known[0], OLD, column=column)

    with pytest.raises(SecretRolledBack):
        await signed(process.unlocked, known[:1])
    assert [known[0].endpoint_id] == await put_back_now(many)
    assert 1 == await finish(process, OLD)


async def test_a_column_that_was_written_by_hand(many: Installation) -> None:
    """The record itself says which key sealed it: it opens, it is counted and named, and its key is not drained."""
    process = await changed(many, OLD, NEW)
    known = await pointers(process)
    signatures = await signed(process.unlocked, known)
    ref = SecretRef.parse(known[0].secret_ref or "")
    await many.pool.execute(
        "UPDATE hookseal.secret_records SET key_id = $1 WHERE name = $2 AND version = $3",
        *(NEW.key_id, ref.name, ref.version),
    )
    await master_keys.rewrap(process, OLD)

    assert 1 == await finish(process, OLD)
    assert signatures == await signed((await holding(many, NEW, OLD)).unlocked, known)
    assert [] == await put_back_now(many)
    async with many.pool.acquire() as connection:
        operator = process.operator(connection)
        assert 1 == await records_of(operator, OLD.key_id)
        [named] = await misnamed(operator, OLD.key_id)
    assert ("acme", ref.name, ref.version, "key_id_altered") == (
        *(named.tenant_id, named.name, named.version, named.code),
    )
    with pytest.raises(Conflict, match="1 record"):
        await retire(process, OLD)

    await many.pool.execute(
        "UPDATE hookseal.secret_records SET key_id = $1 WHERE name = $2 AND version = $3",
        *(OLD.key_id, ref.name, ref.version),
    )
    assert 1 == await replaced(process, OLD)


async def test_who_may_re_wrap(many: Installation) -> None:
    """Not what is under the active key, nor without the older one; a key that sealed nothing yet has nothing."""
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
    """Return a process that holds the new key only: what it needs to start is under that one, or looks so."""
    await installation.pool.execute(
        "UPDATE hookseal.secret_records SET key_id = $1 WHERE sealed IS NOT NULL", NEW.key_id
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
async def test_what_is_under_a_retired_key_stays_so(many: Installation) -> None:
    """It is not accepted, for nothing opens it; it is said what mends it, and when the key was drained stays known."""
    await many.pool.execute(KEEP)
    process = await changed(many, OLD, NEW)
    await replaced(process, OLD)
    known = await pointers(process)
    before = (await retire(process, OLD)).life
    await many.pool.execute(f"{PUT_BACK} AND r.tenant_id = 'acme'")
    async with many.pool.acquire() as connection:
        accepted = await accept_restore(process.operator(connection), ())

    assert {pointer.endpoint_id for pointer in known} == {found.endpoint_id for found, _ in accepted.refused}
    assert all("rotate it with --overlap 0" in why for _, why in accepted.refused)
    assert before == (await retire(process, OLD)).life
    for pointer in known:
        with pytest.raises(KeyRetired):
            await signed(process.unlocked, [pointer])
        await rotate(process, pointer.endpoint_id, overlap_seconds=0)
