"""An installation whose every secret is a canary, with receivers that behave well or badly in every way."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.endpoint.rotation import rotate_secret
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretContext
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint.rotation import RotationRequest
from tests.cli.listeners import closed_port
from tests.doubles import receivers
from tests.doubles.client_certificates import Authority, identity, serving
from tests.doubles.receivers import Listener, Script, listening
from tests.doubles.stored import MASTER_KEY_TEXT, Installation, keyring
from tests.worker.canary import Canary, client_key, data_key, signing
from tests.worker.verbose_process import COMPOSING, READING, WRITING

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
TOKEN = b"kQ7.canary-of-a-header/4f1d+Zr2=="
COOKIE = b"canary-4f1d-of-a-cookie"
OWN = {"authorization": b"Bearer " + TOKEN, "cookie": b'session="' + COOKIE + b'"'}
TEXT = SecretMaterial(b"canary of an x-webhook secret, 4f1d")
HMAC, NEWER = generate_signing_secret(), generate_signing_secret()
AUTHORITY = Authority()
CLIENTS = {
    name: AUTHORITY.client(key=key)
    for name, key in (
        ("EC client key", ec.generate_private_key(ec.SECP256R1())),
        ("RSA client key", rsa.generate_private_key(65537, 2048)),
        ("Ed25519 client key", ed25519.Ed25519PrivateKey.generate()),
    )
}
SHOWN = {"/tls": "RSA client key", "/mutual": "EC client key"}  # all others have the Ed25519 key
PAIR = generate_signing_secret(Algorithm.ED25519)
FLIP_A_BIT = (
    "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, 150, get_byte(sealed, 150) # 1)"
    " WHERE name = 'webhook-endpoint-' || $1"
)
TAKE_ANOTHER_TENANTS = (
    "UPDATE hookseal.secret_records SET sealed = (SELECT sealed FROM hookseal.secret_records"
    " WHERE tenant_id = 'globex' AND purpose = 'webhook-signing') WHERE name = 'webhook-endpoint-' || $1"
)
TAKE_ANOTHER_HOST = "UPDATE hookseal.endpoints SET url = 'http://127.0.0.1:9/elsewhere' WHERE id = $1::text::uuid"

DELIVERED, TRIED, DISABLED = "delivered", "tried", "disabled"
WAITING, HELD = "waiting for its secret", "held by a fault of ours"
SCRIPTS: Mapping[str, tuple[Script, str]] = {
    "/standard": (receivers.status(204), DELIVERED),
    "/x-webhook": (receivers.status(200, b"ok"), DELIVERED),
    "/ed25519": (receivers.status(204), DELIVERED),
    "/overlap": (receivers.status(204), DELIVERED),
    "/500": (receivers.status(500, b"no"), TRIED),
    "/410": (receivers.status(410), DISABLED),
    "/429": (receivers.status(429, headers=b"retry-after: 120\r\n"), TRIED),
    "/302": (receivers.status(302, headers=b"location: http://127.0.0.1:9/\r\n"), TRIED),
    "/hang": (receivers.hang, TRIED),
    "/garbage": (receivers.answers(b"nonsense\r\n\r\n"), TRIED),
    "/reset": (receivers.reset, TRIED),
    "/cut": (receivers.stalls_after(b"HTTP/1.1 200 OK\r\nx: "), TRIED),
    "/cut-body": (receivers.stalls_after(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok"), DELIVERED),
    COMPOSING: (receivers.status(204), HELD),
    WRITING: (receivers.status(204), TRIED),
    READING: (receivers.status(204), TRIED),
    "/flipped": (receivers.status(204), WAITING),
    "/another-tenants": (receivers.status(204), WAITING),
    "/another-host": (receivers.status(204), WAITING),
}
SIGNED = {
    "/x-webhook": (Scheme.X_WEBHOOK, Algorithm.HMAC, TEXT),
    "/ed25519": (Scheme.STANDARD, Algorithm.ED25519, PAIR),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The expected end of each endpoint's delivery, by endpoint id, and every secret that must not leak."""

    ends: Mapping[EndpointId, str]
    canaries: tuple[Canary, ...]
    listeners: tuple[Listener, ...]


