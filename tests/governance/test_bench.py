"""Medians, ratios, ranges and pages of a benchmark run; and the pages in docs/."""

import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from hookseal.config.variables import Variables
from tests.governance.sample_runs import ROUNDS, a_round, a_run, a_sample, a_soak
from tools import records, soak
from tools.bench import pages, plan, results
from tools.bench.bodies import order
from tools.bench.pages import performance
from tools.bench.plan import deliveries_for
from tools.bench.results import (
    BARS,
    RATE,
    Round,
    Row,
    headline,
    kept,
    postgresql_to_bare,
    ratio_of_cpu,
    ratio_of_rates,
    snapshot_to_none,
    spread,
    to_least_backlog,
)
from tools.bench.run import differing
from tools.harness import API, POSTGRESQL, REDIS, WORKER, Endpoints, Receiver
from tools.records import number, percentile

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.req("OPS-07", part="first-form")


def test_a_row_is_the_median_of_its_rounds() -> None:
    """Neither the best nor the worst round counts; a figure may be missing in some rounds."""
    row = Row(
        scenario="base",
        contender="hookseal",
        rounds=(
            a_round(per_second=100, worker_us=900),
            a_round(per_second=900, worker_us=300, p99_ms=4.0),
            a_round(per_second=300, worker_us=500, p99_ms=6.0),
        ),
    )

    assert pytest.approx(300) == row.per_second
    assert pytest.approx(500) == row.microseconds(WORKER)
    assert (5.0, None) == (row.figure("p99_ms"), row.figure("p50_ms"))


def test_a_ratio_is_that_of_rounds_that_ran_side_by_side() -> None:
    """Each round of hookseal is divided by the adjacent round of the other, so a slower machine changes nothing."""
    ours = Row(scenario="base", contender="a", rounds=tuple(a_round(per_second=r, worker_us=5) for r in (500, 50, 5)))
    theirs = Row(scenario="base", contender="b", rounds=tuple(a_round(per_second=r, worker_us=2) for r in (100, 10, 1)))

    assert pytest.approx(5.0) == ratio_of_rates(ours, theirs)
    assert pytest.approx(2.5) == ratio_of_cpu(ours, theirs)
    assert pytest.approx(2.5) == ratio_of_cpu(ours, theirs, (WORKER, POSTGRESQL))
    assert (None, None) == (ratio_of_rates(ours, None), ratio_of_cpu(None, theirs))
    assert ratio_of_cpu(ours, theirs, (REDIS,)) is None


def test_a_range_is_over_the_last_whole_runs() -> None:
    """The record keeps the last three under the same conditions; what a run did not measure has no part in a range."""
    run, name = a_run(), "hookseal, as installed"
    old = replace(headline(run), figures={})
    slower = replace(headline(run), figures={name: {"to stock arq": 1.5, RATE: 800.0}})
    earlier = replace(run, runs=(headline(replace(run, commit="gone")), old, slower))
    newest = kept(run, earlier)

    assert [old, slower, headline(run)] == list(newest.runs)
    assert (headline(run),) == kept(run, replace(earlier, conditions="without")).runs == kept(run, None).runs
    assert ("1.50x to 4.00x", "800 to 2,000") == (spread(newest, name, "to stock arq"), spread(newest, name, RATE))
    assert ("4.00x", "-") == (spread(run, name, "to stock arq"), spread(run, "no such row", RATE))
    assert "| hookseal, as installed | 800 to 2,000 | 1.50x to 4.00x | 0.50x | 1.50x |" in performance(newest)
    assert slower.commit[:12] in performance(newest)


def test_a_setting_that_differs_is_found() -> None:
    """Only what a new installation does not have is a condition; no secret and no path gets into the record."""
    environment = {
        "DATABASE_URL": "postgresql://user:password@host/name",
        "HOOKSEAL_CONCURRENCY": "500",
        "HOOKSEAL_ENDPOINT_CONCURRENCY": "33",
        "HOOKSEAL_LISTEN": "false",
        "HOOKSEAL_LOG_LEVEL": "info",
        "HOOKSEAL_EGRESS_CA_FILE": "/somewhere/authority.pem",
        "HOOKSEAL_EGRESS_PROXY": "http://user:password@host:1",
        "HOOKSEAL_UNHEARD_OF": "1",
        "HOME": "/somewhere",
    }
    hidden = {"HOOKSEAL_EGRESS_CA_FILE": "", "HOOKSEAL_EGRESS_PROXY": ""}
    assert {"HOOKSEAL_ENDPOINT_CONCURRENCY": "33", **hidden} == differing(environment)


