"""The tree of commands."""

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Final

import typer

from hookseal.cli.help_texts import join_lines
from hookseal.cli.output import HELP_OPTIONS, emit
from hookseal.ground.errors import Malformed
from hookseal.ground.version import VERSION

_EPILOG: Final = """\
First steps, with the settings of docs/settings.md in the environment:

1. hookseal db upgrade

2. hookseal key init

3. hookseal endpoint add --tenant acme --url URL --event-type '*'

4. hookseal worker

5. hookseal publish --tenant acme --event-type invoice.paid --data '{"id": 1}'

Every command knows --help, and --json, which prints exactly one JSON object.

Exit codes: 0 done, 1 the answer is no, 2 usage, 3 not found, 4 conflict,

5 refused, 69 something does not answer, 70 internal error, 78 settings,

130 interrupted.
"""

# A command or group each, in the order in which a newcomer needs them: its module's `app`, or the function of its name.
_NAMES: Final = (
    *("demo", "up", "db", "key", "endpoint", "worker", "check", "publish", "delivery", "verify", "listen"),
    *("secret", "migrate-secrets", "import-endpoints", "producer", "audit", "restore"),
)


def asked(arguments: Sequence[str]) -> str | None:
    """Return which branch of the tree is asked for: the one that is named first, `--version`, or all of them."""
    if "--version" in arguments and {"--version", "--json"}.issuperset(arguments):
        return "--version"
    first = next(iter(arguments), None)
    return first if first in _NAMES else None


def tree(branch: str | None) -> typer.Typer:
    """Return the tree of all commands; only the branch that is asked for, if it is one, and none for `--version`.

    A process runs one command, and a probe does so every few seconds: loading them all takes longer than most run.
    """
    found = typer.Typer(
        name="hookseal",
        help="Deliver webhooks, signed with secrets that are sealed, rotated and never in the clear.",
        epilog=_EPILOG,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings=HELP_OPTIONS,
    )
    found.callback(invoke_without_command=True)(_root)
    for name in _branches(branch):
        _grow(found, name)
    join_lines(found)
    return found


def _branches(branch: str | None) -> tuple[str, ...]:
    if branch == "--version":
        return ()
    return (branch,) if branch in _NAMES else _NAMES


def _grow(found: typer.Typer, name: str) -> None:
    word = name.replace("-", "_")
    module = import_module(f"hookseal.cli.{word}")
    if hasattr(module, "app"):
        found.add_typer(module.app, name=name)
    else:
        found.command()(getattr(module, word))


def _root(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", metavar="", help="Print the version.")] = False,
    as_json: Annotated[bool, typer.Option("--json", metavar="", hidden=True)] = False,
) -> None:
    if version:
        emit({"version": VERSION}, as_json=as_json, text=f"hookseal {VERSION}")
        raise typer.Exit
    if as_json:
        raise Malformed("put --json behind a command: `hookseal --help` lists them")
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)  # the rich help is printed by itself, and nothing is returned
