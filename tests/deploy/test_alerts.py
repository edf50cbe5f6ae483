"""The alerts: over what is measured, each with a scenario in which it fires and a page that says what to do."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from hookseal.worker.metrics import METRICS, Kind, Metric
from tests.deploy.files import RUNBOOK, SCENARIOS, alerts

pytestmark = pytest.mark.req("OPS-05", part="alerts")

# A name, and what stands in braces behind it.
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
    tests: list[dict[str, Any]] = yaml.safe_load(SCENARIOS.read_text(encoding="utf-8"))["tests"]
    return tests


def _texts() -> list[str]:
    series = [series["series"] for test in _scenarios() for series in test["input_series"]]
    return [rule["expr"] for rule in alerts()] + [text for text in series if text.startswith("hookseal_")]


@pytest.mark.parametrize("text", _texts())
def test_it_is_about_what_is_measured(text: str) -> None:
    """Every metric exists, and every label with that value: an alert over a misspelled one would never fire."""
    found = list(_selectors(text))

    assert found
    for name, matchers in found:
        metric = _metric(name)
        assert metric is not None, name
        for label, value in matchers:
            if label not in _BY_PROMETHEUS:
                assert metric.label == label, name
                assert value in metric.values or (not metric.values and _KNOWN_WHEN_MEASURED.fullmatch(value)), value


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_counters_are_looked_at_as_rates(rule: dict[str, Any]) -> None:
    """A counter or histogram stands inside of rate or increase, a gauge never does."""
    bare = re.sub(r"\b(?:rate|increase)\([^)]*\)", "", rule["expr"])
    kinds = {name: metric.kind for name, _ in _selectors(rule["expr"]) if (metric := _metric(name)) is not None}
    outside = {name for name, _ in _selectors(bare)}

    assert {name for name, kind in kinds.items() if kind is Kind.GAUGE} == outside


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_it_says_who_must_do_what(rule: dict[str, Any]) -> None:
    """Severity, a summary, a description that names who must act, and the section of the runbook."""
    annotations = rule["annotations"]

    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert annotations["summary"]
    assert re.search(r"\b(?:On call|Security|Support): \w", annotations["description"])
    assert f"docs/runbook.md#{rule['alert'].lower()}" == annotations["runbook_url"]
    assert re.fullmatch(r"\d+[mh]", rule["for"])


def test_the_runbook_has_a_section_for_each() -> None:
    """In the order of the alerts, once each, and none for what is no alert."""
    headings = re.findall(r"^## (\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)

    assert [rule["alert"] for rule in alerts()] == headings


def test_links_within_the_runbook_lead_somewhere() -> None:
    """Every anchor is that of a section."""
    text = RUNBOOK.read_text(encoding="utf-8")
    anchors = {heading.lower() for heading in re.findall(r"^## (\w+)$", text, re.MULTILINE)}

    assert set() == set(re.findall(r"\]\(#([^)]*)\)", text)) - anchors


def test_every_alert_fires_in_a_scenario() -> None:
    """`promtool test rules` sees each of them fire, and none of them in good health."""
    expected = [
        sample["labels"]
        for test in _scenarios()
        for query in test["promql_expr_test"]
        for sample in query["exp_samples"]
    ]

    assert {rule["alert"] for rule in alerts()} == {re.findall(r'alertname="(\w+)"', text)[0] for text in expected}
    assert [] == _scenarios()[0]["promql_expr_test"][0]["exp_samples"]
