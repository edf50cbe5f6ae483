"""On a closed connection every call is unavailable, and may be repeated."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg

from hookseal.errors import SecretUnavailable
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.postgres.pool import Connection
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.endpoint import pointer
from hookseal.secrets.key import active_key, compromise, keys, rewrap
from hookseal.secrets.key.rewrap import BEGINNING
from tests.secrets.samples import ENDPOINT, FIRST, INTEGRITY, SECOND, TENANT, ref

BOTH = KeyRing(SECOND, (FIRST,))
KEY = FIRST.key_id
INITIAL = pointer.InitialSecrets(ref=ref(1, Provider.DB), scheme=Scheme.STANDARD, algorithm=Algorithm.HMAC)
CALLS: dict[str, Callable[[Connection], Awaitable[object]]] = {
    "pointer.set_initial": lambda at: pointer.set_initial(
        at, INTEGRITY, tenant=TENANT, endpoint_id=ENDPOINT, to=INITIAL
    ),
    "active_key.lock_shared": active_key.lock_shared,
    "active_key.lock_exclusive": active_key.lock_exclusive,
    "keys.registered": keys.registered,
    "keys.status": lambda at: keys.status(at, None, live_seconds=15),
    "keys.needed": lambda at: keys.needed(at, []),
    "moves.life": lambda at: keys.life(at, KEY),
    "moves.use": lambda at: keys.use(at, KEY),
    "moves.workers_with": lambda at: keys.workers_with(at, KEY, live_seconds=15),
    "moves.workers_without": lambda at: keys.workers_without(at, KEY, live_seconds=15),
    "moves.register": lambda at: keys.register(at, FIRST),
    "moves.promote": lambda at: keys.promote(at, KEY),
    "moves.drained": lambda at: keys.write_change(at, KEY, "drained"),
    "moves.compromised": lambda at: keys.write_change(at, KEY, "compromised"),
    "moves.retired": lambda at: keys.write_change(at, KEY, "retired"),
    "moves.destroyed": lambda at: keys.write_change(at, KEY, "destroyed"),
    "compromise.page": lambda at: compromise.page(at, KEY, BEGINNING, 1),
    "compromise.count": lambda at: compromise.count(at, KEY),
    "compromise.exposed": lambda at: anext(compromise.exposed(at, KEY)),
    "rewrap.batch": lambda at: rewrap.batch(at, BOTH, KEY, BEGINNING, wait=False),
    "rewrap.altered": lambda at: rewrap.altered(at, KEY),
    "rewrap._write": lambda at: rewrap._write(at, SECOND.key_id, []),
}


async def test_every_call_is_unavailable(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    connection.terminate()
    for name, call in CALLS.items():
        [outcome] = await asyncio.gather(call(connection), return_exceptions=True)
        assert isinstance(outcome, SecretUnavailable), name
