"""Which requests share a session, and when a session is closed."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from ipaddress import ip_network

import aiohttp
import pytest

from hookseal.dispatcher.core.model import TlsIdentity
from hookseal.dispatcher.core.url import Networks
from hookseal.dispatcher.http import sessions as rules
from hookseal.dispatcher.http.sessions import Sessions
from tests.worker.waiting import eventually

NOWHERE: Networks = frozenset()
LOOPBACK: Networks = frozenset({ip_network("127.0.0.0/8")})


def identity(key: str, *, expires_in: float | None = None) -> TlsIdentity:
    """Return an identity with a context of its own."""
    expires_at = None if expires_in is None else asyncio.get_running_loop().time() + expires_in
    return TlsIdentity(key=key, context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), expires_at=expires_at)


def opened(_allowed: Networks, _identity: TlsIdentity | None) -> aiohttp.BaseConnector:
    """Return a connector that dials nothing."""
    return aiohttp.BaseConnector()


@pytest.fixture
async def sessions() -> AsyncIterator[Sessions]:
    """Yield a pool of sessions, and close it afterwards."""
    pool = Sessions(opened)
    yield pool
    await pool.close()


async def closed(connector: aiohttp.BaseConnector) -> bool:
    """Wait until the session is closed, for ten seconds at most."""

    async def look() -> bool | None:
        return connector.closed or None

    return await eventually(look)


@pytest.mark.req("DEL-12")
async def test_equal_networks_and_identity_share_a_session(sessions: Sessions) -> None:
    """Requests share a session if they have the same allowed networks and the same identity, and only then."""
    acme = identity("acme")
    taken = [
        sessions.take(rights, own).connector
        for rights in (NOWHERE, LOOPBACK)
        for own in (None, acme, identity("globex"), None, acme)
    ]

    assert [0, 1, 2, 0, 1, 5, 6, 7, 5, 6] == [taken.index(session) for session in taken]


async def test_a_new_context_replaces_the_session(sessions: Sessions) -> None:
    """A new context under a known key gets a new session; the old session is closed once no request uses it."""
    old = sessions.take(NOWHERE, identity("acme"))
    new = sessions.take(NOWHERE, identity("acme"))

    assert old.connector is not new.connector
    assert not old.connector.closed
    sessions.give_back(old)
    assert await closed(old.connector)
    assert not new.connector.closed


@pytest.mark.parametrize("used", [False, True])
async def test_an_expired_identitys_session_is_closed(sessions: Sessions, used: bool) -> None:
    """When its identity expires, a session is removed and closed; if it is in use, it is closed after that use."""
    shared = sessions.take(NOWHERE, identity("acme", expires_in=0.01))
    if not used:
        sessions.give_back(shared)

    async def is_empty() -> bool | None:
        return len(sessions) == 0 or None

    await eventually(is_empty)
    assert shared.identity is None
    if used:
        assert not shared.connector.closed
        sessions.give_back(shared)
    assert await closed(shared.connector)


async def test_the_least_recently_used_session_is_closed(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit, the least recently used idle session is closed, and never one in use."""
    monkeypatch.setattr(rules, "MAX_SESSIONS", 2)
    used, first, second = (sessions.take(NOWHERE, identity(key)) for key in "abc")
    for shared in (first, second):
        sessions.give_back(shared)
    third = sessions.take(NOWHERE, identity("d"))

    assert await closed(first.connector)
    assert await closed(second.connector)
    assert not used.connector.closed
    assert not third.connector.closed
    assert 2 == len(sessions)


async def test_an_unused_session_is_closed(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that was not used for UNUSED_SECONDS is closed; one in use is not."""
    monkeypatch.setattr(rules, "UNUSED_SECONDS", 0.01)
    used, unused = sessions.take(NOWHERE, None), sessions.take(LOOPBACK, None)
    sessions.give_back(unused)

    assert await closed(unused.connector)
    assert not used.connector.closed


async def test_close_closes_every_session(sessions: Sessions) -> None:
    """`close` closes every session, also one in use and one that was retired while in use."""
    retired = sessions.take(NOWHERE, identity("acme"))
    taken = [retired, sessions.take(NOWHERE, identity("acme")), sessions.take(LOOPBACK, None)]
    await sessions.close()

    assert [True] * 3 == [shared.connector.closed for shared in taken]
