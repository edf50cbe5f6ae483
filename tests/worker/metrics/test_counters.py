"""Counters and other figures, as Prometheus reads them."""

import platform
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from hookseal.dispatcher.core.endpoint_settings import complete
from hookseal.dispatcher.core.model import Outcome, State, Verdict, WaitingFor
from hookseal.ground.version import VERSION
from hookseal.postgres.schema.revision import EXPECTED
from hookseal.queue.intake import DropReason
from hookseal.secrets.resolve.reader import Statistics
from hookseal.worker.metrics import definitions
from hookseal.worker.metrics.counters import WorkerMeter, watch_secrets
from hookseal.worker.metrics.definitions import METRICS, NAMES, RungBy
from hookseal.worker.metrics.runtime import RUNTIME, Kind
from tests.worker.figures import figures


@pytest.mark.req("OPS-02", part="counted")
def test_counters_begin_at_zero() -> None:
    """Every counter is zero for every value of its label from the start, so that each increase is visible."""
    expected = {
        (metric.name, value): 0.0
        for metric in METRICS
        if metric.kind is Kind.COUNTER
        for value in next(iter(metric.labels.values()), (None,))
    }
    found = figures(WorkerMeter())

    assert expected == {key: value for key, value in found.items() if key in expected}
    assert ("hookseal_attempts_total", "unknown") in expected
    assert [] == [name for name, _ in found if "created" in name]


@pytest.mark.req("OPS-02", part="counted")
def test_every_event_is_counted() -> None:
    meter = WorkerMeter()
    before = figures(meter)
    meter.held(WaitingFor.SECRET)
    meter.lease_lost()
    meter.took_back([State.PENDING, State.DEAD_LETTER, State.PENDING])
    meter.rang(RungBy.OUTBOX, 5)
    meter.rang(RungBy.SWEEP, 2)
    meter.ring_dropped(DropReason.NOT_DUE)
    meter.ring_dropped(DropReason.TOO_LARGE, 7)
    meter.claim_failed()
    meter.audit_refused()
    meter.decided(Verdict(state=State.PENDING, retry_in_seconds=30))
    meter.decided(Verdict(state=State.DEAD_LETTER))
    meter.decided(Verdict(state=State.FAILED, disable="the receiver answered 410 Gone"))
    after = figures(meter)

    assert {
        ("hookseal_held_total", "secret"): 1.0,
        ("hookseal_leases_lost_total", None): 1.0,
        ("hookseal_leases_taken_back_total", None): 3.0,
        ("hookseal_rings_total", "outbox"): 5.0,
        ("hookseal_rings_total", "sweep"): 2.0,
        ("hookseal_rings_dropped_total", "not_due"): 1.0,
        ("hookseal_rings_dropped_total", "too_large"): 7.0,
        ("hookseal_claims_failed_total", None): 1.0,
        ("hookseal_audit_rows_refused_total", None): 1.0,
        ("hookseal_dead_letters_total", None): 2.0,
        ("hookseal_endpoints_disabled_total", None): 1.0,
    } == {key: value - before[key] for key, value in after.items() if value != before[key]}


@pytest.mark.req("OPS-02", part="counted")
def test_attempts_are_counted_by_outcome() -> None:
    """Attempts are counted by outcome, and a duration belongs to the bucket of its upper bound."""
    meter = WorkerMeter()
    meter.attempted(Outcome.DELIVERED, 0.25, first_after=0.004)
    meter.attempted(Outcome.TIMEOUT, 21.0, first_after=None)
    meter.attempted(Outcome.DELIVERED, 0.25, first_after=100.0, was_held=True)
    found = figures(meter)

    assert (2.0, 1.0, 0.0) == tuple(
        found["hookseal_attempts_total", outcome] for outcome in ("delivered", "timeout", "unknown")
    )
    duration = "hookseal_attempt_duration_seconds"
    assert [0.0, 2.0, 2.0, 3.0] == [found[f"{duration}_bucket", bound] for bound in ("0.1", "0.25", "20.0", "+Inf")]
    assert (3.0, 21.5) == (found[f"{duration}_count", None], found[f"{duration}_sum", None])
    first = "hookseal_time_to_first_attempt_seconds"
    assert (1.0, 1.0) == (found[f"{first}_bucket", "no 0.005"], found[f"{first}_count", "no"])
    assert (0.0, 100.0) == (found[f"{first}_bucket", "yes 60.0"], found[f"{first}_sum", "yes"])


@pytest.mark.req("OPS-02", part="counted")
def test_no_bucket_ends_at_the_default_time_out() -> None:
    """What timed out by default, at a little more than five seconds, is in a bucket with little else."""
    default = complete({})["timeout_ms"] / 1000
    for metric in (definitions.ATTEMPT_DURATION, definitions.FIRST_ATTEMPT):
        below = max(bound for bound in metric.buckets if bound < default)
        above = min(bound for bound in metric.buckets if bound > default)
        assert default not in metric.buckets
        assert (0.9 * default, 1.1 * default) == pytest.approx((below, above))


