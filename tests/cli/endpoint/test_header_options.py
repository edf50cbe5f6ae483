"""The header options of a command: parsed strictly, read from private files only, and their values never printed."""

from pathlib import Path

import pytest

from hookseal.admin import arguments
from hookseal.cli.endpoint.options import EndpointOptions
from hookseal.cli.shared.printing import option_named
from hookseal.errors import HooksealError, Malformed, Refused
from hookseal.secrets.core.header_values import Headers

CANARY = "Zq7-canary"


def private(folder: Path, content: bytes, mode: int = 0o600) -> str:
    """Write a file with this mode and return its path."""
    path = folder / "headers"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def revealed(lines: list[str] | None, file: str | None = None) -> dict[str, str]:
    """Return the parsed headers with their values in the clear."""
    return {name: value.reveal().decode() for name, value in read_headers(lines, file).items()}


def read_headers(lines: list[str] | None, file: str | None) -> Headers:
    """Return the headers that these options give to an endpoint, as an `Admin` accepts them."""
    found = EndpointOptions(header=lines, headers_file=file).arguments()
    return arguments.headers(found.get("change_headers", found.get("headers", {})))


@pytest.mark.req("DEL-13", part="sealed-values")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Authorization: Bearer x", ("authorization", "Bearer x")),
        ("x:y", ("x", "y")),
        ("X-Url: https://a.example/?q=1:2", ("x-url", "https://a.example/?q=1:2")),
        ("x: \t y z \t", ("x", "y z")),
        ("#x: y", ("#x", "y")),
    ],
)
def test_a_header_is_a_name_and_a_value(line: str, expected: tuple[str, str], tmp_path: Path) -> None:
    """A header is a name, a colon and a value without surrounding blanks, as an argument or a line of a file."""
    name, value = expected
    assert {name: value} == revealed([line]) == revealed(None, private(tmp_path, line.encode() + b"\n"))


def test_a_file_has_one_header_a_line(tmp_path: Path) -> None:
    """A file has one header a line, with any line ending and with empty lines; arguments are added to them."""
    path = private(tmp_path, b"\na: 1\r\n \t\nb: 2\n\nc: 3")
    assert {"a": "1", "b": "2", "c": "3", "d": "4"} == revealed(["d: 4"], path)
    assert {} == revealed(None) == revealed([])


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\t\n"])
def test_a_file_without_a_header_is_refused(content: bytes, tmp_path: Path) -> None:
    """A file without a header is refused, since the program that was to write it may have failed."""
    with pytest.raises(Malformed, match="--remove-header") as caught:
        read_headers(["a: 1"], private(tmp_path, content))
    assert "headers_file" == caught.value.field


@pytest.mark.req("DEL-13", part="rules")
@pytest.mark.req("DEL-14", part="headers")
@pytest.mark.parametrize(
    "line",
    [
        f"{CANARY}",
        f": {CANARY}",
        "",
        f" x: {CANARY}",
        f"x y: {CANARY}",
        f"webhook-id: {CANARY}",
        f"Content-Type: {CANARY}",
        f"x: {CANARY}\r\ny: z",
        f"x: {CANARY}\0",
        f"x: {CANARY}\u00e4",
        f"x: {CANARY}\udcff",
        f"x: {CANARY}" + "v" * 4_096,
        "x:",
        "x: \t",
        f"{'x' * 65}: {CANARY}",
    ],
)
def test_an_invalid_header_is_not_repeated(line: str) -> None:
    """Any other text is malformed, and the error does not repeat a value."""
    with pytest.raises(Malformed) as caught:
        read_headers([line], None)
    assert "header" == option_named(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.req("DEL-13", part="rules")
@pytest.mark.parametrize(
    "content",
    [
        f"x: {CANARY}\0".encode(),
        f"x: {CANARY}\rb: c".encode(),
        f"x: {CANARY}\x85".encode("latin-1"),
        b"\xef\xbb\xbfx: y",
    ],
)
def test_an_invalid_header_in_a_file_is_not_repeated(content: bytes, tmp_path: Path) -> None:
    """In a file, too, bytes that are not visible ASCII are refused, without the value."""
    with pytest.raises(Malformed) as caught:
        read_headers(None, private(tmp_path, content))
    assert CANARY not in str(caught.value)


@pytest.mark.req("DEL-14", part="headers")
def test_number_and_size_are_limited(tmp_path: Path) -> None:
    """The limits are 20 headers and 65,536 bytes a file; a name is given once, ignoring its case."""
    assert 20 == len(read_headers([f"h{number}: x" for number in range(20)], None))
    for lines, file, field in (
        ([f"h{number}: x" for number in range(21)], None, "header"),
        (["a: 1", "A: 2"], None, "header"),
        (["a: 1"], private(tmp_path, b"a: 1"), "header"),
        ([f"h{number}: {'x' * 4_096}" for number in range(4)], None, "header"),
    ):
        with pytest.raises(Malformed) as caught:
            read_headers(lines, file)
        assert field == option_named(caught.value)
    with pytest.raises(Malformed, match="at most 65536 bytes"):
        read_headers(None, private(tmp_path, b"\n" * 65_537))


@pytest.mark.req("SEC-15", part="secrets")
@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_file_that_others_may_read_is_refused(mode: int, tmp_path: Path) -> None:
    """A file that any other user may read or write is refused; an absent file is malformed."""
    expected: list[tuple[str, type[HooksealError]]] = [
        (private(tmp_path, b"a: 1", mode), Refused),
        (str(tmp_path / "nothing"), Malformed),
    ]
    for path, error in expected:
        with pytest.raises(error) as caught:
            read_headers(None, path)
        assert "headers_file" == caught.value.field


def test_only_named_headers_change(tmp_path: Path) -> None:
    """Without options nothing changes; a file replaces all headers; single options change only the named ones."""
    assert {} == EndpointOptions().arguments()
    one = EndpointOptions(header=["A: 1"], remove_header=["B", "b"]).arguments()
    assert {"change_headers": {"a": "1", "b": None}} == one
    file = private(tmp_path, b"b: 2")
    assert {"headers": {"a": "1", "b": "2"}} == EndpointOptions(header=["a: 1"], headers_file=file).arguments()


@pytest.mark.parametrize(
    ("given", "from_file", "removed", "field"),
    [
        (["a: 1"], False, ["A"], "remove_header"),
        (None, True, ["a"], "remove_header"),
        (None, False, ["webhook-id"], "header"),
        (None, False, ["a b"], "header"),
    ],
)
def test_contradicting_changes_are_refused(
    given: list[str] | None, from_file: bool, removed: list[str], field: str, tmp_path: Path
) -> None:
    """A header cannot be set and removed at once, nor removed when a file replaces all; removal takes a name."""
    file = private(tmp_path, b"x: 1") if from_file else None
    with pytest.raises(Malformed) as caught:
        EndpointOptions(header=given, headers_file=file, remove_header=removed).arguments()
    assert field == option_named(caught.value)
