"""Connections open within seconds or name what does not answer, and no error shows a password."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from hookseal.config import urls
from hookseal.errors import HooksealError, Unavailable
from hookseal.postgres import opening
from tests.cli.listeners import SOON_SECONDS, black_hole, closed_port, refusing, tls_postgres
from tests.doubles.certificates import authority, issued

PASSWORD = "correct-horse"


def url(port: int) -> str:
    """Return the url of a PostgreSQL at this port of this machine."""
    return f"postgresql://user:{PASSWORD}@127.0.0.1:{port}/nowhere"


async def refusal(database_url: str) -> HooksealError:
    """Return the error with which no connection opens."""
    with pytest.raises(HooksealError) as caught:
        async with opening.connection(urls.database(database_url)):
            pytest.fail("connected")
    assert PASSWORD not in repr(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


@pytest.mark.req("OPS-04", part="errors")
async def test_a_closed_port_is_reported_at_once() -> None:
    """A closed port is reported at once, with the address and what to do."""
    port = closed_port()
    expected = (
        f"PostgreSQL at 127.0.0.1:{port} does not answer (ConnectionRefusedError): start it or correct DATABASE_URL"
    )
    error = await refusal(url(port))
    assert (69, expected) == (error.exit_code, str(error))


@pytest.mark.req("OPS-04", part="errors")
async def test_a_silent_server_is_reported_within_seconds() -> None:
    """If a server accepts and never answers, the attempt ends within seconds."""
    async with black_hole() as (port, _):
        began = time.monotonic()
        error = await refusal(url(port))
        assert time.monotonic() - began < SOON_SECONDS
    assert f"PostgreSQL at 127.0.0.1:{port} does not answer (TimeoutError)" in str(error)


@pytest.mark.parametrize(
    ("sqlstate", "expected"),
    [
        ("28P01", "refuses the user or the password (InvalidPasswordError): correct DATABASE_URL"),
        ("28000", "refuses the user or the password (InvalidAuthorizationSpecificationError): correct DATABASE_URL"),
        ("3D000", "has no such database (InvalidCatalogNameError): create it or correct DATABASE_URL"),
        (
            "53300",
            (
                "has no connection left for this login: its administrator must raise max_connections, or the limit of "
                "the role or the database (CONNECTION LIMIT), or run fewer processes; behind a pooler, its limits "
                "(TooManyConnectionsError)"
            ),
        ),
        ("57P03", "is starting up or recovering, and takes no connection yet: wait (CannotConnectNowError)"),
    ],
)
async def test_a_refusal_has_a_message_of_hookseal(sqlstate: str, expected: str) -> None:
    """A refusal of the server is reported in a message of hookseal, not of the server."""
    async with refusing(sqlstate, f'user "user" with {PASSWORD}') as port:
        error = await refusal(url(port))
    assert isinstance(error, Unavailable)
    assert f"PostgreSQL at 127.0.0.1:{port} {expected}" == str(error)


async def test_a_missing_database_is_reported(database_url: str) -> None:
    """With a real server, an absent database is reported."""
    error = await refusal(database_url.rpartition("/")[0] + "/not_there")
    assert "has no such database" in str(error)


async def test_a_wrong_password_is_reported(database_url: str) -> None:
    """With a real server, a wrong password is reported."""
    error = await refusal(f"postgresql://hookseal:{PASSWORD}@{database_url.rpartition('@')[2]}")
    assert "refuses the user or the password (InvalidPasswordError)" in str(error)


async def test_a_missing_socket_is_reported(tmp_path: Path) -> None:
    """A missing socket is reported with its folder."""
    error = await refusal(f"postgresql://u:{PASSWORD}@/db?host={tmp_path}")
    assert f"PostgreSQL at the socket in {tmp_path} does not answer" in str(error)


async def test_a_libpq_variable_that_is_refused_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A libpq variable that the driver refuses is a configuration error, like the same parameter in the url."""
    monkeypatch.setenv("PGTARGETSESSIONATTRS", PASSWORD)
    error = await refusal(url(1))
    expected = "DATABASE_URL, or a variable PG... of libpq, has a parameter that cannot be used"
    assert (78, expected) == (error.exit_code, str(error))


async def test_a_refused_server_setting_is_named(database_url: str) -> None:
    """A server setting in the url that the server does not know is reported by name, without its value."""
    error = await refusal(f"{database_url}?options=-c%20work_mum%3D{PASSWORD}")
    address = urls.database(database_url).address
    expected = (
        f"PostgreSQL at {address} refuses the setting work_mum of the connection (UndefinedObjectError): "
        "correct or remove it in DATABASE_URL"
    )
    assert (78, expected) == (error.exit_code, str(error))


