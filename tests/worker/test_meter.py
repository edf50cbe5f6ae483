"""What is counted, as Prometheus reads it."""

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from hookseal.dispatcher.model import Outcome, State, Verdict, WaitingFor
from hookseal.queue.intake import DropReason
from hookseal.secrets.reader import Statistics
from hookseal.worker import metrics
from hookseal.worker.meter import WorkerMeter, watch_secrets
from hookseal.worker.metrics import METRICS, NAMES, Kind, RungBy, metrics_page
from tests.worker.figures import figures


@pytest.mark.req("OPS-02", part="counted")
def test_counters_begin_at_zero() -> None:
    """Every counter stands at zero for every value of its label before anything happened: an increase is seen."""
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
    """Each thing that is told moves its own figure, and no other."""
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
def test_attempts() -> None:
    """Attempts are counted by outcome; durations fall into buckets that include their bound."""
    meter = WorkerMeter()
    meter.attempted(Outcome.DELIVERED, 0.25, first_after=0.004)
    meter.attempted(Outcome.TIMEOUT, 21.0, first_after=None)
    found = figures(meter)

    assert (1.0, 1.0, 0.0) == tuple(
        found["hookseal_attempts_total", outcome] for outcome in ("delivered", "timeout", "unknown")
    )
    duration = "hookseal_attempt_duration_seconds"
    assert [0.0, 1.0, 1.0, 2.0] == [found[f"{duration}_bucket", bound] for bound in ("0.1", "0.25", "20.0", "+Inf")]
    assert (2.0, 21.25) == (found[f"{duration}_count", None], found[f"{duration}_sum", None])
    first = "hookseal_time_to_first_attempt_seconds"
    assert (1.0, 1.0) == (found[f"{first}_bucket", "0.005"], found[f"{first}_count", None])


def test_what_is_read() -> None:
    """A figure that is read is as it is then, absent if there is none; a label has the values of its set only."""
    meter = WorkerMeter()
    reading: list[float | None] = [None]
    meter.watch(metrics.QUEUE_DEPTH, lambda: reading[0])
    meter.watch(metrics.WAITING, lambda: {"secret": 2.0, "acme": 9.0})
    records: dict[tuple[str, ...], float] = {("0" * 16, "active"): 7.0, ("0" * 16, "burnt"): 9.0}
    meter.watch(metrics.RECORDS, lambda: records)
    assert ("hookseal_queue_depth", None) not in figures(meter)
    reading[0] = 4.0
    found = figures(meter)

    assert 4.0 == found["hookseal_queue_depth", None]
    assert {("hookseal_master_key_records", f"{'0' * 16} active"): 7.0} == {
        key: value for key, value in found.items() if key[0] == "hookseal_master_key_records"
    }
    assert {("hookseal_waiting", "secret"): 2.0, ("hookseal_waiting", "endpoint_disabled"): 0.0} == {
        key: value for key, value in found.items() if key[0] == "hookseal_waiting"
    }


@pytest.mark.req("OPS-02", part="secrets")
def test_secrets() -> None:
    """What the cache and the store of secrets did is told as their own statistics say it."""
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


def test_openmetrics() -> None:
    """Whoever asks for OpenMetrics gets it, and can read it."""
    body, content_type = WorkerMeter().scrape("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert "hookseal_attempts" in [family.name for family in openmetrics(body.decode())]  # type: ignore[no-untyped-call]


@pytest.mark.req("OPS-02", part="documented")
def test_the_page_names_everything() -> None:
    """Every metric is on the page with its kind, its label and what it means; each name is there once."""
    page = metrics_page()
    assert [] == [metric.name for metric in METRICS if f"| `{metric.name}` | {metric.kind} | " not in page]
    assert [] == [metric.name for metric in METRICS if metric.text not in page]
    assert len(NAMES) == len(set(NAMES))
    assert [] == [name for name in NAMES if not name.startswith("hookseal_")]
    of_tenants = {"tenant", "tenant_id", "endpoint", "url"}
    assert [] == [metric.name for metric in METRICS if of_tenants & metric.labels.keys()]
    closed = [metric.labels for metric in METRICS if metric.kind is Kind.COUNTER]
    assert [] == [labels for labels in closed if len(labels) > 1 or not all(labels.values())]
