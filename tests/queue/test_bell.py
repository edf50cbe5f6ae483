"""Rings into the queue, as a bell and as arq write them."""

import asyncio
import pickle
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import msgspec
import pytest
import redis
from arq.jobs import DeserializationError, deserialize_job, serialize_job, serialize_result
from arq.worker import Worker, func
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as ConnectionEnded
from redis.exceptions import InvalidResponse, RedisError, ResponseError

from hookseal.config import urls
from hookseal.config.urls import REDIS_IGNORED, REDIS_SUPPORTED
from hookseal.dispatcher.core.model import Ring
from hookseal.embedded.server import Server
from hookseal.errors import Unavailable
from hookseal.ground.ids import DeliveryId, TenantId
from hookseal.queue.bell import Bell, bell
from hookseal.queue.direct import MOST_IDLE, Direct
from hookseal.queue.intake import Intake
from hookseal.queue.rings import DEFAULT_QUEUE, FUNCTION, job, pool
from hookseal.queue.serializer import job_deserializer, job_serializer
from hookseal.secrets.core.material import SecretMaterial
from tests.cli.listeners import closed_port
from tests.doubles.certificates import authority
from tests.doubles.claims import DELIVERY, ENDPOINT, RING
from tests.doubles.replaced import replace
from tests.faults.servers import promote_redis, standby_of_redis
from tests.queue.arq_pool import arq_pool
from tests.queue.contents import contents
from tests.worker.waiting import eventually

OTHER = replace(RING, delivery_id=DeliveryId("01900000-0000-7000-8000-00000000000b"))
JOB_KEY = f"arq:job:{DELIVERY}"
YEAR_MS = 365 * 86_400_000
FAR = 9_000_000_000_000.0
Command = Callable[..., Awaitable[object]]
FULL = ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0")
STANDBY = ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE")  # a fixed port: a random one would change the name of the test
ANOTHER_KIND = (f"SET {DEFAULT_QUEUE} x", f"DEL {DEFAULT_QUEUE}")
UNASKED = b"+UNASKED\r\n"
JOB: dict[str, Any] = {"t": None, "f": "deliver", "a": ["acme", "e", "d"], "k": {}, "et": 1_700_000_000_000}


@pytest.fixture
async def ringing(redis_url: str) -> AsyncIterator[Bell]:
    made = bell(redis_url)
    yield made
    await made.close()


@pytest.mark.parametrize("answer_seconds", [5.0, None])
def test_no_url_replaces_what_the_program_needs(answer_seconds: float | None) -> None:
    """What it leaves open may stand in the url, as those who use it elsewhere have it."""
    theirs = "&".join(f"{name}=3" for name in sorted(REDIS_IGNORED))
    made = pool(f"redis://h/?%70rotocol=3&{theirs}&client_name=a%26b&max_connections=7", answer_seconds)
    found = made.connection_kwargs

    plain = pool("redis://h/", answer_seconds).connection_kwargs
    assert {name: plain[name] for name in REDIS_IGNORED} == {name: found[name] for name in REDIS_IGNORED}
    assert (2, answer_seconds) == (found["protocol"], found["socket_timeout"])
    assert ("a&b", 7) == (found["client_name"], made.max_connections)
    local = pool("unix:///run/valkey.sock?protocol=3&socket_keepalive=1", answer_seconds)
    assert "/run/valkey.sock" == local.make_connection().path  # type: ignore[no-untyped-call]


@pytest.mark.filterwarnings("ignore:.*lib_(name|version):DeprecationWarning")  # since redis 7; it still takes them
@pytest.mark.parametrize("name", REDIS_SUPPORTED)
def test_the_client_takes_each_parameter_that_the_settings_admit(name: str) -> None:
    scheme = "rediss" if name.startswith("ssl_") else "redis"
    made = pool(f"{scheme}://h/?{name}={next(iter(REDIS_SUPPORTED[name]), '1')}", None)

    made.make_connection()  # type: ignore[no-untyped-call]


