"""The record of a soak: its bounds, its page, and how claims are found in the log of PostgreSQL."""

from dataclasses import replace
from pathlib import Path

import pytest

from hookseal.postgres.statements import statements
from tests.governance.sample_runs import a_sample, a_soak
from tools import records, soak
from tools.soak import ClaimLog, Sample, durations, page, problems

ROOT = Path(__file__).resolve().parents[2]


FLAT = a_soak(*(a_sample(number) for number in range(1, 31)))


def test_a_flat_soak_meets_its_bounds() -> None:
    """A database and a worker that keep their size, and claims that keep their time, meet all bounds."""
    assert [] == problems(FLAT)
    assert (1.0, 1.0, 1.0) == (FLAT.growth, FLAT.slowdown, FLAT.memory_growth)
    assert 100.0 == FLAT.removed_per_second


@pytest.mark.parametrize(("missing", "is_reduced"), [(1_000, False), (1_001, True)])
def test_a_soak_that_ends_after_its_last_sample_is_whole(missing: int, is_reduced: bool) -> None:
    """Up to one interval between samples passes after the last one; what is delivered then is not missing."""
    last = replace(FLAT.last, delivered=soak.WHOLE - missing)
    assert is_reduced == ("reduced form" in page(a_soak(*FLAT.samples[:-1], last)))


def test_growth_before_the_first_removals_does_not_count() -> None:
    """The database grows until two retentions have passed, and that is no growth."""
    young = [a_sample(number, size_mb=10.0 * number, p99_ms=0.1, worker_mb=10.0) for number in range(1, 12)]
    assert [] == problems(a_soak(*young, *FLAT.samples[11:]))


def test_growth_and_slowness_are_missed() -> None:
    """A database or a worker that grows to the end, and claims that become slower, each miss their bound."""
    growing = a_soak(*(a_sample(number, size_mb=10.0 * number) for number in range(1, 31)))
    slower = a_soak(*(a_sample(number, p99_ms=5.0 if number < 20 else 8.0) for number in range(1, 31)))
    leaking = a_soak(*(a_sample(number, worker_mb=90.0 + number) for number in range(1, 31)))

    assert ["the worker's memory"] == [text[:19] for text in problems(leaking)]
    assert ["the database grew"] == [text[:17] for text in problems(growing)]
    assert ["the p99 of claims"] == [text[:17] for text in problems(slower)]


@pytest.mark.parametrize("samples", [(), FLAT.samples[:13]])
def test_a_short_soak_has_no_verdict(samples: tuple[Sample, ...]) -> None:
    """A soak that ended too early says so, in place of a verdict."""
    [text] = problems(a_soak(*samples))
    assert "give it more deliveries" in text


def test_an_interval_without_a_sampled_claim_does_not_count() -> None:
    """An interval in which no claim was sampled does not count as a fast one."""
    odd = [a_sample(number, claims=number % 2, p99_ms=5.0 * (number % 2)) for number in range(1, 31)]
    assert 1.0 == a_soak(*odd).slowdown


def test_the_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """A stored soak is the same when it is read."""
    records.write(tmp_path, {soak.RECORD: records.stored(FLAT)})
    assert FLAT == soak.read(tmp_path)


def test_the_published_page_is_written_from_the_record() -> None:
    """docs/proof/soak.md is what the stored record gives, and the record meets its bounds."""
    found = soak.read(ROOT)
    assert [] == problems(found)
    assert page(found) == (ROOT / soak.PAGE).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["claim_one", "claim_all"])
def test_only_claims_are_read_from_the_log(tmp_path: Path, name: str) -> None:
    """The durations of executed claims are read, each once, also if the log ends within a line."""
    claim = statements("hookseal.dispatcher.store", "batches.sql")[name]
    indented = claim.replace("\n", "\n\t")
    parking = statements("hookseal.dispatcher.store", "lanes.sql")["park"].replace("\n", "\n\t")
    lines = (
        f"LOG:  duration: 1.250 ms  execute __asyncpg_stmt_1__: {indented}\n"
        f"LOG:  duration: 9.000 ms  bind __asyncpg_stmt_1__: {indented}\n"
        "LOG:  duration: 8.000 ms  execute __asyncpg_stmt_2__: SELECT 1\n"
        f"LOG:  duration: 7.000 ms  execute __asyncpg_stmt_3__: {parking}\n"
    ).encode()
    assert [1.25] == durations(lines)

    log = tmp_path / "postgres.log"
    log.write_bytes(lines)
    reading = ClaimLog(log)
    with log.open("ab") as file:
        file.write(lines[: lines.index(b"\t")])
        file.flush()
        assert [] == reading.milliseconds()
        file.write(lines[lines.index(b"\t") :])
    assert [1.25] == reading.milliseconds()
    assert [] == reading.milliseconds()
