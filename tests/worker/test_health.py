"""The probes, over real HTTP."""

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import structlog

from hookseal.errors import Cause, HooksealError, SecretDenied, SecretTampered, SecretUnavailable
from hookseal.worker.health import BEAT_SECONDS, CHECK_SECONDS, Check, Probes
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.metrics.definitions import READY
from hookseal.worker.periodic import Passes
from tests.cli.listeners import SOON_SECONDS
from tests.doubles.clock import FakeClock
from tests.worker.figures import read

HOST = "127.0.0.1"
Answer = tuple[int, dict[str, Any]]


async def fine() -> None:
    """Pass."""


async def broken() -> None:
    """Fail, with a text that must not be shown."""
    raise OSError("postgresql://user:hunter2@host/db")


async def cut_off() -> None:
    """Fail because something else cancelled it."""
    raise asyncio.CancelledError


def probes(
    ready: Mapping[str, Check], startup: Mapping[str, Check] | None = None, *, loops: Sequence[Passes] = ()
) -> Probes:
    meter = WorkerMeter()
    made = Probes(ready=ready, startup=startup or {}, loops=loops, scrape=meter.scrape)
    meter.watch(READY, made.readiness)
    return made


@asynccontextmanager
async def serving(served: Probes) -> AsyncIterator[str]:
    """Yield the URL at which these probes answer."""
    port, url = await served.serve(HOST, 0)
    try:
        yield url
    finally:
        await port.close()