def test_the_client_makes_the_tls_context_that_the_settings_admit(tmp_path: Path) -> None:
    """So no parameter fails first at the first ring."""
    own = authority()
    file = tmp_path / "own.pem"
    file.write_bytes(own.both)
    names = {"ssl_certfile": file, "ssl_keyfile": file, "ssl_ca_certs": file, "ssl_ca_data": own.pem}
    others = {"ssl_ciphers": "ECDHE+AESGCM", "ssl_check_hostname": "true", "ssl_cert_reqs": "optional"}
    parameters = {name: str(value) for name, value in {**names, **others}.items()}
    assert parameters.keys() == {name for name in REDIS_SUPPORTED if name.startswith("ssl_")}

    made = pool(urls.redis(f"rediss://h/?{urlencode(parameters)}").url, None)

    found = made.make_connection().ssl_context.get()  # type: ignore[no-untyped-call]
    assert (ssl.CERT_OPTIONAL, True) == (found.verify_mode, found.check_hostname)
    assert ssl.PEM_cert_to_DER_cert(own.pem) in found.get_ca_certs(binary_form=True)


@pytest.mark.parametrize(
    ("first", "later", "login"),
    [
        ("redis://a:b@h/1", "redis://c:d%40@h/1", ("c", "d@")),
        ("redis://h/1?username=a&password=b", "redis://h/1?username=c&password=d%40", ("c", "d@")),
        ("unix://a@/s?password=b", "unix://a@/s?password=d%2540", ("a", "d@")),
        ("unix://:b@/s", "unix:///s?password=d", ("d",)),
    ],
)
def test_a_login_that_changes_may_stand_anywhere_in_the_url(first: str, later: str, login: tuple[str, ...]) -> None:
    """Each connection logs in as the url says then."""
    answers = iter([first, later])

    connection = pool(lambda: next(answers), None).make_connection()  # type: ignore[no-untyped-call]

    assert login == connection.credential_provider.get_credentials()


async def test_a_url_of_an_application_that_decodes_answers_delivers_rings(redis_url: str) -> None:
    """Answers are read as bytes, and commands written as the queue has them, whatever the application wants."""
    ringing = bell(f"{redis_url}?decode_responses=true&encoding=utf-16&protocol=3")
    try:
        await ringing.ping()
        assert 1 == await ringing.ring([RING])
        assert [] == await ringing.lost([RING])
        assert [RING] == (await Intake(ringing).take(1, 0.1)).rings
    finally:
        await ringing.close()


def many(count: int) -> list[Ring]:
    return [replace(RING, delivery_id=DeliveryId(f"01900000-0000-7000-8000-{number:012x}")) for number in range(count)]


