"""The Pythons of this machine, each with the pip that it installs into a new environment."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.version import Version

SUPPORTED: Final = ("3.11", "3.12", "3.13", "3.14")
THIS: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
QUESTION: Final = """
import ensurepip, json, pathlib, platform, sysconfig
folders = [sysconfig.get_config_var("WHEEL_PKG_DIR"), pathlib.Path(ensurepip.__file__).parent / "_bundled"]
wheels = [str(wheel) for folder in folders if folder for wheel in pathlib.Path(folder).glob("pip-*.whl")]
print(json.dumps([platform.python_version(), wheels[0]]))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Python:
    """A Python, its minor and full version, and the wheel of pip that its `ensurepip` installs."""

    path: Path
    name: str
    version: str
    pip: Path

    @property
    def pip_version(self) -> str:
        return self.pip.name.split("-")[1]

    def needs(self, requirement: Requirement) -> bool:
        """Return whether a requirement without an extra applies to this Python on this machine."""
        version = {"python_version": self.name, "python_full_version": self.version, "extra": ""}
        return requirement.marker is None or requirement.marker.evaluate(version)

    def environment(self, folder: Path) -> Path:
        """Create an environment that contains only that pip, as `venv` does, and return its folder."""
        subprocess.run([self.path, "-m", "venv", "--without-pip", folder], check=True)
        with zipfile.ZipFile(self.pip) as wheel:
            wheel.extractall(packages(folder))
        return folder


def packages(environment: Path) -> Path:
    (folder,) = environment.glob("lib/python3.*/site-packages")
    return folder


def oldest(version: str) -> Python | None:
    return min(_found(version), key=lambda python: Version(python.pip_version), default=None)


def _found(version: str) -> Iterator[Python]:
    for path in _candidates(version):
        run = subprocess.run([path, "-I", "-c", QUESTION], capture_output=True, text=True, check=False)
        if run.returncode == 0:
            full, pip = json.loads(run.stdout)
            if full.startswith(f"{version}."):
                yield Python(name=version, path=path, version=full, pip=Path(pip))


def _candidates(version: str) -> Iterator[Path]:
    """Yield the Python of these tests, those on PATH, and those of pyenv, which may not be on PATH."""
    if version == THIS:
        yield Path(sys.executable)
    for folder in os.environ["PATH"].split(os.pathsep):
        found = shutil.which(f"python{version}", path=folder)
        if found is not None:
            yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from pyenv.glob(f"versions/{version}.*/bin/python{version}")


def clean(variables: Mapping[str, str]) -> dict[str, str]:
    """Return these variables and PATH, without any other that pip or Python would read."""
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **variables}
