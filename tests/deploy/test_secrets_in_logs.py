"""No documented command prints a secret to a log: the output is a terminal or a file."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.deploy.files import DEPLOY, ROOT, compose, container, resources

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
    """Yield the command of each container of a manifest."""
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
    """No documented command outputs a secret elsewhere."""
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
    """The service for operators does not log the output of their terminal."""
    assert {"driver": "none"} == compose()["services"]["operator"]["logging"]
