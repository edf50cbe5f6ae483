"""The TLS context of a client is the same with every Python, and in every environment."""

import ssl
from pathlib import Path

import pytest

from hookseal.ground.tls import goes_directly, is_beside_this_machine, verifying_context
from tests.doubles.client_certificates import Authority


@pytest.mark.parametrize("authorities", [None, Authority().pem.decode()])
def test_it_verifies_and_is_not_stricter_with_a_newer_python(authorities: str | None) -> None:
    """It verifies certificate and name; from Python 3.13 on others are stricter, and take a part of a chain for one."""
    context = verifying_context(authorities)

    assert (ssl.CERT_REQUIRED, True) == (context.verify_mode, context.check_hostname)
    assert ssl.TLSVersion.TLSv1_2 == context.minimum_version
    assert ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).verify_flags == context.verify_flags


def test_it_writes_no_keys_of_sessions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the keys that `SSLKEYLOGFILE` asks for, anybody could read the token that is sent to OpenBao."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))

    assert verifying_context(None).keylog_filename is None


def test_without_authorities_it_trusts_those_of_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file of the system is read; with authorities of its own it is not."""
    file = tmp_path / "system.pem"
    file.write_bytes(Authority("system").pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    own = Authority("own").pem.decode()
    trusted = [verifying_context(each).get_ca_certs() for each in (None, own)]

    assert [[(("commonName", "system"),)], [(("commonName", "own"),)]] == [
        [name for each in found for name in each["subject"]] for found in trusted
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://169.254.169.254/x", True),
        ("http://[fe80::1]/", True),
        ("http://10.0.0.1/", False),
        ("http://[fe80", False),
    ],
)
def test_only_link_local_addresses_are_beside_this_machine(url: str, expected: bool) -> None:
    """No router passes a link-local address on; a url that cannot be read is none."""
    assert expected is is_beside_this_machine(url)


@pytest.mark.parametrize(
    ("settings", "host", "expected"),
    [
        ({}, "169.254.169.254", True),
        ({"HTTPS_PROXY": "http://p"}, "169.254.169.254", True),
        ({"HTTP_PROXY": "http://p"}, "169.254.169.254", False),
        ({"all_proxy": "http://p"}, "169.254.169.254", False),
        ({"http_proxy": "http://p", "NO_PROXY": "localhost,169.254.169.254"}, "169.254.169.254", True),
        ({"http_proxy": "http://p", "no_proxy": "127.0.0.1:1"}, "127.0.0.1:1", True),
        ({"http_proxy": "http://p", "no_proxy": "127.0.0.1:1"}, "127.0.0.1", False),
    ],
)
def test_a_proxy_carries_http_unless_no_proxy_has_the_host(
    settings: dict[str, str], host: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Http goes through the proxy of the environment, unless `NO_PROXY` has the host."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert expected is goes_directly(host)


@pytest.mark.parametrize("text", ["", "nothing"])
def test_what_is_no_certificate_is_refused(text: str) -> None:
    """Text without a certificate is not taken for the authorities of the system."""
    with pytest.raises((ssl.SSLError, ValueError)):
        verifying_context(text)
