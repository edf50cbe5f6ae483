"""The plaintext secrets of an older system: sealed, compared, pointed at and audited, or as they were."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest

from hookseal.audit import log
from hookseal.dispatcher.ledger import PostgresLedger
from hookseal.ground.errors import Conflict, HooksealError, Malformed, Refused, Unavailable
from hookseal.ground.ids import SYSTEM_TENANT, EndpointId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme, x_webhook_content
from hookseal.operations.endpoints import delete_endpoint
from hookseal.operations.migration import Migration, empty_batch, forbid_plaintext, foretell, migrate_endpoint
from hookseal.operations.operator import Operator
from hookseal.operations.purge import purge_batch
from hookseal.operations.rotation import rotate
from hookseal.schema import plaintext
from hookseal.schema.plaintext import PlaintextColumn
from hookseal.secrets import migration, pointer
from hookseal.secrets.context import Purpose
from hookseal.secrets.errors import SecretDenied, SecretTampered
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.migration import Held
from hookseal.secrets.ref import Provider, SecretRef, endpoint_secret_name
from hookseal.secrets.rotation import Wanted
from hookseal.secrets.signer import Signer, generate_signing_secret
from tests.doubles.legacy import SECRET, legacy, row
from tests.doubles.logbook import audited
from tests.doubles.logins import login
from tests.doubles.stored import Installation
from tests.operations.blocked import blocked
from tests.operations.test_rotation_crash import content

pytestmark = pytest.mark.req("SEC-12")

NO_ROW = Held(SYSTEM_TENANT, EndpointId("01890a5d-ac96-774b-bcce-b302099a8099"))


@asynccontextmanager
async def operating(installation: Installation) -> AsyncIterator[Operator]:
    """Yield an operator on a connection of its own."""
    async with installation.pool.acquire() as connection:
        yield installation.operator(connection)


async def migrated(installation: Installation, held: Held) -> Migration:
    """Migrate the endpoint, as it was foretold."""
    async with operating(installation) as operator:
        before = await content(installation)
        foretold = await foretell(operator, held)
        assert before == await content(installation)
        done = await migrate_endpoint(operator, held)
    assert foretold == done
    return done.what


async def refused(installation: Installation, held: Held) -> HooksealError:
    """Return why the endpoint cannot be migrated, which was foretold; nothing was changed."""
    before = await content(installation)
    async with operating(installation) as operator:
        with pytest.raises(HooksealError) as foretold:
            await foretell(operator, held)
        with pytest.raises(HooksealError) as told:
            await migrate_endpoint(operator, held)
    assert before == await content(installation)
    assert (type(foretold.value), str(foretold.value)) == (type(told.value), str(told.value))
    assert SECRET[:20] not in str(told.value)
    return told.value


async def pointed(installation: Installation, held: Held) -> Pointer:
    """Return the pointer of the endpoint, whose MAC holds."""
    async with installation.pool.acquire() as connection, connection.transaction():
        found = await pointer.locked(connection, tenant=held.tenant_id, endpoint_id=held.endpoint_id)
    installation.unlocked.integrity.verify(found)
    return found


def ref(held: Held, version: int = 1) -> SecretRef:
    """Return the reference of a version of the endpoint's secret."""
    name = endpoint_secret_name(held.endpoint_id)
    return SecretRef(provider=Provider.DB, tenant=held.tenant_id, name=name, version=version)


async def rotated(installation: Installation, held: Held, *, overlap: int = 0) -> None:
    """Rotate the endpoint's secret."""
    wanted = Wanted(
        tenant_id=held.tenant_id,
        endpoint_id=held.endpoint_id,
        overlap_seconds=overlap,
        secret=generate_signing_secret(),
    )
    async with operating(installation) as operator:
        await rotate(operator, wanted)


async def broken(installation: Installation) -> Sequence[str]:
    """Return the tenants whose audit log does not hold."""
    return [
        each.tenant_id for each in await log.verify(installation.pool, installation.unlocked.integrity) if each.broken
    ]