@pytest.mark.parametrize("size", [64, 100, 512, 1_024, 8_192, 32_768, 262_144])
def test_a_body_is_an_order_of_that_size(size: int) -> None:
    """It is JSON with nested fields, always the same, and does not compress as one repeated letter does."""
    body = order(size)
    made = json.loads(body)

    assert size == len(body.encode("ascii"))
    assert body == order(size)
    assert len(zlib.compress(body.encode())) > size / 5
    assert size < 512 or (made["customer"]["address"]["city"] and made["items"][0]["amount"] > 0)


def case_named(name: str) -> plan.Case:
    """Return the case with that name."""
    return next(each for each in plan.CASES if each.name == name)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    """The median, the 99th percentile, and those of a single value."""
    assert (50, 99, 7) == (percentile(range(1, 101), 0.5), percentile(range(1, 101), 0.99), percentile([7], 0.99))
    assert 2 == percentile(range(1, 4), 0.5)


@pytest.mark.parametrize(("per_second", "expected"), [(10, 500), (400, 1_000), (1_230, 3_100), (1e6, 20_000)])
def test_a_round_fits_its_time(per_second: float, expected: int) -> None:
    """In hundreds, at the latest rate of the case, and within bounds for any rate."""
    rates = {("base-8kb", plan.STOCK): per_second, ("base", plan.STOCK): 2_000.0}
    assert expected == deliveries_for(plan.FULL, case_named("base-8kb"), plan.STOCK, rates)


def test_hookseal_is_as_installed_and_the_others_have_as_many_in_flight() -> None:
    """A case sets nothing for hookseal that its title does not name; to one endpoint all have the same in flight."""
    base, processes = case_named("base"), case_named("processes")

    assert all(f"HOOKSEAL_CONCURRENCY={case.ours}" in case.title for case in plan.CASES if case.ours is not None)
    assert {1} == {plan.for_contender(base, each).processes for each in base.contenders}
    assert [1, 2, 4] == [plan.for_contender(processes, each).processes for each in processes.contenders]
    assert (125, 125) == (base.most_in_flight, base.concurrency)
    assert (500, 500) == (case_named("slow-300").most_in_flight, case_named("slow-300").concurrency)
    assert Variables.model_fields["concurrency"].default == plan.DEFAULT_IN_FLIGHT
    assert Variables.model_fields["endpoint_concurrency_peak"].default == plan.PEAK


def test_every_case_is_in_a_part_and_has_a_name_of_its_own() -> None:
    """So no row of the record is of two cases, and a run without options measures each of them."""
    cases = (*plan.CASES, *plan.backlogs(plan.FULL))

    assert len(cases) == len({case.name for case in cases})
    assert plan.PARTS.keys() == {case.part for case in cases} | {"publishing", "api", "steady"} == set(plan.FULL.parts)
    assert {case.half_of for case in cases} - {""} <= {case.name for case in cases if plan.MEANWHILE in case.contenders}
    assert plan.AT_LEAST == plan.backlogs(plan.FULL)[0].name == plan.backlogs(plan.LONG)[0].name


def test_each_kind_of_endpoints_has_its_own_tenants_and_places() -> None:
    """Tenants of one kind are of no other; places of their own differ in host or port; one in ten fails if it is so."""
    kinds = {case.endpoints for case in plan.CASES}
    receiver = Receiver(ports=tuple(range(1, 102)), authority=ROOT, pid=0, session=None)  # type: ignore[arg-type]
    places = [urlsplit(url).netloc for url in Endpoints(tenants=100, each=100, secure=True, own=True).urls(receiver)]
    failing = Endpoints(tenants=10, each=10, failing=10)

    assert sum(len(kind.names) for kind in kinds) == len({name for kind in kinds for name in kind.names})
    assert 10_000 == len(set(places))
    assert (100, 90) == (failing.number, failing.answering)
    assert 10 == sum("/fail/" in url for url in failing.urls(receiver))
    assert 100 == len(set(failing.targets))
    assert (1, 2) == (failing.events(100), failing.events(101))


def test_a_run_is_read_back(tmp_path: Path) -> None:
    """Writing and reading lose nothing."""
    records.write(tmp_path, {results.RESULTS: records.stored(a_run())})

    assert a_run() == results.read(tmp_path)


