"""What builds and runs images on this machine: docker, or podman, which takes the same words."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.records import ROOT

_SECONDS: Final = 900
_PACKAGES: Final = (
    "podman",
    "runc",
    "netavark",
    "aardvark-dns",
    "nftables",
    "iptables",
    "catatonit",
    "docker-compose",
    "mmdebstrap",
)
_QUIET: Final = {"PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}
# What each engine needs for a root that nothing can write to. Without its second option podman mounts a writable /tmp.
_READ_ONLY: Final[Mapping[str, Sequence[str]]] = {
    "docker": ("--read-only",),
    "podman": ("--read-only", "--read-only-tmpfs=false"),
}


def require(is_met: object, message: str) -> None:
    """Raise `CommandFailed` with the message unless the first argument is true."""
    if not is_met:
        raise CommandFailed(message)


class CommandFailed(Exception):
    """A command ended with another code than 0. The message has the end of its output."""


def run(*command: str, at: Path = ROOT, environment: Mapping[str, str] | None = None, seconds: float = _SECONDS) -> str:
    """Return the standard output of a command. Raises `CommandFailed` if it fails or takes too long."""
    shown = " ".join(command[:4])
    try:
        ended = subprocess.run(
            command,
            cwd=at,
            env={**os.environ, **_QUIET, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandFailed(f"{shown}: {error}") from error
    if ended.returncode:
        raise CommandFailed(f"{shown} ended with {ended.returncode}: {(ended.stderr or ended.stdout).strip()[-2000:]}")
    return ended.stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A program that builds and runs images."""

    program: str

    def __call__(self, *words: str, seconds: float = _SECONDS) -> str:
        """Return what the program prints. Raises `CommandFailed`."""
        return run(self.program, *words, seconds=seconds)

    @property
    def restricted(self) -> tuple[str, ...]:
        """The options of a container like those of deploy/: nothing may be written, no capability, no new rights."""
        return (*_READ_ONLY[self.program], "--cap-drop", "ALL", "--security-opt", "no-new-privileges")

    def has(self, image: str) -> bool:
        """Return whether the image is on this machine, or can be pulled."""
        for words in (("image", "inspect", image), ("pull", "--quiet", image)):
            try:
                self(*words, seconds=300)
            except CommandFailed:
                continue
            return True
        return False

    def compose(self) -> tuple[str, ...] | None:
        """Return the command Docker Compose, which works with podman, too; None if it is not here."""
        return next(
            (words for words in (("docker", "compose"), ("docker-compose",)) if _works(*words, "version")), None
        )

    @contextmanager
    def served(self, folder: Path) -> Iterator[dict[str, str]]:
        """Yield the variables by which Compose finds the engine, for the length of the block."""
        if self.program != "podman":
            yield {}
            return
        address = f"unix://{folder / 'podman.sock'}"
        with subprocess.Popen(
            ["podman", "system", "service", "--time=0", address], stderr=subprocess.DEVNULL
        ) as process:
            try:
                yield {"DOCKER_HOST": address}
            finally:
                process.terminate()


def find() -> Engine | str:
    """Return the engine of this machine, installed with apt-get if that is possible, or why there is none."""
    if engine := _found():
        return engine
    if why := install(*_PACKAGES):
        return f"neither docker nor podman answers here, and {why}"
    return _found() or "podman was installed, and does not answer"


def install(*packages: str) -> str | None:
    """Install packages of Debian; return why that was not possible, or None."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return "only root may install one, with apt-get"
    print(f"installing {' '.join(packages)}", flush=True)
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(apt, "-qq", "update", environment=quiet)
        run(apt, "-qq", "install", "--yes", "--no-install-recommends", *packages, environment=quiet)
    except CommandFailed as error:
        return str(error)
    return None


def _found() -> Engine | None:
    return next((Engine(program=name) for name in _READ_ONLY if shutil.which(name) and _works(name, "info")), None)


def _works(*words: str) -> bool:
    try:
        run(*words, seconds=60)
    except CommandFailed:
        return False
    return True
