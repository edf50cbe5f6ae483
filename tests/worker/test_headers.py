"""The own headers of an endpoint, which a worker sends unchanged at every attempt and shows nowhere else."""

import asyncio

import pytest
from standardwebhooks import Webhook

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.ground.ids import TenantId
from hookseal.operations.secret import clear_caches
from tests.doubles.receivers import answers, listening
from tests.queue.contents import contents
from tests.worker.world import Receiver, World

CANARY = "canary-4f1d"
OWN = {"authorization": f"Bearer {CANARY}".encode(), "x-inside": f'{CANARY} \t "~!'.encode()}
FLIP_A_BIT = (
    "UPDATE hookseal.secret_records SET sealed = set_byte(sealed, 150, get_byte(sealed, 150) # 1)"
    " WHERE name = 'endpoint-headers-' || $1"
)
TELLS_A_VALUE = (
    "SELECT count(*)::int FROM (SELECT to_jsonb(a)::text AS row FROM hookseal.attempts AS a"
    " UNION ALL SELECT to_jsonb(d)::text FROM hookseal.deliveries AS d"
    " UNION ALL SELECT to_jsonb(e)::text FROM hookseal.endpoints AS e"
    " UNION ALL SELECT to_jsonb(l)::text FROM hookseal.audit_log AS l) AS stored WHERE row LIKE '%canary%'"
)


def endpoint(url: str) -> NewEndpoint:
    """Return an endpoint that subscribes to everything and has short retries."""
    return NewEndpoint(tenant_id=TenantId("acme"), url=url, event_types=("*",), timeout_ms=1000, retry_schedule=(1, 1))


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_every_attempt_carries_the_headers(world: World) -> None:
    """Every attempt carries each value once, unchanged, and verifies; no log and no table contains a value."""
    replies = iter([b"500 no", b"500 no", b"204 yes"])

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answers(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % next(replies))(reader, writer)

    async with listening(script) as listener:
        added = await world.installation.add(endpoint(listener.url), headers=OWN)
        [ring] = await world.publish()
        async with world.worker() as worker:
            await world.state(ring, "delivered")
            in_redis = await contents(world.redis_url)

    assert 3 == len(listener.requests) == len(await world.installation.attempts(ring))
    for number, raw in enumerate(listener.requests, start=1):
        head, _, body = raw.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")[1:]
        assert [1] * len(OWN) == [lines.count(name.encode() + b": " + value) for name, value in OWN.items()]
        headers = dict(line.decode().split(": ", 1) for line in lines)
        assert (len(lines), str(number)) == (len(headers), headers["x-hookseal-attempt"])
        Webhook(added.secret.reveal().decode()).verify(body, headers)
    assert CANARY not in f"{worker.log_file.read_text(encoding='utf-8')} {in_redis}"
    assert 0 == await world.pool.fetchval(TELLS_A_VALUE)


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_altered_headers_hold_their_endpoint_only(world: World, receiver: Receiver) -> None:
    """A delivery whose headers were altered waits, unspent, and only it; after the restoration it is sent with them."""
    altered = await world.installation.add(endpoint(f"{receiver.base_url}/altered"), headers=OWN)
    await world.installation.add(endpoint(f"{receiver.base_url}/whole"), headers=OWN)
    await world.pool.execute(FLIP_A_BIT, altered.pointer.endpoint_id)
    rings = await world.publish()
    waiting, whole = sorted(rings, key=lambda ring: ring.endpoint_id != altered.pointer.endpoint_id)
    async with world.worker() as worker:
        held = await world.state(waiting, "pending", waiting_for="secret")
        await world.state(whole, "delivered")
        got = [await receiver.wait_for(1)]
        assert 1 == len(receiver.received)
        figures = await worker.figures()
        assert 0 < figures["hookseal_secret_failures_total", "definitive"]
        await world.pool.execute(FLIP_A_BIT, altered.pointer.endpoint_id)
        async with world.pool.acquire() as connection:
            await clear_caches(world.installation.operator(connection))
        got.append(await receiver.wait_for(2))
        await world.state(waiting, "delivered")

    assert ["/whole", "/altered"] == [request.path for request in got]
    assert (0, 1) == (held["attempts"], len(await world.installation.attempts(waiting)))
    for request in got:
        headers = {name.lower(): value for name, value in request.headers.items()}
        assert OWN == {name: headers[name].encode() for name in OWN}
    assert CANARY not in worker.log_file.read_text(encoding="utf-8")