async def test_a_row_of_five_columns(installation: Installation) -> None:
    """The secret is sealed byte for byte, its endpoint signs as x-webhook, and it is audited; again is nothing."""
    held = await legacy(installation.pool)
    assert Migration.MIGRATED is await migrated(installation, held)

    found = await pointed(installation, held)
    assert (str(ref(held)), "x-webhook", "hmac", 1) == (
        found.secret_ref,
        found.scheme,
        found.algorithm,
        found.generation,
    )
    stored = await row(installation.pool, held)
    assert (SECRET, "db") == (stored["secret"], stored["secret_provider"])
    opened = await installation.unlocked.store.get(ref(held), purpose=Purpose.WEBHOOK_SIGNING)
    assert SECRET.encode() == opened.reveal()
    [told] = await audited(installation.pool)
    assert ("secret.migrated", f"endpoint:{held.endpoint_id}", "ada@desk") == (
        told["action"],
        told["subject"],
        told["who"],
    )
    assert (0, None) == (told["before"]["generation"], told["before"]["secret_ref"])
    assert {
        "generation": 1,
        "secret_ref": str(ref(held)),
        "scheme": "x-webhook",
        "algorithm": "hmac",
        "host": "receiver.example",
        "key_id": await installation.unlocked.sealing_key_id(installation.pool),
    } == {name: value for name, value in told["after"].items() if value is not None and name != "lead"}

    before = await content(installation)
    assert Migration.PRESENT is await migrated(installation, held)
    assert before == await content(installation)
    assert [] == await broken(installation)


@pytest.mark.parametrize("secret", ["x", "\u00e4", " with spaces ", "line\n", "x" * 256, "whsec_" + "A" * 40, "'\";--"])
async def test_whatever_an_older_system_had(installation: Installation, secret: str) -> None:
    """A text of 1 to 256 bytes is kept as it is, and signs as its receiver verifies it."""
    held = await legacy(installation.pool, secret)
    assert Migration.MIGRATED is await migrated(installation, held)

    async with installation.unlocked.service.signers(await pointed(installation, held)) as [signer]:
        signed = signer.sign(x_webhook_content(1, b"{}"))
    own = Signer("ref", SecretMaterial(secret.encode()), Scheme.X_WEBHOOK, Algorithm.HMAC)
    assert own.sign(x_webhook_content(1, b"{}")) == signed


