"""What becomes of each parameter of a url of PostgreSQL: none gets lost that promises something."""

import ssl
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest

from hookseal.config import urls
from hookseal.config.page import settings_page
from hookseal.config.url_parameters import KEPT_BY_NOBODY, MAPPED, MODES, PASSED_OVER, TAKEN
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
    """Return what the driver is given in place of this query."""
    return urls.database(f"{URL}?{query}").url.removeprefix(URL)


def problem(query: str) -> str:
    """Return the problem with this query, which names no value."""
    with pytest.raises(ValueError, match="DATABASE_URL") as caught:
        urls.database(f"{URL}?{query}")
    assert "canary" not in str(caught.value)
    return str(caught.value)


def test_every_parameter_of_libpq() -> None:
    """Each has one place in the table, and stands on the page of the settings."""
    tables = [TAKEN, MAPPED, PASSED_OVER, KEPT_BY_NOBODY]
    names = LIBPQ.split()
    assert [1] * len(names) == [sum(name in table for table in tables) for name in names]
    page = settings_page()
    assert [] == [name for table in tables for name in table if f"`{name}" not in page]


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
def test_what_the_driver_is_given(query: str, given: str | None) -> None:
    """What the driver takes stays as it stands, what nothing depends on goes, and other words are put in its own."""
    assert (f"?{query}" if given is None else given.removesuffix("?")) == with_query(query).removesuffix("?")


@pytest.mark.parametrize(
    ("url", "given"),
    [
        ("postgresql+asyncpg://u:p%40w@h/d", "postgresql://u:p%40w@h/d"),
        ("postgresql+psycopg2://h/d?ssl=require", "postgresql://h/d?sslmode=require"),
        ("postgres+asyncpg://h/d", "postgres://h/d"),
    ],
)
def test_urls_of_sqlalchemy(url: str, given: str) -> None:
    """The name of a driver is taken off."""
    assert given == urls.database(url).url


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("sslmod=require", "the parameter sslmod, which is none of PostgreSQL: correct or remove it"),
        ("statement_timeout=canary", "the parameter statement_timeout, which is none of PostgreSQL"),
        ("CANARY1=x", "a parameter that is none of PostgreSQL"),
        ("sslmode=canary", "the parameter sslmode, which must be disable, allow, prefer, require, "),
        ("ssl=canary", "the parameter ssl, which must be true, false, "),
        ("target_session_attrs=canary", "the parameter target_session_attrs, which must be any, "),
        (
            "channel_binding=require",
            "the parameter channel_binding, which cannot be kept as it is set",
        ),
        ("channel_binding=require&sslmode=require", "the parameter channel_binding, which cannot be "),
        ("channel_binding=canary&sslmode=verify-full", "the parameter channel_binding, which cannot"),
        (
            "gssencmode=require",
            "the parameter gssencmode, which cannot be kept as it is set, for the ",
        ),
        (
            "require_auth=canary&sslmode=verify-full",
            "the parameter require_auth, which cannot be kept",
        ),
        ("hostaddr=10.0.0.1", "the parameter hostaddr, which cannot be kept as it is set, for the "),
        (
            "sslrootcert=system&sslmode=require",
            "the parameter sslrootcert, and the authorities of the",
        ),
        (
            "sslrootcert=/canary&sslmode=require",
            "the parameter sslrootcert, whose file cannot be read",
        ),
        ("sslcrl=/canary&sslmode=verify-ca", "the parameter sslcrl, whose file cannot be read "),
        ("sslcert=/canary&sslkey=/canary", "the parameter sslcert, whose file cannot be read "),
    ],
)
def test_what_is_refused(query: str, says: str) -> None:
    """What cannot be kept is refused by the name of the parameter, and so is a file that is missing."""
    assert problem(query).startswith(f"DATABASE_URL has {says}")


def test_a_file_that_is_not_needed() -> None:
    """As with libpq, a file is not missed where nothing is verified with it, or nothing is encrypted."""
    for query in ("sslmode=prefer&sslrootcert=/nowhere", "sslmode=disable&sslcert=/nowhere&sslkey=/nowhere"):
        assert f"?{query}" == with_query(query)


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    """A file that is no certificate, or a key that does not fit, is said before anything is connected."""
    issuer = authority()
    one, other = issued("a.example", by=issuer), issued("b.example", by=issuer)
    files = {name: tmp_path / name for name in ("no", "ca", "cert", "key")}
    files["no"].write_text("canary")
    files["ca"].write_text(issuer.pem)
    files["cert"].write_text(one.pem)
    files["key"].write_bytes(other.both)
    at = {name: quote(str(file)) for name, file in files.items()}

    assert problem(f"sslmode=require&sslrootcert={at['no']}").endswith("certificates in PEM form: name the right one")
    assert "whose certificate does not fit the key of sslkey" in problem(f"sslcert={at['cert']}&sslkey={at['key']}")
    files["key"].write_bytes(one.both)
    query = f"sslmode=verify-full&sslrootcert={at['ca']}&sslcert={at['cert']}&sslkey={at['key']}"
    assert f"?{query}" == with_query(query)


def test_the_authorities_of_the_system() -> None:
    """`system` is the file of this system, and the name in the certificate is checked, as libpq demands."""
    file = ssl.get_default_verify_paths().cafile
    if not file:
        assert problem("sslrootcert=system").endswith("and this system keeps no file of authorities: name one")
    else:
        assert {f"sslrootcert={quote(file)}", "sslmode=verify-full"} == set(
            with_query("sslrootcert=system").removeprefix("?").split("&")
        )


@pytest.mark.parametrize("mode", MODES[:3])
async def test_the_driver_takes_them(database_url: str, mode: str) -> None:
    """A connection is opened with everything that a careful user of libpq writes, and is named as the url says."""
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
