"""Public linters report nothing about the scripts and the YAML of the repository."""

import subprocess
from pathlib import Path

import pytest

from tests.deploy.files import ROOT
from tests.deploy.programs import program
from tools.governance.report import names

pytestmark = pytest.mark.req("OPS-05", part="linters")

# The default rules, without those about the length of lines and the mark that begins a document.
_RULES = """
extends: default
rules:
  line-length: disable
  document-start: disable
  comments: {min-spaces-from-content: 2}
  octal-values: {forbid-implicit-octal: false}
"""


def _files(*endings: str) -> list[Path]:
    return [ROOT / name for name in sorted(names(ROOT)) if name.endswith(endings)]


def test_shellcheck_reports_nothing() -> None:
    scripts = _files(".sh", ".ci/run")
    ended = subprocess.run([program("shellcheck"), *scripts], capture_output=True, text=True, check=False)

    assert {"compose-secrets.sh", "install.sh", "run"} <= {script.name for script in scripts}
    assert (0, "") == (ended.returncode, ended.stdout)


def test_yamllint_reports_nothing() -> None:
    files = [
        file for file in _files(".yaml") if file.is_relative_to(ROOT / "deploy") or file.is_relative_to(ROOT / "tools")
    ]
    ended = subprocess.run(
        [program("yamllint"), "--strict", "--config-data", _RULES, *files], capture_output=True, text=True, check=False
    )

    assert {"compose.yaml", "alerts.yaml", "deployment.yaml"} <= {file.name for file in files}
    assert (0, "") == (ended.returncode, ended.stdout)
