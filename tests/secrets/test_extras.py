"""Header values, TLS identities and TLS contexts of endpoints."""

import asyncio
import copy
import errno
import gc
import os
import pickle
import re
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from hookseal.dispatcher.http.trust import client_context
from hookseal.errors import (
    Exhausted,
    LocalFailure,
    Malformed,
    NotFound,
    SecretDenied,
    SecretNotFound,
    SecretUnusable,
    Unavailable,
)
from hookseal.ground.tls import verifying_context
from hookseal.postgres.pool import Connection, Pool
from hookseal.secrets.core import header_values
from hookseal.secrets.core.header_values import HeaderChange
from hookseal.secrets.core.material import MASK, MAX_BYTES, SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef, endpoint_headers_name
from hookseal.secrets.extras import stored, tls_context, tls_identity
from hookseal.secrets.extras.tls_context import (
    CERTIFICATE_BYTES,
    CONTEXT_BYTES,
    MOST_AT_ONCE,
    TlsContexts,
    Trust,
    context_of,
)
from hookseal.secrets.extras.tls_identity import (
    MAX_AUTHORITIES_BYTES,
    MAX_CERTIFICATE_BYTES,
    MAX_KEY_BYTES,
    MOST_AUTHORITIES,
    MOST_CERTIFICATES,
    TlsIdentity,
    authorities,
    client_certificate,
    read,
    require_current,
    shown,
    to_material,
)
from hookseal.secrets.store.postgres import PostgresStore
from tests.dispatcher.http.test_transport_receivers import none_left
from tests.doubles.client_certificates import Authority, identity, pem_of
from tests.doubles.clock import FakeClock
from tests.doubles.replaced import replace
from tests.secrets.samples import BARE, ENDPOINT, NAME, OTHER_ENDPOINT, OTHER_TENANT, RING, TENANT, register
from tests.worker.canary import client_key, search

HEADERS = {"authorization": SecretMaterial(b"Bearer canary"), "x-key": SecretMaterial(b"a b\tc")}


@pytest.mark.req("DEL-13", part="sealed-values")
def test_headers_are_read_back_masked() -> None:
    read = header_values.read(header_values.to_material(HEADERS))

    assert HEADERS == read
    assert f"{{'authorization': {MASK}, 'x-key': {MASK}}}" == repr(read)


@pytest.mark.req("DEL-13", part="sealed-values")
@pytest.mark.parametrize("value", [b"", b"canary\r\nb", b"canary\x00", b"canary\xc3\xa9", b" canary", b"canary" * 1000])
def test_a_forbidden_value_is_not_written(value: bytes) -> None:
    with pytest.raises(Malformed, match="header x-key") as refused:
        header_values.to_material({"x-key": SecretMaterial(value)})
    assert "canary" not in str(refused.value)


@pytest.mark.req("DEL-13", part="sealed-values")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"3",
        b'{"x-key": 3}',
        b'{"x-key": "a\\nb"}',
        b'{"Host": "a"}',
        b'{"host": "a"}',
        b"[" * 50_000,
    ],
)
def test_another_content_is_not_read(content: bytes) -> None:
    with pytest.raises(SecretUnusable, match="set them again") as refused:
        header_values.read(SecretMaterial(content))
    assert None is refused.value.__cause__


KEY, TOKEN, OTHER = (SecretMaterial(text.encode()) for text in ("k-value", "t-value", "o-value"))
HEADERS_NAME = endpoint_headers_name(ENDPOINT)


# The header values of an endpoint in a real store: changes, versions and ownership.


def ref(version: int) -> SecretRef:
    """Return the ref of this version of the endpoint's header values."""
    return SecretRef(provider=Provider.DB, tenant=TENANT, name=HEADERS_NAME, version=version)


@pytest.fixture
async def connection(pool: Pool) -> AsyncIterator[Connection]:
    async with pool.acquire() as connection:
        await register(connection)
        yield connection


@pytest.fixture
def store(connection: Connection) -> PostgresStore:
    return PostgresStore(connection, RING)


