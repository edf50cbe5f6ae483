"""The replacement of everything that a leaked master key ever sealed and that still signs, on a real database."""

import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import Conflict, Defect, NotFound
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.endpoint.endpoints import delete_endpoint
from hookseal.operations.endpoint.update import update_endpoint
from hookseal.operations.key import keys
from hookseal.operations.key.keys import CompromiseOptions, Replaced, drill, rotate_integrity_key
from hookseal.secrets.core.header_values import HeaderChange
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretRef
from hookseal.secrets.key.compromise import Exposed, Remedy
from tests import rows
from tests.doubles.logbook import audited
from tests.doubles.master_keys import (
    NEW,
    NEWER,
    OLD,
    changed,
    holding,
    opened,
    replaced,
    require_sound_log,
    retire,
    stage,
    stale_now,
)
from tests.doubles.stored import Installation
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("SEC-22")

ACME, BMCE = TenantId("acme"), TenantId("bmce")
HOW = CompromiseOptions(overlap_seconds=0, force=False, dry_run=False, random_bytes=os.urandom)
DAY = 86_400


async def replace_exposed(process: Installation, how: CompromiseOptions = HOW) -> list[Replaced]:
    """Replace everything that the older key sealed."""
    found: list[Replaced] = []
    await process.act(drill, OLD.key_id, how, found.append)
    return found


def fail(replaced: Replaced) -> None:
    """Fail, since nothing had to be replaced."""
    raise AssertionError(replaced)


async def pointer_of(process: Installation, endpoint: EndpointId, tenant: TenantId = ACME) -> Pointer:
    found = await process.pointer(endpoint, tenant)
    await process.unlocked.versions.refresh()
    process.unlocked.integrity.verify(found)
    return found


async def key_of(process: Installation, ref: str | None) -> str:
    """Return the master key of the version."""
    key_id: str = await process.pool.fetchval("SELECT key_id FROM hookseal.secret_records WHERE ref = $1", ref)
    return key_id


def error_codes(found: list[Replaced]) -> dict[str, str | None]:
    """Return the error code of each version, None without an error, by ref."""
    return {each.exposed.ref: None if each.error is None else each.error.code for each in found}


async def test_everything_the_key_sealed_is_replaced(installation: Installation) -> None:
    one = (await installation.endpoint()).pointer.endpoint_id
    for _ in range(2):
        await installation.rotate(one, overlap_seconds=0)
    other = (await installation.endpoint("bmce")).pointer.endpoint_id
    process = await changed(installation, OLD, NEW)
    await replaced(process, OLD)  # the records are now under the new key, but an older copy opens with the leaked one
    later = (await process.endpoint(url="https://later.example/")).pointer.endpoint_id
    found = await replace_exposed(process)

    assert {
        "db:_system:integrity:1": None,
        "db:_system:sentinel:1": None,
        f"db:acme:webhook-endpoint-{one}:1": None,
        f"db:acme:webhook-endpoint-{one}:2": None,
        f"db:acme:webhook-endpoint-{one}:3": None,
        f"db:bmce:webhook-endpoint-{other}:1": None,
    } == error_codes(found)
    assert {Remedy.ROTATION: 2, Remedy.NEW_INTEGRITY_KEY: 1, Remedy.NONE: 3} == {
        remedy: [each.exposed.remedy for each in found].count(remedy)
        for remedy in (Remedy.ROTATION, Remedy.NEW_INTEGRITY_KEY, Remedy.NONE)
    }
    for endpoint, tenant, version in ((one, ACME, 4), (other, BMCE, 2), (later, ACME, 1)):
        now = await pointer_of(process, endpoint, tenant)
        assert f"db:{tenant}:webhook-endpoint-{endpoint}:{version}" == now.secret_ref
        assert now.previous_secret_ref is None
        assert NEW.key_id == await key_of(process, now.secret_ref)
    assert "2" == process.unlocked.integrity.key_id
    assert [] == await stale_now(process)
    await opened(process)
    await require_sound_log(process)

    again = await replace_exposed(process)
    assert len(found) == len(again)
    assert {Remedy.NONE} == {each.exposed.remedy for each in again}
    assert "2" == process.unlocked.integrity.key_id


