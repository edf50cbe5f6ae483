"""TLS identities of endpoints: strict PEM, a matching key, and errors that do not repeat a file."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from hookseal.errors import Malformed, SecretUnusable
from hookseal.secrets.core.material import MAX_BYTES, SecretMaterial
from hookseal.secrets.extras import tls_identity
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
    written,
)
from tests.doubles.client_certificates import Authority, identity, pem_of

pytestmark = pytest.mark.req("DEL-13", part="client-keys")

AUTHORITY = Authority()
ONE = AUTHORITY.client("one")
OTHER = AUTHORITY.client("other")
RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
SHORT = rsa.generate_private_key(65537, 1024)  # noqa: S505 -- it is refused
NOW = datetime.now(UTC)
HELD = written(identity(ONE, None)).reveal()


def refused(certificate: bytes, key: bytes) -> tuple[str | None, str]:
    """Return the field and the text of the refusal, which must not repeat any line of the files."""
    with pytest.raises(Malformed) as caught:
        client_certificate(certificate, key)
    for line in (certificate + key).splitlines():
        assert len(line) < 16 or line.startswith(b"-----") or line.decode("latin-1") not in str(caught.value)
    return caught.value.field, str(caught.value)


@pytest.mark.parametrize(
    "key",
    [RSA, P256, ec.generate_private_key(ec.SECP521R1()), ed25519.Ed25519PrivateKey.generate(),
     ed448.Ed448PrivateKey.generate()],
    ids=["rsa", "p-256", "p-521", "ed25519", "ed448"],
)  # fmt: skip
def test_an_identity_is_read_back_masked(key: rsa.RSAPrivateKey) -> None:
    """An identity with a key of any kind is read back unchanged, and its repr is masked."""
    found = identity(AUTHORITY.client(key=key), AUTHORITY)

    assert found == read(written(found))
    assert found.client is not None
    assert "b'0" not in repr(found)
    assert "[masked]" in repr(found)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("key", [RSA, P256], ids=["rsa", "ec"])
def test_each_form_of_a_key_is_read(key: rsa.RSAPrivateKey, form: PrivateFormat) -> None:
    """PKCS #8 and the older forms give the same key; EC parameters before it and comments are ignored."""
    pair = AUTHORITY.client(key=key)
    plain = client_certificate(pair.certificate, pair.key)

    for text in (
        pem_of(key, form),
        b"Bag Attributes\n" + pem_of(key, form),
        b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + pem_of(key, form),
        pem_of(key, form).replace(b"\n", b"\r\n"),
    ):
        assert plain == client_certificate(pair.certificate, text)


def test_the_key_must_match_the_first_certificate() -> None:
    """The key must belong to the first certificate; the error says whether it belongs to a later one or to none."""
    assert ("client_key", "the private key does not belong to the certificate") == refused(ONE.certificate, OTHER.key)
    turned = refused(AUTHORITY.pem + ONE.certificate, ONE.key)
    assert ("client_cert", "the certificate of the key must come first, then those that certify it") == turned
    assert 2 == len(client_certificate(ONE.certificate + AUTHORITY.pem, ONE.key).chain)


def encrypted(key: ec.EllipticCurvePrivateKey, form: PrivateFormat) -> bytes:
    """Return the key as encrypted PEM."""
    return key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"x"))


def key_of_dsa() -> bytes:
    """Return a DSA key. Making it takes seconds, too long for the collection of tests."""
    return pem_of(dsa.generate_private_key(2048))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (b"", "holds no PEM"),
        (b"nonsense", "holds no PEM"),
        (ONE.key + OTHER.key, "one private key, and nothing else"),
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
    """A file that is not one unencrypted private key of a kind for TLS is refused with the reason."""
    field, message = refused(ONE.certificate, key() if callable(key) else key)
    assert "client_key" == field
    assert re.search(text, message)


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
    """A file with anything but complete certificates, or with too many, is refused with the reason."""
    field, message = refused(certificate, ONE.key)
    assert "client_cert" == field
    assert text in message


