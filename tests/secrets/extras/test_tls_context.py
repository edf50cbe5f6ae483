"""TLS contexts of endpoints: made from sealed identities, few, kept for a limited time, no key on disk in plaintext."""

import asyncio
import copy
import errno
import gc
import os
import pickle
import ssl
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from hookseal.dispatcher.http.trust import client_context
from hookseal.errors import Exhausted, LocalFailure, SecretUnusable, Unavailable
from hookseal.ground.tls import verifying_context
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.extras import tls_context
from hookseal.secrets.extras.tls_context import (
    CERTIFICATE_BYTES,
    CONTEXT_BYTES,
    MOST_AT_ONCE,
    TlsContexts,
    Trust,
    context_of,
)
from hookseal.secrets.extras.tls_identity import TlsIdentity, authorities, written
from tests.dispatcher.http.test_transport_receivers import none_left
from tests.doubles.client_certificates import Authority, identity
from tests.doubles.clock import FakeClock
from tests.worker.canary import client_key, search

pytestmark = pytest.mark.req("DEL-13", part="client-keys")

AUTHORITY = Authority()
CLIENT = AUTHORITY.client()
SEALED = written(identity(CLIENT, AUTHORITY))
OTHER = written(identity(AUTHORITY.client("other"), None))
TTL = 300


def own_trust(alone: str | None) -> ssl.SSLContext:
    """Return a context that trusts these authorities or none: those of the system use much memory."""
    return verifying_context(alone) if alone is not None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def contexts(clock: FakeClock, *, ttl_seconds: int = TTL, most: int = 3, trust: Trust = own_trust) -> TlsContexts:
    """Return an empty set of contexts, with room for this many that trust one authority."""
    most_bytes = most * (CONTEXT_BYTES + CERTIFICATE_BYTES)
    return TlsContexts(clock=clock, ttl_seconds=ttl_seconds, trust=trust, most_bytes=most_bytes)


async def test_a_context_is_kept_for_the_ttl() -> None:
    """A version has the same context until its TTL is over, however it was used; then a new one is made."""
    clock = FakeClock()
    found = contexts(clock)
    first = await found.of("r:1", SEALED)
    clock.elapsed += TTL - 1
    assert first is await found.of("r:1", SEALED)
    assert clock.monotonic() + 1 == first.expires_at
    clock.elapsed += 1
    again = await found.of("r:1", SEALED)
    assert first.context is not again.context
    assert ("r:1", 1) == (again.key, len(found))


async def test_another_identity_has_its_own_context() -> None:
    """Another identity under the same ref, as after a restore, gets a context of its own."""
    found = contexts(FakeClock())
    assert (await found.of("r:1", SEALED)).context is not (await found.of("r:1", OTHER)).context


async def test_the_least_recently_used_context_is_removed() -> None:
    """Above the limit the least recently used context is removed; a TTL of 0 or `clear` leaves none."""
    clock = FakeClock()
    found = contexts(clock, most=2)
    one, two = await found.of("1", SEALED), await found.of("2", SEALED)
    assert one is await found.of("1", SEALED)
    await found.of("3", SEALED)
    assert (2, one) == (len(found), await found.of("1", SEALED))
    assert two is not await found.of("2", SEALED)
    found.clear()
    assert 0 == len(found)
    none = contexts(clock, ttl_seconds=0)
    assert await none.of("1", SEALED) is not await none.of("1", SEALED)
    assert 0 == len(none)


async def test_expired_contexts_are_removed() -> None:
    """Contexts that have expired are removed at the next request for any context."""
    clock = FakeClock()
    found = contexts(clock)
    await found.of("1", SEALED)
    await found.of("2", SEALED)
    clock.elapsed += TTL
    await found.of("3", SEALED)
    assert 1 == len(found)


def test_own_authorities_replace_the_installations() -> None:
    """An endpoint's authorities replace those of the installation, which are trusted if it has none."""
    asked: list[str | None] = []

    def trust(alone: str | None) -> ssl.SSLContext:
        asked.append(alone)
        return verifying_context(alone)

    own = context_of(identity(None, AUTHORITY), trust)
    assert [AUTHORITY.pem.decode()] == [ssl.DER_cert_to_PEM_cert(each) for each in own.get_ca_certs(binary_form=True)]
    context_of(identity(CLIENT, None), trust)
    assert [True, False] == [alone is not None for alone in asked]
    assert own.verify_mode is ssl.CERT_REQUIRED
    assert own.check_hostname


