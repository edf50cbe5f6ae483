"""Revealing the current secret requires the right to change the endpoint, is audited, and needs a genuine row."""

import pytest

from hookseal.errors import NotFound, Refused, SecretDenied, SecretTampered
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.wire import Algorithm
from hookseal.operations.endpoint import rotation
from hookseal.operations.secret import Revealed, reveal
from hookseal.secrets.core.signing import generate_signing_secret, public_key_of
from hookseal.secrets.endpoint.pointer import lock, move
from hookseal.secrets.endpoint.rotation import RotationRequest
from tests.doubles.logbook import audited
from tests.doubles.stored import Installation

pytestmark = pytest.mark.req("SEC-11")

TENANT = TenantId("acme")


async def revealed(installation: Installation, endpoint: EndpointId, tenant: TenantId = TENANT) -> Revealed:
    """Reveal on its own connection."""
    async with installation.pool.acquire() as connection:
        return await reveal(installation.operator(connection), tenant, endpoint)


async def rotated(installation: Installation, endpoint: EndpointId, algorithm: Algorithm) -> RotationRequest:
    """Rotate to a secret of that algorithm, and return the request."""
    request = RotationRequest(
        tenant_id=TENANT,
        endpoint_id=endpoint,
        overlap_seconds=60,
        secret=generate_signing_secret(algorithm),
        algorithm=algorithm,
    )
    async with installation.pool.acquire() as connection:
        await rotation.rotate_secret(installation.operator(connection), request)
    return request


async def test_the_current_secret_is_revealed_and_audited(installation: Installation) -> None:
    """In an overlap the newer secret is returned; each time is audited, without the secret."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    wanted = await rotated(installation, endpoint, Algorithm.HMAC)
    await revealed(installation, endpoint)
    found = await revealed(installation, endpoint)
    assert (wanted.secret, None, 2) == (found.secret, found.public_key, found.pointer.generation)
    entries = (await audited(installation.pool))[-2:]
    facts = {"generation": 2, "secret_ref": found.pointer.secret_ref, "shown": "secret"}
    assert [("secret.revealed", f"endpoint:{endpoint}", facts)] * 2 == [
        (row["action"], row["subject"], row["after"]) for row in entries
    ]


async def test_a_key_pair_reveals_its_public_key_only(installation: Installation) -> None:
    """An ed25519 private key is never returned, since a receiver needs only the public key."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    wanted = await rotated(installation, endpoint, Algorithm.ED25519)
    found = await revealed(installation, endpoint)
    assert (None, public_key_of(wanted.secret)) == (found.secret, found.public_key)
    assert "public key" == (await audited(installation.pool))[-1]["after"]["shown"]


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
    """An altered row is refused, and nothing is audited as revealed."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.pool.execute(altered)
    with pytest.raises(SecretTampered):
        await revealed(installation, endpoint)
    assert ["endpoint.added"] == [row["action"] for row in await audited(installation.pool)]


@pytest.mark.req("SEC-08")
async def test_another_tenants_secret_is_not_revealed(installation: Installation) -> None:
    """Another tenant's endpoint is not found; a genuine row with another endpoint's ref is denied."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    victim = (await installation.endpoint(url="https://receiver.example/other")).pointer
    with pytest.raises(NotFound):
        await revealed(installation, endpoint, TenantId("globex"))
    async with installation.pool.acquire() as connection, connection.transaction():
        found = await lock(connection, tenant=TENANT, endpoint_id=endpoint)
        await move(connection, installation.unlocked.integrity, found, secret_ref=victim.secret_ref)
    with pytest.raises(SecretDenied):
        await revealed(installation, endpoint)


async def test_an_unsealed_endpoint_has_nothing_to_reveal(installation: Installation) -> None:
    """An endpoint of an older system without a sealed secret has nothing to reveal."""
    endpoint = EndpointId("01900000-0000-7000-8000-000000000001")
    await installation.pool.execute(
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)"
        " VALUES ('acme', $1, 'https://x/', '{*}', 's')",
        endpoint,
    )
    with pytest.raises(NotFound, match="no secret"):
        await revealed(installation, endpoint)


async def test_without_its_audit_row_nothing_is_revealed(installation: Installation) -> None:
    """If the log refuses rows, nothing is returned."""
    endpoint = (await installation.endpoint()).pointer.endpoint_id
    await installation.pool.execute("UPDATE hookseal.audit_heads SET sequence = 0 WHERE tenant_id = 'acme'")
    with pytest.raises(Refused):
        await revealed(installation, endpoint)
