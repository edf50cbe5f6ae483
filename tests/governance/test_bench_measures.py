"""How the benchmark measures: alternating, within a time limit, all processes; and one real round of each kind."""

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hookseal.demo.installation import Installation
from hookseal.postgres.connect import connect
from hookseal.postgres.pool import Connection, Pool
from tests import forked
from tests.servers import sibling
from tools.bench import api, environments, measures, plan, producer
from tools.bench.environments import NotInstalled
from tools.bench.results import LeftOut, Round
from tools.bench.run import OUT_OF_TIME, Runner, Scenario
from tools.harness import (
    API,
    CALLER,
    POSTGRESQL,
    PRODUCER,
    RECEIVER,
    WORKER,
    Endpoints,
    Receiver,
    Servers,
    environment_of,
    parent_of,
    resident_mb,
    site,
    tree_seconds,
)

OURS = environments.ours("aiohttp")
BUSY = "import time\nwhile time.process_time() < 0.3: pass\n"
PARENT = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', sys.argv[1]])\nprint(flush=True)\ninput()\n"
OLDEST_SNAPSHOT = "SELECT max(now() - xact_start) FROM pg_stat_activity WHERE state = 'idle in transaction'"
RETAINED = """
SELECT count(*) FROM hookseal.attempts AS a JOIN hookseal.delivery_links AS l ON l.id = a.delivery_id
WHERE a.tenant_id = 'retained'
"""
MAKES_AN_ENVIRONMENT = """\
#!/bin/sh
mkdir -p "$4/bin"
printf '#!/bin/sh\\nexec {} "$@"\\n' >"$4/bin/python"
chmod +x "$4/bin/python"
"""

pytestmark = pytest.mark.req("OPS-07", part="first-form")


def _scenario(name: str, ran: list[str]) -> Scenario:
    async def run() -> Round:
        ran.append(name)
        return Round(deliveries=1, seconds=1.0)

    return Scenario(name="s", contender=name, run=run)


def _runner(seconds: float = 60.0) -> Runner:
    return Runner(until=asyncio.get_running_loop().time() + seconds)


async def test_contenders_take_turns() -> None:
    """A slow minute of the machine affects all of them."""
    runner, ran = _runner(), list[str]()

    await runner.rounds([_scenario("a", ran), _scenario("b", ran)], 2)

    assert ["a", "b", "a", "b"] == ran
    assert [("a", 2), ("b", 2)] == [(row.contender, len(row.rounds)) for row in runner.rows()]


async def test_a_failed_contender_is_named_once() -> None:
    """The first line of the error is reported once, and the contender is not tried again."""
    runner, ran = _runner(), list[str]()

    async def fails() -> Round:
        ran.append("bad")
        raise RuntimeError("no such table\nand more")

    await runner.rounds([Scenario(name="s", contender="bad", run=fails), _scenario("good", ran)], 2)

    assert ["bad", "good", "good"] == ran
    assert [LeftOut(scenario="s", contender="bad", reason="RuntimeError: no such table", is_failure=True)] == list(
        runner.left_out.values()
    )


