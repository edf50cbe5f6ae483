"""The shell completes commands and options with the scripts of typer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import Ended, hookseal, python

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
# What an interactive bash does at its start, and when TAB is pressed after these words.
BY_BASH = """
. "$HOME/.bashrc"
COMP_WORDS=({words}); COMP_CWORD={last}
_hookseal_completion hookseal
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


async def completed(*words: str) -> list[str]:
    """Return the completions of the last of these words."""
    line = {"_HOOKSEAL_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(["hookseal", *words])}
    ended = await hookseal(**line, COMP_CWORD=str(len(words)))
    assert (0, "") == (ended.code, ended.err)
    return ended.out.split()


async def test_commands_and_options_are_completed() -> None:
    """Commands, subcommands and options are completed without settings and without a database."""
    for words, expected in (
        (("endp",), ["endpoint"]),
        (("endpoint", "rota"), ["rotate", "rotation-status"]),
        (("audit", "verify", "--ten"), ["--tenant"]),
    ):
        assert expected == [word for word in await completed(*words) if word.startswith(words[-1])]


async def test_only_the_named_command_is_loaded() -> None:
    """Only the named command is loaded, since the shell waits for it each time TAB is pressed."""
    line = {"_HOOKSEAL_COMPLETE": "complete_bash", "COMP_WORDS": "hookseal endpoint ro", "COMP_CWORD": "2"}
    ended: Ended = await python("-X", "importtime", "-m", "hookseal", **line)
    loaded = {line.rpartition("|")[2].strip() for line in ended.err.splitlines() if line.startswith("import time:")}

    assert {"rotate", "rollback", "rotation-status"} == set(ended.out.split())
    assert {"hookseal.cli.endpoint.rotation"} == loaded & {
        "hookseal.cli.endpoint.rotation",  # of `endpoint`
        "hookseal.cli.key",
        "hookseal.cli.csv_rows",  # of `import-endpoints`
    }


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_the_script_is_shown_and_installed(tmp_path: Path) -> None:
    """`--show-completion` prints the script, and `--install-completion` makes bash read it at its start.

    A bash that has read it completes with it.
    """
    shown, installed = run_from_bash("hookseal --show-completion; exit $?", tmp_path), install(tmp_path)

    assert (0, 0) == (shown.returncode, installed.returncode)
    assert "_HOOKSEAL_COMPLETE=complete_bash" in shown.stdout
    assert shown.stdout.strip() == (tmp_path / ".bash_completions" / "hookseal.sh").read_text(encoding="utf-8").strip()

    run = run_from_bash(BY_BASH.format(words="hookseal endpoint rota", last=2), tmp_path)

    assert (0, ["rotate", "rotation-status"], "") == (run.returncode, run.stdout.split(), run.stderr)


def test_a_failed_installation_names_the_file(tmp_path: Path) -> None:
    """If the file cannot be written, the error names it and says what to do; it is no internal error."""
    (tmp_path / ".bash_completions").write_text("a file, where the folder would be", encoding="utf-8")
    run = install(tmp_path)

    assert (5, "") == (run.returncode, run.stdout)
    assert "the completion cannot be installed" in run.stderr
    assert str(tmp_path / ".bash_completions") in run.stderr
    assert "--show-completion" in run.stderr


def install(home: Path) -> subprocess.CompletedProcess[str]:
    """Install the completion for that home; typer detects the shell by its parent process."""
    return run_from_bash("hookseal --install-completion; exit $?", home)


def run_from_bash(command: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a bash with that home."""
    environment = {"PATH": PATH, "HOME": str(home), "SHELL": "/bin/bash"}
    return subprocess.run(
        ["bash", "--norc", "-c", command], env=environment, capture_output=True, text=True, check=False
    )