async def now_ms(ringing: Bell) -> float:
    """Return the time of Redis."""
    seconds, microseconds = await ringing.redis.time()
    return float(seconds * 1000 + microseconds // 1000 + 1)


@pytest.mark.req("DEL-02")
async def test_redis_holds_ids_only(ringing: Bell, redis_url: str) -> None:
    """After rings, Redis has one queue of delivery ids, and for each a job with three ids, a name and a time."""
    assert 2 == await ringing.ring([RING, OTHER])

    found = await contents(redis_url)
    queued = found.pop(DEFAULT_QUEUE.encode())
    jobs = {key: msgspec.msgpack.decode(value) for key, value in found.items() if isinstance(value, bytes)}
    assert isinstance(queued, list)
    assert {DELIVERY.encode(), OTHER.delivery_id.encode()} == {member for member, _ in queued}
    assert {
        f"arq:job:{ring.delivery_id}".encode(): {
            "t": None,
            "f": "deliver",
            "a": ["acme", ENDPOINT, ring.delivery_id],
            "k": {},
        }
        for ring in (RING, OTHER)
    } == {key: {name: value for name, value in job.items() if name != "et"} for key, job in jobs.items()}


async def test_a_job_expires(ringing: Bell) -> None:
    """A ring that no worker takes expires after an hour; PostgreSQL still has the delivery."""
    await ringing.ring([RING])

    assert 3_590_000 < await ringing.redis.pttl(JOB_KEY) <= 3_600_000


async def test_a_queued_id_is_not_queued_twice(ringing: Bell) -> None:
    """An id that is queued is not queued twice, keeps its earlier time, and its job lives for another hour."""
    assert 2 == await ringing.ring([RING, RING])
    await ringing.redis.zadd(DEFAULT_QUEUE, {DELIVERY: 1})
    await ringing.redis.pexpire(JOB_KEY, 60_000)
    assert 1 == await ringing.ring([RING])

    assert [(DELIVERY.encode(), 1.0)] == await ringing.redis.zrange(DEFAULT_QUEUE, 0, -1, withscores=True)
    assert 3_590_000 < await ringing.redis.pttl(JOB_KEY) <= 3_600_000


async def test_a_ring_for_later_becomes_due(ringing: Bell) -> None:
    await ringing.ring([RING])
    await ringing.redis.zadd(DEFAULT_QUEUE, {DELIVERY: FAR})
    await ringing.ring([RING])

    score = await ringing.redis.zscore(DEFAULT_QUEUE, DELIVERY)
    assert score is not None
    assert score <= await now_ms(ringing)


async def test_an_id_without_a_queue_entry_is_queued_again(ringing: Bell) -> None:
    await ringing.ring([RING])
    await ringing.redis.zrem(DEFAULT_QUEUE, DELIVERY)
    await ringing.ring([RING])

    assert [DELIVERY.encode()] == await ringing.redis.zrange(DEFAULT_QUEUE, 0, -1)


@pytest.mark.req("DEL-02")
async def test_an_unmodified_arq_worker_takes_rings(ringing: Bell) -> None:
    """An unmodified arq worker calls `deliver` once for each ring, with the three ids."""
    calls: list[tuple[str, ...]] = []

    async def deliver(_context: dict[str, Any], *arguments: str) -> None:
        calls.append(arguments)

    await ringing.ring([RING, OTHER, RING])
    worker = Worker(
        functions=[func(deliver, name=FUNCTION, keep_result=0)],  # type: ignore[arg-type]  # arq wants its own alias
        queue_name=DEFAULT_QUEUE,
        redis_pool=arq_pool(ringing),
        burst=True,
        poll_delay=0.01,
        handle_signals=False,
        job_serializer=job_serializer,
        job_deserializer=job_deserializer,
    )

    assert 2 == await worker.run_check()
    assert {(ring.tenant_id, ring.endpoint_id, ring.delivery_id) for ring in (RING, OTHER)} == set(calls)
    assert [] == await ringing.redis.zrange(DEFAULT_QUEUE, 0, -1)


@pytest.mark.req("DEL-02")
async def test_many_rings_take_few_round_trips(own_valkey: Server) -> None:
    """Many rings take few round trips; those of a tenant are due one ms after another, whatever a worker's clock."""
    ringing = bell(own_valkey.url)
    rings = many(1_201)
    before = await ringing.redis.info("stats")
    assert 1_201 == await ringing.ring(iter(rings))

    after = await ringing.redis.info("stats")
    assert after["total_reads_processed"] - before["total_reads_processed"] < 1_201 / 2
    queued = await ringing.redis.zrange(DEFAULT_QUEUE, 0, -1, withscores=True)
    assert {ring.delivery_id.encode() for ring in rings} == {member for member, _ in queued}
    assert list(range(1_201)) == [due - queued[0][1] for _, due in queued]
    assert [ring.delivery_id.encode() for ring in rings] == [member for member, _ in queued]
    assert 1_201 == await ringing.redis.exists(*(f"arq:job:{ring.delivery_id}" for ring in rings))
    await ringing.close()


@pytest.mark.req("DEL-09")
async def test_few_rings_are_not_behind_the_many_of_another_tenant(own_valkey: Server) -> None:
    """Of many rings of one tenant and a few of another, rung together, the few are taken among the first."""
    ringing = bell(own_valkey.url)
    big = many(1_000)
    few = [
        replace(RING, tenant_id=TenantId("globex"), delivery_id=DeliveryId(f"01a00000-0000-7000-8000-{number:012x}"))
        for number in range(5)
    ]
    await ringing.ring([*big, *few])
    first = await ringing.redis.zrange(DEFAULT_QUEUE, 0, 2 * len(few) - 1)
    assert {each.delivery_id.encode() for each in few} <= set(first)
    await ringing.close()


async def test_accepted_rings_survive_a_full_redis(own_valkey: Server) -> None:
    ringing = bell(own_valkey.url)

    def rings() -> Iterator[Ring]:
        yield from many(1_000)
        with redis.Redis.from_url(own_valkey.url) as client:
            client.config_set("maxmemory", "1mb")
        yield RING

    with pytest.raises(Unavailable, match="OutOfMemoryError"):
        await ringing.ring(rings())
    assert 1_000 == await ringing.redis.zcard(DEFAULT_QUEUE)
    await ringing.redis.config_set("maxmemory", "0")
    assert 1 == await ringing.ring([RING])
    await ringing.close()


async def test_no_rings_write_nothing(ringing: Bell, redis_url: str) -> None:
    nothing: list[Ring] = []
    assert 0 == await ringing.ring(nothing)
    assert {} == await contents(redis_url)


async def test_a_bell_rings_its_own_queue(redis_url: str) -> None:
    ringing = bell(redis_url, "another:queue")
    await ringing.ring([RING])
    await ringing.close()

    assert {b"another:queue", b"another:queue:bell", JOB_KEY.encode()} == set(await contents(redis_url))


async def test_a_missing_redis_is_unavailable() -> None:
    ringing = bell(f"redis://:hunter2@127.0.0.1:{closed_port()}/0")
    with pytest.raises(Unavailable, match="Redis does not answer") as raised:
        await ringing.ring([RING])
    await ringing.close()

    assert "hunter2" not in str(raised.value)


async def test_a_frozen_redis_is_unavailable(own_valkey: Server) -> None:
    """A frozen Redis is `Unavailable` within seconds; once it continues, the same bell rings."""
    ringing = bell(own_valkey.url)
    await ringing.ping()
    own_valkey.freeze()
    try:
        with pytest.raises(Unavailable, match="Redis does not answer"):
            await ringing.ring([RING])
    finally:
        own_valkey.thaw()

    assert 1 == await ringing.ring([RING])
    await ringing.close()


@pytest.mark.req("DEL-02")
async def test_rings_are_taken_in_order(ringing: Bell) -> None:
    """A repeated ring is queued behind earlier rings, whatever their ids, so no ring starves."""
    await ringing.ring([OTHER])
    await wait_a_millisecond(ringing)
    await ringing.ring([RING])
    queued = await ringing.redis.zrange(DEFAULT_QUEUE, 0, -1)

    assert RING.delivery_id < OTHER.delivery_id
    assert [OTHER.delivery_id.encode(), RING.delivery_id.encode()] == queued


@pytest.mark.req("DUR-07")
async def test_a_ring_is_due_whatever_a_workers_clock(ringing: Bell) -> None:
    await ringing.ring([RING])
    score = await ringing.redis.zscore(DEFAULT_QUEUE, RING.delivery_id)

    assert score is not None
    assert 0 < score <= await now_ms(ringing) - 9 * YEAR_MS


@pytest.mark.req("DUR-04", "OPS-01")
@pytest.mark.parametrize(
    ("break_redis", "repair_redis"), [FULL, STANDBY, ANOTHER_KIND], ids=["full", "standby", "another-kind"]
)
async def test_a_redis_that_accepts_no_rings_is_unavailable(
    own_valkey: Server, break_redis: str, repair_redis: str
) -> None:
    ringing = bell(own_valkey.url)
    await ringing.ping()
    await cast("Command", ringing.redis.execute_command)(*break_redis.split())
    for asks in (ringing.ping, partial(ringing.ring, [RING])):
        with pytest.raises(Unavailable, match="Redis refuses"):
            await asks()
    await cast("Command", ringing.redis.execute_command)(*repair_redis.split())
    await ringing.redis.delete(JOB_KEY)
    await ringing.ping()

    assert {} == await contents(own_valkey.url)
    assert 1 == await ringing.ring([RING])
    await ringing.close()


@pytest.mark.req("OPS-01")
async def test_a_redis_without_scripts_is_unavailable(own_valkey: Server) -> None:
    """A Redis that lets this user write but run no scripts is `Unavailable`: no ring could be taken."""
    ringing = bell(own_valkey.url)
    await ringing.ping()
    await ringing.redis.acl_setuser("default", commands=["-eval"])
    with pytest.raises(Unavailable, match="Redis refuses"):
        await ringing.ping()
    await ringing.close()


@pytest.mark.req("DUR-06")
async def test_foreign_values_break_nothing(ringing: Bell) -> None:
    """Foreign values at the keys of rings, of any type and size, break neither the probe nor the search for losses."""
    await ringing.ring([RING])
    await ringing.redis.set(f"arq:in-progress:{DELIVERY}", b"\x00" * 10_000_000)
    for key in (f"arq:in-progress:{OTHER.delivery_id}", "arq:in-progress:nobody"):
        await cast("Awaitable[int]", ringing.redis.rpush(key, "x"))
    await ringing.ping()

    before = (await ringing.redis.info("stats"))["total_net_output_bytes"]
    assert [OTHER] == await ringing.lost([RING, OTHER])
    assert 1_000_000 > (await ringing.redis.info("stats"))["total_net_output_bytes"] - before


async def wait_a_millisecond(ringing: Bell) -> None:
    """Return once the clock of Redis shows another millisecond."""
    began = await now_ms(ringing)
    while int(await now_ms(ringing)) <= int(began) + 1:
        pass


def test_a_job_is_as_arq_stores_it() -> None:
    called_with = (RING.tenant_id, RING.endpoint_id, RING.delivery_id)

    assert serialize_job(FUNCTION, called_with, {}, None, 7, serializer=job_serializer) == job(RING, 7)


@pytest.fixture
async def observer(own_valkey: Server) -> AsyncIterator[Redis]:
    async with Redis.from_url(own_valkey.url) as client:
        yield client


@pytest.fixture
async def direct(own_valkey: Server) -> AsyncIterator[Direct]:
    """Give what sends commands."""
    found = Direct(pool(own_valkey.url, None))
    yield found
    await found.close()


async def sent(direct: Direct, *commands: list[Any]) -> list[Any]:
    """Send these; the answer to the last one is no refusal."""
    return await direct.send(*commands, is_answer=lambda answer: not isinstance(answer, Exception))


async def others(observer: Redis, *, only_blocked: bool = False) -> list[int]:
    """Return the ids of the connections that are not the observer's own."""
    own = await observer.client_id()
    clients = [each for each in await observer.client_list() if int(each["id"]) != own]
    return [int(each["id"]) for each in clients if "b" in each["flags"] or not only_blocked]


async def blocked(direct: Direct, observer: Redis) -> "asyncio.Task[list[Any]]":
    """Return a call that waits for its answer."""
    waiting = asyncio.create_task(sent(direct, ["BLPOP", "nothing", 0]))
    await eventually(lambda: others(observer, only_blocked=True))
    return waiting


async def none(observer: Redis) -> bool:
    """Return whether no other connection is open."""
    return not await others(observer)


@pytest.mark.req("DEL-02")
async def test_each_command_has_its_answer(direct: Direct, observer: Redis) -> None:
    """A refusal is an answer, too, and the same connection serves the next call."""
    [first, echoed, refused] = await sent(direct, ["CLIENT", "ID"], ["ECHO", "a b"], ["NONSENSE"])
    [second] = await sent(direct, ["CLIENT", "ID"])

    assert isinstance(refused, ResponseError)
    assert (first, b"a b") == (second, echoed)
    assert [first] == await others(observer)


@pytest.mark.req("DEL-02")
async def test_calls_at_once_get_their_own_answers(direct: Direct) -> None:
    answers = await asyncio.gather(*(sent(direct, ["ECHO", str(number)]) for number in range(20)))

    assert [[str(number).encode()] for number in range(20)] == answers


@pytest.mark.req("DEL-02")
async def test_many_calls_at_once_leave_few_connections_open(direct: Direct, observer: Redis) -> None:
    await asyncio.gather(*(sent(direct, ["PING"]) for _ in range(MOST_IDLE + 8)))

    async def are_few() -> bool:
        return MOST_IDLE == len(await others(observer))

    await eventually(are_few)


@pytest.mark.req("DEL-02")
async def test_a_cancelled_call_leaves_no_answer_behind(direct: Direct, observer: Redis) -> None:
    """Its connection is closed, since its answer may still come: the next call must not take it for its own."""
    waiting = await blocked(direct, observer)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert [b"mine"] == await sent(direct, ["ECHO", "mine"])
    assert 1 == len(await others(observer))


@pytest.mark.req("DEL-02", "DUR-04")
async def test_a_connection_that_redis_ended_is_replaced(direct: Direct, observer: Redis) -> None:
    """A firewall or a restart may end connections between two calls: the next call is sent over a new one."""
    await asyncio.gather(*(sent(direct, ["PING"]) for _ in range(3)))
    ended = await others(observer)
    for each in ended:
        await observer.client_kill_filter(_id=str(each))

    [anew] = await sent(direct, ["CLIENT", "ID"])

    assert anew not in ended
    assert [anew] == await others(observer)


@pytest.mark.req("DEL-02", "DUR-04")
async def test_a_ring_gets_through_although_redis_ended_every_connection(own_valkey: Server, observer: Redis) -> None:
    ringing = bell(own_valkey.url)
    await ringing.ring([RING])
    await observer.script_flush()
    await ringing.ring([RING])
    for each in await others(observer):
        await observer.client_kill_filter(_id=str(each))

    assert 1 == await ringing.ring([RING])
    assert 1 == await ringing.depth()
    await ringing.close()


@pytest.mark.req("DEL-02")
@pytest.mark.parametrize("unasked", [UNASKED, b"-ERR unasked\r\n", b":7\r\n"])
async def test_an_answer_that_was_not_asked_for_ends_the_connection(own_valkey: Server, unasked: bytes) -> None:
    """Else each later answer would be that of the command before: a worker would lose the rings that it takes."""
    writers: list[asyncio.StreamWriter] = []
    ended: list[asyncio.Event] = []

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        ended.append(asyncio.Event())
        end = ended[-1]
        host, port = own_valkey.url.rpartition("@")[2].partition("/")[0].split(":")
        upstream, down = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_pump(reader, down), _pump(upstream, writer), return_exceptions=True)
        end.set()

    async with await asyncio.start_server(between, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        direct = Direct(pool(own_valkey.url.rpartition(":")[0] + f":{port}/0", None))

        async def echo(text: str) -> list[Any]:
            return await direct.send(
                ["ECHO", text], is_answer=lambda answer: isinstance(answer, bytes) and len(answer) == 1
            )

        await echo("a")
        writers[0].write(unasked)
        await writers[0].drain()
        with pytest.raises((InvalidResponse, ResponseError)):
            raise next(each for each in await echo("b") if isinstance(each, Exception))
        assert [b"c"] == await echo("c")
        await direct.close()
        for each in ended:
            await each.wait()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dropped: asyncio.Event | None = None
) -> None:
    try:
        while data := await reader.read(4096):
            if dropped is None or not dropped.is_set():
                writer.write(data)
    finally:
        writer.close()


