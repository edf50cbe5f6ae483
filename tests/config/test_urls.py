"""The urls of PostgreSQL and Redis."""

import ssl
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from pydantic_core import PydanticCustomError

from hookseal.config import urls
from hookseal.config.urls import IGNORED, MODES, SSLMODE_ALIASES, SUPPORTED, UNSUPPORTED
from tests.doubles.certificates import authority, issued

UNENCODED = "percent-encode '/' as %2F, '?' as %3F, '#' as %23 and '@' as %40 in the user and the password"
BAD_PORT = "has a port that is not a number from 1 to 65535: correct it"
BAD_CHARACTER = "has a space, a control character or a character beyond ASCII: remove or percent-encode it"
ALLOWED = "correct or remove it (docs/settings.md has those that are allowed)"
BAD_HOST = "has a host that is neither a name nor an address: correct it, or percent-encode"
URL = "postgresql://user:correct-horse@host/db"
# PostgreSQL 18, "Parameter Key Words" of its client library, without those of OAuth and of the keys of SCRAM.
LIBPQ = (
    "host hostaddr port dbname user password passfile require_auth channel_binding connect_timeout client_encoding "
    "options application_name fallback_application_name keepalives keepalives_idle keepalives_interval "
    "keepalives_count tcp_user_timeout replication gssencmode sslmode requiressl sslnegotiation sslcompression sslcert "
    "sslkey sslkeylogfile sslpassword sslcertmode sslrootcert sslcrl sslcrldir sslsni requirepeer "
    "ssl_min_protocol_version ssl_max_protocol_version min_protocol_version max_protocol_version krbsrvname gsslib "
    "gssdelegation service target_session_attrs load_balance_hosts"
)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql://user:pw@host/db", "host:5432"),
        ("postgres://user:pw@host:6000/db?sslmode=require", "host:6000"),
        ("postgresql://u:p%40%2Fw@10.0.0.1/db", "10.0.0.1:5432"),
        ("postgresql://u:p@w@host/db", "host:5432"),
        ("postgresql://[::1]:6000/db", "[::1]:6000"),
        ("postgresql://[::1]/db", "[::1]:5432"),
        ("postgresql://a,b:6000/db", "a:5432, b:6000"),
        ("postgresql:///db?host=/run/pg", "the socket in /run/pg"),
        ("postgresql://u:pw@/db", "its default socket"),
        ("postgresql://u:pw@/db?host=db.internal", "db.internal:5432"),
        ("postgresql://u:pw@/db?host=a,b&port=6000", "a:6000, b:6000"),
    ],
)
def test_the_address_of_postgresql_is_host_and_port(url: str, address: str) -> None:
    found = urls.database(url)
    assert (url, address) == (found.url, found.address)
    assert "pw" not in repr(found)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://host", "host:6379"),
        ("redis://:pw@host:7000/15", "host:7000"),
        ("rediss://user:pw@host/?ssl_cert_reqs=none", "host:6379"),
        ("valkey://host", "host:6379"),
        ("valkeys://:pw@host:7000/1", "host:7000"),
        ("redis://host/?decode_responses=true&protocol=3&client_name=shop&max_connections=50", "host:6379"),
        ("valkeys://host/?ssl_check_hostname=true", "host:6379"),
        ("rediss://host/?ssl_check_hostname=False&ssl_cert_reqs=none&ssl_ciphers=ECDHE%2BAESGCM", "host:6379"),
        ("rediss://host/?ssl_check_hostname=FALSE&retry_on_timeout=Yes", "host:6379"),
        ("unix://user@/run/valkey.sock?password=pw", "the socket /run/valkey.sock"),
        ("unix:///run/valkey.sock?db=1", "the socket /run/valkey.sock"),
        ("unix://:pw@/run/valkey.sock", "the socket /run/valkey.sock"),
    ],
)
def test_the_address_of_redis_is_host_and_port(url: str, address: str) -> None:
    """The address is host and port, or the socket; only the scheme of the url is translated for the client."""
    found = urls.redis(url)
    taken = url.replace("valkey:", "redis:").replace("valkeys:", "rediss:")
    assert (taken, address) == (found.url, found.address)
    assert "pw" not in repr(found)