async def kept(connection: Connection, store: PostgresStore, **headers: SecretMaterial) -> SecretRef | None:
    """Store these headers in a transaction of their own."""
    async with connection.transaction():
        return await stored.keep(connection, store, stored.HEADERS, headers, tenant=TENANT, endpoint_id=ENDPOINT)


async def states(store: PostgresStore) -> list[str]:
    """Return the states of the versions, oldest first."""
    return [version.state.value for version in await store.versions(TENANT, HEADERS_NAME)]


@pytest.mark.req("DEL-13", part="sealed-values")
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (HeaderChange(given={}), {"a": KEY, "b": TOKEN}),
        (HeaderChange(given={"a": OTHER}), {"a": OTHER, "b": TOKEN}),
        (HeaderChange(given={"c": OTHER}), {"a": KEY, "b": TOKEN, "c": OTHER}),
        (HeaderChange(given={}, removed=frozenset({"a"})), {"b": TOKEN}),
        (HeaderChange(given={"c": OTHER}, removed=frozenset({"a", "b"})), {"c": OTHER}),
        (HeaderChange(given={"c": OTHER}, replaces_all=True), {"c": OTHER}),
        (HeaderChange(given={}, replaces_all=True), {}),
    ],
)
def test_set_and_removed_headers_change(change: HeaderChange, expected: dict[str, SecretMaterial]) -> None:
    assert expected == change.applied({"a": KEY, "b": TOKEN})


def test_removing_an_absent_header_is_an_error() -> None:
    with pytest.raises(NotFound, match="no header c") as caught:
        HeaderChange(given={}, removed=frozenset({"a", "c"})).applied({"a": KEY})
    assert "headers" == caught.value.field


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_one_version_is_in_use(connection: Connection, store: PostgresStore) -> None:
    assert ref(1) == await kept(connection, store, a=KEY)
    assert ref(2) == await kept(connection, store, a=KEY, b=TOKEN)
    assert ["retired", "active"] == await states(store)
    assert {"a": KEY, "b": TOKEN} == await stored.opened(store, stored.HEADERS, replace(BARE, headers_ref=str(ref(2))))

    assert await kept(connection, store) is None
    assert ["retired", "retired"] == await states(store)
    assert ref(3) == await kept(connection, store, b=OTHER)
    assert ["retired", "retired", "active"] == await states(store)


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_the_values_are_sealed(pool: Pool, connection: Connection, store: PostgresStore) -> None:
    await kept(connection, store, authorization=KEY)
    row = await pool.fetchrow("SELECT * FROM hookseal.secret_records")

    assert row is not None
    assert ("endpoint-headers", None) == (row["purpose"], row["scheme"])
    assert not any(part in row["sealed"] for part in (b"k-value", b"authorization"))


async def test_an_endpoint_without_headers_has_no_record(connection: Connection, store: PostgresStore) -> None:
    assert await kept(connection, store) is None
    assert [] == await states(store)
    assert {} == await stored.opened(store, stored.HEADERS, BARE)


@pytest.mark.req("DEL-13", part="rules")
async def test_a_forbidden_header_is_not_stored(connection: Connection, store: PostgresStore) -> None:
    for headers in ({"webhook-id": KEY}, {"a": SecretMaterial(b"t-value\r\nwebhook-id: x")}):
        with pytest.raises(Malformed) as caught:
            await kept(connection, store, **headers)
        assert "t-value" not in str(caught.value)
    assert [] == await states(store)


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize(
    "wrong",
    [
        replace(ref(1), tenant=OTHER_TENANT),
        replace(ref(1), name=endpoint_headers_name(OTHER_ENDPOINT)),
        replace(ref(1), name=NAME),
        replace(ref(1), provider=Provider.DEV),
    ],
    ids=str,
)
async def test_anothers_ref_is_denied(connection: Connection, store: PostgresStore, wrong: SecretRef) -> None:
    await kept(connection, store, a=KEY)
    with pytest.raises(SecretDenied):
        await stored.opened(store, stored.HEADERS, replace(BARE, headers_ref=str(wrong)))


