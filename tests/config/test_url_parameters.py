"""What hookseal does with each parameter of a url of PostgreSQL: none with an effect is lost."""

import ssl
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest

from hookseal.config import urls
from hookseal.config.urls import IGNORED, MODES, SSLMODE_ALIASES, SUPPORTED, UNSUPPORTED
from tests.doubles.certificates import authority, issued

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


def with_query(query: str) -> str:
    """Return what the driver gets in place of this query."""
    return urls.database(f"{URL}?{query}").url.removeprefix(URL)


def problem(query: str) -> str:
    """Return the problem with this query, which contains no value."""
    with pytest.raises(ValueError, match="DATABASE_URL") as caught:
        urls.database(f"{URL}?{query}")
    assert "canary" not in str(caught.value)
    return str(caught.value)


def test_every_libpq_parameter_is_listed_once() -> None:
    """Each parameter of libpq is in the tables exactly once."""
    tables = [SUPPORTED, SSLMODE_ALIASES, IGNORED, UNSUPPORTED]
    names = LIBPQ.split()
    assert [1] * len(names) == [sum(name in table for table in tables) for name in names]


@pytest.mark.parametrize(
    ("query", "given"),
    [
        ("", "?"),
        ("sslmode=require&application_name=shop&options=-c%20work_mem%3D4MB", None),
        ("target_session_attrs=read-write", None),
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
    """The name of a driver is removed."""
    assert given == urls.database(url).url


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("sslmod=require", "the parameter sslmod, which PostgreSQL does not know: correct or remove it"),
        ("statement_timeout=canary", "the parameter statement_timeout, which PostgreSQL does not know"),
        ("CANARY1=x", "a parameter that PostgreSQL does not know"),
        ("sslmode=canary", "the parameter sslmode, which must be disable, allow, prefer, require, "),
        ("ssl=canary", "the parameter ssl, which must be true, false, "),
        ("target_session_attrs=canary", "the parameter target_session_attrs, which must be any, "),
        (
            "channel_binding=require",
            "the parameter channel_binding, which hookseal does not support",
        ),
        ("channel_binding=require&sslmode=require", "the parameter channel_binding, which hookseal does not support"),
        (
            "channel_binding=canary&sslmode=verify-full",
            "the parameter channel_binding, which hookseal does not support",
        ),
        (
            "gssencmode=require",
            "the parameter gssencmode, which hookseal does not support with this value, since the ",
        ),
        (
            "require_auth=canary&sslmode=verify-full",
            "the parameter require_auth, which hookseal does not support",
        ),
        ("hostaddr=10.0.0.1", "the parameter hostaddr, which hookseal does not support with this value, since the "),
        (
            "sslrootcert=system&sslmode=require",
            "the parameter sslrootcert, whose value `system` needs sslmode=verify-full",
        ),
        (
            "sslrootcert=/canary&sslmode=require",
            "the parameter sslrootcert, whose file cannot be read",
        ),
        ("sslcrl=/canary&sslmode=verify-ca", "the parameter sslcrl, whose file cannot be read "),
        ("sslcert=/canary&sslkey=/canary", "the parameter sslcert, whose file cannot be read "),
    ],
)
def test_an_unsupported_parameter_is_named(query: str, message: str) -> None:
    """An unsupported parameter and a missing file are refused by the name of the parameter."""
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
    """`system` is the CA file of this system, and the name in the certificate is checked, as in libpq."""
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
