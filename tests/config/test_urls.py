"""A url is taken only where the address that messages name cannot be a piece of the password."""

import pytest

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
def test_the_address_of_postgresql(url: str, address: str) -> None:
    """The address is host and port, or the socket, and the url itself is kept as it is."""
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
def test_the_address_of_redis(url: str, address: str) -> None:
    """The address is host and port, or the socket; the url is kept as it is, but for the word that the client knows."""
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
        "postgresql://user:pa/ss@host/db",
        "postgresql://user:12/34@host/db",
        "postgresql://user:pa?ss@host/db",
        "postgresql://user:pa#ss@host/db",
        "postgresql://host/db#",
        "postgresql://host:0/db",
        "postgresql://host:70000/db",
        "postgresql://host:x/db",
        "postgresql://[::1/db",
        "postgresql://ho st/db",
        "postgresql://host/db\n",
        "postgresql://h\u00f6st/db",
        "postgresql+a-b://host/db",
        "mysql+asyncpg://host/db",
        "postgresql://host/db?sslmode",
        "postgresql:///db?host=a%20b",
        "postgresql:///db?host=a&port=x",
    ],
)
def test_not_of_postgresql(url: str) -> None:
    """What is not clearly a url of PostgreSQL is refused, without its value."""
    with pytest.raises(ValueError, match=r"^(|Invalid IPv6 URL)$"):
        urls.database(url)


@pytest.mark.parametrize(
    "url", ["redis://", "redis://host/x", "redis://a,b", "redis://:p/1@host", "unix://", "unix:///"]
)
def test_not_of_redis(url: str) -> None:
    """What is not clearly a url of Redis is refused, a database that is no number among it."""
    with pytest.raises(ValueError, match=r"^$"):
        urls.redis(url)
