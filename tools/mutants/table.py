"""The table of mutants, `mutants.toml`, and its check against the repository."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TABLE: Final = Path(__file__).with_name("mutants.toml")
_FUNCTION: Final = re.compile(r"CREATE (?:OR REPLACE )?FUNCTION (hookseal\.\w+)\(")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change: in `file`, `old` becomes `new`. That breaks `law`, and every run of `tests` must fail."""

    name: str
    law: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def changed(self, text: str) -> str:
        """Return the text of the file after the change."""
        return text.replace(self.old, self.new)

    @property
    def test_files(self) -> tuple[str, ...]:
        """The files of its tests, in alphabetical order."""
        return tuple(sorted({test.partition("::")[0] for test in self.tests}))


def mutants(table: Path = TABLE) -> tuple[Mutant, ...]:
    """Return the mutants in the order of the table. Raises `TypeError` for a row with a missing or unknown field."""
    return parsed(table.read_text(encoding="utf-8"))


def parsed(text: str) -> tuple[Mutant, ...]:
    """Return the mutants of this text of a table. Raises as `mutants` does."""
    return tuple(Mutant(**{**row, "tests": tuple(row["tests"])}) for row in tomllib.loads(text)["mutant"])


def problems(found: Sequence[Mutant], root: Path) -> list[str]:
    """Return what is wrong in the table: texts that do not occur exactly once, tests that do not exist."""
    names = [mutant.name for mutant in found]
    twice = [f"{name}: the name is not unique" for name in sorted({name for name in names if names.count(name) > 1})]
    return twice + [f"{mutant.name}: {problem}" for mutant in found for problem in _of_one(mutant, root)]


def _of_one(mutant: Mutant, root: Path) -> Iterator[str]:
    path = root / mutant.file
    times = path.read_text(encoding="utf-8").count(mutant.old) if path.is_file() and mutant.old else 0
    if times != 1:
        yield f"its old text occurs {times} times in {mutant.file}: update the row"
    elif (later := _replaced_by(path, mutant.old)) is not None:
        yield f"{later} replaces the function: change it there"
    if mutant.old == mutant.new:
        yield "it changes nothing"
    if not mutant.tests:
        yield "it names no test"
    for test in mutant.tests:
        file, _, function = test.partition("::")
        text = (root / file).read_text(encoding="utf-8") if (root / file).is_file() else None
        if text is None or (function and not re.search(rf"^(async )?def {re.escape(function)}\(", text, re.MULTILINE)):
            yield f"the test {test} does not exist"


def _replaced_by(path: Path, old: str) -> str | None:
    """Return the later file of the schema that replaces the function around the text, if there is one."""
    before = path.read_text(encoding="utf-8").partition(old)[0]
    begun = list(_FUNCTION.finditer(before))
    if path.suffix != ".sql" or not begun or "$$;" in before[begun[-1].end() :]:
        return None
    name = begun[-1][1]
    later = [file for file in sorted(path.parent.glob("*.sql")) if file.name > path.name]
    return next((file.name for file in later if name in _FUNCTION.findall(file.read_text(encoding="utf-8"))), None)