@pytest.mark.parametrize(
    "url", ["", "postgresql:host", "POSTGRESQL://host/db", "postgresql+a-b://host/db", "mysql+asyncpg://host/db"]
)
def test_another_scheme_is_refused_without_the_url(url: str) -> None:
    with pytest.raises(ValueError, match=r"^$"):
        urls.database(url)


@pytest.mark.parametrize(
    ("url", "expected_message"),
    [
        ("postgresql://user:canary/ss@host/db", f"has an '@' after the first '/' or '?': {UNENCODED}"),
        ("postgresql://user:canary?ss@host/db", f"has an '@' after the first '/' or '?': {UNENCODED}"),
        ("postgresql://user:canary@12/34@host/db", f"has an '@' after the first '/' or '?': {UNENCODED}"),
        ("postgresql://user:canary#ss@host/db", f"has a '#' that is not percent-encoded: {UNENCODED}"),
        ("postgresql://canary/db#", f"has a '#' that is not percent-encoded: {UNENCODED}"),
        ("postgresql://canary:0/db", BAD_PORT),
        ("postgresql://canary:70000/db", BAD_PORT),
        ("postgresql://canary:http/db", BAD_PORT),
        ("postgresql://canary:/db", BAD_PORT),
        ("postgresql://a,canary:x/db", BAD_PORT),
        ("postgresql://[::1]:canary/db", BAD_PORT),
        ("postgresql://[::1/canary", BAD_HOST),
        ("postgresql://user:ca]nary@host/db", BAD_HOST),
        ("postgresql://can%20ary/db", BAD_HOST),
        ("postgresql://canary..example/db", BAD_HOST),
        (f"postgresql://{'canary' * 11}/db", BAD_HOST),
        ("postgresql:///db?host=canary..example", "has the parameter host, which is neither a name nor an address"),
        ("postgresql://ho st/canary", BAD_CHARACTER),
        ("postgresql://host/canary\n", BAD_CHARACTER),
        ("postgresql://h\u00f6st/canary", BAD_CHARACTER),
        ("postgresql://host/db?canary", "has a parameter without a value behind the '?': write NAME=VALUE"),
        ("postgresql:///db?host=can%20ary", "has the parameter host, which is neither a name nor an address"),
        ("postgresql:///db?host=a&port=canary", "has the parameter port, which is not a number from 1 to 65535"),
        ("postgresql:///db?host=a&port=70000", "has the parameter port, which is not a number from 1 to 65535"),
    ],
)
def test_the_wrong_part_of_a_postgresql_url_is_named(url: str, expected_message: str) -> None:
    """The error says which part of the url is wrong and how to correct it, without any of its text."""
    with pytest.raises(PydanticCustomError) as caught:
        urls.database(url)
    assert caught.value.message().startswith(f"DATABASE_URL {expected_message}")
    assert "canary" not in caught.value.message()


