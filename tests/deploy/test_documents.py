"""What deploy/ and the documents name exists, and no documented command prints a secret to a log."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer

from hookseal.cli.commands import tree
from hookseal.config.names import KNOWN
from tests.deploy.files import (
    DEPLOY,
    ROOT,
    RUNBOOK,
    compose,
    container,
    container_environment,
    image,
    pods,
    resources,
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
    lines = _COMMAND.findall(file.read_text(encoding="utf-8"))

    assert lines
    assert [] == sorted({line.strip() for line in lines if not _is_there(line.split())})


@pytest.mark.parametrize("file", [RUNBOOK, DEPLOY / "README.md"], ids=lambda file: file.name)
def test_every_linked_file_exists(file: Path) -> None:
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


# No documented command prints a secret to a log: the output is a terminal or a file.


DOCUMENTS: Final = sorted({ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *DEPLOY.rglob("*.md")})
GIVES_OUT: Final = re.compile(r"\b(?:endpoint (?:add|rotate)|secret reveal)\b")
CONTAINED: Final = re.compile(r"\b(?:docker|kubectl|podman)\b")
FENCE: Final = "```"


def commands(text: str) -> Iterator[str]:
    """Yield every command in the code blocks, with its lines joined."""
    is_fenced, block = False, []
    for line in text.splitlines():
        is_fenced ^= line.lstrip().startswith(FENCE)
        block.append(line if is_fenced or line.startswith("    ") else "")
    joined = "\n".join(block).replace("\\\n", " ")
    yield from (line.strip() for line in joined.splitlines() if line.strip())


def arguments(manifest: Any) -> Iterator[list[str]]:
    for job in manifest:
        found = container(job["spec"]["template"])
        yield [*found.get("command", []), *found.get("args", [])]


def is_safe(command: str) -> bool:
    """Return whether the command outputs a secret only to a terminal or a file."""
    if not GIVES_OUT.search(command):
        return True
    if "--secret-out" in command or "--secret-file" in command:
        return "--print-secret" not in command
    has_terminal = (
        re.search(r"kubectl exec -it\b", command) is not None
        or (
            re.search(r"docker compose run\b", command) is not None and not re.search(r"run .*(-T|--no-TTY)\b", command)
        )
        or not CONTAINED.search(command)
    )
    return has_terminal and "--print-secret" not in command and "|" not in command and ">" not in command


@pytest.mark.parametrize(
    ("command", "safe"),
    [
        ("hookseal endpoint add --tenant acme", True),
        ("hookseal endpoint list > file", True),
        ("hookseal endpoint rotate --tenant acme > file", False),
        ("hookseal endpoint add --print-secret", False),
        ("kubectl exec -it job/x -- hookseal endpoint add --tenant acme", True),
        ("kubectl exec job/x -- hookseal endpoint add --tenant acme", False),
        ("kubectl run x --image=hookseal -- endpoint add --tenant acme", False),
        ("docker compose run --rm operator endpoint rotate --tenant acme", True),
        ("docker compose run --rm -T operator endpoint rotate --tenant acme", False),
        ("docker run hookseal secret reveal --tenant acme", False),
        ("docker run hookseal secret reveal --secret-out /out/file", True),
    ],
)
def test_only_terminal_and_file_output_is_safe(command: str, safe: bool) -> None:
    """Output to a terminal or a file is safe; a pipe, a redirection and container output are not."""
    assert safe is is_safe(command)


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_documented_command_prints_a_secret(file: Path) -> None:
    assert [] == [command for command in commands(file.read_text(encoding="utf-8")) if not is_safe(command)]


def test_documents_have_commands_that_output_secrets() -> None:
    """The documents contain commands that output secrets, in containers and on a terminal."""
    found = [
        each for file in DOCUMENTS for each in commands(file.read_text(encoding="utf-8")) if GIVES_OUT.search(each)
    ]
    assert {True, False} == {CONTAINED.search(each) is not None for each in found}


def test_nothing_deployed_prints_a_secret() -> None:
    """No job, service or script of deploy/ runs such a command or uses `--print-secret`."""
    run = [*arguments(resources("Job")), *arguments(resources("Deployment"))]
    run += [service.get("command", []) for service in compose()["services"].values()]
    assert [] == [words for words in run if GIVES_OUT.search(" ".join(words))]
    texts = {file: file.read_text(encoding="utf-8") for file in DEPLOY.rglob("*") if file.is_file()}
    assert [] == [file.name for file, text in texts.items() if "secrets" not in file.parts and "--print-secret" in text]


def test_composes_operator_service_has_no_log() -> None:
    assert {"driver": "none"} == compose()["services"]["operator"]["logging"]
