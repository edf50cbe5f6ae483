"""Secrets of an endpoint: purged, revealed and cached ones, and every column that is sealed."""

import pytest

from hookseal.audit import log
from hookseal.audit.chain import Action
from hookseal.dispatcher.core.model import WaitingFor
from hookseal.dispatcher.core.policy import Wait
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import NotFound, RecordMalformed, SecretDenied, SecretDestroyed, SecretTampered
from hookseal.ground.ids import OPERATOR_TENANT, SYSTEM_TENANT, EndpointId, TenantId
from hookseal.ground.wire import Algorithm
from hookseal.operations.endpoint import endpoints
from hookseal.operations.secret import Cleared, Revealed, clear_caches, purge_batch, purgeable, reveal
from hookseal.postgres.pool import Pool
from hookseal.secrets.core import header_values
from hookseal.secrets.core.envelope import key_id_of
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef, endpoint_headers_name, endpoint_secret_name
from hookseal.secrets.core.signing import generate_signing_secret, public_key_of
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.endpoint.pointer import lock, move
from hookseal.secrets.resolve.epoch import begin_restore
from hookseal.secrets.store import records, retention
from tests import rows
from tests.doubles.client_certificates import Authority, identity
from tests.doubles.logbook import audited
from tests.doubles.master_keys import NEW, OLD, changed, holding, opened, replaced, under
from tests.doubles.stored import Installation
from tests.operations.cut_off import require_whole

TENANT = TenantId("acme")
DAYS = 90


async def aged(installation: Installation, *, days: int = DAYS) -> None:
    """Make every version older by that many days."""
    await rows.change(installation.pool, "secret_records", changed_at=rows.ago(days=days, seconds=1))


async def states(installation: Installation, name: str = "webhook-endpoint-%") -> list[str]:
    """Return the states of the tenant's versions with such names, oldest first."""
    found = await installation.pool.fetch(
        "SELECT state, sealed IS NULL AND key_id IS NULL AS is_empty FROM hookseal.secret_records"
        " WHERE tenant_id = 'acme' AND name LIKE $1 ORDER BY name, version",
        name,
    )
    assert all(row["is_empty"] == (row["state"] == "destroyed") for row in found)
    return [row["state"] for row in found]


async def purged(installation: Installation, tenant: TenantId = TENANT, *, days: int = DAYS) -> int:
    """Destroy a batch; the dry run must have the same number, unless the batch is full."""
    dry_run = await installation.act(purgeable, tenant, days=days)
    done = await installation.act(purge_batch, tenant, days=days)
    assert done == min(dry_run, retention.BATCH)
    return done


async def epoch(installation: Installation) -> int:
    found: int = await installation.pool.fetchval("SELECT epoch FROM hookseal.control WHERE name = 'cache'")
    return found