async def get(url: str) -> Answer:
    """Return the status and the JSON of a probe."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert "application/json" == response.content_type
        return response.status, await response.json()


@pytest.mark.req("OPS-01")
async def test_a_worker_lives_while_its_loops_end_passes() -> None:
    """A worker lives while each loop has ended a pass in the last 30 s, also one that ended in an outage."""
    clock = FakeClock()
    taking, handling = Passes("taking", clock), Passes("handling", clock)
    async with serving(probes({"redis": broken}, loops=(taking, handling))) as url:
        clock.elapsed += BEAT_SECONDS - 0.1
        assert (200, {"status": "ok"}) == await get(f"{url}/livez")
        handling.passed()
        clock.elapsed += 0.1
        assert (503, {"status": "stuck", "loops": ["taking"]}) == await get(f"{url}/livez")
        taking.interrupted()
        assert (200, {"status": "ok"}) == await get(f"{url}/livez")
        clock.elapsed += 1e6
        assert (503, {"status": "stuck", "loops": ["taking", "handling"]}) == await get(f"{url}/livez")


async def test_a_draining_worker_lives() -> None:
    """A worker that drains takes no rings on purpose, and lives however long the drain lasts."""
    clock = FakeClock()
    made = probes({}, loops=(Passes("taking", clock),))
    made.draining = True
    clock.elapsed += 3_600
    async with serving(made) as url:
        assert (200, {"status": "ok"}) == await get(f"{url}/livez")


@pytest.mark.req("OPS-01")
@pytest.mark.parametrize("path", ["/readyz", "/healthz"])
async def test_a_worker_is_ready_if_every_check_passes(path: str) -> None:
    async with serving(probes({"postgresql": fine, "redis": fine})) as url:
        expected = {"status": "ok", "checks": {"postgresql": "ok", "redis": "ok"}}
        assert (200, expected) == await get(url + path)


@pytest.mark.req("OPS-01")
@pytest.mark.parametrize("name", ["postgresql", "redis", "secrets"])
@pytest.mark.parametrize("check", [broken, cut_off])
async def test_a_failed_check_is_listed_without_its_text(name: str, check: Any) -> None:
    """A dependency that fails makes the worker unready and is listed, without the text of its error."""
    checks = {"postgresql": fine, "redis": fine, "secrets": fine} | {name: check}
    async with serving(probes(checks)) as url:
        states = {each: "unavailable" if each == name else "ok" for each in checks}
        assert (503, {"status": "unavailable", "checks": states}) == await get(f"{url}/readyz")
        assert (200, {"status": "ok"}) == await get(f"{url}/livez")


@pytest.mark.req("SEC-07", part="causes")
@pytest.mark.parametrize(
    ("error", "state"),
    [
        (SecretUnavailable("OpenBao is sealed: unseal it", cause=Cause.SEALED), "sealed"),
        (SecretUnavailable("AWS limits requests", cause=Cause.THROTTLED), "throttled"),
        (SecretUnavailable("what answers is not OpenBao", cause=Cause.FOREIGN), "wrong_server"),
        (SecretUnavailable("PostgreSQL has no room on its disk", cause=Cause.FAILING), "failing"),
        (SecretDenied("grant it secretsmanager:GetSecretValue"), "denied"),
        (SecretTampered("the record was altered"), "refused"),
        (SecretUnavailable("it does not answer"), "unavailable"),
    ],
)
async def test_the_cause_of_a_failed_check_is_named(error: HooksealError, state: str) -> None:
    """The answer has a word for the cause; the log has the text, once for an outage, and that it is over."""
    failing = [error, error]

    async def check() -> None:
        if failing:
            raise failing.pop()

    with structlog.testing.capture_logs() as logged:
        made = probes({"secrets": check})
        states = [(await made.ready_states())["secrets"] for _ in range(4)]
    assert [state, state, "ok", "ok"] == states
    assert [("check.failed", str(error)), ("check.passed", None)] == [
        (line["event"], line.get("reason")) for line in logged
    ]


@pytest.mark.req("OPS-01")
async def test_a_hanging_check_is_a_timeout() -> None:
    """A check that hangs is reported as a timeout after a second, and is not started again before it has ended."""
    go_on = asyncio.Event()
    begun: list[float] = []

    async def hang() -> None:
        begun.append(0)
        await go_on.wait()

    loop = asyncio.get_running_loop()
    async with serving(probes({"postgresql": hang, "redis": fine})) as url:
        started = loop.time()
        first, second = await asyncio.gather(get(f"{url}/readyz"), get(f"{url}/readyz"))
        took = loop.time() - started

        expected = {"status": "unavailable", "checks": {"postgresql": "timeout", "redis": "ok"}}
        assert (503, expected) == first == second
        assert CHECK_SECONDS <= took < SOON_SECONDS  # the check itself does not end
        assert 1 == len(begun)

        go_on.set()
        assert (200, {"status": "ok", "checks": {"postgresql": "ok", "redis": "ok"}}) == await get(f"{url}/readyz")
        assert 200 == (await get(f"{url}/readyz"))[0]
    assert 3 >= len(begun) > 1


async def test_a_late_failure_causes_no_message() -> None:
    """A check that fails after its timeout causes no message about an unretrieved exception."""
    fail = asyncio.Event()
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))

    async def hang_and_fail() -> None:
        await fail.wait()
        raise OSError

    made = probes({"redis": hang_and_fail})
    async with serving(made) as url:
        assert 503 == (await get(f"{url}/readyz"))[0]
        fail.set()
    del made
    gc.collect()

    assert [] == complaints


@pytest.mark.req("OPS-01")
async def test_a_draining_worker_is_not_ready() -> None:
    """A worker that drains lives and is not ready, although all checks pass."""
    made = probes({"redis": fine})
    made.draining = True
    async with serving(made) as url:
        assert (503, {"status": "draining", "checks": {"redis": "ok"}}) == await get(f"{url}/readyz")
        assert 200 == (await get(f"{url}/livez"))[0]


async def test_the_url_has_the_chosen_port() -> None:
    """With port 0 the URL contains the chosen port; other paths than probes are 404."""
    async with serving(probes({})) as url:
        assert url.startswith(f"http://{HOST}:")
        assert not url.endswith(":0")
        async with aiohttp.ClientSession() as session, session.get(f"{url}/admin") as response:
            assert 404 == response.status


@pytest.mark.req("OPS-01")
@pytest.mark.parametrize("name", ["schema", "keys"])
async def test_startupz_has_the_checks_of_the_start(name: str) -> None:
    """`/startupz` checks what must fit at the start, and does not depend on the checks of `/readyz`."""
    checks = {"schema": fine, "keys": fine}
    async with serving(probes({"redis": broken}, checks)) as url:
        assert (200, {"status": "ok", "checks": {"schema": "ok", "keys": "ok"}}) == await get(f"{url}/startupz")
    async with serving(probes({"redis": fine}, checks | {name: broken})) as url:
        states = {each: "unavailable" if each == name else "ok" for each in checks}
        assert (503, {"status": "unavailable", "checks": states}) == await get(f"{url}/startupz")
        assert 200 == (await get(f"{url}/readyz"))[0]


@pytest.mark.req("OPS-02", part="scraped")
async def test_metrics_report_each_check() -> None:
    """`/metrics` runs the checks and reports each result in the format of Prometheus."""
    async with (
        serving(probes({"postgresql": fine, "redis": broken, "secrets": fine})) as url,
        aiohttp.ClientSession() as session,
        session.get(f"{url}/metrics") as response,
    ):
        assert (200, "text/plain") == (response.status, response.content_type)
        found = read(await response.text())
    assert [1.0, 0.0, 1.0] == [found["hookseal_ready", name] for name in ("postgresql", "redis", "secrets")]


@pytest.mark.req("OPS-01", "DUR-04")
async def test_readiness_says_since_when_and_why_nothing_is_recorded() -> None:
    """While outcomes cannot be recorded the answer says so, with the number that wait; afterwards it does not."""
    report: dict[str, str | int] | None = {"since": "2026-01-02T03:04:05Z", "outcomes": 7, "reason": "disk full"}
    made = Probes(
        ready={"records": broken},
        startup={},
        loops=(),
        scrape=lambda _accept: (b"", "text/plain"),
        unrecorded=lambda: report,
    )
    async with serving(made) as url:
        _, during = await get(f"{url}/readyz")
        report = None
        _, after = await get(f"{url}/readyz")

    states = {"status": "unavailable", "checks": {"records": "unavailable"}}
    assert states | {"unrecorded": {"since": "2026-01-02T03:04:05Z", "outcomes": 7, "reason": "disk full"}} == during
    assert states == after


async def test_two_probes_do_not_share_a_check_of_the_same_name() -> None:
    """While `/readyz` waits for its check, `/startupz` reports its own, though both have one name."""
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        begun.set()
        await release.wait()

    async with serving(probes({"schema": slow}, {"schema": broken})) as url:
        ready = asyncio.create_task(get(f"{url}/readyz"))
        await begun.wait()
        start = asyncio.create_task(get(f"{url}/startupz"))
        await asyncio.wait({start}, timeout=CHECK_SECONDS / 2)
        release.set()
        assert (503, {"status": "unavailable", "checks": {"schema": "unavailable"}}) == await start
        assert (200, "ok") == ((answer := await ready)[0], answer[1]["checks"]["schema"])