def test_the_page_has_the_figures_of_its_run() -> None:
    """A row of the table has the rates, CPU and ratios of its rounds."""
    lines = performance(a_run()).splitlines()

    assert "| **hookseal** | 2,000 | 300 | 100 | 20.0 | 0 | 0.50 | 4.00 | 1.50 | 1 |" in lines
    assert "| PERF-01: rate to stock arq | >= 4.00x | 4.00x | met |" in lines
    assert "| PERF-01: rate to bare aiohttp | >= 0.50x | 0.50x | met |" in lines
    assert "| PERF-08: PostgreSQL to a bare request | <= 1.00x | 0.50x | met |" in lines
    assert "| PERF-12: kept beside the body | <= 1,000 bytes | 1,500 bytes | **missed** |" in lines
    assert "| PERF-04: CPU, two processes to one | <= 1.15x | - | - |" in lines


def test_latency_with_hung_requests_is_divided_by_that_without() -> None:
    """The target for hung requests divides the latency with them by that without."""
    rows = [
        Row(scenario="latency-20", contender=contender, rounds=(Round(figures={"p50_ms": 5.0, "p99_ms": p99}),))
        for contender, p99 in (("by ring", 10.0), ("by ring, 400 hung", 15.0))
    ]
    run = replace(a_run(), rows=tuple(rows), titles={"latency-20": "20/s"})

    assert "| PERF-03: p99 at 20/s, 400 hung to none | <= 2.00x | 1.50x | met |" in performance(run)


def test_a_bar_is_met_missed_or_not_measured() -> None:
    """A target is met at its limit, missed beyond it, and neither if it was not measured."""
    slow = replace(a_run(), rows=(Row(scenario="idle", contender="hookseal", rounds=ROUNDS["idle, busy"]),))

    assert "| PERF-02: idle, worker | <= 0.60 % CPU | 4.60 % CPU | **missed** |" in performance(slow)
    assert "**missed**" not in performance(replace(slow, is_quick=True)), "a quick run judges nothing"
    assert all(bar.is_met(bar.gate) for bar in BARS)
    assert not any(bar.is_met(bar.gate * (0.9 if bar.is_least else 1.1)) for bar in BARS)


def test_cpu_is_compared_with_that_of_bare_aiohttp() -> None:
    """PostgreSQL is compared with bare aiohttp's CPU; a backlog counts worker and PostgreSQL together."""
    backlogs = (
        Row(
            scenario="backlog-1000",
            contender="hookseal",
            rounds=(a_round(per_second=9, worker_us=300, postgresql_us=100),),
        ),
        Row(
            scenario="backlog-1000000",
            contender="hookseal",
            rounds=(a_round(per_second=9, worker_us=300, postgresql_us=200),),
        ),
    )

    assert pytest.approx(0.5) == postgresql_to_bare(a_run())
    ratio = to_least_backlog("backlog-1000000")
    assert pytest.approx(1.25) == ratio(replace(a_run(), rows=backlogs))
    assert (None, None) == (ratio(a_run()), postgresql_to_bare(replace(a_run(), rows=())))


def test_the_api_is_held_to_its_gates() -> None:
    """Its rate is compared with the adjacent round of the Publisher; of lists and of pages the slowest counts."""
    by_api = [
        Round(deliveries=1_000, seconds=seconds, cpu={API: 0.3}, figures={"p99_ms": 9.0, "resident_mb": 90.0})
        for seconds in (1.0, 2.0)
    ]
    by_tasks = [Round(deliveries=1_000, seconds=seconds) for seconds in (0.5, 1.0)]
    reads = {"endpoints": 10.0, "stored": 400.0, "message.list p99_ms": 60.0, "endpoint.list p99_ms": 5.0}
    reads |= {"message.list in vain p99_ms": 19.0, "endpoint.get_stats p99_ms": 21.0}
    reads |= {"endpoint.create p99_ms": 70.0, "page: overview p99_ms": 75.0, "page: search p99_ms": 85.0}
    rows = (
        Row(scenario="api", contender=plan.BY_API, rounds=tuple(by_api)),
        Row(scenario="api", contender=plan.BY_16_TASKS, rounds=tuple(by_tasks)),
        Row(scenario="api-50", contender=plan.HOOKSEAL, rounds=(Round(figures={"p50_ms": 2.0, "p99_ms": 5.0}),)),
        Row(scenario="api-slow", contender=plan.HOOKSEAL, rounds=(Round(figures={"api_cpu_percent": 0.5}),)),
        Row(scenario="api-reads", contender=plan.HOOKSEAL, rounds=(Round(figures=reads),)),
    )
    lines = performance(replace(a_run(), rows=rows)).splitlines()

    assert "| API-10: rate of messages to Publisher.publish in 16 tasks | >= 0.80x | 0.50x | **missed** |" in lines
    assert "| API-10: CPU of the API for a message | <= 450 us | 300 us | met |" in lines
    assert "| API-10: messages at 50/s, p99 | <= 15.0 ms | 5.00 ms | met |" in lines
    assert "| API-10: lists of large tables, slowest p99 | <= 50.0 ms | 60.0 ms | **missed** |" in lines
    assert "| API-10: lists in vain and stats, slowest p99 | <= 20.0 ms | 21.0 ms | **missed** |" in lines
    assert "| API-10: memory of the API | <= 120 MB | 90.0 MB | met |" in lines
    assert "| API-10: 400 slow clients, API | <= 2.00 % CPU | 0.50 % CPU | met |" in lines
    assert "| UI-07: pages of large tables, slowest p99 | <= 80.0 ms | 85.0 ms | **missed** |" in lines
    assert "| `endpoint.list`, p99, with 10.0 endpoints, and 400 deliveries to 20 of them | 5.00 ms |" in lines
    assert any(line.startswith(f"| {plan.BY_API} | 750 | 300 |") for line in lines)


