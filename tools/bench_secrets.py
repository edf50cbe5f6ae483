"""`make bench-secrets`: what the secret path costs, each figure with a baseline that is its lower bound.

hookseal and its baseline alternate, with the same number of operations in each round. Each operation is timed
separately and a round is the median, so that occasional other load does not count. There are so many endpoints that the
CPU cache cannot hold them, and the garbage collector runs as in production.
"""

import argparse
import hmac
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from statistics import median
from time import perf_counter_ns
from typing import Final, NamedTuple

import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace

from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.postgres.connect import connection_pool
from hookseal.postgres.pool import Pool
from hookseal.secrets.boot import Unlocked, unlock
from hookseal.secrets.core.envelope import open_sealed
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import Provider, Purpose, SecretContext, SecretRef, endpoint_secret_name
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.resolve.service import SecretService
from tools.governance.evidence import BENCHMARKS, Figure, figure, misses, place, record_of, write
from tools.harness import KB, site
from tools.records import ROOT, table

PROVES: Final = "PERF-06"
ENDPOINTS: Final = 64
# Pinned, so that two records differ by the code and the machine only.
OPERATIONS: Final = {"open": 3_000, "resolve-and-sign": 3_000, "resolve-and-sign-ed25519": 3_000, "fetch-and-open": 500}
ROUNDS: Final = 11
_SIGNING: Final = Purpose.WEBHOOK_SIGNING
_ROW: Final = "SELECT purpose, sealed FROM hookseal.secret_records WHERE tenant_id = $1 AND name = $2 AND version = $3"

# Does an operation so many times, and returns the median of their microseconds.
Round = Callable[[int], Awaitable[float]]


class Comparison(NamedTuple):
    """Our operation, and a baseline."""

    ours: Round
    baseline: Round


class Endpoint(NamedTuple):
    """What a claim reads of an endpoint, and the ref of its current secret."""

    pointer: Pointer
    ref: SecretRef


def p50_of(operation: Callable[[int], object]) -> Round:
    """Return a round of the operation, which is called with its number."""

    async def one_round(operations: int) -> float:
        took: list[int] = []
        for number in range(operations):
            started = perf_counter_ns()
            operation(number)
            took.append(perf_counter_ns() - started)
        return median(took) / 1e3

    return one_round


def p50_of_awaited(operation: Callable[[int], Awaitable[object]]) -> Round:
    """Return a round of the operation, which is called with its number and awaited."""

    async def one_round(operations: int) -> float:
        took: list[int] = []
        for number in range(operations):
            started = perf_counter_ns()
            await operation(number)
            took.append(perf_counter_ns() - started)
        return median(took) / 1e3

    return one_round