async def test_a_missing_or_invalid_record_is_an_error(connection: Connection, store: PostgresStore) -> None:
    with pytest.raises(SecretNotFound):
        await stored.opened(store, stored.HEADERS, replace(BARE, headers_ref=str(ref(1))))
    await store.put(TENANT, HEADERS_NAME, SecretMaterial(b"no headers"), purpose=Purpose.ENDPOINT_HEADERS)
    with pytest.raises(SecretUnusable, match="set them again"):
        await stored.opened(store, stored.HEADERS, replace(BARE, headers_ref=str(ref(1))))


async def test_retire_retires_every_version(connection: Connection, store: PostgresStore) -> None:
    await kept(connection, store, a=KEY)
    other = endpoint_headers_name(OTHER_ENDPOINT)
    await store.put(TENANT, other, SecretMaterial(b"{}"), purpose=Purpose.ENDPOINT_HEADERS)
    await stored.retire(connection, store, stored.HEADERS, tenant=TENANT, endpoint_id=ENDPOINT)

    assert ["retired"] == await states(store)
    assert ["active"] == [version.state.value for version in await store.versions(TENANT, other)]


AUTHORITY = Authority()
ONE = AUTHORITY.client("one")
ANOTHER = AUTHORITY.client("other")
# TLS identities of endpoints: strict PEM, a matching key, and errors that do not repeat a file.
RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
SHORT = rsa.generate_private_key(65537, 1024)  # noqa: S505 -- it is refused
NOW = datetime.now(UTC)
HELD = to_material(identity(ONE, None)).reveal()


def refused(certificate: bytes, key: bytes) -> tuple[str | None, str]:
    """Return the field and the text of the refusal, which must not repeat any line of the files."""
    with pytest.raises(Malformed) as caught:
        client_certificate(certificate, key)
    for line in (certificate + key).splitlines():
        assert len(line) < 16 or line.startswith(b"-----") or line.decode("latin-1") not in str(caught.value)
    return caught.value.field, str(caught.value)


@pytest.mark.req("DEL-13", part="client-keys")
@pytest.mark.parametrize(
    "key",
    [RSA, P256, ec.generate_private_key(ec.SECP521R1()), ed25519.Ed25519PrivateKey.generate(),
     ed448.Ed448PrivateKey.generate()],
    ids=["rsa", "p-256", "p-521", "ed25519", "ed448"],
)  # fmt: skip
def test_an_identity_is_read_back_masked(key: rsa.RSAPrivateKey) -> None:
    found = identity(AUTHORITY.client(key=key), AUTHORITY)

    assert found == read(to_material(found))
    assert found.client is not None
    assert "b'0" not in repr(found)
    assert "[masked]" in repr(found)


@pytest.mark.req("DEL-13", part="client-keys")
@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("key", [RSA, P256], ids=["rsa", "ec"])
def test_each_form_of_a_key_is_read(key: rsa.RSAPrivateKey, form: PrivateFormat) -> None:
    pair = AUTHORITY.client(key=key)
    plain = client_certificate(pair.certificate, pair.key)

    for text in (
        pem_of(key, form),
        b"Bag Attributes\n" + pem_of(key, form),
        b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + pem_of(key, form),
        pem_of(key, form).replace(b"\n", b"\r\n"),
    ):
        assert plain == client_certificate(pair.certificate, text)


@pytest.mark.req("DEL-13", part="client-keys")
def test_the_key_must_match_the_first_certificate() -> None:
    assert ("client_key", "the private key does not belong to the certificate") == refused(ONE.certificate, ANOTHER.key)
    turned = refused(AUTHORITY.pem + ONE.certificate, ONE.key)
    assert ("client_cert", "the certificate of the key must come first, then those that certify it") == turned
    assert 2 == len(client_certificate(ONE.certificate + AUTHORITY.pem, ONE.key).chain)


def encrypted(key: ec.EllipticCurvePrivateKey, form: PrivateFormat) -> bytes:
    return key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"x"))


def key_of_dsa() -> bytes:
    """Return a DSA key. Making it takes seconds, too long for the collection of tests."""
    return pem_of(dsa.generate_private_key(2048))  # type: ignore[arg-type]