def test_a_watched_figure_is_read_at_the_scrape() -> None:
    """A watched figure is read at the scrape and absent without a value; labels have only values of their set."""
    meter = WorkerMeter()
    reading: list[float | None] = [None]
    meter.watch(definitions.QUEUE_DEPTH, lambda: reading[0])
    meter.watch(definitions.WAITING, lambda: {"secret": 2.0, "acme": 9.0})
    records: dict[tuple[str, ...], float] = {("0" * 16, "active"): 7.0, ("0" * 16, "burnt"): 9.0}
    meter.watch(definitions.RECORDS, lambda: records)
    assert ("hookseal_queue_depth", None) not in figures(meter)
    reading[0] = 4.0
    found = figures(meter)

    assert 4.0 == found["hookseal_queue_depth", None]
    assert {("hookseal_master_key_records", f"{'0' * 16} active"): 7.0} == {
        key: value for key, value in found.items() if key[0] == "hookseal_master_key_records"
    }
    assert {("hookseal_waiting", name): 2.0 if name == "secret" else 0.0 for name in WaitingFor} == {
        key: value for key, value in found.items() if key[0] == "hookseal_waiting"
    }


@pytest.mark.req("OPS-02", part="secrets")
def test_secret_figures_equal_their_statistics() -> None:
    meter = WorkerMeter()
    statistics = Statistics(
        hits=1, misses=2, definitive_failures=3, transient_failures=4, evictions=5, clears=6, entries=7, bytes=8
    )
    watch_secrets(meter, lambda: statistics)
    found = figures(meter)

    assert [1, 2, 3, 4, 5, 7, 8] == [
        found[key]
        for key in (
            ("hookseal_secret_cache_hits_total", None),
            ("hookseal_secret_cache_misses_total", None),
            ("hookseal_secret_failures_total", "definitive"),
            ("hookseal_secret_failures_total", "transient"),
            ("hookseal_secret_cache_evictions_total", None),
            ("hookseal_secret_cache_entries", None),
            ("hookseal_secret_cache_bytes", None),
        )
    ]


def test_openmetrics_is_supported() -> None:
    """A request for OpenMetrics is answered in that format."""
    body, content_type = WorkerMeter().scrape("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert "hookseal_attempts" in [family.name for family in openmetrics(body.decode())]  # type: ignore[no-untyped-call]


@pytest.mark.req("OPS-02", part="counted")
def test_process_python_and_build_are_reported() -> None:
    """The standard metrics of the process and of Python exist under their usual names, and the build is reported."""
    families = list(WorkerMeter().families())
    named = {sample.name: sample for family in families for sample in family.samples}

    assert {metric.name: metric.kind for metric in RUNTIME} == {
        sample.name: family.type
        for family in families
        for sample in family.samples
        if not sample.name.startswith("hookseal_")
    }
    assert {"version": VERSION, "schema_revision": EXPECTED} == named["hookseal_build_info"].labels
    assert platform.python_version() == named["python_info"].labels["version"]
    assert 0 < named["process_resident_memory_bytes"].value
    labels = {metric.name: set(metric.labels) for metric in (*METRICS, *RUNTIME)}
    assert [] == [name for name, sample in named.items() if name in labels and set(sample.labels) != labels[name]]


def test_each_meter_counts_for_itself() -> None:
    """Nothing is registered in the library's global registry, and meters do not share counts."""
    shared = {sample.name for family in REGISTRY.collect() for sample in family.samples}
    one, other = WorkerMeter(), WorkerMeter()
    one.claim_failed()

    assert (1.0, 0.0) == tuple(figures(meter)["hookseal_claims_failed_total", None] for meter in (one, other))
    assert [] == [name for name in shared if name.startswith("hookseal_")]


def test_an_unknown_label_value_is_a_defect() -> None:
    """A label value outside its closed set is a defect."""
    unknown: Any = SimpleNamespace(value="acme")
    with pytest.raises(KeyError):
        WorkerMeter().held(unknown)


def test_only_bounded_metrics_name_tenants_and_endpoints() -> None:
    """Every metric has a name of its own; only those of the leader, which are bounded, name tenants or endpoints."""
    assert len(NAMES) == len(set(NAMES))
    assert [] == [name for name in NAMES if not name.startswith("hookseal_")]
    of_tenants = {"tenant", "tenant_id", "url", "endpoint"}
    assert {
        definitions.TENANT_PENDING.name,
        definitions.TENANT_OLDEST.name,
        definitions.TENANT_STOPPED.name,
        definitions.BREAKER_OPEN.name,
        definitions.ENDPOINT_FAILING.name,
    } == {metric.name for metric in METRICS if of_tenants & metric.labels.keys()}
    closed = [metric.labels for metric in METRICS if metric.kind is Kind.COUNTER]
    assert [] == [labels for labels in closed if len(labels) > 1 or not all(labels.values())]
