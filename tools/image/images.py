"""The images: that of deploy/Dockerfile, its base, and PostgreSQL and Valkey where no registry has theirs."""

import os
import re
import resource
import shutil
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from pathlib import Path
from typing import Final

from tools.image.engine import CommandFailed, Engine, install, run
from tools.records import ROOT

DOCKERFILE: Final = ROOT / "deploy" / "Dockerfile"
_SUITE: Final = "trixie"  # of the base that deploy/Dockerfile names, too
_SOURCES: Final = Path("/etc/apt/sources.list.d/debian.sources")
_PIP: Final = Path("/etc/pip.conf")
_BUNDLES: Final = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")  # what names the authorities of an index
_AUTHORITIES: Final = Path("/run/authorities.pem")
_DEBIAN: Final = "hookseal-check-debian:latest"
_PYTHON: Final = "hookseal-check-python:latest"
_STAND_INS: Final = Path(__file__).with_name("stand_ins")
# As in the image of Python: in /usr/local, with pip.
_WITH_PYTHON: Final = (
    f"FROM {_DEBIAN}\n"
    "RUN python3 -m venv /usr/local && test -x /usr/local/bin/python\n"  # Debian's own pip may not be used or removed
    "ENV PATH=/usr/local/bin:/usr/bin:/bin\n"
)


def base(engine: Engine, asked: str | None) -> str:
    """Return the base of the image: the one asked for, that of the Dockerfile, or one made of Debian's packages.

    Raises `CommandFailed` if there is none.
    """
    if asked:
        return asked
    found = re.search(r"^ARG BASE=(\S+)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    if found is not None and engine.has(found[1]):
        return found[1]
    debian(engine)
    engine("build", "--quiet", "--tag", _PYTHON, *_reaching(engine), "--file", _written("python", _WITH_PYTHON), ".")
    return _PYTHON


def debian(engine: Engine) -> str:
    """Return a small Debian of this machine's sources, with Python. Raises `CommandFailed` if none can be made."""
    try:
        engine("image", "inspect", _DEBIAN)
    except CommandFailed:
        _bootstrap(engine)
    return _DEBIAN


def _bootstrap(engine: Engine) -> None:
    if not _SOURCES.is_file() or os.geteuid() != 0:
        raise CommandFailed("no registry of images answers, and only root on Debian can make a base instead")
    if shutil.which("mmdebstrap") is None and (why := install("mmdebstrap")):
        raise CommandFailed(f"no registry of images answers, and mmdebstrap cannot be installed: {why}")
    tree = _folder() / "debian.tar"
    packages = "--include=ca-certificates,python3,python3-venv"
    run("mmdebstrap", "--quiet", "--variant=minbase", packages, _SUITE, str(tree), str(_SOURCES))
    engine("import", str(tree), _DEBIAN)
    tree.unlink()


def build(engine: Engine, tag: str, from_base: str, *, label: str) -> str:
    """Build deploy/Dockerfile as it is, and return the id of the image."""
    arguments = ("--build-arg", f"BASE={from_base}", "--label", f"hookseal.build={label}")
    engine("build", *_reaching(engine), *arguments, "--file", str(DOCKERFILE), "--tag", tag, str(ROOT))
    return engine("image", "inspect", "--format", "{{.Id}}", tag).strip()


def servers(engine: Engine, named: Mapping[str, str]) -> dict[str, str]:
    """Return an image for each of these services: the named one, or the server of Debian where it cannot be had."""
    found = {}
    for service, image in named.items():
        found[service] = image
        if not engine.has(image):
            found[service] = f"hookseal-check-{service}:latest"
            file = str(_STAND_INS / f"{service}.Dockerfile")
            base_of = ("--build-arg", f"BASE={debian(engine)}")
            engine("build", *_reaching(engine), *base_of, "--file", file, "--tag", found[service], str(_STAND_INS))
    return found


def _reaching(engine: Engine) -> Iterator[str]:
    """Yield the options by which a build reaches the indexes of packages that this machine reaches."""
    yield from ("--network", "host")
    if engine.program != "podman":  # docker mounts no file while it builds
        return
    for name, limit in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        _, most = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY:
            yield from ("--ulimit", f"{name}={most}:{most}")  # podman asks for more than some machines allow
    mounted = {_SOURCES: _SOURCES}
    if bundle := next(filter(None, map(os.environ.get, _BUNDLES)), None):
        mounted[Path(bundle)] = _AUTHORITIES
    mounted[_pip_settings(is_certified=bundle is not None)] = _PIP
    for file, place in mounted.items():
        if file.is_file():
            yield from ("--volume", f"{file}:{place}:ro")


def _pip_settings(*, is_certified: bool) -> Path:
    """Write the settings that pip has on this machine, as one file for the build, and return its path."""
    settings = ConfigParser(interpolation=None)
    settings.read([_PIP, Path("~/.config/pip/pip.conf").expanduser()], encoding="utf-8")
    if is_certified:
        settings.read_dict({"global": {"cert": str(_AUTHORITIES)}})
    file = _folder() / "pip.conf"
    with file.open("w", encoding="utf-8") as written:
        settings.write(written)
    return file


def open_files() -> int:
    """Return how many open files a process of this machine may have at most."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most


def _written(name: str, text: str) -> str:
    file = _folder() / f"{name}.Dockerfile"
    file.write_text(text, encoding="utf-8")
    return str(file)


def _folder() -> Path:
    folder = ROOT / ".reports" / "image"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
