"""The only reader of the environment, and of the files that it names in place of values."""

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from hookseal.config import names

_MAX_FILE_BYTES: Final = 16_384
_OF_PROCESS: Final = ("/dev/fd/", "/dev/std", "/proc/")  # such a name means another file in another process
_REQUIRED: Final = "it is required, so give it a value"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileText:
    """The content of a file, whether users other than the owner of this process may read it, and whether it lasts.

    A pipe or a descriptor of this process can be read only once.
    """

    text: str = field(repr=False)
    exposed: bool
    is_lasting: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The variables of hookseal with their values, and the problems of how they are set.

    `written_as` maps a variable to the other name by which it was set. `present` also has the empty variables.
    `files` has the path of each `NAME_FILE` that lasts. `unknown` has the names that are no settings, if the
    environment says that these are to be ignored; else each is a problem.
    """

    values: Mapping[str, str] = field(repr=False)
    written_as: Mapping[str, str]
    present: frozenset[str]
    exposed: frozenset[str]
    problems: tuple[str, ...]
    files: Mapping[str, str]
    unknown: tuple[str, ...] = ()


def read_file(path: str, *, again: bool = False) -> FileText:
    """Return the text of a small file without one trailing newline. Raises `OSError` or `ValueError`.

    At start it may be a pipe that the shell has made. If it is read `again`, it must be a regular file, so that this
    does not wait.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_NONBLOCK if again else 0)
    with open(os.open(path, flags), "rb") as file:  # noqa: PTH123 - the rights must be those of the file that is read
        mode = os.fstat(file.fileno())
        is_regular = stat.S_ISREG(mode.st_mode)
        if again and not is_regular:
            raise ValueError
        content = file.read(_MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES:
        raise ValueError
    text = content.decode("utf-8")
    text = text[: -2 if text.endswith("\r\n") else -1] if text.endswith("\n") else text
    return FileText(
        text=text,
        exposed=is_exposed(mode.st_mode, owner=mode.st_uid, reader=os.geteuid()),
        is_lasting=is_regular and not path.startswith(_OF_PROCESS),
    )


def is_exposed(mode: int, *, owner: int, reader: int) -> bool:
    """Return whether users other than the reader may read a file of this mode and owner."""
    # A process that is not root reads a secret that Kubernetes mounts by the right of its group, which is therefore
    # needed. For a file of its own it is not.
    return bool(mode & (stat.S_IRGRP | stat.S_IROTH if reader in {0, owner} else stat.S_IROTH))


def read_environment(
    environ: Mapping[str, str],
    read_file: Callable[[str], FileText] = read_file,
    *,
    required: frozenset[str] = frozenset(),
) -> Source:
    """Return the variables of hookseal, with each `NAME_FILE` read, and all problems of naming and reading.

    `required` names the variables of which a problem must not say that they may be removed.
    """
    values: dict[str, str] = {}
    problems: list[str] = []
    exposed: set[str] = set()
    files: dict[str, str] = {}
    ours = names.ours(environ) - names.overridden(environ)
    unknown = frozenset(name for name in ours if names.is_unknown(name, environ[name]))
    ignored = unknown if environ.get(names.UNKNOWN_SETTINGS, "").lower() == "warn" else frozenset()
    for name in sorted(ours - ignored):
        value = environ[name]
        naming_problems = _name_problem(name, value, environ)
        if naming_problems is not None:
            problems.extend(naming_problems)
        elif name in names.FROM_FILE and value:
            _read(name, value, read_file, into=(values, exposed, problems, files))
        else:
            values[name] = value
    for name in [name for name, value in values.items() if not value]:
        is_required = names.variable_set_by(name) in required
        problems.append(f"{name} is empty: {_REQUIRED if is_required else 'give it a value or remove it'}")
        del values[name]
    written_as = {names.variable_set_by(name): name for name in values if name in names.OTHER_NAMES}
    return Source(
        values={names.variable_set_by(name): value for name, value in values.items()},
        written_as=written_as,
        present=frozenset(map(names.variable_set_by, environ)),
        exposed=frozenset(map(names.variable_set_by, exposed)),
        problems=tuple(problems),
        files=files,
        unknown=tuple(map(_escaped, sorted(ignored))),
    )


def is_debugging(environ: Mapping[str, str] | None = None) -> bool:
    """Return whether the environment sets log level debug, known even if the settings cannot be loaded."""
    return (os.environ if environ is None else environ).get("HOOKSEAL_LOG_LEVEL", "").lower() == "debug"


def _name_problem(name: str, value: str, environ: Mapping[str, str]) -> list[str] | None:
    """Return the problems of the name, an empty list if the variable is to be ignored, None if it is to be read."""
    injected = names.looks_injected(name, value)
    if name in names.KNOWN and injected:
        return [f"{name} was set by Kubernetes for a service of that name: set enableServiceLinks to false"]
    if name in names.KNOWN:
        both = name in names.FROM_FILE and names.FROM_FILE[name] in environ
        return [f"{names.FROM_FILE[name]} and {name} are both set: remove one"] if both else None
    if not names.is_unknown(name, value):
        return []
    return [f"{_escaped(name)} is not a setting of hookseal{names.did_you_mean(name) or ': remove it'}"]


def _escaped(name: str) -> str:
    return ascii(name)[1:-1]


def _read(
    name: str,
    path: str,
    read_file: Callable[[str], FileText],
    *,
    into: tuple[dict[str, str], set[str], list[str], dict[str, str]],
) -> None:
    values, exposed, problems, files = into
    target = names.FROM_FILE[name]
    try:
        file = read_file(path)
    except (OSError, ValueError) as error:
        problems.append(f"{name} names a file that cannot be read ({type(error).__name__})")
        return
    if not file.text:
        problems.append(f"{name} names an empty file: write the value into it")
        return
    values[target] = file.text
    if file.is_lasting:
        files[name] = path
    if file.exposed:
        exposed.add(target)
