"""The tree of commands."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any, Final, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import ParameterInfo

from hookseal.cli.shared.output import HELP_OPTIONS, emit
from hookseal.errors import Malformed
from hookseal.ground.version import VERSION

_EPILOG: Final = """\
To try it on this machine: hookseal up
First steps with servers of your own, which the environment names in
DATABASE_URL, REDIS_URL, SECRETS_PROVIDER and SECRETS_MASTER_KEY_FILE:
1. hookseal db upgrade
2. hookseal key init
3. hookseal endpoint add --tenant acme --url URL --event-type '*'
4. hookseal worker
5. hookseal publish --tenant acme --event-type invoice.paid --data '{"id": 1}'
Every command has --help and --json, which prints exactly one JSON object;
up, listen and audit export print one a line.
Exit codes: 0 done, 1 the answer is no or something is left to do, 2 usage,
3 not found, 4 conflict, 5 refused, 69 a server does not answer,
70 internal error, 78 wrong settings, 130 interrupted, 141 broken pipe.
"""

# Commands and groups by the panels of the help, in the order in which a new user needs them. A command is the function
# in the module of the same name. A group is the `app` of that module, or of the module `group` if it has a folder.
_PANELS: Final = {
    "Start": ("up", "demo", "db", "worker", "api", "check", "doctor"),
    "Deliver": ("publish", "event", "delivery", "replay", "status", "top", "find", "listen", "verify"),
    "Manage": ("endpoint", "tenant", "event-type", "producer", "token", "portal", "import-endpoints"),
    "Keys": ("key", "secret", "migrate-secrets"),
    "Audit": ("audit", "restore"),
}
_NAMES: Final = tuple(name for names in _PANELS.values() for name in names)
# Options that had another name before, which is not shown any more.
_FORMER: Final = {
    "timeout-ms": "timeout",
    "backoff-base-seconds": "backoff-base",
    "backoff-cap-seconds": "backoff-cap",
}
_FOLDERS: Final = frozenset({"endpoint", "secret"})
# What stands for the value of a parameter in the help, in examples and in advice: one name for one thing.
PLACEHOLDERS: Final = {
    "action": "ACTION",
    "algorithm": "ALGORITHM",
    "body_file": "FILE",
    "ca_file": "FILE",
    "channel": "CHANNEL",
    "client_cert": "FILE",
    "client_key": "FILE",
    "correlation_id": "CORRELATION_ID",
    "cursor": "CURSOR",
    "data": "JSON",
    "delivery": "DELIVERY_ID",
    "description": "TEXT",
    "endpoint": "ENDPOINT_ID",
    "event": "EVENT_ID",
    "event_id": "EVENT_ID",
    "event_type": "TYPE",
    "example": "JSON",
    "expect_generation": "N",
    "file": "FILE",
    "from_csv": "FILE",
    "from_export": "FILE",
    "head": "FILE",
    "headers_file": "FILE",
    "host": "HOST",
    "identifier": "ID",
    "key_file": "FILE",
    "key_id": "KEY_ID",
    "limit": "N",
    "name": "NAME",
    "port": "PORT",
    "raw_file": "FILE",
    "reason": "TEXT",
    "refresh_url": "URL",
    "replay": "REPLAY_ID",
    "retry_schedule": "WAITS",
    "role": "ROLE",
    "rotation_id": "ROTATION_ID",
    "scheme": "SCHEME",
    "scope": "SCOPE",
    "secret_file": "FILE",
    "secret_out": "FILE",
    "since": "TIME",
    "sort": "ORDER",
    "state": "STATE",
    "tenant": "TENANT",
    "uid": "UID",
    "until": "TIME",
    "url": "URL",
    "user": "NAME",
}


class _WithPlainFlags:
    """A command or group whose flags, also `--help`, show no type."""

    def get_params(self, ctx: Any) -> list[Any]:
        options: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # of what it is mixed into
        for option in options:
            if getattr(option, "is_flag", False):  # an argument has none
                option.metavar = ""
        return options


class _Command(_WithPlainFlags, TyperCommand):
    pass


class _Group(_WithPlainFlags, TyperGroup):
    pass


class _Root(_Group):
    """`hookseal` itself: its commands are in the order of the panels."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=_NAMES.index)


