"""The TLS context of a client is the same with every Python, and in every environment."""

import ssl
from pathlib import Path

import pytest

from hookseal.ground.tls import verifying_context
from tests.doubles.client_certificates import Authority


@pytest.mark.parametrize("authorities", [None, Authority().pem.decode()])
def test_it_verifies_and_is_not_stricter_with_a_newer_python(authorities: str | None) -> None:
    """It verifies certificate and name, and does not demand a key usage of an authority."""
    context = verifying_context(authorities)

    assert (ssl.CERT_REQUIRED, True) == (context.verify_mode, context.check_hostname)
    assert ssl.TLSVersion.TLSv1_2 == context.minimum_version
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT


def test_it_writes_no_keys_of_sessions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the keys that `SSLKEYLOGFILE` asks for, anybody could read the token that is sent to OpenBao."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))

    assert verifying_context(None).keylog_filename is None


def test_what_is_no_certificate_is_refused() -> None:
    """A file that contains something else trusts nothing."""
    with pytest.raises(ssl.SSLError):
        verifying_context("nothing")
