"""Installs the wheel into a new environment of each supported Python that is here, all at once, and tries it.

Before that it makes the release of HEAD, as if its version were landed today, in a clone that is then removed.
"""

import asyncio
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import hookseal
from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.stack import stack
from hookseal.postgres.schema.upgrade import upgrade
from tools import release
from tools.smoke import package

_PYTHONS: Final = ("python3.11", "python3.12", "python3.13", "python3.14")
_INSTALL: Final = package.ROOT / "tools" / "install.sh"


async def smoke() -> int:
    """Try the package with every Python, and return the exit code."""
    with tempfile.TemporaryDirectory() as made, scratch(for_servers()) as state:
        folder = Path(made)
        source, wheel = package.build(folder)
        package.check_metadata(source, wheel)
        print(f"built {source.name} and {wheel.name}; their metadata is complete")
        for line in await asyncio.to_thread(_rehearse, folder / "clone", folder / "release"):
            print(line, flush=True)
        async with stack(state) as servers:
            await upgrade(servers.postgres.url)
            url = servers.postgres.url
            trials = [asyncio.to_thread(_try, name, wheel, folder / name, url) for name in _PYTHONS]
            for tried in await asyncio.gather(*trials, return_exceptions=True):  # each ends before the servers do
                if isinstance(tried, BaseException):
                    raise tried
                print(tried, flush=True)
    return 0


def _rehearse(clone: Path, to: Path) -> list[str]:
    """Make the release of HEAD from a clone, in which what is unreleased gets the heading of the version."""
    package.run("git", "clone", "--quiet", "--no-tags", str(package.ROOT), str(clone), at=package.ROOT)
    for words in (("checkout", "--quiet", "-B", "main"), ("remote", "remove", "origin")):
        package.run("git", *words, at=clone)
    changelog = clone / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8")
    heading = f"## [{hookseal.__version__}] - "
    if heading not in text:
        landed = f"{heading}{datetime.now(UTC):%Y-%m-%d}"
        changelog.write_text(text.replace("## [Unreleased]\n", f"## [Unreleased]\n\n{landed}\n"), encoding="utf-8")
        named = ("-c", "user.name=smoke", "-c", "user.email=smoke@example.com", "-c", "commit.gpgsign=false")
        package.run("git", *named, "commit", "--quiet", "--all", "--message", "a rehearsal", at=clone)
    return release.release(clone, to)


def _try(name: str, wheel: Path, folder: Path, url: str) -> str:
    found = _works(name)
    if found is None:
        return f"{name} is not here"
    package.run(found, "-m", "venv", str(folder), at=wheel.parent)
    python = folder / "bin" / "python"
    lock = package.ROOT / "requirements" / "base.txt"
    package.run("sh", str(_INSTALL), str(python), str(lock), at=package.ROOT)
    package.install(wheel, python)
    package.run(str(python), "-m", "pip", "check", at=folder)
    return package.try_out(python, url).strip()


def _works(name: str) -> str | None:
    """Return the path of this Python on PATH or in pyenv; None if there is none that runs."""
    pyenv = Path.home() / ".pyenv" / "versions"
    for found in (shutil.which(name), *pyenv.glob(f"{name.removeprefix('python')}.*/bin/{name}")):
        try:
            package.run(str(found), "-c", "import ensurepip, venv", at=package.ROOT)
        except (OSError, RuntimeError):
            continue
        return str(found)
    return None


if __name__ == "__main__":
    sys.exit(asyncio.run(smoke()))
