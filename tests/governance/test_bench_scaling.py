"""docs/scaling.md: the calculation, and the simulation that checks it."""

from dataclasses import replace

import pytest

from tests.governance.sample_runs import a_round, a_run, a_sample, a_soak
from tools.bench.plan import HOOKSEAL, ONE_PROCESS, TWO
from tools.bench.results import Row
from tools.bench.scaling import TARGETS, Costs, Fleet, checked, costs_of, days_kept, fleet, limits, load, page, simulate

SOAK = a_soak(a_sample(1, size_mb=15.0))  # of 6,000 deliveries
COSTS = Costs(
    worker_us=300.0,
    cold_us=0.0,
    postgresql_us=100.0,
    publish_postgresql_us=400.0,
    redis_us=20.0,
    publish_redis_us=20.0,
    wal_bytes=3_000.0,
    stored_bytes=2_500.0,
)

pytestmark = pytest.mark.req("OPS-07", part="first-form")


def test_costs_are_those_of_the_run() -> None:
    """CPU comes from 1,000 endpoints, the journal from the base case, the disk from the soak; all must be there."""
    rows = a_run().rows
    assert COSTS == costs_of(a_run(), SOAK)
    for scenario in ("base", "1000endpoints", "publish"):
        assert costs_of(replace(a_run(), rows=tuple(row for row in rows if row.scenario != scenario)), SOAK) is None


def test_the_cpu_is_that_of_many_places_if_they_were_measured() -> None:
    """Endpoints are at places of their own, with TLS; if every connection is cold, more processes are needed."""
    places = (
        Row(scenario=name, contender=HOOKSEAL, rounds=(a_round(per_second=2_000, worker_us=us, postgresql_us=90),))
        for name, us in (("places-1000-kept", 400), ("places-1000-cold", 1_200))
    )
    costs = costs_of(replace(a_run(), rows=(*a_run().rows, *places)), SOAK)

    assert costs is not None
    assert (400.0, 1_200.0, 90.0) == pytest.approx((costs.worker_us, costs.cold_us, costs.postgresql_us))
    assert (7, 20) == (fleet(costs, 10_000).processes, fleet(costs, 10_000).cold_processes)


def test_workers_cost_more_when_two_share_the_work() -> None:
    """The additional cost of a second process counts for every fleet."""
    one = Row(scenario="processes", contender=ONE_PROCESS, rounds=(a_round(per_second=2_000, worker_us=250),))
    two = Row(scenario="processes", contender=TWO, rounds=(a_round(per_second=3_000, worker_us=300),))
    costs = costs_of(replace(a_run(), rows=(*a_run().rows, one, two)), SOAK)

    assert costs is not None
    assert pytest.approx(360) == costs.worker_us


def test_the_lowest_limit_comes_first() -> None:
    """Each limit is the capacity, times the planned load, divided by the cost."""
    found = {limit.resource.split(":")[0]: limit.per_second for limit in limits(COSTS)}

    assert sorted(found.values()) == [limit.per_second for limit in limits(COSTS)]
    assert pytest.approx(0.6 * 64e6 / 500) == found["PostgreSQL, CPU"]
    assert pytest.approx(0.6 * 200e6 / 3_000) == found["PostgreSQL, journal"]
    assert pytest.approx(0.6 * 1e6 / 40) == found["Redis"]
    assert pytest.approx(16e12 / (2_500 * 86_400 * 30)) == found["PostgreSQL, disk"]


def test_a_fleet_is_as_large_as_its_rate_needs() -> None:
    """Processes by the worker's cost, servers by their lowest limit, queues by Redis."""
    assert Fleet(100_000, processes=50, cold_processes=1, servers=3, cores_each=28, queues=7) == fleet(COSTS, 100_000)
    assert pytest.approx(16e12 * 3 / (100_000 * 2_500 * 86_400)) == days_kept(COSTS, fleet(COSTS, 100_000))
    assert Fleet(100, processes=1, cold_processes=1, servers=1, cores_each=1, queues=1) == fleet(COSTS, 100)


@pytest.mark.parametrize("per_second", TARGETS)
def test_a_planned_fleet_handles_burst_and_outage(per_second: int) -> None:
    """The burst delays nothing for long, and the backlog of a two-minute outage is sent within five minutes."""
    hour = simulate(COSTS, fleet(COSTS, per_second))

    assert hour.left_waiting < 1
    assert 0 < hour.caught_up_seconds <= 300
    assert hour.most_waiting <= 121 * per_second


def test_a_small_fleet_leaves_deliveries_waiting() -> None:
    """With half of the needed processes, deliveries wait at the end, and the page would say so."""
    planned = fleet(COSTS, 10_000)
    hour = simulate(COSTS, planned._replace(processes=planned.processes // 3))

    assert hour.left_waiting > 1_000_000


def test_publishing_uses_postgresql_before_sending() -> None:
    """A server with cores for publishing only sends nothing."""
    starved = fleet(COSTS, 1_000)._replace(servers=1, cores_each=1)
    all_published = COSTS._replace(publish_postgresql_us=1_000.0)

    assert simulate(all_published, starved).left_waiting == pytest.approx(sum(n for n, _ in load(1_000)))


def test_the_model_is_compared_with_the_run() -> None:
    """A process uses at most one core, and all share the cores of the machine."""
    rates = [computed for _, _, computed in checked(a_run())]
    _, crowded = checked(replace(a_run(), machine=replace(a_run().machine, cpus=1)))

    assert pytest.approx([1e6 / 300, 1e6 / 300]) == rates
    assert pytest.approx(1e6 / 420) == crowded[2]


def test_a_resource_without_cost_is_no_limit() -> None:
    """A run too short to measure Redis does not divide by zero."""
    quiet = replace(
        a_run(),
        rows=tuple(replace(row, rounds=(a_round(per_second=9, worker_us=9),)) for row in a_run().rows),
    )

    assert "| none |" in page(quiet, SOAK)