@asynccontextmanager
async def scene(installation: Installation, *urls: str) -> AsyncIterator[Scene]:
    """Add an endpoint for every end of a delivery, alter the rows of some, and yield them all."""
    async with AsyncExitStack() as stack:
        ends: dict[EndpointId, str] = {}
        ids: dict[str, EndpointId] = {}
        listeners = []
        for path, (script, end) in SCRIPTS.items():
            listeners.append(await stack.enter_async_context(listening(script)))
            ids[path] = await _added(installation, f"http://127.0.0.1:{listeners[-1].port}{path}")
            ends[ids[path]] = end
        for path, as_header in (("/echo", False), ("/echo-garbage", True)):
            listeners.append(await stack.enter_async_context(_echoing(as_header=as_header)))
            ends[await _added(installation, f"http://127.0.0.1:{listeners[-1].port}{path}")] = TRIED
        ends[await _added(installation, f"http://127.0.0.1:{closed_port()}/refused")] = TRIED
        ends[await _added(installation, f"https://127.0.0.1:{listeners[0].port}/tls")] = TRIED
        mutual = await stack.enter_async_context(_mutual())
        ends[await _added(installation, f"https://localhost:{mutual.port}/mutual")] = DELIVERED
        await _added(installation, "https://receiver.example/hook", GLOBEX)
        await _overlapping(installation, ids["/overlap"])
        canaries = await all_canaries(installation, *urls)
        for statement, path in (
            (FLIP_A_BIT, "/flipped"),
            (TAKE_ANOTHER_TENANTS, "/another-tenants"),
            (TAKE_ANOTHER_HOST, "/another-host"),
        ):
            await installation.pool.execute(statement, ids[path])
        yield Scene(ends=ends, canaries=canaries, listeners=tuple(listeners))


@asynccontextmanager
async def _echoing(*, as_header: bool) -> AsyncIterator[Listener]:
    """Yield a listener that answers with the request it received: as a body, or as invalid headers."""
    known: list[Listener] = []

    async def echo(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = known[0].requests[-1]
        if as_header:
            writer.write(b"HTTP/1.1 500 " + OWN["authorization"] + b"\r\nretry-after: " + TOKEN + b"\r\n" + raw * 2)
        else:
            writer.write(b"HTTP/1.1 500 no\r\ncontent-length: %d\r\n\r\n%b" % (len(raw), raw))

    async with listening(echo) as listener:
        known.append(listener)
        yield listener


@asynccontextmanager
async def _mutual() -> AsyncIterator[Listener]:
    """Yield a listener that requires a client certificate."""
    with tempfile.TemporaryDirectory() as folder:
        context = serving(AUTHORITY.server(), Path(folder), asks=AUTHORITY)
    async with listening(receivers.status(204), tls=context) as listener:
        yield listener


async def _added(installation: Installation, url: str, tenant: TenantId = ACME) -> EndpointId:
    scheme, algorithm, secret = SIGNED.get(urlsplit(url).path, (Scheme.STANDARD, Algorithm.HMAC, HMAC))
    endpoint = NewEndpoint(
        tenant_id=tenant,
        url=url,
        event_types=("*",),
        settings={"timeout_ms": 3000, "backoff_base_seconds": 3600},
        scheme=scheme,
        algorithm=algorithm,
    )
    shown = CLIENTS[SHOWN.get(urlsplit(url).path, "Ed25519 client key")]
    added = await installation.add(endpoint, secret, headers=OWN, tls=identity(shown, AUTHORITY))
    return EndpointId(added.pointer.endpoint_id)


async def _overlapping(installation: Installation, endpoint_id: EndpointId) -> None:
    wanted = RotationRequest(tenant_id=ACME, endpoint_id=endpoint_id, overlap_seconds=3600, secret=NEWER, given=True)
    await installation.act(rotate_secret, wanted)


async def all_canaries(installation: Installation, *urls: str) -> tuple[Canary, ...]:
    """Return the canaries of all secrets, the keys that seal them, and the passwords in these URLs."""
    rows = await installation.pool.fetch("SELECT * FROM hookseal.secret_records")
    return (
        Canary("master key", (MASTER_KEY_TEXT.encode(), keyring().sealing._material.reveal())),
        *(Canary("integrity key", (key.reveal(),)) for key in installation.unlocked.integrity._versions.values()),
        Canary("x-webhook secret", (TEXT.reveal(),)),
        Canary("header value", (TOKEN, COOKIE)),
        *(client_key(name, pair.key) for name, pair in CLIENTS.items()),
        *(signing(name, key.reveal()) for name, key in (("secret", HMAC), ("newer secret", NEWER), ("key pair", PAIR))),
        *(Canary(f"password of {url[:5]}", (str(urlsplit(url).password).encode(),)) for url in urls),
        *(data_key(f"data key of {row['name']}", keyring(), row["sealed"], _context(row)) for row in rows),
    )


def _context(row: asyncpg.Record) -> SecretContext:
    return SecretContext(
        tenant=TenantId(row["tenant_id"]),
        name=row["name"],
        version=row["version"],
        purpose=Purpose(row["purpose"]),
    )