@pytest.mark.req("DEL-13", part="client-keys")
@pytest.mark.parametrize(
    ("key", "text"),
    [
        (b"", "holds no PEM"),
        (b"nonsense", "holds no PEM"),
        (ONE.key + ANOTHER.key, "one private key, and nothing else"),
        (ONE.key + ONE.certificate, "one private key, and nothing else"),
        (ONE.certificate, "one private key, and nothing else"),
        (ONE.key[:-20], "is incomplete|holds no PEM"),
        (ONE.key.replace(b"MI", b"!I", 1), "cannot be read"),
        (ONE.key.replace(b"MI", b"NI", 1), "cannot be read"),
        (encrypted(P256, PrivateFormat.PKCS8), "is encrypted"),
        (encrypted(P256, PrivateFormat.TraditionalOpenSSL), "is encrypted"),
        (pem_of(SHORT), "must have 2048 to 8192 bits"),
        (pem_of(ec.generate_private_key(ec.SECP256K1())), "on the curve P-256, P-384 or P-521"),
        (key_of_dsa, "TLS clients cannot use this kind"),
        (b"x" * (MAX_KEY_BYTES + 1), f"at most {MAX_KEY_BYTES} bytes"),
    ],
)
def test_another_file_than_a_key_is_refused(key: bytes | Callable[[], bytes], text: str) -> None:
    field, message = refused(ONE.certificate, key() if callable(key) else key)
    assert "client_key" == field
    assert re.search(text, message)


@pytest.mark.req("DEL-13", part="client-keys")
@pytest.mark.parametrize(
    ("certificate", "text"),
    [
        (b"", "holds no PEM"),
        (ONE.certificate[:-20], "PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1 of the file cannot be read"),
        (ONE.certificate + ONE.certificate.replace(b"MII", b"MIJ", 1), "certificate 2 of the file cannot be read"),
        (ONE.certificate + ONE.key, "holds a private key beside certificates"),
        (ONE.certificate * (MOST_CERTIFICATES + 1), f"at most {MOST_CERTIFICATES} certificates"),
        (b"x" * (MAX_CERTIFICATE_BYTES + 1), f"at most {MAX_CERTIFICATE_BYTES} bytes"),
        (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "part 1 of the file is not a certificate"),
    ],
)
def test_another_file_than_certificates_is_refused(certificate: bytes, text: str) -> None:
    field, message = refused(certificate, ONE.key)
    assert "client_cert" == field
    assert text in message


@pytest.mark.req("DEL-13", part="client-keys")
def test_a_file_may_have_several_authorities() -> None:
    assert 2 == len(authorities(b"# first\n" + AUTHORITY.pem + b"\nsecond\n" + Authority("b").pem))
    for raw in (AUTHORITY.pem * (MOST_AUTHORITIES + 1), b"#" * (MAX_AUTHORITIES_BYTES + 1)):
        with pytest.raises(Malformed, match="at most") as caught:
            authorities(raw)
        assert "ca" == caught.value.field


@pytest.mark.req("DEL-13", part="client-keys")
def test_an_expired_or_early_certificate_is_refused() -> None:
    good = identity(ONE, AUTHORITY)
    require_current(good, NOW)
    for moment, text in ((NOW + timedelta(days=10), "expired at"), (NOW - timedelta(days=3), "is valid from")):
        with pytest.raises(Malformed, match=f"certificate 1 of the file {text}") as caught:
            require_current(good, moment)
        assert "client_cert" == caught.value.field
    with pytest.raises(Malformed) as caught:
        require_current(identity(None, AUTHORITY), NOW + timedelta(days=31))
    assert "ca" == caught.value.field


@pytest.mark.req("DEL-13", part="client-keys")
def test_nothing_of_the_key_is_shown() -> None:
    facts = shown(identity(ONE, AUTHORITY))
    assert facts is not None
    assert ("CN=one", ["CN=authority"]) == (
        facts["client_certificate"]["subject"],
        [each["subject"] for each in facts["authorities"]],
    )
    assert {"subject", "sha256", "expires_at"} == facts["client_certificate"].keys()
    assert 64 == len(facts["client_certificate"]["sha256"])
    assert None is shown(TlsIdentity())


