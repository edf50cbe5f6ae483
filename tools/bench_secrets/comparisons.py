"""What is measured, with so many endpoints that the CPU cache cannot hold them, and the baselines."""

import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hookseal.ground.wire import Algorithm
from hookseal.secrets.core.envelope import open_sealed
from hookseal.secrets.core.ref import Purpose, SecretContext
from hookseal.secrets.resolve.service import SecretService
from tools.bench_secrets.endpoints import Endpoint, Installation, endpoints
from tools.bench_secrets.timing import Comparison, Round, p50_of, p50_of_awaited

ENDPOINTS: Final = 64
BODY_BYTES: Final = 1_024
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_SIGNING: Final = Purpose.WEBHOOK_SIGNING
_SEALED: Final = "SELECT sealed FROM hookseal.secret_records WHERE tenant_id = $1 AND name = $2 AND version = $3"
_ROW: Final = "SELECT purpose, sealed FROM hookseal.secret_records WHERE tenant_id = $1 AND name = $2 AND version = $3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How many operations of each kind one round has."""

    open: int
    sign: int
    fetch: int


async def comparisons(installation: Installation, load: Load) -> list[Comparison]:
    """Return the comparisons, after storing all secrets."""
    with_hmac = await endpoints(installation, Algorithm.HMAC, range(ENDPOINTS))
    with_ed25519 = await endpoints(installation, Algorithm.ED25519, range(ENDPOINTS, 2 * ENDPOINTS))
    service, body = installation.unlocked.service, os.urandom(BODY_BYTES)
    return [
        await _open(installation, with_hmac, load.open),
        Comparison(
            name="resolve-and-sign",
            ours=_signing(service, with_hmac, body),
            baseline=_bare_hmac(body),
            operations=load.sign,
        ),
        Comparison(
            name="resolve-and-sign-ed25519",
            ours=_signing(service, with_ed25519, body),
            baseline=_bare_ed25519(body),
            operations=load.sign,
        ),
        _fetch_and_open(installation, with_hmac, load.fetch),
    ]


async def _open(installation: Installation, among: Sequence[Endpoint], operations: int) -> Comparison:
    """Open stored records; baseline: one decryption of a secret of that length by a cipher object in memory."""
    sealed: list[tuple[bytes, SecretContext]] = []
    for ref in (endpoint.ref for endpoint in among):
        record = await installation.pool.fetchval(_SEALED, ref.tenant, ref.name, ref.version)
        sealed.append((record, SecretContext.of(ref, _SIGNING)))
    keyring = installation.keyring
    plain = open_sealed(keyring, *sealed[0]).reveal()
    cipher, nonce, associated = AESGCM(os.urandom(_KEY_BYTES)), os.urandom(_NONCE_BYTES), sealed[0][1].encode()
    encrypted = cipher.encrypt(nonce, plain, associated)
    return Comparison(
        name="open",
        ours=p50_of(lambda number: open_sealed(keyring, *sealed[number % ENDPOINTS])),
        baseline=p50_of(lambda _: cipher.decrypt(nonce, encrypted, associated)),
        operations=operations,
    )


def _signing(service: SecretService, among: Sequence[Endpoint], body: bytes) -> Round:
    """Verify the pointer, take both secrets from the cache, and sign with each."""

    async def one(number: int) -> None:
        async with service.signers(among[number % ENDPOINTS].pointer) as signers:
            for signer in signers:
                signer.sign(body)

    return p50_of_awaited(one)


def _bare_hmac(body: bytes) -> Round:
    first, second = os.urandom(_KEY_BYTES), os.urandom(_KEY_BYTES)
    return p50_of(lambda _: (hmac.digest(first, body, "sha256"), hmac.digest(second, body, "sha256")))


def _bare_ed25519(body: bytes) -> Round:
    first, second = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    return p50_of(lambda _: (first.sign(body), second.sign(body)))


def _fetch_and_open(installation: Installation, among: Sequence[Endpoint], operations: int) -> Comparison:
    """Read from the store without the cache; baseline: fetch the same row without opening it."""
    pool, store = installation.pool, installation.unlocked.store
    refs = [endpoint.ref for endpoint in among]

    async def bare(number: int) -> None:
        ref = refs[number % ENDPOINTS]
        await pool.fetchrow(_ROW, ref.tenant, ref.name, ref.version)

    return Comparison(
        name="fetch-and-open",
        ours=p50_of_awaited(lambda number: store.get(refs[number % ENDPOINTS], purpose=_SIGNING)),
        baseline=p50_of_awaited(bare),
        operations=operations,
    )
