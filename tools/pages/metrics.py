"""The page of the metrics, written from their table."""

from typing import Final

from hookseal.api.serving import METRICS as METRICS_OF_THE_API
from hookseal.worker.metrics.definitions import (
    AUDIT_REFUSED,
    CACHE_HITS,
    CACHE_MISSES,
    FIRST_ATTEMPT,
    METRICS,
    SECRET_FAILURES,
    STALE_FOUND,
    FailureOf,
)
from hookseal.worker.metrics.runtime import RUNTIME, Metric

_READS: Final = (
    "## Where events of secrets are counted",
    "",
    "| event | metric | audit log |",
    "|---|---|---|",
    f"| a secret was read | `{CACHE_HITS.name}` or `{CACHE_MISSES.name}` | nothing |",
    f"| refused permanently | `{SECRET_FAILURES.name}`, `{FailureOf.DEFINITIVE}` | `secret.denied` by the minute (1) |",
    f"| the store did not answer | `{SECRET_FAILURES.name}`, `{FailureOf.TRANSIENT}` | nothing |",
    f"| a stale row was found | `{STALE_FOUND.name}` | `stale.found`, once for each |",
    f"| the audit log refused such a row | `{AUDIT_REFUSED.name}` | nothing: the worker logs it |",
    "| a secret was shown to an operator | none | `secret.revealed`, each time |",
    "",
    "(1) One row a minute for each worker and tenant: counts by code, first and last time, up to ten endpoints.",
    "",
)


def metrics_page() -> str:
    """Return the page `docs/metrics.md` in Markdown."""
    lines = [
        "# Metrics",
        "",
        "A worker answers `/metrics` on the port of its probes (`HOOKSEAL_HEALTH_HOST`, `HOOKSEAL_HEALTH_PORT`),",
        "within a second, also while PostgreSQL or Redis does not answer. No label contains a url. Metrics name at",
        "most `HOOKSEAL_METRICS_TENANTS` tenants at once, and with 0 none; they name endpoints by their ids, at most",
        'ten or as many. Only the leader measures a metric marked "leader only", once a sweep',
        "(`hookseal_measured_age_seconds` says how long ago); the metric is absent at all other workers: take the",
        "maximum over the workers.",
        "",
        "What hookseal owes is the time until the first attempt of what nothing held. It is late, and",
        "[HooksealFirstAttemptSlow](runbook.md#hooksealfirstattemptslow) fires, if that takes more than five seconds",
        "for one delivery in twenty. With the deliveries that their own endpoints held, this would say more about",
        "receivers than about hookseal:",
        "",
        "```",
        f'histogram_quantile(0.95, sum by (le) (rate({FIRST_ATTEMPT.name}_bucket{{held="no"}}[10m])))',
        "```",
        "",
        "With `--processes` the parent answers for all of its processes. It adds up counters and histograms, including",
        "those of processes that have ended, except for the last five seconds of a killed one. A gauge is the sum, the",
        "maximum or the minimum, as the table says; a process that does not answer in time is left out.",
        "",
        "| metric | kind | over processes | label | meaning |",
        "|---|---|---|---|---|",
        *map(_row, METRICS),
        "",
        "The metrics of the process and of Python are those that every client library of Prometheus has. With",
        "`--processes` they cover the parent and all of its processes.",
        "",
        "| metric | kind | over processes | label | meaning |",
        "|---|---|---|---|---|",
        *map(_row, RUNTIME),
        "",
        "`hookseal api` answers `/metrics` in the same way, with the metrics of its process and",
        "",
        "| metric | kind | over processes | label | meaning |",
        "|---|---|---|---|---|",
        *map(_row, METRICS_OF_THE_API),
        "",
        *_READS,
    ]
    return "\n".join(lines)


def _row(metric: Metric) -> str:
    return f"| `{metric.name}` | {metric.kind} | {metric.aggregation} | {_labels(metric)} | {metric.text} |"


def _labels(metric: Metric) -> str:
    return "; ".join(_label(*label) for label in metric.labels.items())


def _label(name: str, values: tuple[str, ...]) -> str:
    listed = ", ".join(f"`{value}`" for value in values)
    return f"`{name}`: {listed or 'as measured'}"
