"""Each command that works on many rows shows how far it is: a bar on a terminal."""

import re
from collections.abc import Awaitable, Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Final

import pytest

from hookseal.cli.interrupted import CONTINUES, KNOWN
from hookseal.cli.shared.progress import progress, progress_of_rows
from tests import rows
from tests.cli.command import on_a_terminal
from tests.cli.installation import Begun
from tests.cli.key.test_moves import NEXT, SWAPPED, WITH_NEXT
from tests.cli.secret.test_purge import retired
from tests.cli.shared.test_output import IDENTITY, Terminal
from tests.cli.test_migrate_secrets import insert_plaintext_endpoint
from tests.cli.test_restore import put_back, rotated
from tests.doubles.master_keys import OLD
from tests.operations.test_replay_jobs import dead_letters, ended, started

pytestmark = [pytest.mark.req("OPS-04", part="progress"), pytest.mark.timeout(300)]  # many commands, each on a terminal

_CSV: Final = f"tenant_id,url,event_types,secret\nacme,https://receiver.example/csv,*,{'s' * 32}\n"


async def _written(begun: Begun, folder: Path) -> str:
    (folder / "endpoints.csv").write_text(_CSV)
    (folder / "endpoints.csv").chmod(0o600)
    return f"--from-csv {folder / 'endpoints.csv'}"


async def _put_off(begun: Begun, _folder: Path) -> str:
    endpoint = (await begun.stored.endpoint(url="https://receiver.example/put-off")).pointer.endpoint_id
    await rows.delivery(begun.stored.pool, endpoint, next_attempt_at=rows.ahead(hours=1))
    return f"--tenant acme --endpoint {endpoint}"


async def _done(begun: Begun, _folder: Path) -> str:
    await begun.stored.endpoint()
    await dead_letters(begun.stored, 1)
    await ended(begun.stored, job := await started(begun.stored))
    return f"{job.replay_id} --wait"


async def _stale(begun: Begun, folder: Path) -> str:
    await rotated(begun)
    (folder / "heads.json").write_text((await begun.run("audit", "heads", "--json")).out)
    await put_back(begun)
    return f"--head {folder / 'heads.json'}"


async def _plaintext(begun: Begun, _folder: Path) -> str:
    await insert_plaintext_endpoint(begun, 1)
    return ""


async def _endpoint(begun: Begun, _folder: Path) -> str:
    await begun.stored.endpoint(url="https://receiver.example/moved")
    return "--tenant acme"


async def _retired(begun: Begun, _folder: Path) -> str:
    await retired(begun, "globex", days=91)
    return "--tenant globex"


async def _promoted(begun: Begun, _folder: Path) -> str:
    await begun.stored.endpoint(url="https://receiver.example/sealed")
    for words in (("key", "stage"), ("key", "promote", NEXT.key_id)):
        assert 0 == (await begun.run(*words, **WITH_NEXT)).code
    return OLD.key_id


# Each command, and what gives it at least one row and returns its options.
LONG: Final[dict[str, Callable[[Begun, Path], Awaitable[str]]]] = {
    "audit verify": _endpoint,
    "endpoint retry": _put_off,
    "import-endpoints": _written,
    "key compromise": _promoted,
    "key rewrap": _promoted,
    "migrate-secrets": _plaintext,
    "replay status": _done,
    "restore accept": _stale,
    "secret move --to db": _endpoint,
    "secret purge": _retired,
}


@pytest.mark.pure
def test_each_command_that_goes_on_where_it_stopped_is_tried() -> None:
    """They work in steps. An upgrade of the schema is one transaction, whose progress PostgreSQL does not report."""
    tried = {command.partition(" --")[0] for command in LONG}
    assert {"db upgrade"} == {" ".join(words) for words, text in KNOWN.items() if text is CONTINUES} - tried


@pytest.mark.pure
@pytest.mark.req("UX-02")
def test_a_line_above_the_bar_is_laid_out_as_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command in it stays whole, however narrow the terminal is."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    command = f"hookseal endpoint show --tenant acme --endpoint {IDENTITY}"
    for counts in (False, True):
        with redirect_stderr(Terminal()) as terminal:
            if counts:
                with progress("rows") as count:
                    count(1, f"a row is there already: run `{command}`")
            else:
                with progress_of_rows("rows") as (report, _):
                    report(f"a row is there already: run `{command}`")
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", terminal.getvalue())
        assert f"a row is there already: run\n  {command}\n" in shown


@pytest.mark.parametrize("command", LONG)
async def test_a_terminal_shows_a_bar(command: str, begun: Begun, tmp_path: Path) -> None:
    """It counts the rows, beside all if their number is known; standard output has the one object."""
    options = await LONG[command](begun, tmp_path)
    settings = begun.settings | (SWAPPED if command.startswith("key") else {}) | {"TERM": "xterm"}
    shown = await on_a_terminal(*command.split(), *options.split(), "--json", stream="stderr", **settings)

    assert "error" not in shown.json, shown.json
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.err)
    done = [(int(number), total) for number, total in re.findall(r" (\d+)/(\d+|\?)", plain)]
    assert done, shown.err
    number, total = done[-1]
    assert number > 0
    assert total in {str(number), "?"}


async def test_an_export_is_counted_by_its_lines(begun: Begun, tmp_path: Path) -> None:
    """A line behind the first broken row is read, too, and verifies nothing."""
    await begun.stored.endpoint()
    file = tmp_path / "export.jsonl"
    file.write_text((await begun.run("audit", "export", "--tenant", "acme")).out)
    options = ("--from-export", str(file), "--tenant", "acme")
    shown = await on_a_terminal("audit", "verify", *options, stream="stderr", **begun.settings, TERM="xterm")
    assert (0, True, False) == (shown.code, "lines read" in shown.err, "rows verified" in shown.err)
