"""The record of the mutants: by which test each was killed, and of which files that was true.

`make mutants ARGS=--record` writes it after each mutant, and tries only those that it has no kill of as they are now.
So a run that was interrupted goes on, and after a change only what may have changed is tried again.
"""

import hashlib
import json
import os
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from tools import records
from tools.mutants.table import Mutant, parsed
from tools.mutants.trial import Trial, Verdict

RECORD: Final = "docs/proof/mutants.json"
PAGE: Final = "docs/proof/mutants.md"
COMMAND: Final = "make mutants ARGS=--record"
_TABLE: Final = "tools/mutants/mutants.toml"
_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """The last trial of a mutant, in a clean tree of `commit`.

    `digest` is that of its change, its file and the files of its tests, as the commit has them. `killed_by` is the test
    that failed first, and None if the mutant survived. `seconds` is what the run of its tests took.
    """

    name: str
    file: str
    law: str
    verdict: Verdict
    killed_by: str | None
    seconds: float
    commit: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The last trial of each mutant that was tried, in the order of the table.

    At the last trial the table had `in_table` rows, and `cpu`, `cpus` and `python` are those of that trial.
    """

    in_table: int = 0  # unknown
    cpu: str
    cpus: int
    python: str
    tried: tuple[Tried, ...]

    @property
    def by_name(self) -> dict[str, Tried]:
        """The trials by the names of their mutants."""
        return {each.name: each for each in self.tried}


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The table of a commit, by name, and git's digest of each of its files."""

    table: Mapping[str, Mutant]
    blobs: Mapping[str, str]

    def digest(self, name: str) -> str | None:
        """Return the digest of what the result of that mutant depends on most; None if the table does not have it.

        It depends on other files as well, for instance on all that its tests import.
        """
        mutant = self.table.get(name)
        if mutant is None:
            return None
        files = [[file, self.blobs.get(file)] for file in (mutant.file, *mutant.test_files)]
        change = [mutant.old, mutant.new, *mutant.tests]
        return hashlib.sha256(json.dumps([change, files]).encode()).hexdigest()


def snapshot(root: Path, commit: str) -> Snapshot | None:
    """Return the snapshot of that commit, or None if git does not know it, or it has no table."""
    blobs = records.blobs_of(root, commit)
    if blobs is None or _TABLE not in blobs:
        return None
    table = parsed(records.text_of(root, blobs[_TABLE]))
    return Snapshot(table={mutant.name: mutant for mutant in table}, blobs=blobs)


def read(root: Path) -> Record:
    """Return the stored record. Raises `FileNotFoundError`, and `msgspec.DecodeError` for a file of another form."""
    return msgspec.json.decode((root / RECORD).read_bytes(), type=Record)


class Keeper:
    """The stored record of a clean tree, which gets each new trial at once."""

    def __init__(self, root: Path) -> None:
        """Read the record, if there is one. Raises `ValueError` if the tree is none of a commit."""
        now = snapshot(root, "HEAD")
        if now is None or records.is_dirty(root):
            raise ValueError("a record is of a commit: commit the changes of this tree, then run this again")
        self._root, self._now, self._commit = root, now, records.commit_of(root)
        self._tried = read(root).by_name if (root / RECORD).is_file() else {}

    def is_known(self, mutant: Mutant) -> bool:
        """Return whether the record has a kill of that mutant as it is now."""
        return is_known(mutant.name, self._tried, self._now)

    def keep(self, trial: Trial) -> None:
        """Store what that trial showed: nothing if no test ran to a failure. The laws are those of the table now."""
        mutant, digest = trial.mutant, self._now.digest(trial.mutant.name)
        if trial.ended.verdict is Verdict.BROKEN or digest is None:
            return
        self._tried[mutant.name] = Tried(
            name=mutant.name,
            file=mutant.file,
            law=mutant.law,
            verdict=trial.ended.verdict,
            killed_by=trial.ended.killed_by,
            seconds=round(trial.seconds, 1),
            commit=self._commit,
            digest=digest,
        )
        kept = Record(
            in_table=len(self._now.table),
            cpu=records.cpu_model(),
            cpus=os.cpu_count() or 0,
            python=platform.python_version(),
            tried=tuple(
                replace(self._tried[name], law=now.law) for name, now in self._now.table.items() if name in self._tried
            ),
        )
        for name, text in {RECORD: records.stored(kept), PAGE: page(kept)}.items():
            (self._root / name).write_text(text, encoding="utf-8")