async def test_a_round_beyond_the_deadline_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round is cut off at the deadline, and none is started after it; that is not a failure."""
    monkeypatch.setattr("tools.bench.run._LEAST_SECONDS", 0.0)
    runner, ran = _runner(0.1), list[str]()

    async def endless() -> Round:
        await asyncio.Event().wait()
        raise AssertionError

    await runner.rounds([Scenario(name="s", contender="endless", run=endless), _scenario("late", ran)], 1)

    assert [] == ran
    assert [("endless", OUT_OF_TIME, False), ("late", OUT_OF_TIME, False)] == [
        (each.contender, each.reason, each.is_failure) for each in runner.left_out.values()
    ]


async def test_a_time_out_before_the_deadline_is_a_failure() -> None:
    """A contender that ends by its own time-out, before the deadline of the run, has failed."""

    async def impatient() -> Round:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
        raise AssertionError

    runner = _runner()
    await runner.rounds([Scenario(name="s", contender="c", run=impatient)], 1)

    assert [("it did not end in time", True)] == [(e.reason, e.is_failure) for e in runner.left_out.values()]


def test_the_cpu_of_children_that_have_ended_is_counted() -> None:
    """PostgreSQL serves each connection by a process that ends with it; an excluded process is not counted."""
    command = [sys.executable, "-c", PARENT, BUSY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()

        whole, children = tree_seconds([process.pid]), tree_seconds([process.pid], without=[process.pid])
        below_us = tree_seconds([os.getpid()])
        memory = resident_mb([process.pid])
        parent = parent_of(process.pid)
        process.communicate(b"\n")

    assert 0.25 <= children <= whole <= below_us
    assert 1 < memory < 1_000
    assert os.getpid() == parent
    assert (0, 0) == (tree_seconds([process.pid]), resident_mb([process.pid]))


def test_a_contender_that_cannot_be_installed_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a package index the install fails; an incomplete environment is not used the next time."""
    (tmp_path / "nothing.txt").write_text(f"nothing-of-this-name==1.0 --hash=sha256:{'0' * 64}\n", encoding="ascii")
    python = tmp_path / "python"  # makes an environment that is this one, in a fraction of the time
    python.write_text(MAKES_AN_ENVIRONMENT.format(sys.executable), encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(environments, "_LOCKS", tmp_path)
    monkeypatch.setattr(environments, "_ENVIRONMENTS", tmp_path / "made")
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    with pytest.raises(NotInstalled, match=r"could not be made: .*nothing-of-this-name"):
        environments.of("nothing")
    assert not (tmp_path / "made" / "nothing" / "made-from").exists()


@pytest.fixture
def environments_made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Return a list that gets the environment of each worker of hookseal in a round."""
    made: list[dict[str, str]] = []

    def noted(
        installation: Installation, receiver: Receiver, concurrency: int | None = None, /, **more: str
    ) -> dict[str, str]:
        made.append(environment_of(installation, receiver, concurrency, **more))
        return made[-1]

    monkeypatch.setattr(measures, "environment_of", noted)
    return made


async def test_each_kind_of_round_runs_on_real_servers(
    monkeypatch: pytest.MonkeyPatch, environments_made: list[dict[str, str]]
) -> None:
    """On real servers: the requested number was sent, and each part has used CPU. As installed nothing is set."""
    monkeypatch.setattr("tools.harness.start_worker", forked.worker)
    case = plan.CASES[0]  # starting the processes costs most, so each kind is measured once
    steady = next(each for each in plan.CASES if each.per_second)
    async with site() as here:
        stock = await measures.theirs(here, case, 1_000, plan.STOCK, environments.ours("arq"))
        ours = await measures.ours(here, case, 1_000)  # beside other load the first 200 may be sent before they count
        two_of_them = replace(case, processes=2)
        two = await measures.theirs(here, two_of_them, 3_000, plan.BARE, OURS)
        published = await measures.publishing(here, measures.WAYS["SQL, 100 in one call"], 0.1)
        at_once = await measures.at_once(here, case, 0.1)
        latency = await measures.latency(here, steady, plan.RING, 20.0, 0.5)
        statements = await measures.statements(here, 50, None)

    assert [1_000, 1_000, 3_000] == [each.deliveries for each in (stock, ours, two)]
    assert all(each.cpu[WORKER] > 0 and RECEIVER in each.cpu for each in (stock, ours))
    assert ours.cpu[POSTGRESQL] > 0
    environment, *_ = environments_made
    assert not {"HOOKSEAL_CONCURRENCY", "HOOKSEAL_ENDPOINT_CONCURRENCY", "HOOKSEAL_LISTEN"} & environment.keys()
    assert two.cpu[WORKER] > 0.03  # also what the first one did before the second was ready
    assert min(ours.figures[name] for name in ("wal_bytes", "publish_wal_bytes", "kept_bytes")) > 300
    assert 100 < ours.figures["log_bytes"] < 2_000
    assert two.figures["wal_bytes"] < 100
    assert published.deliveries % 100 == 0 < published.deliveries
    assert published.cpu[PRODUCER] < published.seconds
    assert at_once.deliveries > 0 < at_once.cpu[PRODUCER]
    assert (10, 0) == (latency.deliveries, latency.figures["unsent"])
    assert 0 < latency.figures["p50_ms"] <= latency.figures["p99_ms"]
    assert 0 < statements.figures["statements"] < 10


async def test_the_api_is_measured_by_a_client_of_its_own() -> None:
    """Every request is answered with 2xx, or the round fails. The CPU of the server is not that of the client."""
    async with site() as here:
        messages = await api.messages(here, 0.3)
        steady = await api.steady(here, 20.0, 0.5)
        slow = await api.slow(here, 1.0)
        reads = await api.reads(here, 30, 400, 3)
        with pytest.raises(RuntimeError, match="3 requests were not answered with 2xx"):
            async with api._serving(here) as served:
                await served.called("in-turn", {"nothing": {"method": "GET", "path": "/api/v1/no-such"}}, times=3)

    assert all(messages.cpu[part] > 0 for part in (API, CALLER, POSTGRESQL))
    assert 50 < messages.figures["resident_mb"] < 500
    assert 10 == steady.deliveries
    for measured in (messages, steady):
        assert 0 < measured.figures["p50_ms"] <= measured.figures["p99_ms"]
    assert 0 <= slow.figures["api_cpu_percent"] < 100
    assert (30, 400) == (reads.figures.pop("endpoints"), reads.figures.pop("stored"))
    assert {"message.list p99_ms", "endpoint.create p99_ms", "page: overview p99_ms"} < reads.figures.keys()
    assert all(value > 0 for value in reads.figures.values())


async def test_endpoints_at_places_of_their_own_are_measured_kept_and_cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are kept, or there is one for each request; the same for the client alone and the loop beside it."""
    monkeypatch.setattr("tools.harness.start_worker", forked.worker)
    kept = Endpoints(tenants=2, each=5, secure=True, own=True)
    to_places = plan.Case(name="places", title="places", part="places", endpoints=kept, is_warm=True)
    cold = replace(to_places, endpoints=replace(kept, does="close", failing=5), is_warm=False)
    async with site() as here:
        rounds = [
            await measures.ours(here, to_places, 200),
            await measures.ours(here, cold, 200),
            await measures.theirs(here, to_places, 200, plan.CLIENT, environments.ours("hookseal")),
            await measures.theirs(here, replace(cold, endpoints=replace(kept, does="close")), 200, plan.BARE, OURS),
        ]

    warm, closed, client, bare = (each.figures["connections_per_1000"] for each in rounds)
    assert max(warm, client) < 1_000
    assert 1_000 == closed == bare
    assert 0 < rounds[1].figures["resumed_per_1000"] <= 1_000
    assert 0 == rounds[3].figures["resumed_per_1000"]
    assert [200, 100] == [each.deliveries for each in rounds[:2]]


async def test_a_backlog_has_what_is_retained_beside_it_and_an_old_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker finds what nobody rang, beside deliveries that ended; the snapshot is as old as the database."""
    monkeypatch.setattr("tools.harness.start_worker", forked.worker)
    monkeypatch.setattr(measures, "_RETAINED_AT_ONCE", 1_000)
    monkeypatch.setattr(measures, "_LEAST_SENT", 10)
    endpoints = Endpoints(each=20)
    old = plan.Case(
        name="old", title="old", part="backlogs", endpoints=endpoints, waiting=100, retained=2_000, snapshot=True
    )
    async with (
        site() as here,
        measures.backlog(here, old, 3) as kept,
        here.observer(sibling(here.stack.postgres.url, "bench_round_3")) as observer,
    ):
        # In a second, for the kernel counts CPU in ticks of 10 ms.
        rounds = [await kept.measured(1.0) for _ in range(2)]
        open_for = await observer.fetchval(OLDEST_SNAPSHOT)
        retained = await observer.fetchval(RETAINED)

    assert all(each.deliveries > 0 < each.cpu[POSTGRESQL] for each in rounds)
    assert 0 == rounds[0].figures["delivered_before"] < rounds[1].figures["delivered_before"]
    assert open_for.total_seconds() > 2
    assert 2_000 == retained


async def test_a_database_may_be_further_away_and_older() -> None:
    """Each round trip takes the delay both ways, but on the measurement's own connection; the version is another."""
    async with site(Servers(oldest=True, away_ms=5.0)) as here, here.fresh() as (installation, observer):
        connection = await connect(installation.database_url)
        try:
            seconds = [await _round_trip(each) for each in (connection, observer)]
        finally:
            await connection.close()

    assert 0.010 < seconds[0] > seconds[1]
    assert int(here.machine.postgresql.split(".")[0]) in {15, 16}


async def _round_trip(connection: Connection) -> float:
    """Return the seconds of the shortest of some round trips, since others use the machine, too."""
    found = []
    for _ in range(20):
        begun = time.monotonic()
        await connection.fetchval("SELECT 1")
        found.append(time.monotonic() - begun)
    return min(found)


@pytest.mark.parametrize("way", producer.WAYS)
async def test_every_way_of_publishing_stores_its_events(
    way: str, pool: Pool, redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each way stores what it counts, by one call or by as many as fit into the time."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    begin, number = producer.WAYS[way]
    order = producer.Order(
        way=way, targets=[("acme", "bench.tick")], database_url=database_url, seconds=0.02, body_bytes=100
    )
    async with begin(order, number) as made:
        first = await made.publish(b"x" * 100)
        calls = await producer.at_full_speed(made, order)

    events = "SELECT count(*) FROM hookseal.events"
    stored = events.replace("events", "bench_rows") if way == "insert-ping" else events
    assert (100 if number == 100 else 1) == first
    assert calls.events % first == 0 < calls.events
    assert first + calls.events == await pool.fetchval(stored)
    assert len(calls.milliseconds) * first == calls.events


def test_every_way_of_the_benchmark_is_one_of_the_producer() -> None:
    """The ways of the benchmark are ways of the producer."""
    ours = {*measures.WAYS.values(), *api.BESIDE.values(), *(way for way, _, _ in measures.LATENCIES.values())}
    assert set(producer.WAYS) == ours