@pytest.mark.parametrize(
    ("url", "expected_message"),
    [
        ("redis://", "names no host: write redis://HOST:PORT/NUMBER"),
        ("redis://host/canary", "has a database that is not a number of at most five digits: correct it"),
        ("redis://a,canary", "names several hosts: name one"),
        ("redis://:canary/1@host", f"has an '@' after the first '/' or '?': {UNENCODED}"),
        ("redis://canary:x", BAD_PORT),
        ("redis://h?canary", "has a parameter without a value behind the '?': write NAME=VALUE"),
        ("redis://h?password=a&canary=x", f"has an unknown parameter, number 2 behind the '?': {ALLOWED}"),
        ("redis://h?parser_class=canary", "has an unknown parameter, number 1 behind the '?': correct or remove it"),
        ("rediss://h?client_name=a&client_name=b&ssl_min_version=canary", "has an unknown parameter, number 3 behind"),
        ("redis://h?db=canary", "has the parameter db, which must be a number of at most five digits: correct it"),
        ("redis://h?db=canary&db=0", "has the parameter db, which it has more than once: keep one"),
        ("rediss://h?ssl_cert_reqs=canary&ssl_cert_reqs=none", "has the parameter ssl_cert_reqs, which it has more"),
        ("redis://h?client_name=", "has the parameter client_name, which is empty: write its value, or remove it"),
        ("rediss://h?ssl_cert_reqs=", "has the parameter ssl_cert_reqs, which is empty: write its value, or remove it"),
        ("redis://h?client_name=can%20ary", "has the parameter client_name, which must be of visible ASCII characters"),
        ("redis://h?client_name=can%2520ary", "has the parameter client_name, which must be of visible ASCII"),
        ("redis://h?retry_on_timeout=canary", "has the parameter retry_on_timeout, which must be true, yes, 1, "),
        ("redis://canary@h?username=canary", "has the parameter username, which it has before the '@' too: keep one"),
        ("redis://:canary@h?password=x", "has the parameter password, which it has before the '@' too: keep one"),
        ("redis://h?max_connections=canary", "has the parameter max_connections, which must be a number"),
        ("redis://h?ssl_cert_reqs=none", "has the parameter ssl_cert_reqs, which is for TLS: write rediss://"),
        ("unix:///s?ssl_certfile=canary", "has the parameter ssl_certfile, which is for TLS: write rediss://"),
        (
            "rediss://h?ssl_cert_reqs=CERT_canary",
            "has the parameter ssl_cert_reqs, which must be none, optional or required",
        ),
        (
            "rediss://h?ssl_ca_certs=/canary",
            "has the parameter ssl_ca_certs, whose file cannot be read (FileNotFoundEr",
        ),
        (
            "rediss://h?ssl_certfile=/canary&ssl_keyfile=/canary",
            "has the parameter ssl_certfile, whose file cannot be read (FileNotFoundEr",
        ),
        (
            "rediss://h?ssl_certfile=/canary",
            "has the parameter ssl_certfile, which needs ssl_keyfile: add it (one file may have both)",
        ),
        (
            "rediss://h?ssl_keyfile=/canary",
            "has the parameter ssl_keyfile, which needs ssl_certfile: add it (one file may have both)",
        ),
        ("rediss://h?ssl_ciphers=canary", "has the parameter ssl_ciphers, which cannot be used for TLS (SSLError):"),
        ("rediss://h?ssl_ca_data=canary", "has the parameter ssl_ca_data, which cannot be used for TLS (SSLError):"),
        ("rediss://h?ssl_ca_data=c%C3%A4nary", "has the parameter ssl_ca_data, which cannot be used for TLS (TypeErr"),
        ("rediss://h?ssl_check_hostname=canary", "has the parameter ssl_check_hostname, which must be true, yes, 1, "),
        (
            "rediss://h?ssl_check_hostname=TRUE&ssl_cert_reqs=none",
            "has the parameter ssl_check_hostname, which needs ssl_cert_reqs=required: correct or remove one of the ",
        ),
        ("unix://", "names no socket: write unix:///PATH"),
        ("unix:///", "names no socket: write unix:///PATH"),
    ],
)
def test_the_wrong_part_of_a_redis_url_is_named(url: str, expected_message: str) -> None:
    with pytest.raises(PydanticCustomError) as caught:
        urls.redis(url)
    assert caught.value.message().startswith(f"REDIS_URL {expected_message}")
    assert "canary" not in caught.value.message()


