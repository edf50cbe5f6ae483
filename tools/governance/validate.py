"""`make validate` and `make docs`: check requirements, tests, records and generated pages against each other."""

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from hookseal.config.page import settings_page
from hookseal.dispatcher.outcome_page import outcomes_page
from hookseal.worker.metrics.page import metrics_page
from tools.bench import page as performance
from tools.bench import results, scaling_page
from tools.governance import evidence, history, page, providers_page, report, tree
from tools.governance.judge import problems
from tools.governance.report import Report
from tools.governance.requirements import Requirement, UnreadableRequirements, parse
from tools.soak import page as soak
from tools.soak import record

ROOT: Final = Path(__file__).resolve().parents[2]
REQUIREMENTS: Final = "docs/requirements.md"
MAY_SKIP: Final = "tests/may_skip.txt"

T = TypeVar("T")


class UnreadableRecordError(Exception):
    """The record of a page is missing or has another form. The text names the file and what to do."""


def _of_benchmark(name: str) -> str:
    return performance.pages(stored(results.RESULTS, lambda: results.read(ROOT), "make bench"))[name]


def _of_soak(name: str) -> str:
    return soak.pages(stored(record.RECORD, lambda: record.read(ROOT), record.COMMAND))[name]


def stored(file: str, read: Callable[[], T], command: str) -> T:
    """Return what `read` reads from this file. Raises `UnreadableRecordError`."""
    try:
        return read()
    except (*evidence.UNREADABLE, OSError) as error:
        raise UnreadableRecordError(f"{file} cannot be read: restore it with git, or run `{command}`") from error


FROM_SOURCE: Final[Mapping[str, Callable[[], str]]] = {
    "docs/metrics.md": metrics_page,
    "docs/outcomes.md": outcomes_page,
    "docs/settings.md": settings_page,
}

# `make bench` writes them, too; here they are written from its stored results, so that an edited page is found.
FROM_BENCHMARK: Final[Mapping[str, Callable[[], str]]] = {
    name: partial(_of_benchmark, name) for name in (performance.PAGE, scaling_page.PAGE)
}
FROM_SOAK: Final[Mapping[str, Callable[[], str]]] = {
    name: partial(_of_soak, name) for name in (soak.PAGE, soak.PICTURE)
}
PAGES: Final[Mapping[str, Callable[[], str]]] = {**FROM_SOURCE, **FROM_BENCHMARK, **FROM_SOAK}


def main(root: Path, arguments: list[str], from_source: Mapping[str, Callable[[], str]] = PAGES) -> int:
    """Return 0 if everything is proven, or the pages were written; 1 if something must be done, which is printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the generated pages instead of comparing them")
    is_writing = parser.parse_args(arguments).write
    try:
        pages = {name: render() for name, render in from_source.items()}
    except UnreadableRecordError as error:
        return _print_lines([str(error)])
    if is_writing:
        _write(root, pages)  # first, since they belong to the tree that the tests then run on
    try:
        requirements = parse((root / REQUIREMENTS).read_text(encoding="utf-8"))
    except UnreadableRequirements as error:
        return _print_lines([f"{REQUIREMENTS}: {line}: correct it" for line in str(error).splitlines()])
    run = _report_of(root)
    if run is None:
        return _print_lines(
            ["the test run wrote no report of this tree: fix what it printed above, then run this again"]
        )
    may_skip = may_skip_names((root / MAY_SKIP).read_text(encoding="utf-8"))
    records = evidence.read(root)
    _write(root, {page.LIST: page.render_list(requirements, run, may_skip, records)})
    of_run = {
        page.PAGE: page.render(requirements, run, may_skip, records),
        providers_page.PAGE: providers_page.render(root, run.cases),
    }
    pages |= of_run
    if is_writing:
        _write(root, of_run)
        return 0
    commits = (commit for record in records.values() if record is not None for commit in record.commits)
    unknown = history.unknown_commits(root, commits)
    found = [*problems(requirements, run, may_skip, records, unknown=unknown), *_stale(root, pages)]
    return _print_lines(found) if found else _summary(requirements, run)


def may_skip_names(text: str) -> frozenset[str]:
    """Return the tests that the file allows to be skipped: the first word of every line that is not a comment."""
    return frozenset(line.split()[0] for line in text.splitlines() if line.strip() and not line.startswith("#"))


def _report_of(root: Path) -> Report | None:
    """Return the report of the current tree, after running the tests if there is none."""
    identity = tree.identity(root)
    found = report.read(root / report.REPORT)
    if found is None or found.tree != identity:
        print("there is no report of a full test run of this tree: running `make test`", flush=True)
        subprocess.run(["make", "--no-print-directory", "test"], cwd=root, check=False)
        found = report.read(root / report.REPORT)
    return found if found is not None and found.tree == identity else None


def _write(root: Path, pages: Mapping[str, str]) -> None:
    for name, text in pages.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
        print(f"wrote {name}")


def _stale(root: Path, pages: Mapping[str, str]) -> list[str]:
    def is_stale(name: str) -> bool:
        return not (root / name).is_file() or (root / name).read_text(encoding="utf-8") != pages[name]

    return [f"{name} is stale: run `make docs` and commit it" for name in pages if is_stale(name)]


def _print_lines(lines: list[str]) -> int:
    for line in lines:
        print(f"validate: {line}", file=sys.stderr)
    print(f"validate: {len(lines)} to do", file=sys.stderr)
    return 1


def _summary(requirements: tuple[Requirement, ...], run: Report) -> int:
    counts = {status: sum(r.status is status for r in requirements) for status in {r.status for r in requirements}}
    by_status = ", ".join(f"{counts[status]} {status}" for status in sorted(counts))
    print(f"validate: {len(run.cases)} tests prove {len(requirements)} requirements ({by_status})")
    return 0


if __name__ == "__main__":
    sys.exit(main(ROOT, sys.argv[1:]))
