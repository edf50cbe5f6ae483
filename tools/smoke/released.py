"""The release of HEAD, rehearsed in a clone; its files checked and used as users do."""

import asyncio
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import hookseal
from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.stack import stack
from hookseal.postgres.schema.upgrade import upgrade
from tests.install.pythons import SUPPORTED, oldest
from tools import release
from tools.smoke import package

SIGNERS: Final = "allowed_signers"  # as docs/releasing.md calls the file with the keys that may sign
_PAGE: Final = package.ROOT / "docs" / "releasing.md"
_INSTALL: Final = package.ROOT / "tools" / "install.sh"


async def try_out(folder: Path) -> dict[str, int]:
    """Make the release of HEAD, as if its version were landed today, in `folder / "dist"`, and return the counts.

    Wheel and source distribution are used with each supported Python that is here, all at once.
    """
    dist = folder / "dist"
    counts = await asyncio.to_thread(_rehearse, folder, dist)
    (wheel,), (source,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    (made := folder / "from-sdist").mkdir()
    wheels = {"wheel": wheel, "sdist": await asyncio.to_thread(package.from_source, source, made)}
    with scratch(for_servers()) as state:
        async with stack(state) as servers:
            await upgrade(servers.postgres.url)
            trials = [asyncio.to_thread(_use, name, wheels, folder, servers.postgres.url) for name in SUPPORTED]
            tried = await asyncio.gather(*trials, return_exceptions=True)  # each ends before the servers do
    for failed in (each for each in tried if isinstance(each, BaseException)):
        raise failed
    return {**counts, **{f"{kind}s": tried.count(True) for kind in wheels}}


def _rehearse(folder: Path, to: Path) -> dict[str, int]:
    """Make the release in a clone, in which what is unreleased gets the heading of the version; return the counts.

    It is signed with a new SSH key. The checks of docs/releasing.md must accept it, and refuse it once any
    of its files has changed.
    """
    clone = folder / "clone"
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
    can_sign = shutil.which("ssh-keygen") is not None
    signers = new_key(clone, folder / "key") if can_sign else ""
    print("\n".join(release.release(clone, to)), flush=True)
    if not can_sign:
        print("make smoke: NOTHING WAS PROVEN of the signature: there is no ssh-keygen", file=sys.stderr)
        return {}
    (to / SIGNERS).write_text(signers, encoding="utf-8")
    if not is_genuine(to):
        raise RuntimeError("the checks of docs/releasing.md refuse the files of the release")
    refused = changes_refused(to)
    print(f"{release.SUMS}: its signature is verified, and {refused} changed files are refused", flush=True)
    return {"signatures": 1, "refused": refused}


def new_key(root: Path, key: Path) -> str:
    """Make an SSH key with which git signs in this tree, and return the line of it among the signers."""
    package.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key), at=root)
    package.run("git", "config", "gpg.format", "ssh", at=root)
    package.run("git", "config", "user.signingkey", str(key), at=root)
    return f"maintainer {key.with_suffix('.pub').read_text(encoding='ascii')}"


def is_genuine(dist: Path) -> bool:
    """Return whether the commands by which docs/releasing.md checks a release accept this folder, with its signers."""
    page = _PAGE.read_text(encoding="utf-8")
    sums, signature = re.findall(r"^ {4}((?:sha256sum|ssh-keygen) .+)$", page, re.MULTILINE)
    return all(
        subprocess.run(["sh", "-c", line], cwd=dist, capture_output=True, check=False).returncode == 0
        for line in (sums, signature)
    )


def changes_refused(dist: Path) -> int:
    """Return the number of files that are signed, the checksums too: none may gain a byte and be accepted."""
    signed = [file for file in sorted(dist.iterdir()) if file.name not in {f"{release.SUMS}.sig", SIGNERS}]
    for file in signed:
        content = file.read_bytes()
        file.write_bytes(content + b"\n")
        if is_genuine(dist):
            raise RuntimeError(f"a changed {file.name} is not refused")
        file.write_bytes(content)
    return len(signed)


def _use(version: str, wheels: dict[str, Path], folder: Path, url: str) -> bool:
    """Publish and verify with each wheel in a new environment of this Python; return whether there is one."""
    python = oldest(version)
    if python is None:
        print(f"Python {version} is not here", flush=True)
        return False
    package.run(str(python.path), "-m", "venv", str(folder / version), at=folder)
    inside = folder / version / "bin" / "python"
    lock = package.ROOT / "requirements" / "base.txt"
    package.run("sh", str(_INSTALL), str(inside), str(lock), at=package.ROOT)
    for kind, wheel in wheels.items():
        package.install(wheel, inside)
        package.run(str(inside), "-m", "pip", "check", at=folder)
        print(f"{kind}: {package.try_out(inside, url).strip()}", flush=True)
    return True
