"""The package delivers with each major version of the Redis client, without arq, and its queue keeps its laws there.

Each is pinned by its hashes. `make next` tries the newest.
"""

import sys
from pathlib import Path

import pytest

from tests.install.index import ROOT, locked, pins, version
from tests.install.versions import Installer, built_here, need_index
from tools.smoke import package

pytestmark = pytest.mark.timeout(300)
EACH = pytest.mark.parametrize("lock", [f"install/redis-{major}.txt" for major in (5, 6, 7, 8)])
DELIVERED = Path(__file__).with_name("delivered.py")


@EACH
async def test_an_event_is_delivered(
    lock: str, built: tuple[Path, Path], database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """In a new environment: publish, ring, take, deliver, and nothing rings again."""
    need_index()
    python = tmp_path / "environment" / "bin" / "python"
    limits = pins(tmp_path / "limits.txt", lock, "dev.txt")
    Installer(Path(sys.executable), python.parents[1], limits=limits).install(built_here(built[1], "cli"))
    (redis,) = [pin for pin in locked(lock) if pin.name == "redis"]

    said = package.run(str(python), "-I", str(DELIVERED), database_url, redis_url, str(tmp_path), at=tmp_path)

    assert f"redis {version(redis)}: 3 delivered\n" == said


@EACH
def test_the_queue_keeps_its_laws(lock: str, tmp_path: Path) -> None:
    """The tests of the queue pass with it: no large answer is loaded, no answer is taken for another, and so on."""
    need_index()

    wanted = ("--no-deps", "--require-hashes", "--requirement", ROOT / "requirements" / lock)
    assert " passed" in package.run_tests_with("tests/queue", tmp_path / "redis", *wanted)
