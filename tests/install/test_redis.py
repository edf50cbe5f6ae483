"""The package delivers with each major version of the Redis client, without arq, and its queue keeps its laws there."""

import sys
from pathlib import Path

import pytest

from tests.install.index import locked
from tests.install.versions import need_index
from tools.smoke import package

pytestmark = pytest.mark.timeout(300)
EACH = pytest.mark.parametrize("wanted", ["redis==5.3.0", "redis==6.*", "redis==7.*", "redis==8.*"])
DELIVERED = Path(__file__).with_name("delivered.py")


@EACH
async def test_an_event_is_delivered(
    wanted: str, built: tuple[Path, Path], database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """In a new environment: publish, ring, take, deliver, and nothing rings again."""
    need_index()
    python, limits = tmp_path / "environment" / "bin" / "python", tmp_path / "limits.txt"
    fixed = [str(each) for each in locked("dev.txt") if each.name not in {"redis", "pyjwt"}]  # redis 5.3 limits pyjwt
    limits.write_text("\n".join(fixed), encoding="utf-8")
    package.uv("venv", "--python", sys.executable, python.parents[1])
    wheel = f"hookseal[cli] @ {built[1].as_uri()}"
    package.uv("pip", "install", "--python", python, "--constraint", limits, wheel, wanted)

    said = package.run(str(python), "-I", str(DELIVERED), database_url, redis_url, str(tmp_path), at=tmp_path)

    assert said.startswith(f"redis {wanted.removeprefix('redis==').rstrip('*')}")
    assert said.endswith(": 3 delivered\n")


@EACH
def test_the_queue_keeps_its_laws(wanted: str, tmp_path: Path) -> None:
    """The tests of the queue pass with it: no large answer is loaded, no answer is taken for another, and so on."""
    need_index()

    assert " passed" in package.run_tests_with(wanted, "tests/queue", tmp_path / "redis", "--no-deps")
