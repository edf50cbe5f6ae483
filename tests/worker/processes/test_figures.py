"""The figures of several processes, merged to those of one worker."""

import pytest

from hookseal.dispatcher.core.model import Outcome
from hookseal.worker.metrics import definitions
from hookseal.worker.metrics.counters import WorkerMeter
from hookseal.worker.metrics.definitions import METRICS
from hookseal.worker.metrics.runtime import RUNTIME, Aggregation, Ending, Kind, aggregations
from hookseal.worker.processes.health import families, lasting, merged, rendered, restart_counts
from hookseal.worker.processes.messages import Family
from tests.worker.figures import Figures, read


def of(meter: WorkerMeter) -> list[Family]:
    """Return the figures of a process as it sends them."""
    return families(meter.families(), aggregations((*METRICS, *RUNTIME)))


def figures_of(*parts: list[Family]) -> Figures:
    """Return what Prometheus reads from these figures, merged."""
    body, _ = rendered(merged(parts), "text/plain")
    return read(body.decode())


def meter(**readings: float) -> WorkerMeter:
    """Return the meter of one process with these values."""
    made = WorkerMeter()
    for name, value in readings.items():
        made.watch(getattr(definitions, name), lambda value=value: value)  # type: ignore[misc]
    return made


@pytest.mark.req("OPS-02", part="counted")
def test_counters_and_histograms_are_added_up() -> None:
    """Counters and histograms are summed over the processes, bucket by bucket, and no sample is lost."""
    one, other = WorkerMeter(), WorkerMeter()
    one.attempted(Outcome.DELIVERED, 0.2, first_after=None)
    one.attempted(Outcome.TIMEOUT, 6.0, first_after=None)
    other.attempted(Outcome.DELIVERED, 0.3, first_after=0.1)
    found = figures_of(of(one), of(other))

    assert (2.0, 1.0) == (found["hookseal_attempts_total", "delivered"], found["hookseal_attempts_total", "timeout"])
    duration = "hookseal_attempt_duration_seconds"
    assert [0.0, 1.0, 2.0, 3.0] == [found[f"{duration}_bucket", bound] for bound in ("0.1", "0.25", "0.5", "+Inf")]
    assert (3.0, 6.5) == (found[f"{duration}_count", None], found[f"{duration}_sum", None])
    assert figures_of(of(one)).keys() == found.keys()


def test_each_gauge_is_merged_by_its_rule() -> None:
    """In-flight requests are added up, the lag is the maximum, and a check passes only if all processes pass it."""
    one = meter(IN_FLIGHT=3, LOOP_LAG=0.5, QUEUE_DEPTH=7)
    other = meter(IN_FLIGHT=4, LOOP_LAG=0.1)
    one.watch(definitions.READY, lambda: {"redis": 1.0, "queue": 1.0})
    other.watch(definitions.READY, lambda: {"redis": 0.0, "queue": 1.0})
    found = figures_of(of(one), of(other))

    assert (7.0, 0.5) == (found["hookseal_in_flight", None], found["hookseal_loop_lag_seconds", None])
    assert (0.0, 1.0) == (found["hookseal_ready", "redis"], found["hookseal_ready", "queue"])
    assert 7.0 == found["hookseal_queue_depth", None]  # only the leader reports it
    assert 2.0 == found["hookseal_processes", None]


def test_the_leaders_figures_are_the_maximum() -> None:
    """A figure of the whole installation is the maximum, because two processes may report it while the lead moves."""
    of_the_installation = [metric for metric in METRICS if "Leader only." in metric.text]

    assert definitions.QUEUE_DEPTH in of_the_installation
    assert {Aggregation.MAX} == {metric.aggregation for metric in of_the_installation}
    assert {Aggregation.SUM} == {metric.aggregation for metric in METRICS if metric.kind is not Kind.GAUGE}


def test_counters_of_ended_processes_are_kept() -> None:
    dead, alive = meter(IN_FLIGHT=9), meter(IN_FLIGHT=1)
    dead.attempted(Outcome.DELIVERED, 0.2, first_after=None)
    alive.attempted(Outcome.DELIVERED, 0.2, first_after=None)
    found = figures_of(lasting(of(dead)), of(alive))

    assert (2.0, 1.0) == (found["hookseal_attempts_total", "delivered"], found["hookseal_in_flight", None])
    assert 1.0 == found["hookseal_processes", None]


def test_the_parent_counts_restarts() -> None:
    """The parent counts restarts; every process reports zeros for them."""
    found = figures_of(of(WorkerMeter()), [restart_counts({Ending.KILLED: 2})])

    name = "hookseal_process_restarts_total"
    assert (0.0, 2.0, 0.0) == tuple(found[name, ending] for ending in ("exited", "killed", "stuck"))


def without_values(text: str) -> list[str]:
    """Return the lines, those about Python and the process without their values, which change."""
    exact = ("#", "hookseal_")
    return [line if line.startswith(exact) else line.rpartition(" ")[0] for line in text.splitlines()]


def test_the_figures_of_one_process_are_unchanged() -> None:
    """For one process, both formats are byte for byte what that process would write."""
    one = meter(IN_FLIGHT=3)
    one.attempted(Outcome.DELIVERED, 0.2, first_after=1.0)
    for accept in ("text/plain", "application/openmetrics-text; version=1.0.0"):
        alone, expected_type = one.scrape(accept)
        body, content_type = rendered(merged([of(one)]), accept)
        assert (without_values(alone.decode()), expected_type) == (without_values(body.decode()), content_type)


@pytest.mark.parametrize("kind", ["text/plain", "application/openmetrics-text"])
def test_an_unreadable_version_gets_the_default_format(kind: str) -> None:
    """If `Accept` asks for a version that is no number, the answer has the format that needs no version."""
    accept = f"{kind}; version=x"

    for _, content_type in (meter().scrape(accept), rendered([], accept)):
        assert "text/plain; version=0.0.4; charset=utf-8" == content_type


def sample(name: str, value: float) -> Family:
    """Return a figure of one process as the library reports it."""
    (metric,) = (metric for metric in RUNTIME if metric.name == name)
    family = name.removesuffix("_total")
    return Family(
        name=family,
        kind=metric.kind,
        text=metric.text,
        aggregation=aggregations(RUNTIME)[family],
        samples=[(name, {}, value)],
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("process_cpu_seconds_total", 7.0),
        ("process_resident_memory_bytes", 7.0),
        ("process_open_fds", 4.0),
        ("process_max_fds", 3.0),
        ("process_start_time_seconds", 3.0),
    ],
)
def test_process_figures_are_added_up(name: str, expected: float) -> None:
    """CPU and memory are added up, descriptors are of the process closest to its limit, the start is the first."""
    found = figures_of([sample(name, 3.0)], [sample(name, 4.0)])

    assert {(name, None): expected} == found


def test_an_ended_process_keeps_its_cpu_and_not_its_memory() -> None:
    ended = [sample("process_cpu_seconds_total", 9.0), sample("process_resident_memory_bytes", 9.0)]
    found = figures_of(lasting(ended), [sample("process_cpu_seconds_total", 1.0)])

    assert {("process_cpu_seconds_total", None): 10.0} == found
