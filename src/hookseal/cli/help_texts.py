"""The help of every command, from its docstring: the lines of a paragraph joined, for a terminal of any width."""

import inspect
from collections.abc import Callable

import typer


def join_lines(commands: typer.Typer) -> None:
    """Give every command and group below its docstring as help, one line for each paragraph."""
    for command in commands.registered_commands:
        command.help = _joined(command.callback)
    if commands.registered_callback is not None and inspect.getdoc(commands.registered_callback.callback):
        commands.registered_callback.help = _joined(commands.registered_callback.callback)
    for group in commands.registered_groups:
        if group.typer_instance is not None:
            join_lines(group.typer_instance)


def _joined(callback: Callable[..., object] | None) -> str | None:
    text = None if callback is None else inspect.getdoc(callback)
    return None if text is None else "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