@pytest.mark.req("DEL-13", part="client-keys")
def test_the_largest_files_fit_one_record() -> None:
    overhead = 200
    assert MAX_CERTIFICATE_BYTES + MAX_KEY_BYTES + MAX_AUTHORITIES_BYTES + overhead <= MAX_BYTES


def spliced(chain_of: bytes, key_of: bytes) -> bytes:
    """Return a record with the chain of one identity and the key of another."""
    return chain_of.partition(b',"key":')[0] + b"".join(key_of.partition(b',"key":')[1:])


@pytest.mark.req("DEL-13", part="client-keys")
@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{}", b"[]", b"null", b"[" * 99_999),
        b'{"authorities":[],"chain":[],"key":null}',
        b'{"authorities":["AA"],"chain":[],"key":null}',
        b'{"authorities":["!"],"chain":[],"key":null}',
        b'{"authorities":[],"chain":[],"key":"AAAA"}',
        HELD.replace(b'"chain":["MII', b'"chain":["MIJ'),
        spliced(HELD, to_material(identity(ANOTHER, None)).reveal()),
    ],
)
def test_an_invalid_record_is_unusable(content: bytes) -> None:
    with pytest.raises(SecretUnusable, match="set it again"):
        read(SecretMaterial(content))


@pytest.mark.req("DEL-13", part="client-keys")
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_refused(raw: bytes) -> None:
    for files in ((raw, ONE.key), (ONE.certificate, raw)):
        with pytest.raises(Malformed):
            client_certificate(*files)
    with pytest.raises(Malformed):
        authorities(b"-----BEGIN CERTIFICATE-----" + raw + b"-----END CERTIFICATE-----")
    with pytest.raises(SecretUnusable):
        tls_identity.read(SecretMaterial(raw or b"x"))


@pytest.mark.req("DEL-13", part="client-keys")
def test_the_key_is_stored_without_further_encryption() -> None:
    kept = identity(AUTHORITY.client(key=P256), None).client
    assert kept is not None
    assert P256.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) == kept.key.reveal()


CLIENT = AUTHORITY.client()
SEALED = to_material(identity(CLIENT, AUTHORITY))
OTHER_SEALED = to_material(identity(AUTHORITY.client("other"), None))
# TLS contexts of endpoints: made from sealed identities, few, kept for a limited time, no key on disk in plaintext.
TTL = 300


def own_trust(alone: str | None) -> ssl.SSLContext:
    """Return a context that trusts these authorities or none: those of the system use much memory."""
    return verifying_context(alone) if alone is not None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def contexts(clock: FakeClock, *, ttl_seconds: int = TTL, most: int = 3, trust: Trust = own_trust) -> TlsContexts:
    """Return an empty set of contexts, with room for this many that trust one authority."""
    most_bytes = most * (CONTEXT_BYTES + CERTIFICATE_BYTES)
    return TlsContexts(clock=clock, ttl_seconds=ttl_seconds, trust=trust, most_bytes=most_bytes)


@pytest.mark.req("DEL-13", part="client-keys")
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


@pytest.mark.req("DEL-13", part="client-keys")
async def test_another_identity_has_its_own_context() -> None:
    found = contexts(FakeClock())
    assert (await found.of("r:1", SEALED)).context is not (await found.of("r:1", OTHER_SEALED)).context


@pytest.mark.req("DEL-13", part="client-keys")
async def test_the_least_recently_used_context_is_removed() -> None:
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


@pytest.mark.req("DEL-13", part="client-keys")
async def test_expired_contexts_are_removed() -> None:
    clock = FakeClock()
    found = contexts(clock)
    await found.of("1", SEALED)
    await found.of("2", SEALED)
    clock.elapsed += TTL
    await found.of("3", SEALED)
    assert 1 == len(found)


@pytest.mark.req("DEL-13", part="client-keys")
def test_own_authorities_replace_the_installations() -> None:
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


