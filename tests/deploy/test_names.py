"""Settings, commands and files that deploy/ and the runbook name exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from hookseal.cli.commands import tree
from hookseal.config.names import KNOWN
from tests.deploy.files import (
    DEPLOY,
    ROOT,
    RUNBOOK,
    compose,
    container_environment,
    image,
    pods,
    unit_environment,
)

TEXTS = [file for file in sorted(DEPLOY.rglob("*")) if file.is_file() and "secrets" not in file.parts] + [RUNBOOK]
_SETTING = re.compile(r"\b(?:HOOKSEAL|SECRETS)_[A-Z_]+\b|\b(?:DATABASE|REDIS)_URL(?:_FILE)?\b")
_COMMAND = re.compile(r"(?:`|    |^|/)hookseal((?: [a-z][a-z-]*)+)", re.MULTILINE)


@pytest.mark.parametrize("file", TEXTS, ids=lambda file: file.name)
def test_every_named_setting_exists(file: Path) -> None:
    """Every named setting is known to hookseal, which would otherwise refuse to start."""
    assert set() == set(_SETTING.findall(file.read_text(encoding="utf-8"))) - KNOWN


def test_every_set_variable_is_read() -> None:
    """Every variable of a process of hookseal is a setting of hookseal or of Python."""
    environments = [image().environment, unit_environment(), *(container_environment(pod) for pod in pods())]
    services = (service for service in compose()["services"].values() if service["image"].startswith("hookseal:"))
    environments += [service["environment"] for service in services]
    names = {name for environment in environments for name in environment}

    assert set() == names - KNOWN - {"PATH", "PYTHONDONTWRITEBYTECODE"}


@pytest.mark.parametrize("file", [RUNBOOK, DEPLOY / "README.md"], ids=lambda file: file.name)
def test_every_written_command_exists(file: Path) -> None:
    """Every written command exists."""
    lines = _COMMAND.findall(file.read_text(encoding="utf-8"))

    assert lines
    assert [] == sorted({line.strip() for line in lines if not _is_there(line.split())})


@pytest.mark.parametrize("file", [RUNBOOK, DEPLOY / "README.md"], ids=lambda file: file.name)
def test_every_linked_file_exists(file: Path) -> None:
    """Every linked file exists."""
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", file.read_text(encoding="utf-8"))

    assert links
    assert [] == [link for link in links if not (file.parent / link).resolve().is_relative_to(ROOT)]
    assert [] == [link for link in links if not (file.parent / link).exists()]


def _is_there(words: list[str]) -> bool:
    command: Any = typer.main.get_command(tree(None))
    for word in words:
        command = command.commands.get(word)
        if not hasattr(command, "commands"):  # the words after a command are its arguments
            return command is not None
    return True
