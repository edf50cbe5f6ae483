"""The dashboard for Grafana, deploy/grafana/hookseal.json: panels over the metrics of docs/metrics.md."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as Timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from hookseal.api.serving import METRICS as METRICS_OF_THE_API
from hookseal.worker.metrics.definitions import METRICS

_SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
_NAME: Final = re.compile(r"\bhookseal_\w+?(?=_(?:bucket|count)\b|\b)")
_OF_A_WORKER: Final = "and on (instance) hookseal_in_flight"
_WIDTH, _NARROW, _HEIGHT, _LOW = 8, 4, 8, 4


class Shown(NamedTuple):
    """A panel: its title, the unit as Grafana calls it, and the queries by their legends."""

    title: str
    unit: str
    queries: Mapping[str, str]


def _rate(selector: str, by: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({selector}[$__rate_interval]))"


def _quantile(share: float, histogram: str, labels: str) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({histogram}_bucket{labels}[$__rate_interval])))"


def _quantiles(histogram: str, labels: str = "") -> dict[str, str]:
    return {f"p{round(share * 100)}": _quantile(share, histogram, labels) for share in (0.5, 0.95, 0.99)}


def _by_statement(share: float) -> dict[str, str]:
    histogram = "hookseal_statement_seconds"
    return {each: _quantile(share, histogram, f'{{statement="{each}"}}') for each in ("claim", "record")}


# What answers at a glance whether somebody must act.
GLANCE: Final = (
    Shown("Oldest due", "s", {"age": "max(hookseal_oldest_due_seconds)"}),
    Shown("Due now", "short", {"deliveries": "max(hookseal_due)"}),
    Shown("Delivered", "reqps", {"a second": _rate('hookseal_attempts_total{outcome="delivered"}')}),
    Shown("Dead letters", "short", {"in this range": "sum(increase(hookseal_dead_letters_total[$__range]))"}),
    Shown("Workers", "short", {"live": "max(hookseal_workers_live)"}),
    Shown("Breakers open", "short", {"endpoints": "max(hookseal_breakers_open)"}),
)
ROWS: Final[Mapping[str, tuple[Shown, ...]]] = {
    "Deliveries": (
        Shown("Attempts by outcome", "reqps", {"{{outcome}}": _rate("hookseal_attempts_total", "outcome")}),
        Shown(
            "From publish to first attempt, if nothing held it",
            "s",
            _quantiles("hookseal_time_to_first_attempt_seconds", '{held="no"}'),
        ),
        Shown("Duration of requests", "s", _quantiles("hookseal_attempt_duration_seconds")),
        Shown("Held back, by reason", "short", {"{{waiting_for}}": "max by (waiting_for) (hookseal_waiting)"}),
        Shown("Held back for", "s", {"{{waiting_for}}": "max by (waiting_for) (hookseal_pending_oldest_seconds)"}),
        Shown("Times held back", "ops", {"{{waiting_for}}": _rate("hookseal_held_total", "waiting_for")}),
        Shown(
            "Age of the oldest",
            "s",
            {"due": "max(hookseal_oldest_due_seconds)", "unrecorded": "max(hookseal_oldest_unrecorded_seconds)"},
        ),
        Shown(
            "Ended undelivered",
            "ops",
            {
                "dead letters": _rate("hookseal_dead_letters_total"),
                "held too long": _rate("hookseal_held_too_long_total"),
            },
        ),
    ),
    "Tenants": (
        Shown("Pending", "short", {"{{tenant}}": "max by (tenant) (hookseal_tenant_pending)"}),
        Shown("Age of its oldest", "s", {"{{tenant}}": "max by (tenant) (hookseal_tenant_oldest_seconds)"}),
        Shown("All endpoints stopped for", "s", {"{{tenant}}": "max by (tenant) (hookseal_tenant_stopped_seconds)"}),
    ),
    "Endpoints": (
        Shown(
            "In trouble",
            "short",
            {
                "failing": "max(hookseal_endpoints_failing)",
                "breaker open": "max(hookseal_breakers_open)",
                "ordered, stopped": "max(hookseal_lines_stopped)",
            },
        ),
        Shown(
            "Breaker open for",
            "s",
            {"{{tenant}}, {{endpoint}}": "max by (tenant, endpoint) (hookseal_breaker_open_seconds)"},
        ),
        Shown("Failing for", "s", {"{{endpoint}}": "max by (endpoint) (hookseal_endpoint_failing_seconds)"}),
        Shown(
            "Crowded, disabled, breakers",
            "short",
            {
                "crowded": "max(hookseal_lanes_crowded)",
                "disabled": "sum(increase(hookseal_endpoints_disabled_total[$__rate_interval]))",
                "breakers opened": "sum(increase(hookseal_breakers_opened_total[$__rate_interval]))",
            },
        ),
    ),
    "Workers": (
        Shown("What limits them", "percentunit", {"{{by}}": _rate("hookseal_saturated_seconds_total", "by")}),
        Shown("Used of each limit", "percentunit", {"{{of}}": "max by (of) (hookseal_in_use / hookseal_limit)"}),
        Shown("Claims and records, p99", "s", _by_statement(0.99)),
        Shown(
            "Deliveries in a claim and a record",
            "short",
            {
                "{{statement}}": f"{_rate('hookseal_statement_rows_total', 'statement')} / "
                f"{_rate('hookseal_statement_seconds_count', 'statement')}"
            },
        ),
        Shown("Waits for a connection", "s", {"{{of}}": _rate("hookseal_connection_wait_seconds_total", "of")}),
        Shown(
            "In flight and unrecorded",
            "short",
            {"in flight, {{instance}}": "hookseal_in_flight", "unrecorded, {{instance}}": "hookseal_unrecorded"},
        ),
        Shown(
            "CPU",
            "percentunit",
            {"{{instance}}": f"rate(process_cpu_seconds_total[$__rate_interval]) {_OF_A_WORKER}"},
        ),
        Shown("Memory", "bytes", {"{{instance}}": f"process_resident_memory_bytes {_OF_A_WORKER}"}),
        Shown("Lateness of the event loop", "s", {"{{instance}}": "hookseal_loop_lag_seconds"}),
        Shown("Checks that pass", "short", {"{{check}}": "sum by (check) (hookseal_ready)"}),
        Shown(
            "Claims and records that failed",
            "ops",
            {
                "claims": _rate("hookseal_claims_failed_total"),
                "records": _rate("hookseal_records_failed_total"),
                "leases lost": _rate("hookseal_leases_lost_total"),
                "leases taken back": _rate("hookseal_leases_taken_back_total"),
                "given back": _rate("hookseal_given_back_total"),
                "exhausted": _rate("hookseal_exhausted_total"),
            },
        ),
    ),
    "Redis and housekeeping": (
        Shown(
            "Rings",
            "ops",
            {
                "by {{by}}": _rate("hookseal_rings_total", "by"),
                "dropped, {{reason}}": _rate("hookseal_rings_dropped_total", "reason"),
            },
        ),
        Shown("Time of Redis", "s", _quantiles("hookseal_redis_seconds")),
        Shown("Age of what the leader measured", "s", {"age": "max(hookseal_measured_age_seconds)"}),
        Shown("Rings in the queue", "short", {"rings": "max(hookseal_queue_depth)"}),
        Shown("Rows removed", "ops", {"{{table}}": _rate("hookseal_removed_total", "table")}),
        Shown("Retention is behind", "s", {"lag": "max(hookseal_retention_lag_seconds)"}),
        Shown(
            "Replays",
            "short",
            {"running": "max(hookseal_replays_running)", "a second": _rate("hookseal_replayed_total")},
        ),
    ),
    "Secrets": (
        Shown(
            "Secrets from the cache",
            "percentunit",
            {
                "share": f"{_rate('hookseal_secret_cache_hits_total')} / "
                f"({_rate('hookseal_secret_cache_hits_total')} + {_rate('hookseal_secret_cache_misses_total')})",
            },
        ),
        Shown("Secrets that could not be read", "ops", {"{{kind}}": _rate("hookseal_secret_failures_total", "kind")}),
        Shown(
            "Rotations",
            "short",
            {"overdue": "max(hookseal_rotations_overdue)", "failing": "max(hookseal_rotations_failing)"},
        ),
        Shown(
            "Sealed versions by key",
            "short",
            {"{{key_id}}, {{state}}": "max by (key_id, state) (hookseal_master_key_records)"},
        ),
        Shown("Age of the master key", "s", {"age": "max(hookseal_master_key_age_seconds)"}),
        Shown(
            "Refused rows",
            "short",
            {
                "stale rows found": "sum(increase(hookseal_stale_rows_found_total[$__rate_interval]))",
                "audit rows refused": "sum(increase(hookseal_audit_rows_refused_total[$__rate_interval]))",
                "plaintext": "max(hookseal_plaintext_rows)",
            },
        ),
    ),
    "HTTP API": (
        Shown("Calls", "reqps", {"{{call}}": _rate("hookseal_api_requests_total", "call")}),
        Shown("Duration of calls", "s", _quantiles("hookseal_api_request_seconds")),
    ),
}


def dashboard() -> str:
    """Return the dashboard as JSON, which Grafana imports. It asks for the source of data."""
    board = (
        Dashboard("hookseal")
        .uid("hookseal")
        .tags(["hookseal"])
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("browser")
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for shown in GLANCE:
        stat = Stat().title(shown.title).description(_description(shown)).unit(shown.unit).datasource(_SOURCE)
        board.with_panel(_with_queries(stat, shown).span(_NARROW).height(_LOW))
    for title, panels in ROWS.items():
        board.with_row(Row(title))
        for shown in panels:
            panel = Timeseries().title(shown.title).description(_description(shown)).unit(shown.unit).min(0)
            board.with_panel(_with_queries(panel.datasource(_SOURCE), shown).span(_WIDTH).height(_HEIGHT))
    return JSONEncoder(sort_keys=True, indent=1).encode(board.build()) + "\n"


def _with_queries(panel: "Stat | Timeseries", shown: Shown) -> "Stat | Timeseries":
    for name, (legend, query) in zip("ABCDEFGH", shown.queries.items(), strict=False):
        panel.with_target(Dataquery().expr(query).legend_format(legend).ref_id(name).datasource(_SOURCE))
    return panel


def _description(shown: Shown) -> str:
    """Return what docs/metrics.md says of the metrics of the panel."""
    names = dict.fromkeys(_NAME.findall(" ".join(shown.queries.values())))
    texts = {metric.name: metric.text for metric in (*METRICS, *METRICS_OF_THE_API)}
    return "\n\n".join(f"{name}: {texts[name]}" for name in names if name in texts)