@pytest.mark.req("DEL-02", "DUR-04")
async def test_after_a_call_without_an_answer_the_next_one_has_a_new_connection(own_valkey: Server) -> None:
    host, port = own_valkey.url.rpartition("@")[2].partition("/")[0].split(":")
    dropped: list[asyncio.Event] = []

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        drop = asyncio.Event()
        dropped.append(drop)
        upstream, down = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_pump(reader, down, drop), _pump(upstream, writer, drop), return_exceptions=True)

    async with await asyncio.start_server(between, "127.0.0.1", 0) as server:
        port_between = server.sockets[0].getsockname()[1]
        direct = Direct(pool(own_valkey.url.rpartition(":")[0] + f":{port_between}/0", None))
        await asyncio.gather(*(sent(direct, ["PING"]) for _ in range(4)))
        for each in dropped:
            each.set()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await sent(direct, ["PING"])
        async with asyncio.timeout(60):
            assert [b"mine"] == await sent(direct, ["ECHO", "mine"])
        await direct.close()


@pytest.mark.req("DEL-02", "DUR-04")
async def test_after_a_failover_a_bell_goes_where_the_name_leads(own_valkey: Server, observer: Redis) -> None:
    """The old server lives on as a replica that ends no connection: each of them is given up at its first refusal."""
    ports = [own_valkey.port]

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, down = await asyncio.open_connection("127.0.0.1", ports[-1])
        await asyncio.gather(_pump(reader, down), _pump(upstream, writer), return_exceptions=True)

    async with (
        standby_of_redis(own_valkey.url) as other,
        await asyncio.start_server(between, "127.0.0.1", 0) as server,
    ):
        name = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ringing = bell(f"{own_valkey.url.rpartition('@')[0]}@{name}/0")
        asks = (ringing.ping, partial(ringing.ring, [RING]), partial(Intake(ringing).take, 1, 0.1))
        try:
            for each in asks:
                await each()
            await promote_redis(other.url)
            await observer.replicaof("127.0.0.1", str(other.port))
            ports.append(other.port)
            for each in asks:
                with suppress(Unavailable, ResponseError):
                    await each()
                await each()
        finally:
            await ringing.close()


