"""`make pages`: the pages in a real Chromium (tests/browser), and the record that proves UI-06.

Chromium is that of the system. Where there is none, it is installed if that is possible: as root, with apt-get, and
not for `.ci/run` (CI), whose result must not depend on what was released since. If there is none then, the run says so
and ends with 0: nothing was proven, and no record is written.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tools.governance.evidence import misses, record_of, write
from tools.records import ROOT, is_dirty

ID: Final = "UI-06"
REPORT: Final = Path(".reports/pages.json")  # how many pages of each story were checked, and what was found
SHOTS: Final = Path(".reports/pages")
IMAGES: Final = Path("docs/images")  # the screenshots that pages of the documentation show
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_PACKAGES: Final = ("chromium", "fonts-dejavu-core", "fonts-liberation")
_SECONDS: Final = 600


def chromium() -> str | None:
    """Return the path of a Chromium on this machine."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def missing() -> str | None:
    """Install Chromium if there is none and that is possible; return why there is still none, or None."""
    if chromium() is not None:
        return None
    if os.environ.get("CI"):
        return "it is not installed here, and no gate of .ci/run installs the newest of anything"
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return "it is not installed here, and only root may install it, with apt-get"
    print("installing Chromium", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *_PACKAGES]):
        try:
            ended = subprocess.run(
                [apt, "-qq", *command], env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return f"apt-get {command[0]} did not end within {_SECONDS} s"
        if ended.returncode:
            return f"apt-get {command[0]} failed: {ended.stderr.strip()[-500:]}"
    return None if chromium() else "apt-get installed no program of that name"


def main(arguments: Sequence[str]) -> int:
    """Run the tests, and with `--record` write the record and the screenshots; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="write the record of UI-06 and the screenshots in docs/")
    asked, of_pytest = parser.parse_known_args(arguments)
    if asked.record and (of_pytest or is_dirty(ROOT)):
        parser.error("a record needs a commit and the whole run: commit first, and leave out other options")
    if why := missing():
        print(f"make pages: NOTHING WAS PROVEN, for there is no Chromium: {why}", file=sys.stderr)
        return 0
    (ROOT / REPORT).unlink(missing_ok=True)
    ended = subprocess.run([sys.executable, "-m", "pytest", "tests/browser", *of_pytest], cwd=ROOT, check=False)
    if ended.returncode or of_pytest:
        return ended.returncode
    counts: dict[str, dict[str, int]] = json.loads((ROOT / REPORT).read_text(encoding="utf-8"))
    for story, of_story in counts.items():
        print(f"{story}: {', '.join(f'{number} {name}' for name, number in of_story.items())}")
    missed = list(misses(ID, {}, counts, {}))
    for line in missed:
        print(f"make pages: {ID}: {line}", file=sys.stderr)
    if missed:
        return 1
    if asked.record:
        write(ROOT, record_of(ROOT, ID, {}, counts))
        for shot in (ROOT / SHOTS).glob("*.png"):
            shutil.copy(shot, ROOT / IMAGES / shot.name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