def test_an_identity_that_openssl_refuses_is_an_error() -> None:
    """An identity that OpenSSL refuses is a definitive error with the reason, and shows nothing of the key."""

    def strict(_alone: str | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_ciphers("DEFAULT@SECLEVEL=5")
        return context

    with pytest.raises(SecretUnusable, match=r"OpenSSL refuses the TLS identity of the endpoint \(EE_KEY_TOO_SMALL\)"):
        context_of(identity(CLIENT, None), strict)


def test_the_key_is_never_on_disk_in_plaintext(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """OpenSSL reads the key encrypted with a one-time passphrase, from memory or from a file that is then deleted."""
    canary = [client_key("client key", CLIENT.key)]
    assert search({"its file": CLIENT.key}, canary)
    seen: list[tuple[str, bytes, bytes]] = []

    class Reading(ssl.SSLContext):
        def load_cert_chain(self, certfile: str, keyfile: None = None, password: bytes = b"") -> None:  # type: ignore[override]
            seen.append((certfile, Path(certfile).read_bytes(), password))
            super().load_cert_chain(certfile, keyfile, password)

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for in_memory in (True, False):
        if not in_memory:
            monkeypatch.delattr(os, "memfd_create")
        context_of(identity(CLIENT, None), lambda _alone: Reading(ssl.PROTOCOL_TLS_CLIENT))
    for _, content, passphrase in seen:
        assert b"BEGIN ENCRYPTED PRIVATE KEY" in content
        load_pem_private_key(content[content.index(b"-----BEGIN ENC") :], passphrase)
    assert [] == search({path: content for path, content, _ in seen}, canary)
    assert seen[0][2] != seen[1][2]
    assert seen[0][0].startswith("/proc/self/fd/")
    assert seen[1][0].startswith(str(tmp_path))
    assert [] == list(tmp_path.iterdir())


async def test_a_context_is_not_pickled_or_copied() -> None:
    """A context can be neither pickled nor copied, and its repr shows only its ref."""
    found = await contexts(FakeClock()).of("db:acme:endpoint-tls-x:1", SEALED)
    assert "EndpointTls(key='db:acme:endpoint-tls-x:1', expires_at=" == repr(found).rpartition("expires_at=")[0] + (
        "expires_at="
    )
    for travel in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            travel(found)


async def test_an_invalid_identity_gives_no_context() -> None:
    """An invalid identity gives no context, and none is kept."""
    found = contexts(FakeClock())
    with pytest.raises(SecretUnusable):
        await found.of("r:1", SecretMaterial(b"{}"))
    assert 0 == len(found)


class Gate:
    """A trust function that waits until the gate is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.called = threading.Semaphore(0)
        self.threads: list[int] = []

    def __call__(self, alone: str | None) -> ssl.SSLContext:
        """Return a context once the gate is open."""
        self.threads.append(threading.get_ident())
        self.called.release()
        assert self.opened.wait(timeout=30)
        return own_trust(alone)


async def test_a_context_is_made_in_a_thread() -> None:
    """A context is made in a thread, once for all concurrent callers, and the event loop is not blocked."""
    gate = Gate()
    found = contexts(FakeClock(), trust=gate)
    asking = [asyncio.create_task(found.of("1", SEALED)) for _ in range(3)]
    while not gate.threads:  # noqa: ASYNC110 -- set by a thread
        await asyncio.sleep(0)
    gate.opened.set()
    one, *others = await asyncio.gather(*asking)

    assert [one, one] == others
    assert 1 == len(gate.threads)
    assert threading.get_ident() not in gate.threads


async def test_a_context_made_during_clear_is_not_kept() -> None:
    """A caller that waits during `clear` gets its context, but it is not kept, and later callers get a new one."""
    gate = Gate()
    found = contexts(FakeClock(), trust=gate)
    before = asyncio.create_task(found.of("1", SEALED))
    while not gate.threads:  # noqa: ASYNC110 -- set by a thread
        await asyncio.sleep(0)
    found.clear()
    after = asyncio.create_task(found.of("1", SEALED))
    gate.opened.set()

    assert (await before).context is not (await after).context
    assert (2, 1) == (len(gate.threads), len(found))
    assert await after is await found.of("1", SEALED)


async def test_an_expired_context_is_not_kept() -> None:
    """A context that expired before it was made is not kept."""
    clock, gate = FakeClock(), Gate()
    found = contexts(clock, trust=gate)
    asking = asyncio.create_task(found.of("1", SEALED))
    while not gate.threads:  # noqa: ASYNC110 -- set by a thread
        await asyncio.sleep(0)
    clock.elapsed += TTL
    gate.opened.set()

    assert clock.monotonic() >= (await asking).expires_at
    assert 0 == len(found)


async def test_the_limit_is_in_bytes() -> None:
    """The limit is in bytes: a context that trusts more authorities leaves room for fewer others."""
    found = contexts(FakeClock(), most=3)
    for ref in "123":
        await found.of(ref, SEALED)
    assert 3 == len(found)
    three = b"".join(Authority(name).pem for name in ("one", "two", "three"))
    await found.of("large", written(TlsIdentity(authorities=authorities(three))))
    assert 2 == len(found)
    none = contexts(FakeClock(), most=0)
    await none.of("1", SEALED)
    assert 0 == len(none)


def anonymous_bytes() -> int:
    """Return the private memory of this process."""
    rows = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("Anonymous:")) * 1_024


def test_a_context_uses_the_counted_memory() -> None:
    """A context uses no more memory than is counted for it, with the system's authorities or with one."""
    for of, count in ((identity(CLIENT, None), 40), (identity(CLIENT, AUTHORITY), 400)):
        held = [context_of(of) for _ in range(4)]
        gc.collect()
        before = anonymous_bytes()
        held += [context_of(of) for _ in range(count)]

        assert count * tls_context._bytes_of(held[0]) >= anonymous_bytes() - before


async def test_the_number_of_waiting_contexts_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 64 contexts waiting to be made, another one is refused at once; waiting for a slow one has a time-out."""
    monkeypatch.setattr(tls_context, "WAIT_SECONDS", 0.01)
    gate = Gate()
    found = contexts(FakeClock(), trust=gate, most=MOST_AT_ONCE)
    asking = [asyncio.create_task(found.of(str(number), SEALED)) for number in range(MOST_AT_ONCE)]
    await asyncio.sleep(0)  # each task makes its request in this turn
    monkeypatch.setattr(tls_context, "WAIT_SECONDS", 30)
    with pytest.raises(LocalFailure, match="run more workers"):
        await found.of("one more", SEALED)
    joined = asyncio.create_task(found.of("0", SEALED))
    for task in asking:
        with pytest.raises(LocalFailure, match="was not made in time"):
            await task
    gate.opened.set()

    assert "0" == (await joined).key
    assert "63" == (await found.of("63", SEALED)).key
    assert MOST_AT_ONCE == len(gate.threads)


async def test_contexts_of_one_turn_are_limited() -> None:
    """Of 500 contexts that are requested in one turn of the loop 64 are made, and the others are refused at once."""
    gate = Gate()
    found = contexts(FakeClock(), trust=gate, most=500)
    asking = [asyncio.create_task(found.of(str(number), SEALED)) for number in range(500)]
    await asyncio.sleep(0)
    refused = [task for task in asking if task.done()]
    gate.opened.set()
    await asyncio.wait(asking)
    for _ in range(MOST_AT_ONCE):  # a slow one is made although nobody waits for it any more
        assert await asyncio.to_thread(gate.called.acquire, timeout=30)

    assert 500 - MOST_AT_ONCE == len(refused)
    assert all(isinstance(task.exception(), LocalFailure) for task in refused)
    assert MOST_AT_ONCE == len(gate.threads)
    assert "one more" == (await found.of("one more", SEALED)).key


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_lacking_resource_is_exhausted(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a file descriptor or memory is lacking to load the key, the error is `Exhausted`."""

    def lacking(_name: str) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "memfd_create", lacking)
    with pytest.raises(Exhausted, match=errno.errorcode[code]):
        context_of(identity(CLIENT, AUTHORITY))


@pytest.mark.parametrize("authority", [AUTHORITY, None])
def test_a_missing_descriptor_is_exhausted(authority: Authority | None) -> None:
    """Without a descriptor to load the key, or to read the authorities of the system, the error is `Exhausted`."""
    own = identity(CLIENT, authority)
    with none_left(), pytest.raises(Exhausted, match=r"file descriptor|EMFILE"):
        context_of(own, lambda alone: client_context(extra=alone, only=alone is not None))


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), Unavailable("no certificate was read")])
def test_another_failure_is_local(error: Exception) -> None:
    """Any other failure of this machine is a `LocalFailure`: another worker may succeed."""

    def broken(_alone: str | None) -> ssl.SSLContext:
        raise error

    with pytest.raises(LocalFailure, match=r"on this machine now \((EIO|no certificate was read)\)"):
        context_of(identity(CLIENT, AUTHORITY), broken)