def test_a_file_that_the_client_of_redis_could_not_load_is_reported(tmp_path: Path) -> None:
    """What is no PEM, does not match or has a password is reported at the start, by the name of its parameter."""
    one, other = issued("a.example"), issued("b.example")
    locked = one.key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"the client would ask a terminal for this")
    )
    contents = {"no": b"canary", "cert": one.pem.encode(), "other": other.both, "locked": locked, "both": one.both}
    at = {name: quote(str(tmp_path / name)) for name in contents}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)

    for certificate, key in (("no", "both"), ("cert", "no"), ("cert", "other"), ("cert", "locked")):
        with pytest.raises(PydanticCustomError, match="ssl_certfile, whose certificate does not match") as caught:
            urls.redis(f"rediss://h?ssl_certfile={at[certificate]}&ssl_keyfile={at[key]}")
        assert str(tmp_path) not in caught.value.message()
    with pytest.raises(PydanticCustomError, match="ssl_ca_certs, whose file does not hold certificates in PEM form"):
        urls.redis(f"rediss://h?ssl_ca_certs={at['no']}")
    urls.redis(f"rediss://h?ssl_certfile={at['both']}&ssl_keyfile={at['both']}&ssl_ca_certs={at['cert']}")


def with_query(query: str) -> str:
    """Return what the driver gets in place of this query."""
    return urls.database(f"{URL}?{query}").url.removeprefix(URL)


def problem(query: str) -> str:
    with pytest.raises(ValueError, match="DATABASE_URL") as caught:
        urls.database(f"{URL}?{query}")
    assert "canary" not in str(caught.value)
    return str(caught.value)


def test_every_libpq_parameter_is_listed_once() -> None:
    tables = [SUPPORTED, SSLMODE_ALIASES, IGNORED, UNSUPPORTED]
    names = LIBPQ.split()
    assert [1] * len(names) == [sum(name in table for table in tables) for name in names]


@pytest.mark.parametrize(
    ("query", "given"),
    [
        ("", "?"),
        ("sslmode=require&application_name=shop&options=-c%20work_mem%3D4MB", None),
        ("target_session_attrs=read-write", None),
        ("sslmode=&application_name=", None),
        ("connect_timeout=10", "?"),
        ("keepalives=1&keepalives_idle=30&sslmode=require&client_encoding=utf8", "?sslmode=require"),
        ("channel_binding=prefer&gssencmode=disable", "?"),
        ("channel_binding=require&sslmode=verify-full", "?sslmode=verify-full"),
        ("ssl=require", "?sslmode=require"),
        ("ssl=true&prepared_statement_cache_size=0", "?sslmode=require"),
        ("requiressl=1", "?sslmode=require"),
        ("sslmode=disable&ssl=true", "?sslmode=disable"),
        ("replication=false&application_name=a%20b%26c", "?application_name=a%20b%26c"),
    ],
)
def test_supported_parameters_reach_the_driver(query: str, given: str | None) -> None:
    """Supported parameters stay, ignored ones are removed, and aliases are translated."""
    assert (f"?{query}" if given is None else given.removesuffix("?")) == with_query(query).removesuffix("?")


