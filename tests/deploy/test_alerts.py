"""The alerts use existing metrics, each fires in a scenario, and each has a section in the runbook."""

import re
import shutil
import subprocess
from typing import Any

import pytest

from tests.deploy.files import ALERTS, RUNBOOK, RUNBOOK_OF_KEYS, SCENARIOS, alerts, documents
from tests.deploy.queries import require_known, require_rates, selectors

pytestmark = pytest.mark.req("OPS-05", part="alerts")


def _scenarios() -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = documents(SCENARIOS)[0]["tests"]
    return tests


def _texts() -> list[str]:
    series = [series["series"] for test in _scenarios() for series in test["input_series"]]
    return [rule["expr"] for rule in alerts()] + [text for text in series if text.startswith("hookseal_")]


def test_every_metric_and_label_exists() -> None:
    for text in _texts():
        require_known(text)


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_counters_are_used_as_rates(rule: dict[str, Any]) -> None:
    require_rates(rule["expr"])


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


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_each_section_has_the_same_parts(rule: dict[str, Any]) -> None:
    """Each section says what the alert means, what to look at, and what to do, in this order."""
    (section,) = re.findall(
        rf"^## {rule['alert']}\n(.*?)(?=^## |\Z)", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )

    assert ["Means", "Look", "Do"] == re.findall(r"^\*\*(Means|Look|Do)\b", section, re.MULTILINE)


def test_eight_alerts_are_the_starting_set() -> None:
    """Eight rules have the label by which a small team begins; the runbook lists these, in their order."""
    labelled = [rule["alert"] for rule in alerts() if "starting_set" in rule["labels"]]
    section = RUNBOOK.read_text(encoding="utf-8").partition("## Which alerts first\n")[2].partition("\n## ")[0]

    assert 8 == len(labelled)
    assert {"true"} == {rule["labels"].get("starting_set", "true") for rule in alerts()}
    assert labelled == re.findall(r"^\| \[(\w+)\]", section, re.MULTILINE)
    assert f"If {len(alerts())} rules are too many" in section.replace("\n", " ")


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
    watched = {name for rule in alerts() for name, _ in selectors(rule["expr"])}

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
    watched = {name for rule in alerts() for name, _ in selectors(rule["expr"])}

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


@pytest.mark.parametrize("words", [("check", "rules", ALERTS.name), ("test", "rules", SCENARIOS.name)])
def test_prometheus_accepts_the_rules_and_their_scenarios(words: tuple[str, ...]) -> None:
    """The rules are valid, and each scenario fires what it says, as Prometheus evaluates them."""
    if shutil.which("promtool") is None:
        pytest.skip("there is no promtool (Debian's package prometheus)")
    ended = subprocess.run(["promtool", *words], cwd=ALERTS.parent, capture_output=True, text=True, check=False)

    assert 0 == ended.returncode, ended.stdout + ended.stderr
