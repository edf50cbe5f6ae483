"""A url is accepted only if the address in messages cannot be part of the password."""

import pytest
from pydantic_core import PydanticCustomError

from hookseal.config import urls


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
    """The address is host and port, or the socket, and the url itself is not changed."""
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
    "url",
    [
        "",
        "postgresql:host",
        "POSTGRESQL://host/db",
        "postgresql+a-b://host/db",
        "mysql+asyncpg://host/db",
    ],
)
def test_another_scheme_is_refused_without_the_url(url: str) -> None:
    """A url of another scheme is refused, and the error does not contain the url."""
    with pytest.raises(ValueError, match=r"^$"):
        urls.database(url)


UNENCODED = "percent-encode '/' as %2F, '?' as %3F, '#' as %23 and '@' as %40 in the user and the password"
BAD_PORT = "has a port that is not a number from 1 to 65535: correct it"
BAD_CHARACTER = "has a space, a control character or a character beyond ASCII: remove or percent-encode it"
BAD_HOST = "has a host that is neither a name nor an address: correct it, or percent-encode"


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
        ("unix://", "names no socket: write unix:///PATH"),
        ("unix:///", "names no socket: write unix:///PATH"),
    ],
)
def test_the_wrong_part_of_a_redis_url_is_named(url: str, expected_message: str) -> None:
    """The same is true of a url of Redis."""
    with pytest.raises(PydanticCustomError) as caught:
        urls.redis(url)
    assert caught.value.message().startswith(f"REDIS_URL {expected_message}")
    assert "canary" not in caught.value.message()
