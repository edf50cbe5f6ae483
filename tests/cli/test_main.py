"""Every error gives one message and the exit code of its class."""

import ast
import asyncio
import inspect
import json
import os
import re
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.core import TyperCommand

from hookseal import cli
from hookseal.admin import Scope, Trouble
from hookseal.cli.commands import PLACEHOLDERS, tree
from hookseal.cli.interrupted import CONTINUES, IN_DOUBT, KNOWN, READS_ONLY, message
from hookseal.cli.main import run_command
from hookseal.cli.shared.output import PIPE_CLOSED, Json
from hookseal.dispatcher.core.model import State
from hookseal.dispatcher.core.replay_job import FINAL, JobState
from hookseal.errors import ConfigError, Conflict, Defect, HooksealError, Malformed, NotFound, Refused, Unavailable
from hookseal.ground.wire import Algorithm, Scheme
from tests import forked
from tests.cli.command import DEADLINE_SECONDS, hookseal, on_a_terminal
from tests.cli.documented import PAGE
from tests.cli.listeners import black_hole


def failing(error: BaseException) -> typer.Typer:
    """Return an app with one command, which raises the error."""
    commands = typer.Typer(pretty_exceptions_enable=False)

    @commands.command()
    def fail(*, as_json: Json = False) -> None:
        assert as_json in {True, False}
        raise error

    return commands


