"""The source: the only reader of the environment, and of the files that it names in place of a value."""

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from hookseal.config import names

_MAX_FILE_BYTES: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class FileText:
    """What a file holds, and whether others than the owner of this process may read it."""

    text: str = field(repr=False)
    exposed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Our variables with their values, and what is wrong with how they are given.

    `spelled` says by which other name a variable was given.
    """

    values: Mapping[str, str] = field(repr=False)
    spelled: Mapping[str, str]
    named: frozenset[str]
    exposed: frozenset[str]
    problems: tuple[str, ...]


def read_file(path: str) -> FileText:
    """Return the text of a small file without one trailing newline. Raises `OSError` or `ValueError`."""
    with open(path, "rb") as file:  # noqa: PTH123 - the rights must be those of the file that is read
        mode = os.fstat(file.fileno())
        content = file.read(_MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES:
        raise ValueError
    text = content.decode("utf-8")
    text = text[: -2 if text.endswith("\r\n") else -1] if text.endswith("\n") else text
    return FileText(text=text, exposed=is_exposed(mode.st_mode, owner=mode.st_uid, reader=os.geteuid()))


def is_exposed(mode: int, *, owner: int, reader: int) -> bool:
    """Return whether others than its reader may read a file of this mode and owner."""
    # A file of somebody else can be read only through a right of the group: so do secrets that
    # Kubernetes mounts for a process that is not root. A file of our own needs no such right.
    return bool(mode & (stat.S_IRGRP | stat.S_IROTH if reader in {0, owner} else stat.S_IROTH))


def read_environment(environ: Mapping[str, str], read_file: Callable[[str], FileText] = read_file) -> Source:
    """Return our variables, `NAME_FILE` read, with all problems of naming and reading."""
    values: dict[str, str] = {}
    problems: list[str] = []
    exposed: set[str] = set()
    read = sorted(set(filter(names.is_claimed, environ)) - names.not_read(environ))
    for name in read:
        value = environ[name]
        found = _name_problem(name, value, environ)
        if found is not None:
            problems.extend(found)
        elif name in names.FROM_FILE and value:
            _read(name, value, read_file, into=(values, exposed, problems))
        else:
            values[name] = value
    for name in [name for name, value in values.items() if not value]:
        problems.append(f"{name} is empty: give it a value or remove it")
        del values[name]
    spelled = {names.read_as(name): name for name in values if name in names.IN_PLACE}
    return Source(
        values={names.read_as(name): value for name, value in values.items()},
        spelled=spelled,
        named=frozenset(map(names.read_as, environ)),
        exposed=frozenset(exposed),
        problems=tuple(problems),
    )


def is_debugging(environ: Mapping[str, str] | None = None) -> bool:
    """Return whether logs at debug level are asked for, known even when the settings cannot be loaded."""
    return (os.environ if environ is None else environ).get("HOOKSEAL_LOG_LEVEL") == "debug"


def _name_problem(name: str, value: str, environ: Mapping[str, str]) -> list[str] | None:
    """Return the problems that the name has already, none for what is to be passed over, None to go on."""
    injected = names.looks_injected(name, value)
    if name in names.OURS and injected:
        return [f"{name} was set by Kubernetes for a service of that name: set enableServiceLinks to false"]
    if name in names.OURS:
        both = name in names.FROM_FILE and names.FROM_FILE[name] in environ
        return [f"{names.FROM_FILE[name]} and {name} are both set: remove one"] if both else None
    if name in names.LATER:
        return [f"{name} is not in this version yet: remove it"]
    if injected and not names.is_near_ours(name):
        return []
    return [f"{ascii(name)[1:-1]} is no setting of hookseal{names.did_you_mean(name) or ': remove it'}"]


def _read(
    name: str, path: str, read_file: Callable[[str], FileText], *, into: tuple[dict[str, str], set[str], list[str]]
) -> None:
    values, exposed, problems = into
    target = names.FROM_FILE[name]
    try:
        file = read_file(path)
    except (OSError, ValueError) as error:
        problems.append(f"{name} names a file that cannot be read ({type(error).__name__})")
        return
    if not file.text:
        problems.append(f"{name} names an empty file")
        return
    values[target] = file.text
    if file.exposed:
        exposed.add(target)
