"""Whole workers and real TLS servers: which endpoint shows which certificate, and which servers it trusts."""

import ssl
from pathlib import Path

import pytest

from hookseal.audit.chain import Action
from hookseal.dispatcher.core.model import Ring
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.operations.endpoint.update import update_endpoint
from hookseal.operations.secret import clear_caches
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.extras import stored
from hookseal.secrets.extras.tls_identity import TlsChange, TlsIdentity
from tests.doubles.client_certificates import AlertingTlsServer, Authority, identity, serving
from tests.doubles.receivers import Listener, listening, status
from tests.worker.canary import client_key, search
from tests.worker.world import World

pytestmark = pytest.mark.req("DEL-11", part="client-certificates")

ACME = TenantId("acme")
AUTHORITY, STRANGER = Authority(), Authority("stranger")
FIRST, SECOND = AUTHORITY.client("first"), AUTHORITY.client("second")
FLIP_A_BIT = (
    "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, 150, get_byte(sealed, 150) # 1)"
    " WHERE name LIKE 'endpoint-tls-%'"
)


def endpoint(listener: Listener | AlertingTlsServer, path: str = "/hook") -> NewEndpoint:
    url = listener.url.removesuffix("/hook") + path
    return NewEndpoint(
        tenant_id=ACME, url=url, event_types=("*",), settings={"timeout_ms": 15_000, "backoff_base_seconds": 3600}
    )


async def refused(world: World, ring: Ring) -> tuple[str, str]:
    """Return the outcome and the error of the first attempt."""
    await world.tried(ring)
    [attempt] = await world.installation.attempts(ring)
    return attempt["outcome"], (await world.installation.delivery(ring))["last_error"]


async def test_each_endpoint_shows_its_own_certificate(world: World, tmp_path: Path) -> None:
    """Two endpoints of one host each show their own certificate, on connections that they never share."""
    async with listening(status(204), tls=serving(AUTHORITY.server(), tmp_path, asks=AUTHORITY)) as listener:
        for path, client in (("/one", FIRST), ("/two", SECOND)):
            await world.installation.add(endpoint(listener, path), tls=identity(client, AUTHORITY))
        async with world.worker() as worker:
            for _ in range(2):
                await world.delivered(*await world.publish())
            assert (["first", "second"], 4) == (sorted(map(str, listener.clients)), len(listener.requests))
    canaries = [client_key("first", FIRST.key), client_key("second", SECOND.key)]
    assert [] == search({"log": worker.log_file.read_bytes()}, canaries)


WANTED = "the receiver wants a client certificate that it trusts"
REFUSED = "the receiver refused the TLS handshake"  # TLS 1.2 reports no more than this
UNTRUSTED = "the certificate comes from an authority that is not trusted"