def test_a_file_may_have_several_authorities() -> None:
    """A file may have several authorities, with comments between them; too many, or too large a file, are refused."""
    assert 2 == len(authorities(b"# first\n" + AUTHORITY.pem + b"\nsecond\n" + Authority("b").pem))
    for raw in (AUTHORITY.pem * (MOST_AUTHORITIES + 1), b"#" * (MAX_AUTHORITIES_BYTES + 1)):
        with pytest.raises(Malformed, match="at most") as caught:
            authorities(raw)
        assert "ca" == caught.value.field


def test_an_expired_or_early_certificate_is_refused() -> None:
    """A certificate that has expired, or is not valid yet, is refused with its number and the time."""
    good = identity(ONE, AUTHORITY)
    require_current(good, NOW)
    for moment, text in ((NOW + timedelta(days=10), "expired at"), (NOW - timedelta(days=3), "is valid from")):
        with pytest.raises(Malformed, match=f"certificate 1 of the file {text}") as caught:
            require_current(good, moment)
        assert "client_cert" == caught.value.field
    with pytest.raises(Malformed) as caught:
        require_current(identity(None, AUTHORITY), NOW + timedelta(days=31))
    assert "ca" == caught.value.field


def test_nothing_of_the_key_is_shown() -> None:
    """Subject, fingerprint and expiry of the certificates are shown, and nothing of the key."""
    facts = shown(identity(ONE, AUTHORITY))
    assert facts is not None
    assert ("CN=one", ["CN=authority"]) == (
        facts["client_certificate"]["subject"],
        [each["subject"] for each in facts["authorities"]],
    )
    assert {"subject", "sha256", "expires_at"} == facts["client_certificate"].keys()
    assert 64 == len(facts["client_certificate"]["sha256"])
    assert None is shown(TlsIdentity())


def test_the_largest_files_fit_one_record() -> None:
    """The largest accepted files fit together into one sealed record."""
    overhead = 200
    assert MAX_CERTIFICATE_BYTES + MAX_KEY_BYTES + MAX_AUTHORITIES_BYTES + overhead <= MAX_BYTES


def spliced(chain_of: bytes, key_of: bytes) -> bytes:
    """Return a record with the chain of one identity and the key of another."""
    return chain_of.partition(b',"key":')[0] + b"".join(key_of.partition(b',"key":')[1:])


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{}", b"[]", b"null", b"[" * 99_999),
        b'{"authorities":[],"chain":[],"key":null}',
        b'{"authorities":["AA"],"chain":[],"key":null}',
        b'{"authorities":["!"],"chain":[],"key":null}',
        b'{"authorities":[],"chain":[],"key":"AAAA"}',
        HELD.replace(b'"chain":["MII', b'"chain":["MIJ'),
        spliced(HELD, written(identity(OTHER, None)).reveal()),
    ],
)
def test_an_invalid_record_is_unusable(content: bytes) -> None:
    """A record that opens but is no identity, or has the key of another certificate, is unusable."""
    with pytest.raises(SecretUnusable, match="set it again"):
        read(SecretMaterial(content))


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_refused(raw: bytes) -> None:
    """Whatever the files contain, the result is a refusal and no other error."""
    for files in ((raw, ONE.key), (ONE.certificate, raw)):
        with pytest.raises(Malformed):
            client_certificate(*files)
    with pytest.raises(Malformed):
        authorities(b"-----BEGIN CERTIFICATE-----" + raw + b"-----END CERTIFICATE-----")
    with pytest.raises(SecretUnusable):
        tls_identity.read(SecretMaterial(raw or b"x"))


def test_the_key_is_stored_without_further_encryption() -> None:
    """The key is stored as unencrypted PKCS #8 in the sealed record, so only the master key is needed to open it."""
    kept = identity(AUTHORITY.client(key=P256), None).client
    assert kept is not None
    assert P256.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) == kept.key.reveal()