async def test_a_parameter_that_pgbouncer_refuses_is_named() -> None:
    """A parameter that PgBouncer refuses is reported by name."""
    async with refusing("08P01", "unsupported startup parameter: search_path") as port:
        error = await refusal(url(port))
    assert (78, True) == (error.exit_code, "refuses the setting search_path of the connection" in str(error))


async def test_missing_tls_is_reported(database_url: str) -> None:
    """If the url requires TLS and the server has none, the error says what to change."""
    database = replace(urls.database(f"{database_url}?sslmode=require"), variable="HOOKSEAL_DATABASE_URL")
    with pytest.raises(Unavailable) as caught:
        async with opening.connection(database):
            pytest.fail("connected")
    expected = (
        f"PostgreSQL at {database.address} offers no TLS, and HOOKSEAL_DATABASE_URL asks for it (sslmode): turn it on "
        "there, or set sslmode=prefer if nobody can listen on the way"
    )
    assert expected == str(caught.value)


async def test_required_tls_is_reported() -> None:
    """If the server accepts this user with TLS only, the error names the parameter to set."""
    message = 'no pg_hba.conf entry for host "127.0.0.1", user "user", database "nowhere", no encryption'
    async with refusing("28000", message) as port:
        error = await refusal(url(port))
    expected = f"PostgreSQL at 127.0.0.1:{port} takes this user with TLS only: set sslmode=verify-full, or require, in "
    assert f"{expected}DATABASE_URL" == str(error)


async def test_an_untrusted_certificate_is_reported(tmp_path: Path) -> None:
    """An untrusted certificate and one for another host are reported with the reason; a valid one passes."""
    issuer, file = authority(), tmp_path / "ca.pem"
    file.write_text(issuer.pem)
    async with (
        tls_postgres(issued("127.0.0.1", by=issuer).server(tmp_path)) as right,
        tls_postgres(issued("db.example", by=issuer).server(tmp_path)) as another,
        tls_postgres(issued("127.0.0.1").server(tmp_path)) as stranger,
    ):
        query = f"?sslmode=verify-full&sslrootcert={file}"
        errors = {port: str(await refusal(f"{url(port)}{query}")) for port in (right, another, stranger)}
    assert "refuses the user or the password" in errors[right]
    ending = "name the file of its authority with sslrootcert, or the host that it is for, in DATABASE_URL"
    for port, reason in ((another, "not valid for '127.0.0.1'"), (stranger, "self-signed certificate")):
        assert errors[port].startswith(f"the certificate of PostgreSQL at 127.0.0.1:{port} is not trusted (")
        assert (True, True) == (reason in errors[port], errors[port].endswith(ending))


async def test_a_failed_handshake_has_its_reason() -> None:
    """A handshake that fails for another reason is reported with that reason."""
    async with tls_postgres(None) as port:
        error = str(await refusal(f"{url(port)}?sslmode=require"))
    assert error.startswith(f"TLS with PostgreSQL at 127.0.0.1:{port} fails (WRONG_VERSION_NUMBER): correct sslmode, ")


async def test_a_missing_tls_file_is_a_configuration_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TLS file that is absent or was not named is a configuration error, not an outage of the server."""
    monkeypatch.setenv("HOME", str(tmp_path))
    none = await refusal(f"{url(1)}?sslmode=verify-ca")
    assert (78, True) == (none.exit_code, "names no file of authorities: add sslrootcert=FILE" in str(none))
    monkeypatch.setenv("PGSSLROOTCERT", "/nowhere")
    gone = await refusal(f"{url(1)}?sslmode=verify-ca")
    expected = "a file for TLS cannot be read (FileNotFoundError): correct sslrootcert, sslcrl, sslcert or sslkey in "
    assert (78, True) == (gone.exit_code, str(gone).startswith(f"{expected}DATABASE_URL"))


async def test_a_missing_server_attribute_is_reported(database_url: str) -> None:
    """If no server matches `target_session_attrs`, the error says so."""
    error = await refusal(f"{database_url}?target_session_attrs=standby")
    assert isinstance(error, Unavailable)
    assert "has no server that is as target_session_attrs asks" in str(error)


async def test_the_connection_is_closed_after_the_block(database_url: str) -> None:
    """The connection has an application name, and is closed after the block."""
    async with opening.connection(urls.database(database_url)) as connection:
        assert "hookseal" == await connection.fetchval("SHOW application_name")
    assert connection.is_closed()
    async with opening.connection(urls.database(f"{database_url}?application_name=mine")) as connection:
        assert "mine" == await connection.fetchval("SHOW application_name")
