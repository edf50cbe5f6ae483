"""The built package: complete, the same from its sources, and enough for a producer and a receiver."""

import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.install.index import locked
from tests.install.pythons import packages
from tools.smoke import package

pytestmark = [pytest.mark.req("OPS-08"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build the source distribution and the wheel."""
    return package.build(tmp_path_factory.mktemp("dist"))


def environment(folder: Path) -> Path:
    """Create an environment with what requirements/base.txt names, taken from this one; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    there = packages(folder)
    for requirement in locked("base.txt"):
        if requirement.marker is None or requirement.marker.evaluate():
            for file in distribution(requirement.name).files or []:
                if not file.parts[0].startswith("..") and "__pycache__" not in file.parts:
                    (there / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file.locate(), there / file, follow_symlinks=True)
    return folder / "bin" / "python"


async def test_the_package_alone_publishes_and_verifies(
    built: tuple[Path, Path], database_url: str, tmp_path: Path
) -> None:
    """With the package and what it brings an application publishes and verifies, outside of the repository.

    There is no arq, no Redis client and no HTTP client; the command says in one line what it needs.
    """
    python = environment(tmp_path / "environment")
    package.install(built[1], python)

    assert f"Python {sys.version.split()[0]}: published" in package.try_out(python, database_url)


def test_an_index_accepts_the_metadata(built: tuple[Path, Path]) -> None:
    """An index accepts both files, and renders the description; its links lead out of the index."""
    package.check_metadata(*built)
    with zipfile.ZipFile(built[1]) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(wheel.read(name))
    links = re.findall(r"\]\(([^)]+)\)", str(metadata.get_payload()))

    assert [] == [link for link in links if not link.startswith(("https://", "#"))]
    assert {"Source", "Documentation", "Changelog", "Security"} == {
        each.partition(",")[0] for each in metadata.get_all("Project-URL", [])
    }
    assert "The hookseal maintainers" == metadata["Author"]


def test_the_sources_build_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    """The source distribution builds the same wheel, outside of the repository."""
    assert package.contents(built[1]) == package.contents(package.from_source(built[0], tmp_path))