@pytest.mark.req("SEC-11")
async def test_only_long_retired_versions_are_destroyed(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.rotate(endpoint, force=True)
    await installation.rotate(endpoint, overlap_seconds=60, force=True)
    assert ["retired", "previous", "active"] == await states(installation)
    await aged(installation, days=DAYS - 1)
    assert 0 == await purged(installation)
    await aged(installation)
    assert [TENANT] == await retention.tenants(installation.pool, days=DAYS)
    before = await epoch(installation)
    assert 1 == await purged(installation)
    assert ["destroyed", "previous", "active"] == await states(installation)
    assert 0 == await purged(installation)
    assert before + 1 == await epoch(installation)

    ref = SecretRef(provider=Provider.DB, tenant=TENANT, name=endpoint_secret_name(endpoint), version=1)
    entry = (await audited(installation.pool))[-1]
    assert ("secret.destroyed", f"secret:{ref}", {"state": "destroyed"}) == (
        entry["action"],
        entry["subject"],
        entry["after"],
    )
    assert {"state", "retired_at", "key_id"} == entry["before"].keys()
    with pytest.raises(SecretDestroyed):
        await installation.unlocked.store.get(ref, purpose=Purpose.WEBHOOK_SIGNING)
    found = await installation.pointer(endpoint)
    async with installation.unlocked.service.signers(found) as signers:
        assert ["3", "2"] == [signer.ref.rpartition(":")[2] for signer in signers]
    assert [None] == [each.broken for each in await log.verify(installation.pool, installation.unlocked.integrity)]


@pytest.mark.req("SEC-11")
@pytest.mark.parametrize("column", ["secret_ref", "previous_secret_ref", "headers_ref", "tls_ref"])
async def test_a_version_in_a_pointer_is_kept(installation: Installation, column: str) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.rotate(endpoint, force=True)
    await aged(installation)
    ref = f"db:acme:{endpoint_secret_name(endpoint)}:1"
    update = f"UPDATE hookseal.endpoints SET {column} = $1 WHERE id = $2::text::uuid"  # noqa: S608 -- our columns
    await installation.pool.execute(update, ref, endpoint)
    assert 0 == await purged(installation)
    await installation.pool.execute(update, None, endpoint)
    assert 1 == await purged(installation)


@pytest.mark.req("SEC-11")
async def test_a_version_in_a_claim_is_kept(installation: Installation) -> None:
    """A version in a claim is not destroyed until the claim has ended or its lease has expired."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    ledger = installation.ledger()
    [ring] = await installation.deliveries()
    claim = await installation.claim(ring)
    await installation.rotate(endpoint, force=True)
    assert 0 == await purged(installation, days=0)
    assert await ledger.release(claim, None)
    assert 1 == await purged(installation, days=0)

    assert await ledger.claim(ring) is not None
    await installation.rotate(endpoint, force=True)
    assert 0 == await purged(installation, days=0)
    await installation.pool.execute("UPDATE hookseal.deliveries SET lease_expires_at = now()")
    assert 1 == await purged(installation, days=0)
    assert ["destroyed", "destroyed", "active"] == await states(installation)


async def headed(installation: Installation, endpoint: EndpointId) -> None:
    """Give the endpoint a new version of its header values; the version before is retired at once."""
    name = endpoint_headers_name(endpoint)
    material = header_values.to_material({"x-key": SecretMaterial(b"value")})
    async with installation.pool.acquire() as connection, connection.transaction():
        store = installation.unlocked.store_on(connection)
        found = await pointer.lock(connection, tenant=TENANT, endpoint_id=endpoint)
        keep = store.put if found.headers_ref is None else store.rotate
        ref = await keep(TENANT, name, material, purpose=Purpose.ENDPOINT_HEADERS)
        await records.arrange(connection, active=ref, previous=None)
        await pointer.move(connection, installation.unlocked.integrity, found, headers_ref=str(ref))


@pytest.mark.req("SEC-11")
async def test_header_values_are_purged(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await headed(installation, endpoint)
    ledger = installation.ledger()
    [early] = await installation.deliveries()
    before = await installation.claim(early)
    await headed(installation, endpoint)
    assert ["retired", "active"] == await states(installation, "endpoint-headers-%")
    assert 0 == await purged(installation, days=0)
    [late] = await installation.deliveries()
    assert await ledger.claim(late) is not None
    assert await ledger.release(before, None)
    assert 1 == await purged(installation, days=0)
    assert ["destroyed", "active"] == await states(installation, "endpoint-headers-%")

    assert await ledger.claim(early) is not None
    await installation.act(endpoints.delete_endpoint, TENANT, endpoint)
    await rows.change(
        installation.pool, "secret_records", where="state = 'active' AND tenant_id = 'acme'", state="retired"
    )
    assert 0 == await purged(installation, days=0)
    await installation.pool.execute("UPDATE hookseal.deliveries SET lease_expires_at = now()")
    assert 2 == await purged(installation, days=0)


@pytest.mark.req("SEC-11")
async def test_the_installations_secrets_are_kept(installation: Installation) -> None:
    await rows.change(installation.pool, "secret_records", state="retired", changed_at=rows.ago(days=900))
    assert [] == await retention.tenants(installation.pool, days=0)
    assert 0 == await purged(installation, SYSTEM_TENANT, days=0)


@pytest.mark.req("SEC-11")
async def test_the_operators_endpoints_secrets_are_purged(installation: Installation) -> None:
    endpoint = (await installation.endpoint(OPERATOR_TENANT)).pointer.endpoint_id
    await installation.rotate(endpoint, tenant=OPERATOR_TENANT)
    await aged(installation)

    assert [OPERATOR_TENANT] == await retention.tenants(installation.pool, days=DAYS)
    assert 1 == await purged(installation, OPERATOR_TENANT)


@pytest.mark.req("SEC-11")
async def test_a_deleted_endpoints_secrets_are_purged(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.act(endpoints.delete_endpoint, TENANT, endpoint)
    await aged(installation)
    assert 1 == await purged(installation)
    assert ["destroyed"] == await states(installation)


@pytest.mark.req("SEC-11")
async def test_a_long_list_is_purged_in_batches(installation: Installation) -> None:
    name = endpoint_secret_name((await installation.endpoint()).pointer.endpoint_id)
    await installation.endpoint("globex")
    await installation.pool.execute(
        "INSERT INTO hookseal.secret_records (tenant_id, name, version, provider, purpose, sealed, state)"
        " SELECT r.tenant_id, r.name, n, r.provider, r.purpose, r.sealed, 'retired'"
        " FROM hookseal.secret_records AS r, generate_series(2, 121) AS n"
        " WHERE r.purpose = 'webhook-signing' AND (r.name = $1 OR n < 5)",
        name,
    )
    await aged(installation)
    assert ["acme", "globex"] == await retention.tenants(installation.pool, days=DAYS)
    before = await epoch(installation)
    assert [50, 50, 20, 0] == [await purged(installation) for _ in range(4)]
    assert 3 == await epoch(installation) - before
    assert 120 == [row["action"] for row in await audited(installation.pool)].count("secret.destroyed")
    assert [TenantId("globex")] == await retention.tenants(installation.pool, days=DAYS)
    assert 3 == await purged(installation, TenantId("globex"))


@pytest.mark.req("SEC-11")
async def test_a_purge_interrupted_at_any_statement_changes_nothing(
    installation: Installation, database_url: str
) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    for _ in range(2):
        await installation.rotate(endpoint, force=True)
    await aged(installation)

    done = await require_whole(
        installation, database_url, lambda operator: purge_batch(operator, TENANT, days=DAYS), least=5
    )

    assert 2 == done
    assert ["destroyed", "destroyed", "active"] == await states(installation)


@pytest.mark.req("SEC-11")
async def test_a_locked_version_is_skipped(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    for _ in range(2):
        await installation.rotate(endpoint, force=True)
    await aged(installation)
    async with installation.pool.acquire() as connection, connection.transaction():
        await connection.execute(
            "SELECT FROM hookseal.secret_records WHERE tenant_id = 'acme' AND version = 1 FOR UPDATE"
        )
        assert 1 == await purged(installation)
    assert ["retired", "destroyed", "active"] == await states(installation)
    assert 1 == await purged(installation)


# Revealing the current secret requires the right to change the endpoint, is audited, and needs a genuine row.


async def revealed(installation: Installation, endpoint: EndpointId, tenant: TenantId = TENANT) -> Revealed:
    return await installation.act(reveal, tenant, endpoint)


@pytest.mark.req("SEC-11")
async def test_the_current_secret_is_revealed_and_audited(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    wanted = await installation.rotate(endpoint, overlap_seconds=60)
    await revealed(installation, endpoint)
    found = await revealed(installation, endpoint)
    assert (wanted.secret, None, 2) == (found.secret, found.public_key, found.pointer.generation)
    entries = (await audited(installation.pool))[-2:]
    facts = {"generation": 2, "secret_ref": found.pointer.secret_ref, "shown": "secret"}
    assert [("secret.revealed", f"endpoint:{endpoint}", facts)] * 2 == [
        (row["action"], row["subject"], row["after"]) for row in entries
    ]


@pytest.mark.req("SEC-11")
async def test_a_key_pair_reveals_its_public_key_only(installation: Installation) -> None:
    """An ed25519 private key is never returned, since a receiver needs only the public key."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    pair = generate_signing_secret(Algorithm.ED25519)
    await installation.rotate(endpoint, secret=pair, algorithm=Algorithm.ED25519)
    found = await revealed(installation, endpoint)
    assert (None, public_key_of(pair)) == (found.secret, found.public_key)
    assert "public key" == (await audited(installation.pool))[-1]["after"]["shown"]


@pytest.mark.req("SEC-11")
@pytest.mark.parametrize(
    "altered",
    [
        "UPDATE hookseal.endpoints SET algorithm = 'hmac', generation = generation + 1",
        "UPDATE hookseal.endpoints SET url = 'https://evil.example/'",
        "UPDATE hookseal.endpoints SET secret_ref = NULL",
        "UPDATE hookseal.endpoints SET mac_key_id = '7'",
    ],
)
async def test_an_altered_row_reveals_nothing(installation: Installation, altered: str) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.pool.execute(altered)
    with pytest.raises(SecretTampered):
        await revealed(installation, endpoint)
    assert ["endpoint.added"] == [row["action"] for row in await audited(installation.pool)]


@pytest.mark.req("SEC-11")
@pytest.mark.req("SEC-08")
async def test_another_tenants_secret_is_not_revealed(installation: Installation) -> None:
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    victim = (await installation.endpoint(url="https://receiver.example/other")).pointer
    with pytest.raises(NotFound):
        await revealed(installation, endpoint, TenantId("globex"))
    async with installation.pool.acquire() as connection, connection.transaction():
        found = await lock(connection, tenant=TENANT, endpoint_id=endpoint)
        moved = await move(connection, installation.unlocked.integrity, found, secret_ref=victim.secret_ref)
        after = {"generation": moved.generation}  # an attacker with the right to append can write this row, too
        await installation.operator(connection).audit(Action.SECRET_ROTATED, of=moved, after=after)
    with pytest.raises(SecretDenied):
        await revealed(installation, endpoint)


@pytest.mark.req("SEC-11")
async def test_an_unsealed_endpoint_has_nothing_to_reveal(installation: Installation) -> None:
    endpoint = EndpointId(await rows.endpoint(installation.pool, secret="s"))
    with pytest.raises(NotFound, match="no secret"):
        await revealed(installation, endpoint)


# Clearing the caches raises the epoch that every claim reads, and releases deliveries held for a secret.


@pytest.mark.req("SEC-06", part="cache-epoch")
@pytest.mark.req("OPS-10")
async def test_clearing_raises_the_epoch_and_releases(installation: Installation) -> None:
    await installation.endpoint()
    rings = [(await installation.deliveries())[0] for _ in range(3)]
    ledger = installation.ledger()
    paused = (await installation.endpoint("globex")).pointer.endpoint_id
    [ring] = await installation.deliveries("globex")
    await installation.pool.execute("UPDATE hookseal.endpoints SET enabled = false WHERE id = $1::text::uuid", paused)
    rings[1] = ring
    for ring, why in zip(rings, (None, WaitingFor.ENDPOINT_DISABLED, WaitingFor.SECRET), strict=True):
        claim = await installation.claim(ring)
        assert claim.target is not None
        assert 0 == claim.target.pointer.cache_epoch
        await ledger.release(claim, None if why is None else Wait(waiting_for=why, seconds=200.0, reason="no secret"))
    assert [None, "endpoint_disabled", "secret"] == [
        (await installation.delivery(ring))["waiting_for"] for ring in rings
    ]

    assert Cleared(epoch=1, woken=1) == await installation.act(clear_caches)

    assert await ledger.claim(rings[2]) is None, "only the leader releases it"
    await installation.settle()
    assert 1 == (await installation.claimed(rings[2])).cache_epoch
    assert await ledger.claim(rings[1]) is None
    assert [
        {
            "action": "cache.cleared",
            "subject": "cache",
            "who": "ada@desk",
            "before": {"epoch": 0},
            "after": {"epoch": 1, "woken_deliveries": 1},
        }
    ] == await audited(installation.pool, "_system")


@pytest.mark.req("SEC-06", part="cache-epoch")
async def test_the_maximal_epoch_still_changes(installation: Installation) -> None:
    pool = installation.pool
    await pool.execute("UPDATE hookseal.control SET epoch = $1", 10**15)
    async with pool.acquire() as connection:
        operator = installation.operator(connection)
        assert 1 == (await clear_caches(operator)).epoch
        await pool.execute("UPDATE hookseal.control SET epoch = $1", 10**15)
        async with connection.transaction():
            assert 10**12 < await begin_restore(connection) < 10**13
        await connection.execute("UPDATE hookseal.secret_keys SET state = 'retired'")

    assert 1 == await pool.fetchval("SELECT epoch FROM hookseal.control WHERE name = 'cache'")
    assert [({"epoch": 10**15}, {"epoch": 1, "woken_deliveries": 0})] == [
        (entry["before"], entry["after"]) for entry in await audited(pool, "_system")
    ]


# The columns that are sealed under a master key, found in the schema: a new one must be placed in a list.

SEALED = {"secret_records.sealed"}
NOTHING_SEALED = {
    "endpoints.mac": "a MAC under the integrity key",
    "events.body": "what a producer published",
    "events.fingerprint": "a digest of what a producer published",
    "secret_leftovers.share": "a key, of what lies at a provider outside PostgreSQL",
    "secret_records.share": "a key, of what lies at a provider outside PostgreSQL",
    "secret_keys.check_value": "derived from a master key, to recognise it by",
    "audit_log.previous_mac": "a MAC under the integrity key",
    "audit_log.mac": "a MAC under the integrity key",
    "audit_heads.mac": "a MAC under the integrity key",
    "api_tokens.digest": "the SHA-256 of a token",
    "api_tokens.code_digest": "the SHA-256 of a code",
    "api_tokens.signature": "the signature of a token, which nobody makes without the integrity key",
    "token_keys.public_key": "a public key",
    "idempotency_keys.fingerprint": "an HMAC of a request, under a key of its client that is not stored",
    "idempotency_keys.key_digest": "the SHA-256 of that key",
}
# Text or JSON could contain encoded sealed bytes; no column of hookseal does.
COLUMNS = """
SELECT c.relname || '.' || a.attname AS name,
       format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL) AS type  -- that of a domain is its base type
  FROM pg_class AS c
  JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_type AS t ON t.oid = a.atttypid
 WHERE c.relnamespace = 'hookseal'::regnamespace AND c.relkind IN ('r', 'p', 'm', 'f')
 ORDER BY 1
"""


@pytest.mark.req("SEC-05")
async def test_every_column_of_bytes_is_known(pool: Pool) -> None:
    found = {row["name"] for row in await pool.fetch(COLUMNS) if row["type"].startswith("bytea")}

    assert SEALED | set(NOTHING_SEALED) == found
    assert set() == SEALED & set(NOTHING_SEALED)


@pytest.mark.req("SEC-05")
async def test_a_re_wrap_leaves_no_column_under_the_older_key(installation: Installation) -> None:
    new = NewEndpoint(tenant_id=TenantId("acme"), url="https://receiver.example/hook", event_types=("*",))
    added = await installation.add(new, headers={"x-token": b"bearer"}, tls=identity(Authority().client(), None))
    await installation.deliveries()
    for _ in range(2):
        await installation.rotate(added.pointer.endpoint_id, overlap_seconds=600, force=True)
    found = await installation.pool.fetch("SELECT purpose, state FROM hookseal.secret_records")
    assert set(Purpose) == {row["purpose"] for row in found}
    assert {"active", "previous", "retired"} == {row["state"] for row in found}
    assert SYSTEM_TENANT in {
        row["tenant_id"] for row in await installation.pool.fetch("SELECT * FROM hookseal.secret_records")
    }

    process = await changed(installation, OLD, NEW)
    assert len(found) == await replaced(process, OLD)

    older = bytes.fromhex(OLD.key_id)
    for row in await installation.pool.fetch(COLUMNS):
        table, column = row["name"].split(".")
        for (value,) in await installation.pool.fetch(f"SELECT {column} FROM hookseal.{table}"):  # noqa: S608 -- of the catalogue
            if isinstance(value, bytes):
                assert older not in value, row["name"]
                assert named(value) in {None, NEW.key_id}, row["name"]
    assert 0 == await under(installation, OLD)
    await opened(await holding(installation, NEW))


def named(value: bytes) -> str | None:
    """Return the key id in the value, if it has the form of a record."""
    try:
        return key_id_of(value)
    except RecordMalformed:
        return None
