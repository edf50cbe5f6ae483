"""The figures that are quoted from whole runs, and their ranges over the last of them. Pure."""

from dataclasses import replace
from typing import Final

from tools.bench.plan import BARE, HOOKSEAL, STOCK, WIDE
from tools.bench.results import Headline, Row, Run, ratio_of_cpu, ratio_of_rates
from tools.bench.tables import NOT_MEASURED, number

KEPT: Final = 3  # whole runs
RATE: Final = "per second"
UNITS: Final = {RATE: "", "to stock arq": "x", "to bare aiohttp": "x", "worker CPU to bare": "x"}
# The rows of the first table, by what they are called there: case and contender.
ROWS: Final = {
    "hookseal, as installed": ("base", HOOKSEAL),
    "hookseal, `--concurrency 1000`": ("base", WIDE),
    "hookseal, as installed, 1,000 endpoints": ("1000endpoints", HOOKSEAL),
}


def headline(run: Run) -> Headline:
    """Return the headline of a run, with the figures that it measured."""
    found = {name: _figures(run, case, row) for name, (case, who) in ROWS.items() if (row := run.row(case, who))}
    return Headline(commit=run.commit, cpu=run.machine.cpu, python=run.machine.python, figures=found)


def kept(run: Run, earlier: tuple[Headline, ...]) -> Run:
    """Return a whole run with the headlines of the last whole runs, of which it is the newest."""
    return replace(run, runs=(*earlier, headline(run))[-KEPT:])


def over_runs(run: Run, row: str, figure: str) -> tuple[float, ...]:
    """Return that figure of each run that is kept and has it, or of this run if none is kept."""
    all_ = (each.figures.get(row, {}).get(figure) for each in run.runs or (headline(run),))
    return tuple(each for each in all_ if each is not None)


def spread(run: Run, row: str, figure: str) -> str:
    """Return the lowest and the highest of that figure, as a text; one of them if they look the same."""
    values = over_runs(run, row, figure)
    ends = dict.fromkeys(number(each(values), UNITS[figure]) for each in (min, max)) if values else {NOT_MEASURED: None}
    return " to ".join(ends)


def _figures(run: Run, case: str, row: Row) -> dict[str, float]:
    bare, stock = run.row(case, BARE), run.row(case, STOCK)
    found = {
        RATE: row.per_second,
        "to stock arq": ratio_of_rates(row, stock),
        "to bare aiohttp": ratio_of_rates(row, bare),
        "worker CPU to bare": ratio_of_cpu(row, bare),
    }
    return {name: value for name, value in found.items() if value is not None}