async def measured(
    comparisons: Mapping[str, Comparison], rounds: int, operations: Mapping[str, int] = OPERATIONS
) -> dict[str, Figure]:
    """Return the figure of every comparison. A first round warms up and is not counted."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in comparisons}
    for number in range(rounds + 1):
        print(f"  round {number} of {rounds} ..." if number else "  warming up ...", file=sys.stderr, flush=True)
        for name, (ours, baseline) in comparisons.items():
            found[name].append((await ours(operations[name]), await baseline(operations[name])))
    return {name: figure(*zip(*all_[1:], strict=True)) for name, all_ in found.items()}


async def comparisons(pool: Pool, keyring: KeyRing, unlocked: Unlocked) -> dict[str, Comparison]:
    """Return the comparisons, after storing all secrets."""
    with_hmac = [await _endpoint(unlocked, Algorithm.HMAC, number) for number in range(ENDPOINTS)]
    with_ed25519 = [await _endpoint(unlocked, Algorithm.ED25519, ENDPOINTS + number) for number in range(ENDPOINTS)]
    body, keys = os.urandom(KB), (os.urandom(32), os.urandom(32))
    private_keys = (Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate())
    refs = [each.ref for each in with_hmac]
    rows = [await pool.fetchrow(_ROW, ref.tenant, ref.name, ref.version) for ref in refs]
    sealed = [(row["sealed"], SecretContext.of(ref, _SIGNING)) for row, ref in zip(rows, refs, strict=True) if row]
    plain, associated = open_sealed(keyring, *sealed[0]).reveal(), sealed[0][1].encode()
    cipher, nonce = AESGCM(os.urandom(32)), os.urandom(12)
    encrypted = cipher.encrypt(nonce, plain, associated)

    async def fetch(number: int) -> None:
        ref = refs[number % ENDPOINTS]
        await pool.fetchrow(_ROW, ref.tenant, ref.name, ref.version)

    return {
        # Baseline: one decryption of a secret of that length by a cipher object in memory.
        "open": Comparison(
            p50_of(lambda number: open_sealed(keyring, *sealed[number % ENDPOINTS])),
            p50_of(lambda _: cipher.decrypt(nonce, encrypted, associated)),
        ),
        "resolve-and-sign": Comparison(
            _signing(unlocked.service, with_hmac, body),
            p50_of(lambda _: [hmac.digest(key, body, "sha256") for key in keys]),
        ),
        "resolve-and-sign-ed25519": Comparison(
            _signing(unlocked.service, with_ed25519, body), p50_of(lambda _: [key.sign(body) for key in private_keys])
        ),
        # Without the cache; baseline: the same row without opening it.
        "fetch-and-open": Comparison(
            p50_of_awaited(lambda number: unlocked.store.get(refs[number % ENDPOINTS], purpose=_SIGNING)),
            p50_of_awaited(fetch),
        ),
    }


def _signing(service: SecretService, among: Sequence[Endpoint], body: bytes) -> Round:
    """Verify the pointer, take both secrets from the cache, and sign with each."""

    async def one(number: int) -> None:
        async with service.signers(among[number % ENDPOINTS].pointer) as signers:
            for signer in signers:
                signer.sign(body)

    return p50_of_awaited(one)


async def _endpoint(unlocked: Unlocked, algorithm: Algorithm, number: int) -> Endpoint:
    """Store two versions of a secret, and return an endpoint in an overlap, which signs with both."""
    tenant, endpoint_id = TenantId("bench"), EndpointId(f"01890a5d-ac96-774b-bcce-{number:012x}")
    name, standard, now = endpoint_secret_name(endpoint_id), Scheme.STANDARD, datetime.now(UTC)
    old, new = generate_signing_secret(algorithm), generate_signing_secret(algorithm)
    previous = await unlocked.store.put(tenant, name, old, purpose=_SIGNING, scheme=standard)
    current = await unlocked.store.rotate(tenant, name, new, purpose=_SIGNING, scheme=standard)
    unsigned = Pointer(
        tenant_id=tenant,
        endpoint_id=endpoint_id,
        url=f"https://hooks.example.com/tenants/bench/endpoints/{number}",
        scheme=standard.value,
        algorithm=algorithm.value,
        secret_ref=str(current),
        previous_secret_ref=str(previous),
        previous_secret_expires_at=now + timedelta(days=1),
        previous_scheme=standard.value,
        previous_algorithm=algorithm.value,
        previous_due=True,
        headers_ref=None,
        lead="previous",
        generation=2,
        mac=None,
        mac_key_id=None,
        cache_epoch=0,
        restore_epoch=0,
        read_at=now,
        audited_generation=2,
    )
    integrity = unlocked.integrity
    return Endpoint(replace(unsigned, mac=integrity.mac(unsigned), mac_key_id=integrity.key_id), current)


async def _figures() -> dict[str, Figure]:
    async with site() as here, connection_pool(here.installation.database_url, size=1) as pool:
        keyring = here.installation.keyring
        return await measured(await comparisons(pool, keyring, await unlock(pool, Provider.DB, keyring)), ROUNDS)


def shown(figures: Mapping[str, Figure]) -> str:
    """Return the figures as a table."""
    bounds = BENCHMARKS[PROVES].at_most_us
    rows = [
        (name, f"{found.us:.1f}", str(bounds.get(name, "")), f"{found.baseline_us:.1f}", f"{found.ratio:.2f}")
        for name, found in figures.items()
    ]
    return table(("", "us", "at most us", "baseline us", "ratio"), rows)


def main(arguments: list[str]) -> int:
    """Run `make bench-secrets`; return 0 if every bound is met, else 1."""
    parser = argparse.ArgumentParser(prog="make bench-secrets", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--record", action="store_true", help=f"write the record {place(PROVES)}")
    asked = parser.parse_args(arguments)
    figures = uvloop.run(_figures())
    missed = misses(PROVES, figures)
    if asked.record:
        write(ROOT, record_of(ROOT, PROVES, figures))
    found = {"figures": {name: asdict(each) for name, each in figures.items()}, "missed": missed}
    print(json.dumps(found) if asked.json else shown(figures))
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