@pytest.mark.parametrize(
    ("secret", "error", "said"),
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
async def test_what_cannot_sign(installation: Installation, secret: str, error: type[HooksealError], said: str) -> None:
    """What signs nothing as x-webhook is refused, with why and not with the value."""
    told = await refused(installation, await legacy(installation.pool, secret))

    assert type(told) is error
    assert said in str(told)
    assert "canary" not in str(told)


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
async def test_a_row_that_hookseal_did_not_write_so(installation: Installation, change: str) -> None:
    """A row without a ref in which other columns of ours are set is nobody's lawful row."""
    held = await legacy(installation.pool)
    await installation.pool.execute(f"UPDATE hookseal.endpoints SET {change}")  # noqa: S608 -- ours

    told = await refused(installation, held)
    assert isinstance(told, SecretTampered)
    assert "hookseal alone writes" in str(told)


@pytest.mark.req("SEC-24")
@pytest.mark.parametrize("named", ["", "vault:acme/1", "db:acme:webhook-endpoint-1:1"])
async def test_a_reference_that_hookseal_did_not_write(installation: Installation, named: str) -> None:
    """A row without a MAC that names a secret is told what to do about it, which is not to run this again."""
    held = await legacy(installation.pool)
    await installation.pool.execute("UPDATE hookseal.endpoints SET secret_ref = $1", named)

    told = await refused(installation, held)
    assert isinstance(told, SecretTampered)
    assert "empty its secret_ref" in str(told)
    assert "migrate-secrets" not in str(told)


@pytest.mark.req("SEC-24")
@pytest.mark.parametrize("also", ["", ", generation = 0, scheme = 'standard', previous_secret_ref = NULL, mac = NULL"])
async def test_a_row_that_was_emptied_to_be_migrated(installation: Installation, also: str) -> None:
    """Whoever takes the refs out of a row and puts a plaintext there does not get it sealed: the audit log knows it."""
    added = await installation.endpoint()
    held = Held(added.pointer.tenant_id, added.pointer.endpoint_id)
    await installation.pool.execute(f"UPDATE hookseal.endpoints SET secret_ref = NULL, secret = 'mallory'{also}")  # noqa: S608 -- ours

    told = await refused(installation, held)
    assert isinstance(told, SecretTampered)
    assert "the audit log knows this endpoint" in str(told)


async def test_a_record_without_a_row(installation: Installation) -> None:
    """A secret that is sealed under the endpoint's name already is not taken for its own, nor replaced."""
    held = await legacy(installation.pool)
    name, material = endpoint_secret_name(held.endpoint_id), SecretMaterial(SECRET.encode())
    await installation.unlocked.store.put(held.tenant_id, name, material, purpose=Purpose.WEBHOOK_SIGNING)

    told = await refused(installation, held)
    assert isinstance(told, Conflict)
    assert "sealed already" in str(told)


async def test_a_plaintext_that_was_written_later(installation: Installation) -> None:
    """A plaintext beside a reference must be a secret of that endpoint: the current one, or one that it had before."""
    held = await legacy(installation.pool)
    await migrated(installation, held)
    await rotated(installation, held, overlap=60)
    assert Migration.PRESENT is await migrated(installation, held)
    await rotated(installation, held)
    assert Migration.PRESENT is await migrated(installation, held)
    await installation.pool.execute("UPDATE hookseal.endpoints SET secret = 'another one, of the older product'")

    told = await refused(installation, held)
    assert isinstance(told, Conflict)
    assert "somebody wrote it after it was migrated. To sign with it use `hookseal endpoint rotate" in str(told)


@pytest.mark.parametrize(
    ("later", "said"),
    [
        ("x" * 16, "use `hookseal endpoint rotate --scheme x-webhook --secret-file F`, else empty the column"),
        ("x" * 15, "shorter than a rotation takes: give the receiver a longer one"),
        ("", "signs in no way"),
        ("x" * 257, "signs in no way"),
        ("whpk_canary", "signs in no way"),
    ],
    ids=["rotated", "short", "empty", "long", "public"],
)
async def test_what_to_do_about_one_that_was_written_later(installation: Installation, later: str, said: str) -> None:
    """It is told how that one comes to sign, only where that way takes it."""
    held = await legacy(installation.pool)
    await migrated(installation, held)
    await installation.pool.execute("UPDATE hookseal.endpoints SET secret = $1", later)

    told = str(await refused(installation, held))
    assert said in told
    assert (len(later) == 16) is ("--secret-file" in told)


async def test_a_plaintext_whose_sealed_version_was_destroyed(installation: Installation) -> None:
    """Where versions were destroyed nobody can say that it was written later: both are told, and what to do."""
    held = await legacy(installation.pool)
    await migrated(installation, held)
    await rotated(installation, held)
    async with operating(installation) as operator:
        assert 1 == await purge_batch(operator, held.tenant_id, days=0)

    told = await refused(installation, held)
    assert isinstance(told, Conflict)
    assert "it was one whose material is destroyed by now" in str(told)
    assert "else empty the column of this row (NULL)" in str(told)
    await installation.pool.execute("UPDATE hookseal.endpoints SET secret = NULL")
    assert Migration.GONE is await migrated(installation, held)


@pytest.mark.req("SEC-24")
async def test_a_row_that_was_altered(installation: Installation) -> None:
    """Beside a reference whose row is not genuine, nothing says that the plaintext is sealed."""
    held = await legacy(installation.pool)
    await migrated(installation, held)
    await installation.pool.execute("UPDATE hookseal.endpoints SET url = 'https://mallory.example/'")

    assert isinstance(await refused(installation, held), SecretTampered)


async def test_what_is_gone_meanwhile(installation: Installation) -> None:
    """An endpoint that was deleted, or whose column was emptied, since it was found is no failure."""
    held = await legacy(installation.pool)
    assert Migration.GONE is await migrated(installation, NO_ROW)
    await installation.pool.execute("UPDATE hookseal.endpoints SET secret = NULL")
    assert Migration.GONE is await migrated(installation, held)


async def test_what_waits_goes_out(installation: Installation) -> None:
    """A delivery that waited for the secret is let go, unspent."""
    held = await legacy(installation.pool)
    [ring] = await installation.deliveries()
    await installation.pool.execute(
        "UPDATE hookseal.deliveries"
        " SET waiting_for = 'secret', next_attempt_at = now() + interval '1 h', rung_at = now()"
    )
    await migrated(installation, held)
    await installation.settle()

    claim = await PostgresLedger(installation.pool, worker="w-1", lease_seconds=45).claim(ring)
    assert claim is not None
    assert 1 == claim.number
    assert claim.target is not None
    async with installation.unlocked.service.signers(claim.target.pointer) as signers:
        assert [str(ref(held))] == [signer.ref for signer in signers]


async def test_two_at_once(installation: Installation) -> None:
    """Of two who migrate the same endpoint one does, and the other finds it done."""
    held = await legacy(installation.pool)

    async def one() -> Migration:
        async with operating(installation) as operator:
            return (await migrate_endpoint(operator, held)).what

    for number in range(5):
        held = await legacy(installation.pool, url=f"https://receiver.example/{number}")
        assert ["migrated", "present"] == sorted(await asyncio.gather(one(), one()))
    assert ["secret.migrated"] * 5 == [each["action"] for each in await audited(installation.pool)]
    assert [] == await broken(installation)


async def test_beside_a_deletion(installation: Installation) -> None:
    """An endpoint that is being deleted is waited for, and is gone then: nothing of it is sealed."""
    held = await legacy(installation.pool)
    async with operating(installation) as bob, installation.pool.acquire() as other:
        transaction = other.transaction()
        await transaction.start()
        await delete_endpoint(installation.operator(other), held.tenant_id, held.endpoint_id)
        migrating = asyncio.create_task(migrate_endpoint(bob, held))
        await blocked(installation)
        await transaction.commit()
        assert Migration.GONE is (await migrating).what
    assert 0 == await installation.pool.fetchval(
        "SELECT count(*) FROM hookseal.secret_records WHERE purpose = 'webhook-signing'"
    )


async def test_beside_a_rotation(installation: Installation) -> None:
    """A rotation that waits for the migration rotates what was migrated; the plaintext is the previous secret then."""
    held = await legacy(installation.pool)
    wanted = Wanted(
        tenant_id=held.tenant_id, endpoint_id=held.endpoint_id, overlap_seconds=60, secret=generate_signing_secret()
    )
    async with operating(installation) as bob, installation.pool.acquire() as other:
        transaction = other.transaction()
        await transaction.start()
        await migrate_endpoint(installation.operator(other), held)
        rotating = asyncio.create_task(rotate(bob, wanted))
        await blocked(installation)
        await transaction.commit()
        await rotating
    found = await pointed(installation, held)
    assert (str(ref(held, 2)), str(ref(held))) == (found.secret_ref, found.previous_secret_ref)
    assert Migration.PRESENT is await migrated(installation, held)


@pytest.mark.req("SEC-15")
async def test_what_postgresql_says_of_a_row_stays_with_it(installation: Installation) -> None:
    """Where a constraint of somebody's stands against the change, its message, which holds the row, goes nowhere."""
    held = await legacy(installation.pool)
    await installation.pool.execute("ALTER TABLE hookseal.endpoints ADD CONSTRAINT theirs CHECK (scheme = 'standard')")
    async with operating(installation) as operator:
        with pytest.raises(Refused, match="CheckViolationError") as told:
            await migrate_endpoint(operator, held)

    assert SECRET[:20] not in str(told.value)
    assert told.value.__suppress_context__
    assert (None, 0) == (
        (await row(installation.pool, held))["secret_ref"],
        await installation.pool.fetchval("SELECT count(*) FROM hookseal.secret_records WHERE tenant_id = 'acme'"),
    )


async def test_a_row_that_somebody_holds(installation: Installation) -> None:
    """A row that another holds is waited for five seconds; then it could not be done now, and nothing was."""
    held = await legacy(installation.pool)
    async with operating(installation) as operator, installation.pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.endpoints FOR UPDATE")
        with pytest.raises(Unavailable):
            await migrate_endpoint(operator, held)
        assert not operator.connection.is_closed()


@pytest.mark.req("OPS-10")
@pytest.mark.parametrize("group", ["hookseal_worker", "hookseal_readonly"])
async def test_who_may_not_read_plaintext(installation: Installation, database_url: str, group: str) -> None:
    """Neither worker nor reader migrates: they may not read the column."""
    held = await legacy(installation.pool)
    async with login(installation.pool, database_url, group) as (_, url):
        connection = await asyncpg.connect(url)
        try:
            with pytest.raises(SecretDenied, match="hookseal_operator"):
                await migrate_endpoint(installation.operator(connection), held)
        finally:
            await connection.close()


async def test_the_end_of_plaintext(installation: Installation) -> None:
    """Once all is sealed the column is emptied, and takes plaintext no more; each step is audited; again is nothing."""
    held = [await legacy(installation.pool, url=f"https://receiver.example/{number}") for number in range(3)]
    for each in held:
        await migrated(installation, each)
    async with operating(installation) as operator:
        assert 3 == await empty_batch(operator, held)
        assert 0 == await empty_batch(operator, held)
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
    for each in held:
        assert str(ref(each)) == (await pointed(installation, each)).secret_ref


async def test_a_batch_with_one_that_is_not_sealed(installation: Installation) -> None:
    """Of a batch in which one is not migrated, or holds another plaintext, none is emptied, and which it is is said."""
    held = [await legacy(installation.pool, url=f"https://receiver.example/{number}") for number in range(2)]
    await migrated(installation, held[0])
    async with operating(installation) as operator:
        with pytest.raises(Refused, match=rf"{held[1].endpoint_id} is not migrated"):
            await empty_batch(operator, held)
        await migrate_endpoint(operator, held[1])
        await installation.pool.execute(
            "UPDATE hookseal.endpoints SET secret = 'another' WHERE id = $1::text::uuid", held[1].endpoint_id
        )
        with pytest.raises(Refused, match=rf"acme {held[1].endpoint_id}: the plaintext is none of the secrets"):
            await empty_batch(operator, held)
    assert 2 == await installation.pool.fetchval("SELECT count(secret) FROM hookseal.endpoints")


async def test_a_plaintext_that_is_written_meanwhile(installation: Installation) -> None:
    """While an endpoint holds plaintext, or somebody writes one at that moment, it is said, and not forbidden."""
    await legacy(installation.pool)
    async with operating(installation) as operator:
        with pytest.raises(Refused, match="find out who writes them"):
            await forbid_plaintext(operator, emptied=0)
        await installation.pool.execute("DELETE FROM hookseal.endpoints")
        async with installation.pool.acquire() as other:
            transaction = other.transaction()
            await transaction.start()
            await other.execute(
                "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)"
                " VALUES ('acme', gen_random_uuid(), 'https://receiver.example/x', '{*}', 'late')"
            )
            forbidding = asyncio.create_task(forbid_plaintext(operator, emptied=0))
            await blocked(installation)
            await transaction.commit()
            with pytest.raises(Refused, match="find out who writes them"):
                await forbidding
        assert PlaintextColumn.THERE is await plaintext.state(operator.connection)
    assert [] == await audited(installation.pool, "_system")


async def test_a_table_that_is_in_use(installation: Installation) -> None:
    """Whoever uses the table for longer than two seconds is not waited for any more, so that nobody waits behind."""
    async with operating(installation) as operator, installation.pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM hookseal.endpoints")
        with pytest.raises(Unavailable):
            await forbid_plaintext(operator, emptied=0)


def test_both_locks_read_the_same_columns() -> None:
    """What is migrated is locked as every pointer is, plaintext apart."""
    own = migration._SQL["lock"]
    columns = own[own.index("       tenant_id,") :].strip()

    assert pointer._SQL["lock"] == "SELECT " + columns
