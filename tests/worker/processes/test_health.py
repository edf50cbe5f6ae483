"""The answers of a parent's probes, which depend on the states of its processes."""

from dataclasses import replace

import pytest

from hookseal.worker.processes.health import Health, ProcessState, live, of_states, ready, started

FINE = ProcessState(health=Health.OK, states={"redis": "ok", "postgresql": "ok"})
ILL = ProcessState(health=Health.UNAVAILABLE, states={"redis": "timeout", "postgresql": "ok"})
WORSE = ProcessState(health=Health.UNAVAILABLE, states={"redis": "unavailable", "postgresql": "ok"})
SEALED = ProcessState(health=Health.UNAVAILABLE, states={"redis": "sealed", "postgresql": "ok"})
GONE = ProcessState(health=Health.SILENT)


@pytest.mark.req("OPS-01")
@pytest.mark.parametrize(
    ("seen", "ok", "status", "redis", "named"),
    [
        ((FINE, FINE), True, "ok", "ok", {"1": "ok", "2": "ok"}),
        ((FINE, ILL), False, "degraded", "timeout", {"1": "ok", "2": "unavailable"}),
        ((WORSE, ILL), False, "unavailable", "unavailable", {"1": "unavailable", "2": "unavailable"}),
        ((SEALED, WORSE), False, "unavailable", "sealed", {"1": "unavailable", "2": "unavailable"}),
        ((GONE, FINE), False, "degraded", "ok", {"1": "silent", "2": "ok"}),
    ],
)
def test_a_worker_is_ready_if_all_processes_are(
    seen: tuple[ProcessState, ...], ok: bool, status: str, redis: str, named: dict[str, str]
) -> None:
    """A worker is ready only if all its processes are; the answer has each process and the worst of each check."""
    for probe in (lambda found: ready(found, draining=False), started):
        answered, body = probe(dict(enumerate(seen, 1)))

        assert (ok, status, named) == (answered, body["status"], body["processes"])
        assert {"redis": redis, "postgresql": "ok"} == body["checks"]


@pytest.mark.req("SEC-24", part="unaudited")
def test_unaudited_endpoints_are_named_once() -> None:
    """Endpoints whose rows were changed without an audit row are named once, and make no worker unready."""
    named = ({"tenant_id": "acme", "endpoint_id": "e-1"},)
    ok, body = ready({1: FINE, 2: replace(FINE, unaudited=named), 3: replace(FINE, unaudited=named)}, draining=False)

    assert (True, named) == (ok, body["unaudited"])
    assert "unaudited" not in ready({1: FINE}, draining=False)[1]


def test_without_processes_it_is_not_ready() -> None:
    """Before any process has started, the worker is not ready and says why."""
    starting = {1: ProcessState(health=Health.STARTING), 2: ProcessState(health=Health.STARTING)}

    assert (
        False,
        {"status": "unavailable", "checks": {}, "processes": {"1": "starting", "2": "starting"}},
    ) == started(starting)


def test_a_draining_worker_is_not_ready() -> None:
    """During a drain the worker lives and is not ready, whatever its processes report."""
    seen = {1: FINE, 2: ProcessState(health=Health.DRAINING, states=FINE.states)}

    assert (False, "draining") == (ready(seen, draining=True)[0], ready(seen, draining=True)[1]["status"])
    assert (True, {"status": "ok", "processes": {"1": "silent"}}) == live({1: Health.SILENT}, draining=True)


@pytest.mark.req("OPS-01")
@pytest.mark.parametrize("health", Health)
def test_an_answering_parent_lives(health: Health) -> None:
    """A parent that answers lives: it replaces stuck processes, and lists them until then."""
    ok, body = live({1: Health.OK, 2: health}, draining=False)
    well = health in {Health.OK, Health.UNAVAILABLE, Health.DRAINING}

    assert ok
    assert {"status": "ok" if well else "degraded", "processes": {"1": "ok", "2": health.value}} == body


def test_each_process_has_its_state() -> None:
    """A draining process is reported as draining, and one that takes no rings as stuck, whatever its checks say."""
    fine = {"redis": "ok"}

    assert Health.DRAINING is of_states({"redis": "timeout"}, draining=True, moves=True)
    assert Health.STUCK is of_states(fine, draining=False, moves=False)
    assert Health.UNAVAILABLE is of_states({"redis": "timeout"}, draining=False, moves=True)
    assert Health.OK is of_states(fine, draining=False, moves=True)


@pytest.mark.req("DUR-04")
def test_the_longest_failure_to_record_is_shown() -> None:
    """If processes cannot record, `/readyz` has the report of the one for which that has been so for longest."""
    reports = [
        {"since": f"2026-01-02T03:04:0{second}Z", "outcomes": second, "reason": "disk full"} for second in (7, 5)
    ]
    seen = {
        number: ProcessState(health=Health.UNAVAILABLE, states={"records": "unavailable"}, unrecorded=report)
        for number, report in enumerate([*reports, None])
    }
    is_ready, body = ready(seen, draining=False)

    assert (False, reports[1]) == (is_ready, body["unrecorded"])
    assert "unrecorded" not in ready({1: ProcessState(health=Health.OK)}, draining=False)[1]
