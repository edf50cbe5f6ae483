"""The environment is read once, with the files that it names."""

from pathlib import Path

import pytest

from hookseal.config.source import FileText, is_debugging, is_exposed, read_environment, read_file


def test_variables_and_their_files_are_read() -> None:
    """Variables of hookseal are read, from the environment or the file that it names; others are ignored."""
    source = read_environment(
        {"PATH": "/bin", "HOOKSEAL_ENV": "test", "REDIS_URL_FILE": "/a", "HOOKSEAL_TEST_REDIS_URL": "x"},
        read_file=lambda path: FileText(text=f"text of {path}", exposed=True),
    )
    assert {"HOOKSEAL_ENV": "test", "REDIS_URL": "text of /a"} == source.values
    assert frozenset({"REDIS_URL"}) == source.exposed
    assert () == source.problems
    assert "REDIS_URL" in source.present


def test_a_variable_and_its_file_are_refused() -> None:
    """A variable that is set both directly and by a file is refused, whatever the file contains."""
    source = read_environment({"REDIS_URL": "redis://h", "REDIS_URL_FILE": "/nowhere"})
    assert ("REDIS_URL and REDIS_URL_FILE are both set: remove one",) == source.problems


def test_overridden_names_are_not_read() -> None:
    """Overridden plain names are neither read nor checked, whether they have a value or a file."""
    files = {"HOOKSEAL_REDIS_URL_FILE": "/ours", "REDIS_URL": "", "REDIS_URL_FILE": "/nowhere"}
    source = read_environment(
        {"HOOKSEAL_DATABASE_URL": "ours", "DATABASE_URL": "mysql://an.app"} | files,
        read_file=lambda path: FileText(text=f"text of {path}", exposed=False),
    )
    assert {"DATABASE_URL": "ours", "REDIS_URL": "text of /ours"} == source.values
    assert {"DATABASE_URL": "HOOKSEAL_DATABASE_URL", "REDIS_URL": "HOOKSEAL_REDIS_URL"} == source.written_as
    assert ((), True) == (source.problems, {"DATABASE_URL", "REDIS_URL"} <= source.present)


def test_an_empty_preferred_name_has_no_fallback() -> None:
    """An empty preferred variable does not fall back to the plain one; two forms of one are refused by their names."""
    both = {"HOOKSEAL_REDIS_URL": "redis://h", "HOOKSEAL_REDIS_URL_FILE": "/a"}
    source = read_environment({"HOOKSEAL_DATABASE_URL": "", "DATABASE_URL": "postgresql://h/d"} | both)
    assert (
        "HOOKSEAL_REDIS_URL and HOOKSEAL_REDIS_URL_FILE are both set: remove one",
        "HOOKSEAL_DATABASE_URL is empty: give it a value or remove it",
    ) == source.problems


def test_injected_names_are_ignored() -> None:
    """A variable that Kubernetes injects is neither a value nor a problem."""
    source = read_environment({"HOOKSEAL_SERVICE_HOST": "10.0.0.1", "HOOKSEAL_PORT": "tcp://10.0.0.1:80"})
    assert ({}, ()) == (source.values, source.problems)


def test_control_characters_in_a_name_are_escaped() -> None:
    """Control characters in an unknown name are escaped."""
    (problem,) = read_environment({"HOOKSEAL_\x1b[2J": "x"}).problems
    assert problem.startswith(r"HOOKSEAL_\x1b[2J is not a setting of hookseal")


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"a", "a"), (b"a\n", "a"), (b"a\r\n", "a"), (b"a\n\n", "a\n"), (b" a ", " a "), (b"", "")],
)
def test_one_newline_is_removed(tmp_path: Path, content: bytes, text: str) -> None:
    """One trailing newline is removed, and nothing else."""
    file = tmp_path / "file"
    file.write_bytes(content)
    assert text == read_file(str(file)).text


@pytest.mark.parametrize("content", [b"\xff", b"a" * 16_385])
def test_a_file_that_is_not_text_is_not_shown(tmp_path: Path, content: bytes) -> None:
    """A file that is not UTF-8 or too long cannot be read, and its content is not shown."""
    file = tmp_path / "file"
    file.write_bytes(content)
    source = read_environment({"DATABASE_URL_FILE": str(file)})
    assert [True] == [text.startswith("DATABASE_URL_FILE names a file that cannot be read") for text in source.problems]


def test_an_empty_file_is_reported(tmp_path: Path) -> None:
    """An empty file is reported as such."""
    file = tmp_path / "file"
    file.write_text("\n")
    assert ("DATABASE_URL_FILE names an empty file: write the value into it",) == read_environment(
        {"DATABASE_URL_FILE": str(file)}
    ).problems


@pytest.mark.parametrize(("mode", "exposed"), [(0o400, False), (0o600, False), (0o440, True), (0o604, True)])
def test_an_own_file_is_exposed_if_others_may_read_it(tmp_path: Path, mode: int, *, exposed: bool) -> None:
    """A file of this user is exposed if the group or others may read it."""
    file = tmp_path / "file"
    file.write_text("text")
    file.chmod(mode)
    assert exposed == read_file(str(file)).exposed


@pytest.mark.parametrize(
    ("mode", "owner", "reader", "exposed"),
    [
        (0o440, 0, 1000, False),
        (0o444, 0, 1000, True),
        (0o440, 1000, 1000, True),
        (0o440, 1000, 0, True),
        (0o400, 0, 0, False),
    ],
)
def test_a_mounted_file_may_be_readable_by_its_group(mode: int, owner: int, reader: int, *, exposed: bool) -> None:
    """A file of root that the group may read, as Kubernetes mounts it, is exposed only if others may read it."""
    assert exposed == is_exposed(mode, owner=owner, reader=reader)


def test_the_log_level_is_known_without_settings() -> None:
    """The log level debug is known without loading the settings."""
    assert is_debugging({"HOOKSEAL_LOG_LEVEL": "debug"})
    assert is_debugging({"HOOKSEAL_LOG_LEVEL": "DEBUG"})
    assert not is_debugging({"HOOKSEAL_LOG_LEVEL": "info"})
    assert not is_debugging()