@pytest.mark.parametrize(
    ("url", "given"),
    [
        ("postgresql+asyncpg://u:p%40w@h/d", "postgresql://u:p%40w@h/d"),
        ("postgresql+psycopg2://h/d?ssl=require", "postgresql://h/d?sslmode=require"),
        ("postgres+asyncpg://h/d", "postgres://h/d"),
    ],
)
def test_sqlalchemys_driver_name_is_removed(url: str, given: str) -> None:
    assert given == urls.database(url).url


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("sslmod=require", f"an unknown parameter, number 1 behind the '?': {ALLOWED}"),
        ("password=a&password=b&canary=x", "an unknown parameter, number 3 behind the '?': correct or remove it"),
        ("sslmode=canary", "the parameter sslmode, which must be disable, allow, prefer, require, "),
        ("ssl=canary", "the parameter ssl, which must be true, false, "),
        ("target_session_attrs=canary", "the parameter target_session_attrs, which must be any, "),
        ("channel_binding=require", "the parameter channel_binding, which hookseal does not support"),
        ("channel_binding=require&sslmode=require", "the parameter channel_binding, which hookseal does not support"),
        (
            "channel_binding=canary&sslmode=verify-full",
            "the parameter channel_binding, which hookseal does not support",
        ),
        ("gssencmode=require", "the parameter gssencmode, which hookseal does not support with this value, since the "),
        ("require_auth=canary&sslmode=verify-full", "the parameter require_auth, which hookseal does not support"),
        ("hostaddr=10.0.0.1", "the parameter hostaddr, which hookseal does not support with this value, since the "),
        (
            "sslrootcert=system&sslmode=require",
            "the parameter sslrootcert, whose value `system` needs sslmode=verify-full",
        ),
        ("sslrootcert=/canary&sslmode=require", "the parameter sslrootcert, whose file cannot be read"),
        ("sslcrl=/canary&sslmode=verify-ca", "the parameter sslcrl, whose file cannot be read "),
        ("sslcert=/canary&sslkey=/canary", "the parameter sslcert, whose file cannot be read "),
    ],
)
def test_an_unsupported_parameter_is_named(query: str, message: str) -> None:
    assert problem(query).startswith(f"DATABASE_URL has {message}")


def test_an_unneeded_file_may_be_missing() -> None:
    """As in libpq, a missing file is no problem if nothing is verified with it or nothing is encrypted."""
    for query in ("sslmode=prefer&sslrootcert=/nowhere", "sslmode=disable&sslcert=/nowhere&sslkey=/nowhere"):
        assert f"?{query}" == with_query(query)


def test_an_unusable_file_is_reported_before_connecting(tmp_path: Path) -> None:
    """A file without a certificate, or a key that does not match, is reported before anything is connected."""
    issuer = authority()
    one, other = issued("a.example", by=issuer), issued("b.example", by=issuer)
    files = {name: tmp_path / name for name in ("no", "ca", "cert", "key")}
    files["no"].write_text("canary")
    files["ca"].write_text(issuer.pem)
    files["cert"].write_text(one.pem)
    files["key"].write_bytes(other.both)
    at = {name: quote(str(file)) for name, file in files.items()}

    assert problem(f"sslmode=require&sslrootcert={at['no']}").endswith("certificates in PEM form: name the right one")
    assert "whose certificate does not match the key in sslkey" in problem(f"sslcert={at['cert']}&sslkey={at['key']}")
    files["key"].write_bytes(one.both)
    query = f"sslmode=verify-full&sslrootcert={at['ca']}&sslcert={at['cert']}&sslkey={at['key']}"
    assert f"?{query}" == with_query(query)


def test_system_is_the_ca_file_of_this_system() -> None:
    file = ssl.get_default_verify_paths().cafile
    if not file:
        assert problem("sslrootcert=system").endswith("a CA file of this system, and there is none: name a file")
    else:
        assert {f"sslrootcert={quote(file)}", "sslmode=verify-full"} == set(
            with_query("sslrootcert=system").removeprefix("?").split("&")
        )


@pytest.mark.parametrize("mode", MODES[:3])
async def test_a_connection_uses_the_parameters(database_url: str, mode: str) -> None:
    """A connection with all that a careful user of libpq writes works, and has the application name of the url."""
    query = (
        f"sslmode={mode}&application_name=shop&connect_timeout=3&keepalives=1&channel_binding=prefer&gssencmode=prefer"
        "&target_session_attrs=read-write&options=-c%20work_mem%3D5MB&ssl_min_protocol_version=TLSv1.2&sslsni=1"
    )
    connection = await asyncpg.connect(urls.database(f"{database_url}?{query}").url)
    try:
        assert "shop" == await connection.fetchval("SHOW application_name")
        assert "5MB" == await connection.fetchval("SHOW work_mem")
    finally:
        await connection.close()