@pytest.mark.req("DEL-02")
async def test_a_call_after_the_close_connects_no_more(direct: Direct, observer: Redis) -> None:
    await asyncio.gather(*(sent(direct, ["PING"]) for _ in range(3)))

    await direct.close()

    for _ in range(4):
        with pytest.raises(ConnectionEnded):
            await sent(direct, ["PING"])
    await eventually(lambda: none(observer))


@pytest.mark.req("DEL-02")
async def test_a_close_at_any_moment_of_a_call_is_an_error_of_the_client(own_valkey: Server) -> None:
    """With a time limit the client sends in a task of its own, a turn later, when its connection may be closed."""
    for turns in range(20):
        direct = Direct(pool(own_valkey.url, 5.0))
        await sent(direct, ["PING"])
        sending = asyncio.create_task(sent(direct, ["PING"]))
        for _ in range(turns):
            await asyncio.sleep(0)
        await direct.close()
        with suppress(RedisError):
            assert [b"PONG"] == await sending, turns


@pytest.mark.req("DEL-02")
async def test_close_closes_every_connection(direct: Direct, observer: Redis) -> None:
    """A call that waits for its answer, or comes later, ends with an error of the client."""
    await asyncio.gather(*(sent(direct, ["PING"]) for _ in range(3)))
    waiting = await blocked(direct, observer)

    await direct.close()

    with pytest.raises(ConnectionEnded):
        await waiting
    with pytest.raises(ConnectionEnded):
        await sent(direct, ["PING"])
    await eventually(lambda: none(observer))