REFUSALS: list[tuple[str, TlsIdentity, str | tuple[str, str]]] = [
    ("/another-authority-alone", identity(FIRST, STRANGER), UNTRUSTED),
    ("/what-the-system-trusts", identity(FIRST, None), UNTRUSTED),
    ("/a-strangers-certificate", identity(STRANGER.client(), AUTHORITY), WANTED),
    ("/no-certificate", identity(None, AUTHORITY), (WANTED, REFUSED)),
]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_an_endpoints_authorities_replace_the_systems(
    world: World, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """The authorities of an endpoint replace those of the system, and a TLS failure says which side refused."""
    context = serving(AUTHORITY.server(), tmp_path, asks=AUTHORITY)
    context.minimum_version = context.maximum_version = version
    expected: dict[str, tuple[str, str | tuple[str, str]]] = {}
    with AlertingTlsServer(context) as listener:
        for path, tls, words in REFUSALS:
            added = await world.installation.add(endpoint(listener, path), tls=tls)
            expected[added.pointer.endpoint_id] = path, words
        async with world.worker():
            rings = await world.publish()
            assert len(REFUSALS) == len(rings)
            for ring in rings:
                path, words = expected[ring.endpoint_id]
                outcome, error = await refused(world, ring)
                assert ("tls", True) == (outcome, error.startswith(words)), (path, error)
        assert [] == listener.requests


async def test_the_installations_authorities_are_the_default(world: World, tmp_path: Path) -> None:
    """An endpoint with a certificate and no authorities of its own trusts those of the installation."""
    (trusted := tmp_path / "ca.pem").write_bytes(AUTHORITY.pem)
    (served := tmp_path / "served").mkdir()
    async with listening(status(204), tls=serving(AUTHORITY.server(), served, asks=AUTHORITY)) as listener:
        await world.installation.add(endpoint(listener), tls=identity(FIRST, None))
        async with world.worker(HOOKSEAL_EGRESS_CA_FILE=str(trusted)):
            await world.deliver()
    assert ["first"] == listener.clients


async def test_a_replaced_certificate_is_used_from_the_next_claim(world: World, tmp_path: Path) -> None:
    async with listening(status(204), tls=serving(AUTHORITY.server(), tmp_path, asks=AUTHORITY)) as listener:
        added = await world.installation.add(endpoint(listener), tls=identity(FIRST, AUTHORITY))
        async with world.worker():
            await world.deliver()
            async with world.pool.acquire() as connection:
                change = TlsChange(client=identity(SECOND, None).client)
                operator = world.installation.operator(connection)
                await update_endpoint(operator, ACME, added.pointer.endpoint_id, {"tls": change}, own_drain_seconds=25)
            await world.deliver()
    assert ["first", "second"] == listener.clients


async def test_an_altered_identity_waits_until_it_is_restored(world: World, tmp_path: Path) -> None:
    """A delivery whose TLS identity was altered waits, unspent, and is sent after the restoration."""
    async with listening(status(204), tls=serving(AUTHORITY.server(), tmp_path, asks=AUTHORITY)) as listener:
        await world.installation.add(endpoint(listener), tls=identity(FIRST, AUTHORITY))
        await world.pool.execute(FLIP_A_BIT)
        async with world.worker():
            [ring] = await world.publish()
            held = await world.state(ring, "pending", waiting_for="secret")
            assert (0, []) == (held["attempts"], listener.clients)
            await world.pool.execute(FLIP_A_BIT)
            await world.installation.act(clear_caches)
            await world.state(ring, "delivered")
    assert ["first"] == listener.clients


async def test_an_expired_certificate_is_still_shown(world: World, tmp_path: Path) -> None:
    """A certificate that has expired since it was stored is still shown; the receiver's refusal is the error."""
    with AlertingTlsServer(serving(AUTHORITY.server(), tmp_path, asks=AUTHORITY)) as listener:
        added = await world.installation.add(endpoint(listener), tls=identity(FIRST, AUTHORITY))
        await _given_expired(world, added.pointer.endpoint_id)
        async with world.worker():
            [ring] = await world.publish()
            assert ("tls", "the receiver says that the client certificate has expired") == await refused(world, ring)


async def _given_expired(world: World, endpoint_id: EndpointId) -> None:
    """Seal an expired certificate as if it had been stored while it was valid."""
    expired = identity(AUTHORITY.client("expired", days=(-9, -1)), AUTHORITY)
    unlocked = world.installation.unlocked
    async with world.pool.acquire() as connection, connection.transaction():
        found = await pointer.lock(connection, tenant=ACME, endpoint_id=endpoint_id)
        ref = await stored.keep(
            connection,
            unlocked.store_on(connection),
            stored.TLS,
            expired,
            tenant=ACME,
            endpoint_id=found.endpoint_id,
        )
        moved = await pointer.move(connection, unlocked.integrity, found, tls_ref=str(ref))
        await world.installation.operator(connection).audit(
            Action.ENDPOINT_UPDATED, of=moved, after={"generation": moved.generation}
        )