@pytest.mark.req("OPS-04", part="errors")
@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (Malformed("m", field="url"), 2, "malformed"),
        (NotFound("m"), 3, "not_found"),
        (Conflict("m"), 4, "conflict"),
        (Refused("m"), 5, "refused"),
        (Unavailable("m"), 69, "unavailable"),
        (Defect("m"), 70, "internal"),
        (ConfigError(["m", "n"]), 78, "configuration"),
    ],
)
def test_each_error_class_has_its_exit_code(
    error: HooksealError, code: int, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each class of error has its exit code, and is reported once, as text or as JSON."""
    assert code == run_command([], failing(error))
    shown = capsys.readouterr()
    assert ("", [f"hookseal: {line}" for line in str(error).splitlines()]) == (shown.out, shown.err.splitlines())
    assert code == run_command(["--json"], failing(error))
    shown = capsys.readouterr()
    assert {"error": {"code": name, "message": str(error), "field": error.field}} == json.loads(shown.out)
    assert "" == shown.err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort(), EOFError()])
def test_an_interrupt_exits_130(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    """An interrupted command exits 130 and says so."""
    assert 130 == run_command(["--json"], failing(error))
    assert "interrupted" == json.loads(capsys.readouterr().out)["error"]["code"]


def test_a_negative_answer_exits_1() -> None:
    """A command that succeeds exits 0, and one whose answer is no exits 1."""
    assert 1 == run_command([], failing(typer.Exit(1)))
    assert 0 == run_command([], failing(typer.Exit()))


@pytest.mark.req("OPS-04", part="errors")
def test_an_internal_error_shows_only_its_class(capsys: pytest.CaptureFixture[str]) -> None:
    """An unexpected error exits 70 and is reported by its class, without its text or a traceback."""
    assert 70 == run_command([], failing(KeyError("a value")))
    shown = capsys.readouterr()
    assert "" == shown.out
    assert ["hookseal: internal error (KeyError), a fault of hookseal: please report it with the traceback that"] == [
        line.partition(" HOOKSEAL_LOG_LEVEL=debug")[0] for line in shown.err.splitlines()
    ]


@pytest.mark.req("OPS-04", part="errors")
@pytest.mark.parametrize(("missing", "code"), [("rich", 78), ("redis.asyncio", 78), ("hookseal.nothing", 70)])
def test_a_missing_package_is_named(missing: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """If a package of the extra `cli` is missing, the message says in one line what to install."""
    assert code == run_command([], failing(ModuleNotFoundError(name=missing)))
    (line,) = capsys.readouterr().err.splitlines()
    assert (code == 78) == line.endswith("is not installed: the command hookseal needs `pip install 'hookseal[cli]'`")


@pytest.mark.req("SEC-15", part="tracebacks")
@pytest.mark.parametrize("kind", [ValueError, Defect])
def test_a_traceback_is_masked(
    kind: type[Exception], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At log level debug a traceback is printed to standard error, with secrets masked."""
    monkeypatch.setenv("HOOKSEAL_LOG_LEVEL", "debug")
    assert 70 == run_command(["--json"], failing(kind("postgresql://user:hunter2@host/db and whsec_c2VjcmV0c2VjcmV0")))
    shown = capsys.readouterr()
    assert "Traceback" in shown.err
    assert "hunter2" not in shown.err
    assert "whsec_" not in shown.err
    assert "internal" == json.loads(shown.out)["error"]["code"]


@pytest.mark.req("OPS-04", part="errors")
@pytest.mark.parametrize(
    ("arguments", "field", "message"),
    [
        (["db", "status", "--jsn", "--json"], None, "No such option: --jsn"),
        (["db", "sttus", "--json"], None, "No such command 'sttus'"),
        (["nothing", "--json"], None, "No such command 'nothing'"),
    ],
)
def test_a_usage_error_exits_2(
    arguments: list[str], field: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown command or a usage error exits 2, with JSON if `--json` was given."""
    assert 2 == run_command(arguments)
    error = json.loads(capsys.readouterr().out)["error"]
    assert ("usage", field) == (error["code"], error["field"])
    assert error["message"].startswith(message)


def test_a_bad_option_names_its_field(capsys: pytest.CaptureFixture[str]) -> None:
    """A value that an option does not accept is reported with the option."""
    commands = typer.Typer()

    @commands.command()
    def port(*, number: Annotated[int, typer.Option("--number", max=6)], as_json: Json = False) -> None:
        raise AssertionError((number, as_json))

    assert 2 == run_command(["--number", "1h", "--json"], commands)
    error = json.loads(capsys.readouterr().out)["error"]
    assert ("number", "Invalid value for '--number': it must be a whole number") == (error["field"], error["message"])
    assert 2 == run_command(["--number", "7", "--json"], commands)
    error = json.loads(capsys.readouterr().out)["error"]
    assert "Invalid value for '--number': it must be less than or equal to 6" == error["message"]
    assert 2 == run_command(["--json"], commands)
    assert "number" == json.loads(capsys.readouterr().out)["error"]["field"]


@pytest.mark.req("UX-02")
@pytest.mark.parametrize("words", ["endpoint stats --sort x", "delivery list --state x", "event list --limit x"])
def test_no_message_is_that_of_a_library(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A value that is none of a few is refused in plain words, as text and as JSON."""
    for more in ([], ["--json"]):
        assert 2 == run_command([*words.split(), *more])
        shown = capsys.readouterr()
        assert not [said for said in ("Value error", "Input should") if said in shown.out + shown.err]
        assert re.search(r"': ('x' is not one of '|it must be a whole number)", shown.out + shown.err)


def test_a_usage_error_says_where_help_is(capsys: pytest.CaptureFixture[str]) -> None:
    """The text of a usage error says where help is."""
    assert 2 == run_command(["db"])
    assert ["hookseal: Missing command.", "hookseal: Try 'hookseal db --help'."] == capsys.readouterr().err.splitlines()


def test_a_group_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    """A group without a command shows its help, and says in words what is missing."""
    assert 2 == run_command(["endpoint"])
    assert "hookseal: Missing command." == capsys.readouterr().err.splitlines()[0]


def test_a_help_paragraph_is_one_line() -> None:
    """A paragraph of a help text is one line, so that it wraps only at the width of the terminal."""
    texts = [getattr(command, "help", "") for _, command in leaves(typer.main.get_command(tree(None)), "hookseal")]
    assert [] == [text for text in texts if "\n" in text.replace("\n\n", "")]
    assert any("\n\n" in text for text in texts)


def test_help_cuts_no_name_off(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """At 80 columns no command's help ends a name with an ellipsis: a setting must be found by its name."""
    monkeypatch.setenv("COLUMNS", "80")
    names = [name for name, _ in leaves(typer.main.get_command(tree(None)), "hookseal")]
    assert {0} == {run_command([*name.split()[1:], "--help"]) for name in names}
    assert [] == [line for line in capsys.readouterr().out.splitlines() if "…" in line]


@pytest.mark.parametrize("columns", ["9" * 5_000, "²"])
async def test_a_width_that_no_terminal_has_counts_as_not_set(columns: str) -> None:
    """Neither an error nor help needs a number that Python, or a library for terminals, cannot read."""
    refused = await on_a_terminal("status", "--every", stream="stderr", COLUMNS=columns, LINES=columns)
    helped = await on_a_terminal("--help", COLUMNS=columns, LINES=columns)
    assert (2, 0) == (refused.code, helped.code)


def test_json_before_the_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` before the command has no meaning and is refused, in JSON."""
    assert 2 == run_command(["--json", "db", "status"])
    assert "malformed" == json.loads(capsys.readouterr().out)["error"]["code"]


def test_nothing_after_two_dashes_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    """After `--` nothing is an option."""
    assert 2 == run_command(["db", "status", "--", "--json"])
    assert "" == capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is printed as text or JSON."""
    assert 0 == run_command(["--version"])
    assert 0 == run_command(["--version", "--json"])
    text, line = capsys.readouterr().out.splitlines()
    assert text == f"hookseal {json.loads(line)['version']}"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_shows_the_first_steps(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The help shows the first steps in order, and the meaning of exit codes."""
    assert 0 == run_command(arguments)
    out = capsys.readouterr().out
    steps = [out.index(step) for step in ("hookseal db upgrade", "hookseal key init", "hookseal publish")]
    assert sorted(steps) == steps
    assert "Exit codes: 0 done" in out
    assert [] == [line for line in out.splitlines() if len(line) > 80]


@pytest.mark.req("UX-02")
def test_help_has_panels(capsys: pytest.CaptureFixture[str]) -> None:
    """The commands stand in panels, in the order in which one needs them.

    No option shows a type, and the end of the help has no empty line.
    """
    assert 0 == run_command(["--help"])
    out = capsys.readouterr().out
    panels = re.findall(r"^╭─ (\w+) ─", out, re.MULTILINE)
    assert ["Options", "Start", "Deliver", "Manage", "Keys", "Audit"] == panels
    named = re.findall(r"^│ ([a-z][a-z-]*) ", out, re.MULTILINE)
    assert list(typer.main.get_command(tree(None)).list_commands(None)) == named  # type: ignore[attr-defined]
    assert ["up", "publish", "endpoint", "key", "audit"] == [
        re.findall(r"│ ([a-z-]+) ", out.partition(f"╭─ {panel} ")[2])[0] for panel in panels[1:]
    ]
    assert "<bool>" not in out
    epilog = out.rpartition("╯")[2].strip().splitlines()
    assert ("To try it", []) == (epilog[0].strip()[:9], [line for line in epilog if not line.strip()])


@pytest.mark.req("OPS-04", part="exit-codes")
def test_the_documented_exit_codes_are_those_of_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/commands.md and the help have each code with which a command can end, and no other."""
    of_commands = [ast.parse(file.read_text(encoding="utf-8")) for file in Path(cli.__file__).parent.rglob("*.py")]
    written = {
        constant.value
        for module in of_commands
        for call in ast.walk(module)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "typer.Exit"
        for constant in ast.walk(call)
        if isinstance(constant, ast.Constant) and isinstance(constant.value, int)
    }
    used = written | {each.exit_code for each in errors_below(HooksealError)} | {2, 130, PIPE_CLOSED}
    table = PAGE.read_text(encoding="utf-8").partition("## Exit codes")[2].partition("\n## ")[0]
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    run_command([])
    shown = " ".join(capsys.readouterr().out.split()).partition("Exit codes: ")[2]

    assert used == documented == {int(code) for code in re.findall(r"\d+", shown)}


def errors_below(kind: type[HooksealError]) -> set[type[HooksealError]]:
    """Return the class and each class of hookseal below it."""
    ours = {each for each in kind.__subclasses__() if each.__module__.startswith("hookseal")}
    return {kind}.union(*map(errors_below, ours))


@pytest.mark.req("OPS-04", part="json")
def test_every_command_has_json_and_help() -> None:
    """Every command of every group has `--json` and a help text."""
    assert [] == [
        path for path, command in leaves(typer.main.get_command(tree(None)), "hookseal") if not is_complete(command)
    ]


def test_the_help_of_every_command_has_an_example() -> None:
    """The help of every command has an example; `up` needs none."""
    without = {
        path
        for path, command in leaves(typer.main.get_command(tree(None)), "hookseal")
        if path not in str(getattr(command, "help", "")).partition("Example: ")[2]
    }
    assert {"hookseal", "hookseal up", "hookseal up env"} == without


def test_a_flag_shows_no_type(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The help of a flag names no type, because a flag takes no value; that of other options names the value."""
    monkeypatch.setenv("COLUMNS", "200")
    assert 0 == run_command(["endpoint", "rotate", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    for shown in ("--force Rotate", "--overlap DURATION How long", "--expect-generation N Make", "--help -h Show"):
        assert shown in out
    assert "<bool>" not in out


@pytest.mark.req("UX-02")
def test_a_thing_has_one_placeholder() -> None:
    """A parameter has the same placeholder in the help of each command, and in every example and piece of advice."""
    named: dict[str, set[str]] = {}
    for _, command in leaves(typer.main.get_command(tree(None)), "hookseal"):
        for parameter in getattr(command, "params", []):
            named.setdefault(parameter.name, set()).add(parameter.metavar or "")
    assert {"to"} == {name for name, placeholders in named.items() if len(placeholders) > 1}
    assert {name: {placeholder} for name, placeholder in PLACEHOLDERS.items()}.items() <= named.items()

    options = "|".join(name.replace("_", "-") for name in PLACEHOLDERS)
    arguments = {"delivery (?:show|why|replay|skip)": "delivery", "replay (?:status|cancel)": "replay"}
    arguments |= {"key (?:promote|rewrap|retire|destroy|compromise|versions)": "key_id", "event show": "event"}
    for source in Path("src/hookseal").rglob("*.py"):
        text = source.read_text()
        for option, used in re.findall(rf"--({options})[ =]([A-Z][A-Z_]*)\b", text):
            assert PLACEHOLDERS[option.replace("-", "_")] == used, source
        for words, name in arguments.items():
            assert {PLACEHOLDERS[name]} >= set(re.findall(rf"hookseal {words} ([A-Z][A-Z_]*)\b", text)), source


@pytest.mark.req("UX-02")
@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("delivery list", State),
        ("replay start", FINAL),
        ("replay list", JobState),
        ("endpoint list", Trouble),
        ("endpoint stats", Trouble),
        ("token add", Scope),
        ("portal link", Scope),
        ("endpoint add", (*Scheme, *Algorithm)),
        ("endpoint rotate", (*Scheme, *Algorithm)),
        ("import-endpoints", Scheme),
    ],
)
def test_the_help_names_the_values_of_an_option(
    words: str, values: Iterable[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Where only a few values are allowed, the help has each of them, as a word."""
    assert 0 == run_command([*words.split(), "--help"])
    shown = set(re.findall(r"[\w-]+", capsys.readouterr().out))
    assert set(map(str, values)) <= shown


def leaves(command: object, path: str) -> list[tuple[str, object]]:
    """Return every command below this one by its path, and every group that runs without a command."""
    below: dict[str, object] = getattr(command, "commands", {})
    own = [(path, command)] if not below or getattr(command, "invoke_without_command", False) else []
    return own + [leaf for name, child in below.items() for leaf in leaves(child, f"{path} {name}")]


def is_complete(command: object) -> bool:
    """Return whether a command has `--json` and a help text."""
    options = [option for parameter in getattr(command, "params", []) for option in parameter.opts]
    return "--json" in options and bool(getattr(command, "help", ""))


@pytest.mark.req("OPS-04", part="errors")
async def test_every_missing_setting_is_reported_at_once() -> None:
    """A real process reports all problems at once on standard error, or as one object, and exits 78."""
    ended = await hookseal("key", "init", SECRETS_PROVIDR="db")
    assert (78, "") == (ended.code, ended.out)
    assert ["SECRETS_PROVIDR", "DATABASE_URL", "SECRETS_PROVIDER"] == [
        line.removeprefix("hookseal: ").split()[0] for line in ended.err.splitlines()
    ]
    ended = await hookseal("key", "init", "--json", SECRETS_PROVIDR="db")
    assert (78, "") == (ended.code, ended.err)
    assert 3 == len(ended.json["error"]["message"].splitlines())


async def test_sigint_ends_a_waiting_command() -> None:
    """SIGINT ends a waiting command with 130, without a traceback."""
    async with black_hole() as (port, called):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hookseal", "db", "status"),
            env={**os.environ, "DATABASE_URL": f"postgresql://u:p@127.0.0.1:{port}/db"},
            stderr=PIPE,
        )
        await asyncio.wait_for(called.wait(), DEADLINE_SECONDS)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert (130, True) == (
        process.returncode,
        err == b"hookseal: interrupted: this command changes nothing\n",
    )


_INTERRUPTED_AT = """
import os, signal, sys

class Interrupts:
    def find_spec(self, name, *more):
        if name == {module!r}:  # from text, as many a library makes its classes
            exec("os.kill(os.getpid(), signal.SIGINT)")

sys.meta_path.insert(0, Interrupts())
"""


@pytest.mark.parametrize(
    ("module", "as_json"),
    [
        ("hookseal.cli.main", False),
        ("typer", True),
        ("hookseal.cli.commands", False),
        ("hookseal.cli.endpoint.group", True),
    ],
)
async def test_sigint_while_loading_exits_130(module: str, as_json: bool, tmp_path: Path) -> None:
    """SIGINT before a command has begun also exits 130, with one line or object: nothing was changed."""
    (tmp_path / "sitecustomize.py").write_text(_INTERRUPTED_AT.format(module=module))
    ended = await hookseal("endpoint", "add", *(["--json"] if as_json else []), PYTHONPATH=str(tmp_path))
    message = "interrupted before the command began: nothing was changed"
    error = {"error": {"code": "interrupted", "message": message, "field": None}}
    assert (130, *((error, "") if as_json else ("", f"hookseal: {message}\n"))) == (
        ended.code, ended.json if as_json else ended.out, ended.err
    )  # fmt: skip


def test_an_interrupt_says_whether_anything_changed() -> None:
    """The message says if a command only reads or can be resumed; any other may have made its change.

    A command that has the needs of a reader only reads; one that has others with an option may change something.
    """
    leaf = dict(leaves(typer.main.get_command(tree(None)), ""))
    assert {f" {' '.join(words)}" for words in KNOWN} <= leaf.keys()
    resumed = {
        name for name, command in leaf.items() if "continues where it stopped" in str(getattr(command, "help", ""))
    }
    assert resumed <= {f" {' '.join(words)}" for words, text in KNOWN.items() if text is CONTINUES}
    reads_only = {f" {' '.join(words)}" for words, text in KNOWN.items() if text is READS_ONLY}
    needs = {
        name: {"READS", "CHANGES"} & {*inspect.unwrap(command.callback).__code__.co_names}
        for name, command in leaf.items()
        if isinstance(command, TyperCommand) and command.callback is not None
    }
    assert {name for name, named in needs.items() if named == {"READS"}} <= reads_only
    assert not {name for name, named in needs.items() if named == {"READS", "CHANGES"}} & reads_only
    for arguments, text in (
        (["--json", "audit", "verify", "--tenant", "acme"], READS_ONLY),
        (["replay", "status", "0123", "--wait"], READS_ONLY),
        (["import-endpoints", "--from-csv", "-"], CONTINUES),
        (["key", "rewrap", "0123"], CONTINUES),
        (["endpoint", "add", "--tenant", "verify"], IN_DOUBT),
        ([], IN_DOUBT),
    ):
        assert text == message(arguments)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.req("OPS-04", part="errors")
@pytest.mark.parametrize("words", [("--version",), ("--help",), ("db", "status", "--json"), ("check", "--json")])
async def test_unwritable_output_exits_69(words: tuple[str, ...]) -> None:
    """If standard output cannot be written, the command exits 69 and says so on standard error, as any error."""
    full = os.open("/dev/full", os.O_WRONLY)
    process = await forked.start(*words, env=dict(os.environ), stdout=full, stderr=PIPE)
    os.close(full)
    _, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert 69 == process.returncode
    assert err.startswith(b"hookseal: standard output cannot be written (No space left on device): make room")
    assert 1 == err.count(b"\n")


def test_a_closed_pipe_ends_it_silently() -> None:
    """If the reader of its output ends, the command ends as any program in a pipe, without a message."""
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [sys.executable, "-m", "hookseal", "--version"], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (141, b"") == (ended.returncode, ended.stderr)