def join_lines(commands: typer.Typer) -> None:
    """Give every command and group its docstring as help, one line for each paragraph, and name the values."""
    commands.info.cls = _Group
    for command in commands.registered_commands:
        command.cls = _Command
        command.callback = _with_endpoint(command.callback)
        command.help = _joined(command.callback)
        _name_values(command.callback)
    if commands.registered_callback is not None and inspect.getdoc(commands.registered_callback.callback):
        commands.registered_callback.help = _joined(commands.registered_callback.callback)
    for group in commands.registered_groups:
        if group.typer_instance is not None:
            join_lines(group.typer_instance)


def _with_endpoint(callback: Callable[..., None] | None) -> Callable[..., None] | None:
    """Return the command; if it has the option `--endpoint`, that takes a uid, too."""
    if callback is None or "endpoint" not in inspect.signature(callback).parameters:
        return callback
    from hookseal.cli.context import with_endpoint  # noqa: PLC0415 -- a command without this option needs less

    return with_endpoint(callback)


def _name_values(callback: Callable[..., object] | None) -> None:
    """Give each option and argument its placeholder."""
    parameters = {} if callback is None else inspect.signature(callback).parameters
    for name, parameter in parameters.items():
        annotation = parameter.annotation
        details = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
        for option in details:
            if isinstance(option, ParameterInfo) and name in PLACEHOLDERS:
                option.metavar = PLACEHOLDERS[name]


def _joined(callback: Callable[..., object] | None) -> str | None:
    text = None if callback is None else inspect.getdoc(callback)
    return None if text is None else "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def requested_branch(arguments: Sequence[str]) -> str | None:
    """Return the command or group that the first argument names, or `--version`; None for the whole tree."""
    if "--version" in arguments and {"--version", "--json"}.issuperset(arguments):
        return "--version"
    first = next(iter(arguments), None)
    return first if first in _NAMES else None


def words_to_complete(environ: Mapping[str, str]) -> list[str] | None:
    """Return the words that a shell asks this process to complete, None if it was not started for that."""
    if "_HOOKSEAL_COMPLETE" not in environ:
        return None
    # bash sets the first; zsh, fish and PowerShell set the second.
    return (environ.get("COMP_WORDS") or environ.get("_TYPER_COMPLETE_ARGS") or "").split()[1:]


def tree(branch: str | None, *, completes: bool = False) -> typer.Typer:
    """Return the tree of commands: all of them, only the branch if it is one, or none for `--version`.

    A process runs one command, and a probe starts one every few seconds: to load all commands takes longer than most
    of them run. The whole tree has the options that install shell completion; `completes` adds the answer to the shell.
    """
    root = typer.Typer(
        name="hookseal",
        help="Deliver webhooks that are signed with secrets, which are kept encrypted in PostgreSQL.",
        epilog=_EPILOG,
        add_completion=branch is None or completes,
        pretty_exceptions_enable=False,
        context_settings=HELP_OPTIONS | {"token_normalize_func": lambda word: _FORMER.get(word, word)},
    )
    root.callback(invoke_without_command=True)(_root)
    for name in _branches(branch):
        _add(root, name)
    join_lines(root)
    root.info.cls = _Root
    return root


def _branches(branch: str | None) -> tuple[str, ...]:
    if branch == "--version":
        return ()
    return (branch,) if branch in _NAMES else _NAMES


def _add(root: typer.Typer, name: str) -> None:
    word = name.replace("-", "_")
    panel = next(panel for panel, names in _PANELS.items() if name in names)
    module = import_module(f"hookseal.cli.{word}.group" if name in _FOLDERS else f"hookseal.cli.{word}")
    if hasattr(module, "app"):
        root.add_typer(module.app, name=name, rich_help_panel=panel)
    else:
        root.command(rich_help_panel=panel)(getattr(module, word))


def _root(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    as_json: Annotated[bool, typer.Option("--json", hidden=True)] = False,
) -> None:
    if version:
        emit({"version": VERSION}, as_json=as_json, text=f"hookseal {VERSION}")
        raise typer.Exit
    if as_json:
        raise Malformed("put --json after a command: `hookseal --help` lists the commands")
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)  # rich prints the help itself, and returns nothing
