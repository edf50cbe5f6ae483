"""The guide to testing: its files are written as they stand there, and its tests pass."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "testing.md"
SETTINGS = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
FILES = re.compile(r"```python\n# (\w+\.py)\n(.*?)```", re.DOTALL)


@pytest.mark.req("UX-03")
@pytest.mark.timeout(300)
def test_the_tests_of_the_guide_pass(tmp_path: Path) -> None:
    """In a folder of their own, with the servers of the fixture, in a run of pytest that knows nothing of this one."""
    files = dict(FILES.findall(GUIDE.read_text(encoding="utf-8")))
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(SETTINGS, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:schemathesis"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert {"app.py", "test_app.py", "conftest.py", "test_delivery.py"} == files.keys()
    assert 0 == run.returncode, run.stdout + run.stderr
    assert "2 passed" in run.stdout