@pytest.mark.req("DEL-13", part="client-keys")
def test_an_identity_that_openssl_refuses_is_an_error() -> None:
    def strict(_alone: str | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_ciphers("DEFAULT@SECLEVEL=5")
        return context

    with pytest.raises(SecretUnusable, match=r"OpenSSL refuses the TLS identity of the endpoint \(EE_KEY_TOO_SMALL\)"):
        context_of(identity(CLIENT, None), strict)


@pytest.mark.req("DEL-13", part="client-keys")
def test_the_key_is_never_on_disk_in_plaintext(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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


@pytest.mark.req("DEL-13", part="client-keys")
async def test_a_context_is_not_pickled_or_copied() -> None:
    found = await contexts(FakeClock()).of("db:acme:endpoint-tls-x:1", SEALED)
    assert "EndpointTls(key='db:acme:endpoint-tls-x:1', expires_at=" == repr(found).rpartition("expires_at=")[0] + (
        "expires_at="
    )
    for travel in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            travel(found)


@pytest.mark.req("DEL-13", part="client-keys")
async def test_an_invalid_identity_gives_no_context() -> None:
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


@pytest.mark.req("DEL-13", part="client-keys")
async def test_a_context_is_made_in_a_thread() -> None:
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


@pytest.mark.req("DEL-13", part="client-keys")
async def test_a_context_made_during_clear_is_not_kept() -> None:
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


@pytest.mark.req("DEL-13", part="client-keys")
async def test_an_expired_context_is_not_kept() -> None:
    clock, gate = FakeClock(), Gate()
    found = contexts(clock, trust=gate)
    asking = asyncio.create_task(found.of("1", SEALED))
    while not gate.threads:  # noqa: ASYNC110 -- set by a thread
        await asyncio.sleep(0)
    clock.elapsed += TTL
    gate.opened.set()

    assert clock.monotonic() >= (await asking).expires_at
    assert 0 == len(found)


@pytest.mark.req("DEL-13", part="client-keys")
async def test_the_limit_is_in_bytes() -> None:
    """The limit is in bytes: a context that trusts more authorities leaves room for fewer others."""
    found = contexts(FakeClock(), most=3)
    for ref in "123":
        await found.of(ref, SEALED)
    assert 3 == len(found)
    three = b"".join(Authority(name).pem for name in ("one", "two", "three"))
    await found.of("large", to_material(TlsIdentity(authorities=authorities(three))))
    assert 2 == len(found)
    none = contexts(FakeClock(), most=0)
    await none.of("1", SEALED)
    assert 0 == len(none)


def anonymous_bytes() -> int:
    """Return the private memory of this process."""
    rows = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("Anonymous:")) * 1_024


@pytest.mark.req("DEL-13", part="client-keys")
def test_a_context_uses_the_counted_memory() -> None:
    for of, count in ((identity(CLIENT, None), 40), (identity(CLIENT, AUTHORITY), 400)):
        held = [context_of(of) for _ in range(4)]
        gc.collect()
        before = anonymous_bytes()
        held += [context_of(of) for _ in range(count)]

        assert count * tls_context._bytes_of(held[0]) >= anonymous_bytes() - before


@pytest.mark.req("DEL-13", part="client-keys")
async def test_the_number_of_waiting_contexts_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.req("DEL-13", part="client-keys")
async def test_contexts_of_one_turn_are_limited() -> None:
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


@pytest.mark.req("DEL-13", part="client-keys")
@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_lacking_resource_is_exhausted(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(_name: str) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "memfd_create", lacking)
    with pytest.raises(Exhausted, match=errno.errorcode[code]):
        context_of(identity(CLIENT, AUTHORITY))


@pytest.mark.req("DEL-13", part="client-keys")
@pytest.mark.parametrize("authority", [AUTHORITY, None])
def test_a_missing_descriptor_is_exhausted(authority: Authority | None) -> None:
    own = identity(CLIENT, authority)
    with none_left(), pytest.raises(Exhausted, match=r"file descriptor|EMFILE"):
        context_of(own, lambda alone: client_context(extra=alone, only=alone is not None))


@pytest.mark.req("DEL-13", part="client-keys")
@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), Unavailable("no certificate was read")])
def test_another_failure_is_local(error: Exception) -> None:
    def broken(_alone: str | None) -> ssl.SSLContext:
        raise error

    with pytest.raises(LocalFailure, match=r"on this machine now \((EIO|no certificate was read)\)"):
        context_of(identity(CLIENT, AUTHORITY), broken)