@pytest.mark.req("DEL-02")
async def test_a_call_that_connects_while_all_is_closed_leaves_no_connection(direct: Direct, observer: Redis) -> None:
    connecting = asyncio.create_task(sent(direct, ["PING"]))
    await asyncio.sleep(0)
    await direct.close()

    assert [b"PONG"] == await connecting
    await eventually(lambda: none(observer))


@pytest.mark.req("DEL-02")
def test_a_job_is_read_as_it_was_written() -> None:
    raw = job_serializer(JOB)

    assert JOB == job_deserializer(raw) == msgspec.msgpack.decode(raw)


@pytest.mark.req("DEL-02")
def test_arqs_functions_read_and_write_jobs() -> None:
    raw = serialize_job("deliver", ("acme", "e", "d"), {}, None, 1_700_000_000_000, serializer=job_serializer)
    job = deserialize_job(raw, deserializer=job_deserializer)

    assert ["deliver", "acme", "e", "d", {}] == [job.function, *job.args, job.kwargs]


@pytest.mark.req("DEL-02")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_is_refused(protocol: int) -> None:
    """No protocol of pickle is read, so a foreign job runs no code."""
    pickled = pickle.dumps(JOB, protocol)

    with pytest.raises(msgspec.DecodeError):
        job_deserializer(pickled)
    with pytest.raises(DeserializationError):
        deserialize_job(pickled, deserializer=job_deserializer)


@pytest.mark.parametrize("raw", [b"", b"\xc1", msgspec.msgpack.encode([1]), job_serializer(JOB)[:-1], b"\x81\x01\x01"])
def test_other_values_than_a_job_are_refused(raw: bytes) -> None:
    """Anything but a whole msgpack map with text keys is not a job."""
    with pytest.raises(msgspec.DecodeError):
        job_deserializer(raw)


@pytest.mark.req("DEL-02")
def test_an_exception_is_written_as_its_class() -> None:
    raw = serialize_result(
        *("deliver", ("acme",), {}, 1, 0, False, ValueError("postgresql://u:hunter2@h/d"), 0, 0, "ref", "queue"),
        job_id="d",
        serializer=job_serializer,
    )

    assert raw is not None
    assert "ValueError" == job_deserializer(raw)["r"]
    assert b"hunter2" not in raw


@pytest.mark.req("DEL-02")
def test_a_secret_is_written_as_its_class() -> None:
    raw = job_serializer({**JOB, "a": [SecretMaterial(b"whsec_canary")]})

    assert ["SecretMaterial"] == job_deserializer(raw)["a"]
    assert b"canary" not in raw