async def test_an_endpoint_of_a_later_version_does_not_stop_the_others(installation: Installation) -> None:
    """Whichever comes first, the secret of the other one is replaced."""
    endpoints = [
        (await installation.endpoint(url=f"https://{name}.example/")).pointer.endpoint_id for name in ("a", "b", "c")
    ]
    await installation.set_scheme(endpoints[0], "later")
    await installation.set_scheme(endpoints[1], "later")
    process = await changed(installation, OLD, NEW)
    found = await replace_exposed(process)

    refs = [f"db:acme:webhook-endpoint-{endpoint}:1" for endpoint in endpoints]
    assert ["secret_unusable", "secret_unusable", None] == [error_codes(found)[each] for each in refs]
    assert f"db:acme:webhook-endpoint-{endpoints[2]}:2" == (await pointer_of(process, endpoints[2])).secret_ref


@pytest.mark.req("SEC-06")
async def test_the_key_is_marked_and_caches_are_cleared(installation: Installation) -> None:
    await installation.endpoint()
    process = await changed(installation, OLD, NEW)
    await replace_exposed(process)

    life = await installation.pool.fetchrow(
        "SELECT compromised_at, state FROM hookseal.secret_keys WHERE key_id = $1", OLD.key_id
    )
    assert life is not None
    assert (True, "decrypt_only") == (life["compromised_at"] is not None, life["state"])
    [row] = [row for row in await audited(installation.pool, "_system") if row["action"] == "key.compromised"]
    assert (f"key:{OLD.key_id}", "ada@desk") == (row["subject"], row["who"])
    assert {"state": "decrypt_only", "compromised_at": None} == row["before"]
    assert {"versions": 3, "cache_epoch": 1} == row["after"]
    assert 1 == await installation.pool.fetchval("SELECT epoch FROM hookseal.control WHERE name = 'cache'")


