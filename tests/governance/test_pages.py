"""The pages of docs/ that are written from tables of the product: complete, and current."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from hookseal.config.names import KNOWN
from hookseal.config.urls import IGNORED, SSLMODE_ALIASES, SUPPORTED, UNSUPPORTED
from hookseal.dispatcher.core.model import Outcome
from hookseal.worker.metrics.definitions import METRICS
from hookseal.worker.metrics.runtime import RUNTIME
from tools import diagrams, outside
from tools.governance.evidence import read
from tools.governance.validate import FROM_RECORDS, FROM_SOURCE
from tools.pages import faults, logs
from tools.pages.logs import logs_page
from tools.pages.metrics import metrics_page
from tools.pages.outcomes import outcomes_page
from tools.pages.settings import settings_page

ROOT = Path(__file__).parents[2]
WORDS_A_MINUTE = 250


@pytest.mark.req("OPS-07", part="pages")
def test_the_page_of_faults_has_the_counts_of_the_records() -> None:
    """It is written from them, so a figure that was edited, or is of an older run, makes it stale."""
    record = read(ROOT)["DUR-03"]
    assert record is not None
    killed = record.counts["killed"]
    changed = replace(record, counts=record.counts | {"killed": killed | {"lost": 3}})

    of = ("faults", "deliveries", "lost", "requests", "duplicates", "unknown")
    row = " | ".join(f"{killed[each]:,}" for each in of)
    assert f"| kill -9 at any moment, and at each step under load | {row} |\n" in FROM_RECORDS[faults.PAGE]()
    assert "| 3 |" in faults.faults_page({"DUR-03": changed})


@pytest.mark.parametrize("name", FROM_SOURCE)
def test_the_page_is_current(name: str) -> None:
    """The page is what the tables of the product give now."""
    assert FROM_SOURCE[name]() == (ROOT / name).read_text(encoding="utf-8"), "run `make docs`"


def test_the_page_of_settings_has_every_variable_and_parameter() -> None:
    """Each variable is there, and each parameter that the url of PostgreSQL may have."""
    page = settings_page()
    parameters = (*SUPPORTED, *SSLMODE_ALIASES, *IGNORED, *UNSUPPORTED)
    assert [] == [name for name in (*KNOWN, *parameters) if f"`{name}" not in page]
    assert "| `SECRETS_MASTER_KEY` | required with `db`, or `SECRETS_MASTER_KEY_WRAPPED` |" in page


@pytest.mark.req("OPS-02", part="documented")
def test_the_page_of_metrics_has_every_metric() -> None:
    """Each metric has a row, with its kind and what it means."""
    page = metrics_page()
    for metric in (*METRICS, *RUNTIME):
        assert f"| `{metric.name}` | {metric.kind} | " in page
        assert metric.text in page


@pytest.mark.req("OPS-03", part="documented")
def test_the_page_of_logs_has_what_the_source_logs() -> None:
    """Each call of a logger is a row, with its levels and the fields that it names, builds or was bound to."""
    rows = {line.split(" | ")[0]: line.split(" | ")[1:3] for line in logs_page().splitlines() if line.count(" | ") == 4}

    assert ["warning", "`endpoint_id`, `outcome`, `tenant_id`"] == rows["| `endpoint.breaker_opened`"]
    assert "info, warning" == rows["| `delivery.attempted`"][0]
    assert {"`trace_id`", "`correlation_id`", "`outcome`"} <= set(rows["| `delivery.attempted`"][1].split(", "))
    assert "`exception`, `replay_id`, `tenant_id`" == rows["| `replay.defect`"][1], "bound before"
    assert "`exception`, `loop`, `reason`" == rows["| `engine.restarted`"][1], "returned by a function"
    assert "`health_url`, `processes`" == rows["| `worker.ready`"][1], "of a worker and of a parent"


@pytest.mark.req("OPS-03", part="documented")
@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('self._log.info("a.b", n=1)', "['a.b']"),
        ('structlog.get_logger().error("delivery.attempted", colour=1)', "['colour']"),
        ("log.info(name)", "the name of this log event cannot be read: name"),
        ('log.info("a.b", **given)', "these fields cannot be read: given"),
    ],
)
def test_no_log_event_is_left_out(source: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event or a field without a meaning, and one that cannot be read from the source, is refused by its name."""
    (tmp_path / "module.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(logs, "SOURCE", tmp_path)

    with pytest.raises(ValueError, match=re.escape(found)):
        logs_page()


@pytest.mark.req("DEL-05", part="each-delivery")
def test_the_page_of_outcomes_has_every_outcome_once() -> None:
    """Each outcome has one row of four cells: its name, when it applies, what follows, and what it means."""
    rows = [line.strip("| ").split(" | ") for line in outcomes_page().splitlines() if line.startswith("| `")]

    assert sorted(f"`{outcome}`" for outcome in Outcome) == sorted(row[0] for row in rows)
    assert {4} == {len([cell for cell in row if cell]) for row in rows}


@pytest.mark.req("UX-04", part="offline")
def test_each_diagram_is_drawn_of_its_text_and_shown() -> None:
    """Each picture is that of the text beside it, and some page shows it."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = {name for page in pages for name in re.findall(r"images/(\w+)\.svg\)", page.read_text(encoding="utf-8"))}

    assert [] == list(diagrams.stale()), "run `make docs-site`"
    assert shown == {source.stem for source in diagrams.FOLDER.glob("*.d2")}


@pytest.mark.req("UX-04", part="offline")
def test_a_page_that_asks_another_server_is_found() -> None:
    """What a browser loads by itself counts, at any other server; a link that a reader may follow does not."""
    loaded = (
        '<script src="https://cdn.example/a.js"></script>',
        '<link rel="stylesheet" href="//cdn.example/a.css">',
        '<img src="http://cdn.example/a.png">',
        '<img srcset="https://cdn.example/a.png 2x">',
        '<video poster="https://cdn.example/a.png"></video>',
    )
    for page in loaded:
        assert [re.findall(r'[("](\S*//[^"]*)', page)[-1]] == outside.addresses(page)
    for page in (
        '<a href="https://other.example">',
        '<link rel="canonical" href="https://own.example">',
        '<img src="a/b">',
    ):
        assert [] == outside.addresses(page)


@pytest.mark.req("UX-04", part="offline")
def test_no_picture_asks_another_server() -> None:
    """What an SVG holds is in it: no picture, font or style of another server."""
    for picture in diagrams.FOLDER.glob("*.svg"):
        text = picture.read_text(encoding="utf-8")
        assert [] == outside.addresses(text)
        assert [] == re.findall(r"url\([\"']?(?:https?:)?//|@import", text)


@pytest.mark.req("UX-04", part="reading")
def test_what_a_newcomer_reads_takes_less_than_an_hour() -> None:
    """The pages that docs/README.md names first have, code included, no more words than fit in its minutes."""
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    [first] = [part for part in text.split("\n## ") if part.startswith("Read these first\n")]
    entries = re.findall(r"^\d+\. .*?\]\(([\w/.]+)\).*? (\d+) minutes", first, re.MULTILINE)
    minutes = sum(int(each) for _, each in entries)
    words = sum(len((ROOT / "docs" / page).read_text(encoding="utf-8").split()) for page, _ in entries)

    assert 0 < len(entries) == len(re.findall(r"^\d+\. ", first, re.MULTILINE))
    assert words / WORDS_A_MINUTE < minutes < 60
