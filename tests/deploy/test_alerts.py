"""The alerts use existing metrics, each fires in a scenario, and each has a section in the runbook."""

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest

from hookseal.worker.metrics.definitions import METRICS
from hookseal.worker.metrics.runtime import Kind, Metric
from tests.deploy.files import RUNBOOK, RUNBOOK_OF_KEYS, SCENARIOS, alerts, documents

pytestmark = pytest.mark.req("OPS-05", part="alerts")

# A name, and the text in braces after it.
_SELECTOR = re.compile(r"\b(hookseal_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_PARTS_OF_A_HISTOGRAM = ("_bucket", "_count", "_sum")
_BY_PROMETHEUS = {"instance", "job", "le"}
_KNOWN_WHEN_MEASURED = re.compile(r"[0-9a-f]{16}|unregistered")


def _metric(name: str) -> Metric | None:
    for metric in METRICS:
        parts = _PARTS_OF_A_HISTOGRAM if metric.kind is Kind.HISTOGRAM else ("",)
        if name in {metric.name + part for part in parts}:
            return metric
    return None


def _selectors(text: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for name, braces in _SELECTOR.findall(text):
        yield name, _MATCHER.findall(braces)


def _scenarios() -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = documents(SCENARIOS)[0]["tests"]
    return tests


def _texts() -> list[str]:
    series = [series["series"] for test in _scenarios() for series in test["input_series"]]
    return [rule["expr"] for rule in alerts()] + [text for text in series if text.startswith("hookseal_")]


def test_every_metric_and_label_exists() -> None:
    """Every metric and label value exists, since an alert with a misspelled one would never fire."""
    selectors = [list(_selectors(text)) for text in _texts()]

    assert all(selectors)
    for name, matchers in chain.from_iterable(selectors):
        metric = _metric(name)
        assert metric is not None, name
        for label, value in matchers:
            if label not in _BY_PROMETHEUS:
                values = metric.labels[label]
                for each in value.split("|"):
                    assert each in values or (not values and _KNOWN_WHEN_MEASURED.fullmatch(each)), each


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_counters_are_used_as_rates(rule: dict[str, Any]) -> None:
    """A counter or histogram is used inside `rate` or `increase`, a gauge never."""
    bare = re.sub(r"\b(?:rate|increase)\([^)]*\)", "", rule["expr"])
    kinds = {name: metric.kind for name, _ in _selectors(rule["expr"]) if (metric := _metric(name)) is not None}
    outside = {name for name, _ in _selectors(bare)}

    assert {name for name, kind in kinds.items() if kind is Kind.GAUGE} == outside


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_names_who_must_act(rule: dict[str, Any]) -> None:
    """Each alert has a severity, a summary, a description that names who must act, and a runbook section."""
    annotations = rule["annotations"]

    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert annotations["summary"]
    assert re.search(r"\b(?:On call|Security|Support): \w", annotations["description"])
    assert f"docs/runbook.md#{rule['alert'].lower()}" == annotations["runbook_url"]
    assert re.fullmatch(r"\d+[mh]", rule["for"])


def test_each_alert_has_a_runbook_section() -> None:
    headings = re.findall(r"^## (\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)

    assert [rule["alert"] for rule in alerts()] == headings


def test_every_runbook_link_has_its_section() -> None:
    anchors = {
        page.name: {
            heading.lower().replace(" ", "-").replace(":", "").replace("?", "")
            for heading in re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        }
        for page in (RUNBOOK, RUNBOOK_OF_KEYS)
    }
    for page in (RUNBOOK, RUNBOOK_OF_KEYS):
        links = re.findall(r"\]\((runbook[\w-]*\.md)?#([^)]*)\)", page.read_text(encoding="utf-8"))
        assert links
        assert [] == [(name, link) for name, link in links if link not in anchors[name or page.name]]


@pytest.mark.req("OPS-11", part="secrets")
def test_each_problem_of_secrets_has_an_alert() -> None:
    """Secret failures, hit rate, rotations due and failed, plaintext, keys and the log each have an alert."""
    watched = {name for rule in alerts() for name, _ in _selectors(rule["expr"])}

    assert watched >= {
        "hookseal_secret_failures_total",
        "hookseal_secret_cache_hits_total",
        "hookseal_secret_cache_misses_total",
        "hookseal_rotations_overdue",
        "hookseal_rotations_failing",
        "hookseal_plaintext_rows",
        "hookseal_master_key_records",
        "hookseal_master_key_age_seconds",
        "hookseal_stale_rows_found_total",
        "hookseal_audit_rows_refused_total",
    }


def test_each_undelivered_end_has_an_alert() -> None:
    """Each way in which a delivery ends undelivered has an alert, since an operator must then replay it."""
    watched = {name for rule in alerts() for name, _ in _selectors(rule["expr"])}

    assert watched >= {
        "hookseal_dead_letters_total",
        "hookseal_endpoints_disabled_total",
        "hookseal_held_too_long_total",
    }


def test_every_alert_fires_in_a_scenario() -> None:
    """In `promtool test rules` each alert fires, and none fires without a fault."""
    expected = [
        sample["labels"]
        for test in _scenarios()
        for query in test["promql_expr_test"]
        for sample in query["exp_samples"]
    ]

    assert {rule["alert"] for rule in alerts()} == {re.findall(r'alertname="(\w+)"', text)[0] for text in expected}
    assert [] == _scenarios()[0]["promql_expr_test"][0]["exp_samples"]
