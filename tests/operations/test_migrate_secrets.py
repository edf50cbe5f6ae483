"""The migration of plaintext secrets of an older system: sealed, verified, referenced and audited, or unchanged."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

import asyncpg
import pytest

from hookseal.audit import log
from hookseal.errors import Conflict, HooksealError, Malformed, Refused, SecretDenied, SecretTampered, Unavailable
from hookseal.ground.ids import SYSTEM_TENANT, EndpointId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme, x_webhook_content
from hookseal.operations.endpoint.endpoints import delete_endpoint
from hookseal.operations.migrate_secrets import Migration, empty_batch, forbid_plaintext, migrate_endpoint, preview
from hookseal.operations.operator import Operator
from hookseal.operations.secret import purge_batch
from hookseal.postgres.schema import plaintext
from hookseal.postgres.schema.plaintext import PlaintextColumn
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef, endpoint_secret_name
from hookseal.secrets.core.signing import Signer
from hookseal.secrets.migrate_secrets import PlaintextEndpoint
from tests import rows
from tests.doubles.legacy import SECRET, legacy, row
from tests.doubles.logbook import audited
from tests.doubles.logins import login
from tests.doubles.stored import Installation
from tests.operations.blocked import blocked
from tests.operations.cut_off import content
from tests.operations.every_await import Program, require_one_moment

pytestmark = pytest.mark.req("SEC-12")

NO_ROW = PlaintextEndpoint(SYSTEM_TENANT, EndpointId("01890a5d-ac96-774b-bcce-b302099a8099"))


@asynccontextmanager
async def operating(installation: Installation) -> AsyncIterator[Operator]:
    async with installation.pool.acquire() as connection:
        yield installation.operator(connection)


async def migrated(installation: Installation, held: PlaintextEndpoint) -> Migration:
    """Migrate the endpoint, as its dry run said."""
    async with operating(installation) as operator:
        before = await content(installation)
        dry_run = await preview(operator, held)
        assert before == await content(installation)
        done = await migrate_endpoint(operator, held)
    assert dry_run == done
    return done.what


async def refused(installation: Installation, held: PlaintextEndpoint) -> HooksealError:
    """Return the reason why the endpoint is not migrated; the dry run has the same, and nothing is changed."""
    before = await content(installation)
    async with operating(installation) as operator:
        with pytest.raises(HooksealError) as dry_run:
            await preview(operator, held)
        with pytest.raises(HooksealError) as caught:
            await migrate_endpoint(operator, held)
    assert before == await content(installation)
    assert (type(dry_run.value), str(dry_run.value)) == (type(caught.value), str(caught.value))
    assert SECRET[:20] not in str(caught.value)
    return caught.value


async def pointed(installation: Installation, held: PlaintextEndpoint) -> Pointer:
    """Return the pointer of the endpoint, with a valid MAC."""
    found = await installation.pointer(held.endpoint_id, held.tenant_id)
    installation.unlocked.integrity.verify(found)
    return found


def ref(held: PlaintextEndpoint, version: int = 1) -> SecretRef:
    name = endpoint_secret_name(held.endpoint_id)
    return SecretRef(provider=Provider.DB, tenant=held.tenant_id, name=name, version=version)


async def broken(installation: Installation) -> Sequence[str]:
    """Return the tenants whose audit log does not verify."""
    return [
        each.tenant_id for each in await log.verify(installation.pool, installation.unlocked.integrity) if each.broken
    ]


async def test_a_plaintext_secret_is_sealed_and_signs(installation: Installation) -> None:
    endpoint = await legacy(installation.pool)
    assert Migration.MIGRATED is await migrated(installation, endpoint)

    found = await pointed(installation, endpoint)
    assert (str(ref(endpoint)), "x-webhook", "hmac", 1) == (
        found.secret_ref,
        found.scheme,
        found.algorithm,
        found.generation,
    )
    stored = await row(installation.pool, endpoint)
    assert (SECRET, "db") == (stored["secret"], stored["secret_provider"])
    opened = await installation.unlocked.store.get(ref(endpoint), purpose=Purpose.WEBHOOK_SIGNING)
    assert SECRET.encode() == opened.reveal()
    [entry] = await audited(installation.pool)
    assert ("secret.migrated", f"endpoint:{endpoint.endpoint_id}", "ada@desk") == (
        entry["action"],
        entry["subject"],
        entry["who"],
    )
    assert (0, None) == (entry["before"]["generation"], entry["before"]["secret_ref"])
    assert {
        "generation": 1,
        "secret_ref": str(ref(endpoint)),
        "scheme": "x-webhook",
        "algorithm": "hmac",
        "host": "receiver.example",
        "key_id": await installation.unlocked.sealing_key_id(installation.pool),
    } == {name: value for name, value in entry["after"].items() if value is not None and name != "lead"}

    before = await content(installation)
    assert Migration.PRESENT is await migrated(installation, endpoint)
    assert before == await content(installation)
    assert [] == await broken(installation)


@pytest.mark.parametrize("secret", ["x", "\u00e4", " with spaces ", "line\n", "x" * 256, "whsec_" + "A" * 40, "'\";--"])
async def test_any_text_of_1_to_256_bytes_is_sealed(installation: Installation, secret: str) -> None:
    endpoint = await legacy(installation.pool, secret)
    assert Migration.MIGRATED is await migrated(installation, endpoint)

    async with installation.unlocked.service.signers(await pointed(installation, endpoint)) as [signer]:
        signed = signer.sign(x_webhook_content(1, b"{}"))
    own = Signer("ref", SecretMaterial(secret.encode()), Scheme.X_WEBHOOK, Algorithm.HMAC)
    assert own.sign(x_webhook_content(1, b"{}")) == signed


@pytest.mark.parametrize(
    ("secret", "error", "message"),
    [
        ("", Conflict, "is empty"),
        ("x" * 257, Malformed, "1 to 256 bytes"),
        ("\u00e4" * 129, Malformed, "1 to 256 bytes"),
        ("x" * 70_000, Malformed, "1 to 256 bytes"),
        ("whpk_canary", Malformed, "public key"),
        (" whsk_canary", Malformed, "ed25519"),
    ],
    ids=["empty", "long", "long in bytes", "too long to seal", "public", "private"],
)
async def test_a_text_that_cannot_sign_is_refused(
    installation: Installation, secret: str, error: type[HooksealError], message: str
) -> None:
    reason = await refused(installation, await legacy(installation.pool, secret))

    assert type(reason) is error
    assert message in str(reason)
    assert "canary" not in str(reason)


@pytest.mark.req("SEC-24")
@pytest.mark.parametrize(
    "change",
    [
        "generation = 1",
        "headers_ref = 'db:acme:x:1'",
        "tls_ref = 'db:acme:x:1'",
        "previous_secret_ref = 'db:acme:x:1'",
        "previous_secret_expires_at = now()",
        "mac = '\\x00', mac_key_id = '1'",
    ],
)
async def test_a_row_with_other_columns_set_is_refused(installation: Installation, change: str) -> None:
    endpoint = await legacy(installation.pool)
    await installation.pool.execute(f"UPDATE hookseal.endpoints SET {change}")  # noqa: S608 -- ours

    reason = await refused(installation, endpoint)
    assert isinstance(reason, SecretTampered)
    assert "hookseal alone writes" in str(reason)


@pytest.mark.req("SEC-24")
@pytest.mark.parametrize("named", ["", "vault:acme/1", "db:acme:webhook-endpoint-1:1"])
async def test_a_ref_without_a_mac_has_its_repair(installation: Installation, named: str) -> None:
    endpoint = await legacy(installation.pool)
    await installation.pool.execute("UPDATE hookseal.endpoints SET secret_ref = $1", named)

    reason = await refused(installation, endpoint)
    assert isinstance(reason, SecretTampered)
    assert "empty its secret_ref" in str(reason)
    assert "migrate-secrets" not in str(reason)


@pytest.mark.req("SEC-24")
@pytest.mark.parametrize("also", ["", ", generation = 0, scheme = 'standard', previous_secret_ref = NULL, mac = NULL"])
async def test_a_row_without_its_former_refs_is_refused(installation: Installation, also: str) -> None:
    """A plaintext in a row whose refs were removed is not sealed, since the audit log has the refs."""
    added = await installation.endpoint()
    held = PlaintextEndpoint(added.pointer.tenant_id, added.pointer.endpoint_id)
    await installation.pool.execute(f"UPDATE hookseal.endpoints SET secret_ref = NULL, secret = 'mallory'{also}")  # noqa: S608 -- ours

    reason = await refused(installation, held)
    assert isinstance(reason, SecretTampered)
    assert "the audit log knows this endpoint" in str(reason)


async def test_an_existing_record_is_not_used(installation: Installation) -> None:
    endpoint = await legacy(installation.pool)
    name, material = endpoint_secret_name(endpoint.endpoint_id), SecretMaterial(SECRET.encode())
    await installation.unlocked.store.put(endpoint.tenant_id, name, material, purpose=Purpose.WEBHOOK_SIGNING)

    reason = await refused(installation, endpoint)
    assert isinstance(reason, Conflict)
    assert "sealed already" in str(reason)


async def test_later_plaintext_must_be_a_secret_of_the_endpoint(installation: Installation) -> None:
    endpoint = await legacy(installation.pool)
    await migrated(installation, endpoint)
    await installation.rotate(endpoint.endpoint_id, tenant=endpoint.tenant_id, overlap_seconds=60)
    assert Migration.PRESENT is await migrated(installation, endpoint)
    await installation.rotate(endpoint.endpoint_id, tenant=endpoint.tenant_id)
    assert Migration.PRESENT is await migrated(installation, endpoint)
    await installation.pool.execute("UPDATE hookseal.endpoints SET secret = 'another one, of the older product'")

    reason = await refused(installation, endpoint)
    assert isinstance(reason, Conflict)
    assert "somebody wrote it after it was migrated. To sign with it use `hookseal endpoint rotate" in str(reason)


@pytest.mark.parametrize(
    ("later", "message"),
    [
        ("x" * 16, "use `hookseal endpoint rotate --scheme x-webhook --secret-file FILE`, else empty the column"),
        ("x" * 15, "shorter than a rotation takes: give the receiver a longer one"),
        ("", "cannot sign at all"),
        ("x" * 257, "cannot sign at all"),
        ("whpk_canary", "cannot sign at all"),
    ],
    ids=["rotated", "short", "empty", "long", "public"],
)
async def test_later_plaintext_has_its_repair(installation: Installation, later: str, message: str) -> None:
    endpoint = await legacy(installation.pool)
    await migrated(installation, endpoint)
    await installation.pool.execute("UPDATE hookseal.endpoints SET secret = $1", later)

    reason = str(await refused(installation, endpoint))
    assert message in reason
    assert (len(later) == 16) is ("--secret-file" in reason)


async def test_plaintext_of_a_destroyed_version_has_its_repair(installation: Installation) -> None:
    endpoint = await legacy(installation.pool)
    await migrated(installation, endpoint)
    await installation.rotate(endpoint.endpoint_id, tenant=endpoint.tenant_id)
    async with operating(installation) as operator:
        assert 1 == await purge_batch(operator, endpoint.tenant_id, days=0)

    reason = await refused(installation, endpoint)
    assert isinstance(reason, Conflict)
    assert "it was one whose material is destroyed by now" in str(reason)
    assert "else empty the column of this row (NULL)" in str(reason)
    await installation.pool.execute("UPDATE hookseal.endpoints SET secret = NULL")
    assert Migration.GONE is await migrated(installation, endpoint)


@pytest.mark.req("SEC-24")
async def test_an_altered_row_is_refused(installation: Installation) -> None:
    """A plaintext beside a ref is refused if the row is not genuine, since nothing proves that it is sealed."""
    endpoint = await legacy(installation.pool)
    await migrated(installation, endpoint)
    await installation.pool.execute("UPDATE hookseal.endpoints SET url = 'https://mallory.example/'")

    assert isinstance(await refused(installation, endpoint), SecretTampered)


async def test_a_deleted_endpoint_is_no_failure(installation: Installation) -> None:
    endpoint = await legacy(installation.pool)
    assert Migration.GONE is await migrated(installation, NO_ROW)
    await installation.pool.execute("UPDATE hookseal.endpoints SET secret = NULL")
    assert Migration.GONE is await migrated(installation, endpoint)


async def test_a_held_delivery_is_released(installation: Installation) -> None:
    endpoint = await legacy(installation.pool)
    [ring] = await installation.deliveries()
    await rows.wait_for(installation.pool, "secret", next_attempt_at=rows.ahead(hours=1), rung_at=rows.NOW)
    await migrated(installation, endpoint)
    await installation.settle()

    claim = await installation.claim(ring)
    assert 1 == claim.number
    assert claim.target is not None
    async with installation.unlocked.service.signers(claim.target.pointer) as signers:
        assert [str(ref(endpoint))] == [signer.ref for signer in signers]


async def test_of_concurrent_migrations_one_migrates(installation: Installation) -> None:
    endpoint = await legacy(installation.pool)

    async def one() -> Migration:
        async with operating(installation) as operator:
            return (await migrate_endpoint(operator, endpoint)).what

    for number in range(5):
        endpoint = await legacy(installation.pool, url=f"https://receiver.example/{number}")
        assert ["migrated", "present"] == sorted(await asyncio.gather(one(), one()))
    assert ["secret.migrated"] * 5 == [each["action"] for each in await audited(installation.pool)]
    assert [] == await broken(installation)


async def test_a_migration_waits_for_a_deletion(installation: Installation) -> None:
    endpoint = await legacy(installation.pool)
    async with operating(installation) as bob, installation.pool.acquire() as other:
        transaction = other.transaction()
        await transaction.start()
        await delete_endpoint(installation.operator(other), endpoint.tenant_id, endpoint.endpoint_id)
        migrating = asyncio.create_task(migrate_endpoint(bob, endpoint))
        await blocked(installation)
        await transaction.commit()
        assert Migration.GONE is (await migrating).what
    assert 0 == await installation.pool.fetchval(
        "SELECT count(*) FROM hookseal.secret_records WHERE purpose = 'webhook-signing'"
    )


async def test_a_rotation_waits_for_the_migration(installation: Installation) -> None:
    endpoint = await legacy(installation.pool)
    async with installation.pool.acquire() as other:
        transaction = other.transaction()
        await transaction.start()
        await migrate_endpoint(installation.operator(other), endpoint)
        rotating = asyncio.create_task(
            installation.rotate(endpoint.endpoint_id, tenant=endpoint.tenant_id, overlap_seconds=60)
        )
        await blocked(installation)
        await transaction.commit()
        await rotating
    found = await pointed(installation, endpoint)
    assert (str(ref(endpoint, 2)), str(ref(endpoint))) == (found.secret_ref, found.previous_secret_ref)
    assert Migration.PRESENT is await migrated(installation, endpoint)


@pytest.mark.req("SEC-15")
async def test_a_failed_constraints_message_is_not_repeated(installation: Installation) -> None:
    endpoint = await legacy(installation.pool)
    await installation.pool.execute("ALTER TABLE hookseal.endpoints ADD CONSTRAINT theirs CHECK (scheme = 'standard')")
    async with operating(installation) as operator:
        with pytest.raises(Refused, match="CheckViolationError") as caught:
            await migrate_endpoint(operator, endpoint)

    assert SECRET[:20] not in str(caught.value)
    assert caught.value.__suppress_context__
    assert (None, 0) == (
        (await row(installation.pool, endpoint))["secret_ref"],
        await installation.pool.fetchval("SELECT count(*) FROM hookseal.secret_records WHERE tenant_id = 'acme'"),
    )


async def test_a_locked_row_is_unavailable(installation: Installation) -> None:
    endpoint = await legacy(installation.pool)
    async with operating(installation) as operator, installation.pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.endpoints FOR UPDATE")
        with pytest.raises(Unavailable):
            await migrate_endpoint(operator, endpoint)
        assert not operator.connection.is_closed()


@pytest.mark.req("OPS-10")
@pytest.mark.parametrize("group", ["hookseal_worker", "hookseal_readonly"])
async def test_other_roles_cannot_migrate(installation: Installation, database_url: str, group: str) -> None:
    """Worker and read-only roles cannot migrate, since they cannot read the column."""
    endpoint = await legacy(installation.pool)
    async with login(installation.pool, database_url, group) as (_, url):
        connection = await asyncpg.connect(url)
        try:
            with pytest.raises(SecretDenied, match="hookseal_operator"):
                await migrate_endpoint(installation.operator(connection), endpoint)
        finally:
            await connection.close()


async def test_the_column_is_emptied_and_forbidden(installation: Installation) -> None:
    endpoints = [await legacy(installation.pool, url=f"https://receiver.example/{number}") for number in range(3)]
    for each in endpoints:
        await migrated(installation, each)
    async with operating(installation) as operator:
        assert 3 == await empty_batch(operator, endpoints)
        assert 0 == await empty_batch(operator, endpoints)
        assert await forbid_plaintext(operator, emptied=3)
        assert not await forbid_plaintext(operator, emptied=0)
        assert PlaintextColumn.FORBIDDEN is await plaintext.state(operator.connection)
    assert 0 == await installation.pool.fetchval("SELECT count(secret) FROM hookseal.endpoints")
    with pytest.raises(asyncpg.CheckViolationError):
        await legacy(installation.pool, url="https://receiver.example/new")
    assert [
        ("secret.plaintext_emptied", {"endpoints": 3}),
        ("secret.plaintext_forbidden", {"emptied_endpoints": 3}),
    ] == [(each["action"], each["after"]) for each in await audited(installation.pool, "_system")]
    assert [] == await broken(installation)
    for each in endpoints:
        assert str(ref(each)) == (await pointed(installation, each)).secret_ref


async def test_a_batch_with_an_unsealed_row_is_not_emptied(installation: Installation) -> None:
    endpoints = [await legacy(installation.pool, url=f"https://receiver.example/{number}") for number in range(2)]
    await migrated(installation, endpoints[0])
    async with operating(installation) as operator:
        with pytest.raises(Refused, match=rf"{endpoints[1].endpoint_id} is not migrated"):
            await empty_batch(operator, endpoints)
        await migrate_endpoint(operator, endpoints[1])
        await rows.change(installation.pool, "endpoints", endpoints[1].endpoint_id, secret="another")
        with pytest.raises(Refused, match=rf"acme {endpoints[1].endpoint_id}: the plaintext is none of the secrets"):
            await empty_batch(operator, endpoints)
    assert 2 == await installation.pool.fetchval("SELECT count(secret) FROM hookseal.endpoints")


async def test_concurrent_plaintext_prevents_the_end(installation: Installation) -> None:
    await legacy(installation.pool)
    async with operating(installation) as operator:
        with pytest.raises(Refused, match="find out who writes them"):
            await forbid_plaintext(operator, emptied=0)
        await installation.pool.execute("DELETE FROM hookseal.endpoints")
        async with installation.pool.acquire() as other:
            transaction = other.transaction()
            await transaction.start()
            await rows.endpoint(other, secret="late")
            forbidding = asyncio.create_task(forbid_plaintext(operator, emptied=0))
            await blocked(installation)
            await transaction.commit()
            with pytest.raises(Refused, match="find out who writes them"):
                await forbidding
        assert PlaintextColumn.THERE is await plaintext.state(operator.connection)
    assert [] == await audited(installation.pool, "_system")


async def test_a_table_lock_is_waited_for_two_seconds(installation: Installation) -> None:
    async with operating(installation) as operator, installation.pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.endpoints")
        with pytest.raises(Unavailable):
            await forbid_plaintext(operator, emptied=0)


# A process that migrates an endpoint, killed at every await, leaves the plaintext or the complete sealed state.


async def is_migrated(installation: Installation, held: PlaintextEndpoint) -> bool:
    """Return whether everything stored shows the endpoint as migrated; fail if it disagrees."""
    stored = await row(installation.pool, held)
    versions = await installation.pool.fetch(
        "SELECT version, state FROM hookseal.secret_records WHERE name LIKE '%' || $1", held.endpoint_id
    )
    entries = [each for each in await audited(installation.pool) if each["subject"] == f"endpoint:{held.endpoint_id}"]
    assert SECRET == stored["secret"]
    [chain] = await log.verify(installation.pool, installation.unlocked.integrity, tenant=held.tenant_id)
    assert chain.broken is None
    if stored["secret_ref"] is None:
        assert ([], [], 0, None) == (versions, entries, stored["generation"], stored["mac"])
        return False
    assert [(1, "active")] == [tuple(version) for version in versions]
    assert ["secret.migrated"] == [each["action"] for each in entries]
    ref = SecretRef.parse(stored["secret_ref"])
    assert SECRET.encode() == (await installation.unlocked.store.get(ref, purpose=Purpose.WEBHOOK_SIGNING)).reveal()
    return True


async def test_a_migration_killed_at_any_await_can_be_repeated(installation: Installation, program: Program) -> None:
    endings: list[bool] = []
    for kill_at in count(1):
        endpoint = await legacy(installation.pool, url=f"https://receiver.example/{kill_at}")
        ending = await program.run("migrate", endpoint.endpoint_id, kill_at)
        if not ending.was_killed:
            assert len(endings) == ending.places
            assert await is_migrated(installation, endpoint)
            break
        endings.append(done := await is_migrated(installation, endpoint))
        if endings.count(done) == 1:  # else what is stored is the same as after the kill before
            await require_repeatable(installation, endpoint, done=done)

    require_one_moment(endings, least=10)


async def require_repeatable(installation: Installation, held: PlaintextEndpoint, *, done: bool) -> None:
    """Fail unless a repeat completes the migration, or finds it done."""
    again = await installation.act(migrate_endpoint, held)
    assert (Migration.PRESENT if done else Migration.MIGRATED) is again.what
    assert await is_migrated(installation, held)
