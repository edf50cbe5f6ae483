"""Contexts of endpoints: made of what was sealed, held for a while and few of them, the key on no disk in the clear."""

import copy
import os
import pickle
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from hookseal.secrets.errors import SecretUnusable
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.tls_context import TlsContexts, context_of, system_trust
from hookseal.secrets.tls_identity import written
from tests.doubles.client_certificates import Authority, identity
from tests.doubles.clock import FakeClock
from tests.worker.canary import client_key, search

pytestmark = pytest.mark.req("DEL-13", part="client-keys")

AUTHORITY = Authority()
CLIENT = AUTHORITY.client()
SEALED = written(identity(CLIENT, AUTHORITY))
OTHER = written(identity(AUTHORITY.client("other"), None))
TTL = 300


def contexts(clock: FakeClock, *, ttl_seconds: int = TTL, most: int = 3) -> TlsContexts:
    """Return an empty set of contexts."""
    return TlsContexts(clock=clock, ttl_seconds=ttl_seconds, trust=system_trust, most=most)


def test_held_for_the_ttl() -> None:
    """The same version has the same context until its time is over; then one is made anew, whatever it was used for."""
    clock = FakeClock()
    found = contexts(clock)
    first = found.of("r:1", SEALED)
    clock.elapsed += TTL - 1
    assert first is found.of("r:1", SEALED)
    assert clock.monotonic() + 1 == first.expires_at
    clock.elapsed += 1
    again = found.of("r:1", SEALED)
    assert first.context is not again.context
    assert ("r:1", 1) == (again.key, len(found))


def test_what_was_sealed_counts() -> None:
    """Another identity under the same ref, as a restored database may have, gets a context of its own."""
    found = contexts(FakeClock())
    assert found.of("r:1", SEALED).context is not found.of("r:1", OTHER).context


def test_few() -> None:
    """There are never more than so many, the least recently used go first; none with a TTL of 0, none once cleared."""
    clock = FakeClock()
    found = contexts(clock, most=2)
    one, two = found.of("1", SEALED), found.of("2", SEALED)
    assert one is found.of("1", SEALED)
    found.of("3", SEALED)
    assert (2, one) == (len(found), found.of("1", SEALED))
    assert two is not found.of("2", SEALED)
    found.clear()
    assert 0 == len(found)
    none = contexts(clock, ttl_seconds=0)
    assert none.of("1", SEALED) is not none.of("1", SEALED)
    assert 0 == len(none)


def test_idle_ones_go() -> None:
    """What nobody asked for any more is let go of by the next question."""
    clock = FakeClock()
    found = contexts(clock)
    found.of("1", SEALED)
    found.of("2", SEALED)
    clock.elapsed += TTL
    found.of("3", SEALED)
    assert 1 == len(found)


def test_whom_it_trusts() -> None:
    """Authorities of its own stand in the place of the system's; without them the installation's trust is asked for."""
    asked: list[str | None] = []

    def trust(alone: str | None) -> ssl.SSLContext:
        asked.append(alone)
        return system_trust(alone)

    own = context_of(identity(None, AUTHORITY), trust)
    assert [AUTHORITY.pem.decode()] == [ssl.DER_cert_to_PEM_cert(each) for each in own.get_ca_certs(binary_form=True)]
    context_of(identity(CLIENT, None), trust)
    assert [True, False] == [alone is not None for alone in asked]
    assert own.verify_mode is ssl.CERT_REQUIRED
    assert own.check_hostname


def test_openssl_refuses() -> None:
    """What OpenSSL does not take is a definitive error that names its reason, and nothing of the key."""

    def strict(_alone: str | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_ciphers("DEFAULT@SECLEVEL=5")
        return context

    with pytest.raises(SecretUnusable, match=r"OpenSSL refuses the TLS identity of the endpoint \(EE_KEY_TOO_SMALL\)"):
        context_of(identity(CLIENT, None), strict)


def test_the_key_is_in_no_file_in_the_clear(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What OpenSSL reads is encrypted under a passphrase of this once, in memory, or a file that is gone after it."""
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


def test_it_does_not_travel() -> None:
    """A context is neither pickled nor copied, and its repr names its ref only."""
    found = contexts(FakeClock()).of("db:acme:endpoint-tls-x:1", SEALED)
    assert "EndpointTls(key='db:acme:endpoint-tls-x:1', expires_at=" == repr(found).rpartition("expires_at=")[0] + (
        "expires_at="
    )
    for travel in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            travel(found)


def test_spoilt() -> None:
    """What is no identity gives no context, and none is held."""
    found = contexts(FakeClock())
    with pytest.raises(SecretUnusable):
        found.of("r:1", SecretMaterial(b"{}"))
    assert 0 == len(found)