def is_known(name: str, tried: Mapping[str, Tried], now: Snapshot) -> bool:
    """Return whether these trials have a kill of that mutant as it is now."""
    last = tried.get(name)
    return last is not None and last.verdict is Verdict.KILLED and last.digest == now.digest(name)


def problems(record: Record, of_commits: Mapping[str, Snapshot | None]) -> Iterator[str]:
    """Yield what is wrong with the record: survivors, and trials that no run of their commit can have written."""
    for each in record.tried:
        of = of_commits[each.commit]
        if each.verdict is not Verdict.KILLED:
            yield f"{each.name} survived: write a test that notices: {each.law}; then run `{COMMAND}`"
        elif each.killed_by is None or not each.seconds > 0:
            yield f"{each.name} was killed by no test: run `{COMMAND}`"
        if of is not None and of.digest(each.name) != each.digest:
            yield f"{each.name}: its digest is not that of its commit: run `{COMMAND}`"


def changes(record: Record, now: Snapshot) -> str | None:
    """Return which mutants of the table have no kill on record as they are now; None if all have one."""
    left = [name for name in now.table if not is_known(name, record.by_name, now)]
    if not left:
        return None
    named = ", ".join(left[:_MOST_NAMED]) + (f" and {len(left) - _MOST_NAMED} more" if left[_MOST_NAMED:] else "")
    return f"{len(left)} of {len(now.table)} mutants were not tried as they are now: {named}"


def page(record: Record) -> str:
    """Return docs/proof/mutants.md. The same record gives the same page."""
    rooms = [
        (room, str(len(of)), str(sum(each.verdict is Verdict.KILLED for each in of)), f"{median(_seconds(of)):.1f}")
        for room, of in _by_room(record.tried)
    ]
    killed = sum(each.verdict is Verdict.KILLED for each in record.tried)
    commits = Counter(each.commit for each in record.tried)
    at = ", ".join(f"{number:,} tried at commit {commit[:12]}" for commit, number in commits.items())
    minutes = sum(_seconds(record.tried)) / 60
    lists = [
        line
        for file, of in groupby(sorted(record.tried, key=lambda each: each.file), key=lambda each: each.file)
        for line in ("", f"### `{file}`", "", *map(_line, of))
    ]
    return f"""\
# Mutants

Written by `{COMMAND}` from its record, `{RECORD}`. Do not edit it.

A mutant is a small change of the source that breaks a rule. Each stands in `{_TABLE}`, with the rule and
the tests that must notice it. The run makes one change at a time in a copy of the tree, and runs these tests up to the
first that fails. They have passed without the change before.

**{killed:,} of the {record.in_table:,} mutants of the table are known to be killed.** {at}, in
{minutes:,.0f} minutes of tests. {record.cpu}, {record.cpus} CPUs, Python {record.python}.

A mutant is tried again when its row, its file or the files of its tests have changed. `make validate-evidence` names
those that were not tried as they are now. Another change can also make a test blind: to try all, delete the record.

{records.table(("part", "mutants", "killed", "seconds, median"), rooms)}

## Each mutant
{chr(10).join(lists)}
"""


def _by_room(trials: Sequence[Tried]) -> list[tuple[str, list[Tried]]]:
    rooms: dict[str, list[Tried]] = {}
    for each in trials:
        rooms.setdefault(Path(each.file.removeprefix(f"{records.SOURCE}/")).parts[0], []).append(each)
    return sorted(rooms.items())


def _seconds(trials: Sequence[Tried]) -> list[float]:
    return [each.seconds for each in trials]


def _line(each: Tried) -> str:
    by = "**survived**" if each.killed_by is None else f"killed by `{each.killed_by}`"
    return f"- `{each.name}`: {each.law}; {by} in {each.seconds:g} s"