def test_the_snapshot_is_judged_when_it_is_oldest() -> None:
    """What it costs grows, so the last rounds count, and not the median."""
    rows = tuple(
        Row(
            scenario=name,
            contender="hookseal",
            rounds=tuple(a_round(per_second=9, worker_us=300, postgresql_us=each) for each in us),
        )
        for name, us in (("backlog-1000", (100, 100, 100)), ("snapshot", (100, 110, 170)))
    )

    assert pytest.approx(1.7) == snapshot_to_none(replace(a_run(), rows=rows))
    assert None is snapshot_to_none(replace(a_run(), rows=rows[:1]))


def test_a_ratio_is_that_of_rounds_that_ran_one_after_the_other() -> None:
    """A round in a slow minute does not change the ratio to the contender that ran in the same minute."""
    ours = [a_round(per_second=9, worker_us=1, postgresql_us=each) for each in (40, 90, 100)]
    bare = [a_round(per_second=9, worker_us=each, postgresql_us=0) for each in (20, 90, 50)]
    rows = tuple(
        Row(scenario="base", contender=name, rounds=tuple(rounds))
        for name, rounds in ((plan.HOOKSEAL, ours), ("bare aiohttp", bare))
    )

    assert 2.0 == postgresql_to_bare(replace(a_run(), rows=rows))


def test_an_empty_run_makes_pages() -> None:
    """If everything failed, the pages still describe the run, and nothing divides by zero."""
    nothing = replace(a_run(), rows=(), left_out=())

    made = pages.pages(nothing, a_soak(a_sample(1)))
    assert {pages.PAGE, pages.SCALING} == made.keys()
    assert "nothing can be computed" in made[pages.SCALING]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (0.456, "0.46"), (12.34, "12.3"), (1234.5, "1,234"), (-3.21, "-3.21")],
)
def test_a_number_has_significant_digits(value: float | None, text: str) -> None:
    """Two decimals below ten, one below a hundred, none above; a dash if it was not measured."""
    assert text == number(value)


def test_the_pages_in_docs_are_of_the_stored_run() -> None:
    """Both pages are written from docs/proof/performance.json of a known commit, and from the stored soak."""
    run = results.read(ROOT)

    assert re.fullmatch(r"[0-9a-f]{40}", run.commit)
    assert {} == {
        name: "differs: run `make docs`"
        for name, text in pages.pages(run, soak.read(ROOT)).items()
        if text != (ROOT / name).read_text(encoding="utf-8")
    }


def test_every_contender_has_the_same_client_and_loop() -> None:
    """Each contender's lock pins the same aiohttp and uvloop as hookseal, all with hashes, and names no host."""
    pins = re.compile(r"^(aiohttp|uvloop)==\S+", re.MULTILINE)
    ours = {match[0] for match in pins.finditer((ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8"))}
    locks = {lock.stem: lock.read_text(encoding="utf-8") for lock in (ROOT / "requirements" / "bench").glob("*.txt")}

    assert {"pgqueuer", "procrastinate", "saq", "taskiq"} == set(locks)
    for text in locks.values():
        assert ours == {match[0] for match in pins.finditer(text)}
        assert "://" not in text
        packages = [line for line in text.splitlines() if re.match(r"[a-z0-9]", line)]
        assert all(line.endswith("\\") for line in packages)