async def test_secrets_under_a_retired_key_are_replaced(installation: Installation) -> None:
    """Secrets that a retired key had sealed are replaced, too, since older copies of the table may exist."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    process = await changed(installation, OLD, NEW)
    await replaced(process, OLD)
    await retire(process, OLD)
    await replace_exposed(await holding(installation, NEW))

    assert 2 == (await pointer_of(process, endpoint)).generation


async def test_both_secrets_sign_in_the_overlap(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    process = await changed(installation, OLD, NEW)
    await replace_exposed(process, replace(HOW, overlap_seconds=DAY))

    now = await pointer_of(process, endpoint)
    name = f"db:acme:webhook-endpoint-{endpoint}"
    assert (f"{name}:2", f"{name}:1", True) == (now.secret_ref, now.previous_secret_ref, now.previous_due)
    rows = [row for row in await audited(installation.pool) if row["action"] == "secret.rotated"]
    assert [f"compromise.{OLD.key_id}.{endpoint}.1"] == [row["after"]["rotation_id"] for row in rows]


async def test_a_newer_secret_is_not_replaced(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    process = await changed(installation, OLD, NEW)
    await process.rotate(endpoint, overlap_seconds=DAY)
    found = await replace_exposed(process, replace(HOW, overlap_seconds=60))
    expected = ("previous", Remedy.END_OF_OVERLAP, None)
    assert [expected] == [
        (each.exposed.used_as, each.exposed.remedy, each.error) for each in found if each.exposed.tenant_id == ACME
    ]
    assert (2, True) == ((now := await pointer_of(process, endpoint)).generation, now.previous_due)

    await replace_exposed(process)
    now = await pointer_of(process, endpoint)
    assert (3, f"db:acme:webhook-endpoint-{endpoint}:2", None) == (
        now.generation,
        now.secret_ref,
        now.previous_secret_ref,
    )
    assert "secret.overlap_ended" == (await audited(installation.pool))[-1]["action"]
    assert [] == await stale_now(process)


async def test_one_rotation_replaces_both_secrets(installation: Installation) -> None:
    both = (await installation.endpoint()).pointer.endpoint_id
    await installation.rotate(both, overlap_seconds=DAY)
    over = (await installation.endpoint(url="https://r.example/over")).pointer.endpoint_id
    process = await changed(installation, OLD, NEW)
    await process.rotate(over, overlap_seconds=1)

    async def is_over() -> bool:
        return not (await pointer_of(process, over)).previous_due

    await eventually(is_over)
    found = await replace_exposed(process)

    assert {Remedy.ROTATION: 1, Remedy.NONE: 2} == Counter(
        each.exposed.remedy for each in found if each.exposed.tenant_id == ACME
    )
    now = await pointer_of(process, both)
    assert (3, f"db:acme:webhook-endpoint-{both}:3", None) == (now.generation, now.secret_ref, now.previous_secret_ref)
    assert 2 == (await pointer_of(process, over)).generation


async def test_a_running_overlap_needs_force(installation: Installation) -> None:
    """A running overlap is not ended without `force`: it is reported as failed, and the others are replaced."""
    busy = (await installation.endpoint()).pointer.endpoint_id
    await installation.rotate(busy, overlap_seconds=DAY)
    free = (await installation.endpoint("bmce")).pointer.endpoint_id
    process = await changed(installation, OLD, NEW)
    how = replace(HOW, overlap_seconds=60)
    failed = {ref: code for ref, code in error_codes(await replace_exposed(process, how)).items() if code is not None}

    assert {f"db:acme:webhook-endpoint-{busy}:2": "conflict"} == failed
    assert 2 == (await pointer_of(process, busy)).generation
    assert 2 == (await pointer_of(process, free, BMCE)).generation
    assert {None} == set(error_codes(await replace_exposed(process, replace(how, force=True))).values())
    now = await pointer_of(process, busy)
    name = f"db:acme:webhook-endpoint-{busy}"
    assert (f"{name}:3", f"{name}:2") == (now.secret_ref, now.previous_secret_ref)
    assert 2 == (await pointer_of(process, free, BMCE)).generation


async def test_header_values_are_listed_until_replaced(installation: Installation) -> None:
    new = NewEndpoint(tenant_id=ACME, url="https://receiver.example/hook", event_types=("*",))
    added = await installation.add(new, headers={"x-token": b"bearer"})
    process = await changed(installation, OLD, NEW)
    for _ in range(2):
        [headers] = [each for each in await replace_exposed(process) if each.exposed.remedy is Remedy.NEW_HEADER_VALUES]
        assert (added.pointer.headers_ref, None) == (headers.exposed.ref, headers.error)

    change = HeaderChange(given={"x-token": SecretMaterial(b"another")}, replaces_all=True)
    await process.act(update_endpoint, ACME, added.pointer.endpoint_id, {"headers": change}, own_drain_seconds=25)
    assert {Remedy.NONE} == {each.exposed.remedy for each in await replace_exposed(process)}


async def test_an_ed25519_endpoint_gets_a_new_pair(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.rotate(endpoint, scheme=Scheme.STANDARD, algorithm=Algorithm.ED25519)
    process = await changed(installation, OLD, NEW)
    assert {None} == set(error_codes(await replace_exposed(process)).values())

    now = await pointer_of(process, endpoint)
    assert ("ed25519", 3) == (now.algorithm, now.generation)
    pair = await process.unlocked.store.get(SecretRef.parse(now.secret_ref or ""), purpose=Purpose.WEBHOOK_SIGNING)
    assert pair.reveal().startswith(b"whsk_")


async def test_only_existing_endpoints_get_new_secrets(installation: Installation) -> None:
    gone = (await installation.endpoint()).pointer.endpoint_id
    off = (await installation.endpoint("bmce")).pointer.endpoint_id
    await rows.change(installation.pool, "endpoints", off, enabled=False)
    await installation.act(delete_endpoint, ACME, gone)
    process = await changed(installation, OLD, NEW)
    found = {each.exposed.tenant_id: each.exposed for each in await replace_exposed(process)}

    assert (Remedy.NONE, None) == (found[ACME].remedy, found[ACME].endpoint_id)
    assert 2 == (await pointer_of(process, off, BMCE)).generation


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE hookseal.endpoints SET url = 'https://evil.example/' WHERE tenant_id = 'acme'", "secret_tampered"),
        ("UPDATE hookseal.audit_heads SET sequence = 0 WHERE tenant_id = 'acme'", "refused"),
    ],
    ids=["row-altered", "log-broken"],
)
async def test_an_altered_row_is_reported_and_not_changed(
    installation: Installation, statement: str, code: str
) -> None:
    await installation.endpoint()
    after = (await installation.endpoint("bmce")).pointer.endpoint_id
    process = await changed(installation, OLD, NEW)
    await installation.pool.execute(statement)
    before = await installation.pool.fetch("SELECT * FROM hookseal.endpoints WHERE tenant_id = 'acme'")
    found = error_codes(await replace_exposed(process))

    assert [code] == [each for ref, each in found.items() if ref.startswith("db:acme:")]
    assert {None} == {each for ref, each in found.items() if not ref.startswith("db:acme:")}
    assert before == await installation.pool.fetch("SELECT * FROM hookseal.endpoints WHERE tenant_id = 'acme'")
    assert 2 == (await pointer_of(process, after, BMCE)).generation


async def test_the_active_key_is_refused(installation: Installation) -> None:
    """The active key is refused, since new secrets would be sealed under it, and nothing is marked."""
    await installation.endpoint()
    before = await installation.pool.fetch("SELECT * FROM hookseal.secret_keys")
    for how in (HOW, replace(HOW, dry_run=True)):
        with pytest.raises(Conflict, match="promote another first"):
            await replace_exposed(installation, how)
    assert before == await installation.pool.fetch("SELECT * FROM hookseal.secret_keys")


async def test_an_unregistered_key_is_not_found(installation: Installation) -> None:
    for how in (HOW, replace(HOW, dry_run=True)):
        with pytest.raises(NotFound):
            await installation.act(drill, NEWER.key_id, how, fail)


async def test_a_marked_staged_key_is_never_promoted(installation: Installation) -> None:
    await stage(installation, NEW)
    await installation.act(drill, NEW.key_id, HOW, fail)
    assert await installation.pool.fetchval(
        "SELECT compromised_at IS NOT NULL FROM hookseal.secret_keys WHERE key_id = $1", NEW.key_id
    )


async def test_a_dry_run_changes_nothing(installation: Installation) -> None:
    await installation.endpoint()
    process = await changed(installation, OLD, NEW)
    tables = ("secret_keys", "secret_records", "endpoints", "audit_log", "control")

    async def content() -> list[object]:
        return [await installation.pool.fetch(f"SELECT * FROM hookseal.{table}") for table in tables]  # noqa: S608

    before = await content()
    found = await replace_exposed(process, replace(HOW, dry_run=True))
    assert [Remedy.NEW_INTEGRITY_KEY, Remedy.NONE, Remedy.ROTATION] == [each.exposed.remedy for each in found]
    assert before == await content()


async def test_a_concurrent_run_is_a_conflict(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    process = await changed(installation, OLD, NEW)
    other = await holding(installation, OLD, NEW)
    replace_one: Callable[..., Awaitable[None]] = keys._replace

    async def beside(operator: object, key_id: str, exposed: Exposed, how: CompromiseOptions) -> None:
        if exposed.remedy is Remedy.ROTATION:
            await other.act(rotate_integrity_key, os.urandom)
            await other.rotate(endpoint, overlap_seconds=0)
        await replace_one(operator, key_id, exposed, how)

    with monkeypatch.context() as patched:
        patched.setattr(keys, "_replace", beside)
        failed = {code for code in error_codes(await replace_exposed(process)).values() if code is not None}
    assert ({"conflict"}, 2) == (failed, (await pointer_of(process, endpoint)).generation)
    assert {None} == set(error_codes(await replace_exposed(process)).values())


def test_a_version_without_an_endpoint_is_not_rotated() -> None:
    """A current version without an endpoint is not rotated, since nobody would get its new secret."""
    exposed = Exposed(
        tenant_id=ACME,
        name="n",
        version=1,
        ref="r",
        purpose="p",
        state="active",
        endpoint_id=None,
        generation=None,
        used_as="current",
    )
    with pytest.raises(Defect):
        keys._wanted(OLD.key_id, exposed, HOW)
