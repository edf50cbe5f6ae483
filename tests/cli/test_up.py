"""`hookseal up` runs a stack that a second terminal can use, and leaves only its state folder."""

import asyncio
import json
import os
import re
import shlex
import signal
import stat
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from hookseal.cli import listen, up
from hookseal.cli.shared.output import printable_body
from hookseal.demo import state
from tests import forked
from tests.cli.command import DEADLINE_SECONDS, Ended, hookseal
from tests.cli.listeners import SOON_SECONDS, black_hole, closed_port
from tests.cli.process_leaks import processes_in
from tests.cli.shared.test_output import on_a_terminal
from tests.doubles.stuck_client import stuck_client

STARTING = b"starting ... (Ctrl-C ends it)\n"
ENDING = (
    b"ending ... the worker and the API finish their requests in flight, for at most 35 s (Ctrl-C again ends it now)\n"
)
ENDED = b"ended; the data stays for the next start\n"
STATE = "SELECT state FROM hookseal.deliveries WHERE id::text = $1"


class Terminal:
    """A terminal in a folder whose name needs quoting; both are in a folder that the servers can reach."""

    def __init__(self, folder: Path) -> None:
        self.temporary = folder
        self.folder = folder / "it's mine"
        self.folder.mkdir()
        self.state = self.folder / ".hookseal"

    @property
    def starting(self) -> bytes:
        """What `up` says at its start: for root also where the data is."""
        placed = [Path(place.read_text().rstrip("\n")) for place in sorted(self.state.glob("*.place"))]
        elsewhere = state.elsewhere(self.state, placed)
        return STARTING if elsewhere is None else STARTING + f"{elsewhere}\n".encode()

    async def start(self, *arguments: str, **settings: str) -> Process:
        """Start the command in this folder."""
        return await forked.start(
            *arguments,
            env={**os.environ, "TMPDIR": str(self.temporary), **settings},
            cwd=self.folder,
            stdout=PIPE,
            stderr=PIPE,
        )

    async def hookseal(self, *arguments: str, **settings: str) -> Ended:
        """Run the command in this folder to its end."""
        return await finished(await self.start(*arguments, **settings))

    async def run_on_stack(self, *arguments: str) -> dict[str, Any]:
        """Run a command with the settings of the running stack, and return its output."""
        settings = (await self.hookseal("up", "env", "--json")).json
        ended = await self.hookseal(*arguments, "--json", **settings)
        assert 0 == ended.code, ended
        return ended.json

    async def send_to_black_hole(self, port: int) -> None:
        """Publish an event for an endpoint that may take 20 seconds to answer."""
        slow = ("--timeout-ms", "20000", "--event-type", "*")
        await self.run_on_stack("endpoint", "add", "--tenant", "acme", "--url", f"http://127.0.0.1:{port}/", *slow)
        await self.run_on_stack("publish", "--tenant", "acme", "--event-type", "a", "--data", "1")

    @asynccontextmanager
    async def up(self, *options: str, **settings: str) -> AsyncIterator[tuple[Process, dict[str, Any]]]:
        """Run `hookseal up` for the length of the block; yield its process and its first output."""
        process = await self.start("up", *options, "--json", **settings)
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), DEADLINE_SECONDS)
            assert line, await process.communicate()
            yield process, json.loads(line)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.communicate()


async def finished(process: Process) -> Ended:
    """Return the exit code and the output of the process."""
    out, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    return Ended(code=process.returncode or 0, out=out.decode(), err=err.decode())


@pytest.fixture
def terminal(servers_folder: Path) -> Terminal:
    """Return a terminal in a new folder."""
    return Terminal(servers_folder)


async def delivered(terminal: Terminal, delivery: str) -> dict[str, Any]:
    """Return the delivery once it is delivered."""
    settings = (await terminal.hookseal("up", "env", "--json")).json
    connection = await asyncpg.connect(settings["DATABASE_URL"])
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while "delivered" != await connection.fetchval(STATE, delivery):
                pass
    finally:
        await connection.close()
    return await terminal.run_on_stack("delivery", "show", delivery)


async def canary(terminal: Terminal, endpoint: str) -> str:
    """Ask the receiver of the endpoint whether it uses the current secret, and return the verdict."""
    of_endpoint = ("--tenant", "acme", "--endpoint", endpoint)
    status = await terminal.run_on_stack("endpoint", "rotation-status", *of_endpoint, "--probe")
    verdict: str = status["canary"]["verdict"]
    return verdict


async def ended(process: Process, number: signal.Signals) -> tuple[int | None, bytes, bytes]:
    """Send a signal and return the exit code and the remaining output."""
    process.send_signal(number)
    out, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    return process.returncode, out, err


async def test_a_second_terminal_uses_the_stack(terminal: Terminal) -> None:
    """An event published from a second terminal is delivered, reported, and on record at the next start.

    The receiver verifies, so that a command can test whether it uses the secret of its endpoint.
    """
    async with terminal.up() as (process, ready):
        names = {
            "event",
            "receiver_url",
            "health_url",
            "worker_log",
            "api_url",
            "api_health_url",
            "api_log",
            "token",
            "portal_link",
            "operator_link",
        }
        assert names == ready.keys()
        assert [200, 200] == [await status_of(ready[name]) for name in ("portal_link", "operator_link")]
        assert [200, 200] == [await status_of(ready[name] + "/metrics") for name in ("health_url", "api_health_url")]
        assert (await portal_access(ready)).startswith(f"{ready['api_url']}/portal/login?code=whsc_")
        assert ("up.ready", str(terminal.state / "worker.log")) == (ready["event"], ready["worker_log"])
        assert str(terminal.state / "api.log") == ready["api_log"]
        where = ("--tenant", "acme", "--url", ready["receiver_url"] + "hook", "--event-type", "*")
        added = await terminal.run_on_stack("endpoint", "add", *where)
        published = await terminal.run_on_stack("publish", "--tenant", "acme", "--event-type", "a", "--data", "1")
        (delivery,) = published["deliveries"]
        assert added["endpoint_id"] == delivery["endpoint_id"]
        shown = await delivered(terminal, delivery["delivery_id"])
        assert "ok" == (await terminal.run_on_stack("check"))["status"]
        assert [[added["secret_ref"]]] == [attempt["signed_by"] for attempt in shown["attempt_log"]]
        assert "switched" == await canary(terminal, added["endpoint_id"])

        code, out, err = await ended(process, signal.SIGINT)
        assert (0, terminal.starting + ENDING + ENDED) == (code, err)
        event, _, control = map(json.loads, out.splitlines())
        assert not control["verified"]
        assert ("request.received", "/hook", "1") == (event["event"], event["path"], event["attempt"])
        assert delivery["delivery_id"] == event["webhook_id"]
        assert (True, True) == (event["verified"], event["body"].endswith('"data":1}'))
    assert [] == processes_in(terminal.temporary)

    async with terminal.up(HOOKSEAL_CONCURRENCY="1", SECRETS_KMS="x", DATABASE_URL="y") as (process, again):
        assert process.stderr is not None
        assert terminal.starting == await process.stderr.readexactly(len(terminal.starting))
        ignored = (
            b"not used, since `hookseal up` has settings of its own: DATABASE_URL HOOKSEAL_CONCURRENCY SECRETS_KMS\n"
        )
        assert ignored == await process.stderr.readline()
        assert (ready["api_url"], ready["token"]) == (again["api_url"], again["token"])
        assert shown == await terminal.run_on_stack("delivery", "show", delivery["delivery_id"])
        assert 0 == (await ended(process, signal.SIGTERM))[0]
    assert [] == processes_in(terminal.temporary)


@pytest.mark.req("DEL-21", part="svix")
async def test_endpoints_of_the_api_can_sign_as_svix(terminal: Terminal) -> None:
    """With the option, and the receiver verifies them, as an endpoint of a command with the same option."""
    async with terminal.up("--scheme", "svix") as (process, ready):
        where = {"url": ready["receiver_url"] + "api"}
        async with httpx.AsyncClient(
            base_url=f"{ready['api_url']}/api/v1/app/acme", headers={"authorization": f"Bearer {ready['token']}"}
        ) as client:
            assert 201 == (await client.post("/endpoint", json=where)).status_code
        mine = ("--tenant", "acme", "--url", ready["receiver_url"] + "command", "--scheme", "svix")
        await terminal.run_on_stack("endpoint", "add", *mine)
        listed = (await terminal.run_on_stack("endpoint", "list", "--tenant", "acme"))["items"]
        assert ["svix", "svix"] == [each["scheme"] for each in listed]
        published = await terminal.run_on_stack("publish", "--tenant", "acme", "--event-type", "a", "--data", "1")
        for each in published["deliveries"]:
            await delivered(terminal, each["delivery_id"])
        _, out, _ = await ended(process, signal.SIGINT)
    events = [json.loads(line) for line in out.splitlines()]
    assert {("/api", True), ("/command", True)} == {(each["path"], each["verified"]) for each in events}


async def test_a_second_interrupt_ends_it_at_once(terminal: Terminal) -> None:
    """Ctrl-C says what it waits for. A second one kills the worker, which waits for a receiver that does not answer.

    A client that never sends the rest of its request does not delay that.
    """
    async with black_hole() as (port, called), terminal.up() as (process, ready), stuck_client(ready["receiver_url"]):
        await terminal.send_to_black_hole(port)
        await asyncio.wait_for(called.wait(), DEADLINE_SECONDS)
        assert process.stderr is not None
        assert terminal.starting == await process.stderr.readexactly(len(terminal.starting))
        process.send_signal(signal.SIGINT)
        assert ENDING == await asyncio.wait_for(process.stderr.readline(), DEADLINE_SECONDS)
        async with asyncio.timeout(SOON_SECONDS):
            assert (0, b"", ENDED) == await ended(process, signal.SIGINT)
    assert '"worker.stopped"' not in (terminal.state / "worker.log").read_text()
    assert [] == processes_in(terminal.temporary)


async def test_a_running_up_is_protected_and_may_be_killed(terminal: Terminal) -> None:
    """Folder and files are private, a second `up` is refused, and a state file that was altered is named.

    A killed `up` leaves no process, `up env` says that nothing runs, and the next one starts, with another token if
    the first was revoked.
    """
    async with terminal.up() as (process, first):
        assert 0o700 == stat.S_IMODE(terminal.state.stat().st_mode)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files_of(terminal.state)}
        assert "master.key" in modes
        assert {0o600} == set(modes.values()), modes

        key = (terminal.state / "master.key").read_text().strip()
        exported = await terminal.hookseal("up", "env")
        settings = dict(shlex.split(line)[1].split("=", 1) for line in exported.out.splitlines())
        as_json = await terminal.hookseal("up", "env", "--json")
        assert settings == as_json.json
        assert str(terminal.state / "master.key") == settings["SECRETS_MASTER_KEY_FILE"]
        assert key not in exported.out + as_json.out
        misplaced = await terminal.hookseal("up", "--json", "env")
        assert (2, "malformed") == (misplaced.code, misplaced.json["error"]["code"])
        await terminal.run_on_stack("token", "revoke", "--name", "up")
        assert 401 == await answer(first, first["token"])
        await require_refusal_of_a_second(terminal, process)
        await require_report_of_an_altered_file(terminal)
        await require_no_process_after_a_kill(terminal, process)
    failed = await terminal.hookseal("up", "env", "--json")
    assert (69, "unavailable") == (failed.code, failed.json["error"]["code"])
    assert "nothing is up" in failed.json["error"]["message"]
    async with terminal.up() as (process, again):
        assert (401, 200) == (await answer(again, first["token"]), await answer(again, again["token"]))
        assert (await secret_of_a_new_endpoint(again)).startswith("whsec_")
        assert 0 == (await ended(process, signal.SIGHUP))[0]


async def portal_access(ready: dict[str, Any]) -> str:
    """Ask the API for a link to the pages, as the client of Svix does: that needs each scope of a customer."""
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {ready['token']}"}) as client:
        answered = await client.post(ready["api_url"] + "/api/v1/auth/app-portal-access/acme", json={})
        assert 200 == answered.status_code, answered.text
        url: str = answered.json()["url"]
        return url


async def secret_of_a_new_endpoint(ready: dict[str, Any]) -> str:
    """Add an endpoint over the API and ask for its secret, as a script for the client of Svix does at once."""
    api = ready["api_url"] + "/api/v1/app/acme/endpoint"
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {ready['token']}"}) as client:
        added = await client.post(api, json={"url": "http://127.0.0.1:9/"})
        answered = await client.get(f"{api}/{added.json()['id']}/secret")
        assert 200 == answered.status_code, answered.text
        key: str = answered.json()["key"]
        return key


async def status_of(url: str) -> int:
    async with httpx.AsyncClient() as client:
        return (await client.get(url)).status_code


async def answer(ready: dict[str, Any], token: str) -> int:
    """Return the status with which the API answers a request with this token."""
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as client:
        return (await client.get(ready["api_url"] + "/api/v1/app/acme/endpoint")).status_code


def files_of(folder: Path) -> list[Path]:
    """Return the files in a folder, without those in the servers' own folders."""
    return [path for path in folder.iterdir() if path.is_file()]


async def require_refusal_of_a_second(terminal: Terminal, first: Process) -> None:
    """Fail unless a second `up` in the same folder is refused and the first one continues."""
    second = await terminal.hookseal("up", "--json")
    assert (5, "refused") == (second.code, second.json["error"]["code"])
    assert first.returncode is None
    assert 0 == (await terminal.hookseal("up", "env")).code


async def require_report_of_an_altered_file(terminal: Terminal) -> None:
    """Fail unless a state file that was altered is reported by name."""
    (terminal.state / "up.json").write_text('{"pid"')
    ended = await terminal.hookseal("up", "env", "--json")
    assert (69, "unavailable") == (ended.code, ended.json["error"]["code"])
    assert f"{terminal.state / 'up.json'} was changed" in ended.json["error"]["message"]


async def require_no_process_after_a_kill(terminal: Terminal, process: Process) -> None:
    """Fail unless all processes of a killed `up` end."""
    process.kill()
    await process.wait()
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await asyncio.to_thread(processes_in, terminal.temporary):
            pass


@pytest.mark.req("OPS-04", part="errors")
async def test_a_folder_that_another_user_laid_is_refused(terminal: Terminal) -> None:
    """`up` and `up env` end with 5 and name what is not ours; the file to which a link leads stays as it is."""
    target = terminal.folder / "target"
    target.write_text("1")
    terminal.state.mkdir(mode=0o700)
    (terminal.state / "receiver.port").symlink_to(target)
    linked = await terminal.hookseal("up", "--json")
    assert (5, "refused") == (linked.code, linked.json["error"]["code"])
    assert f"{terminal.state / 'receiver.port'} is a symbolic link" in linked.json["error"]["message"]
    assert "1" == target.read_text()

    terminal.state.rename(terminal.folder / "laid")
    terminal.state.symlink_to("laid")
    refused = await terminal.hookseal("up", "env", "--json")
    assert (5, "refused") == (refused.code, refused.json["error"]["code"])
    assert f"{terminal.state} is a symbolic link" in refused.json["error"]["message"]


async def test_up_env_says_that_nothing_runs(terminal: Terminal) -> None:
    """If nothing runs, `up env` says so on standard error, prints nothing for a shell, and creates nothing."""
    ended = await terminal.hookseal("up", "env")
    expected = "hookseal: nothing is up in this folder: run `hookseal up` here, in another terminal\n"
    assert (69, "", expected) == (ended.code, ended.out, ended.err)
    assert not terminal.state.exists()


async def test_help_explains_the_second_terminal() -> None:
    """The help says how to use a second terminal, and how to end it."""
    for command in (("up",), ("up", "env")):
        assert 'eval "$(hookseal up env)"' in " ".join((await hookseal(*command, "--help")).out.split())
    text = " ".join((await hookseal("up", "--help")).out.split())
    assert "Ctrl-C" in text
    assert "one JSON object a line" in text


def test_contradicting_variables_are_unset() -> None:
    """Only variables that would override or contradict the settings of the stack are unset."""
    settings = {"DATABASE_URL": "postgresql://h/d", "SECRETS_MASTER_KEY_FILE": "/a key"}
    lines = ["export DATABASE_URL=postgresql://h/d", "export SECRETS_MASTER_KEY_FILE='/a key'"]
    assert lines == up.exported(settings, {"PATH": "/bin", "DATABASE_URL": "x", "HOOKSEAL_QUEUE": "x"}).splitlines()
    environ = dict.fromkeys(("HOOKSEAL_DATABASE_URL", "DATABASE_URL_FILE", "SECRETS_MASTER_KEY", "REDIS_URL"), "x")
    unset = "unset DATABASE_URL_FILE HOOKSEAL_DATABASE_URL SECRETS_MASTER_KEY"
    assert [unset, *lines] == up.exported(settings, environ).splitlines()
    moved = dict.fromkeys(("SECRETS_MASTER_KEY_NEXT_FILE", "SECRETS_MASTER_KEY_PREVIOUS"), "x")
    unset = "unset SECRETS_MASTER_KEY_NEXT_FILE SECRETS_MASTER_KEY_PREVIOUS"
    assert [unset, *lines] == up.exported(settings, moved).splitlines()
    moved = dict.fromkeys(("SECRETS_KMS", "SECRETS_KMS_INSTALLATION", "SECRETS_MASTER_KEY_WRAPPED_FILE"), "x")
    unset = "unset SECRETS_KMS SECRETS_KMS_INSTALLATION SECRETS_MASTER_KEY_WRAPPED_FILE"
    assert [unset, *lines] == up.exported(settings, moved).splitlines()


def test_a_request_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters and changes of direction are escaped in JSON."""
    up._say_json({"event": "request.received", "webhook_id": "\x9b31m\u202e"})

    assert '{"event":"request.received","webhook_id":"\\u009b31m\\u202e"}\n' == capsys.readouterr().out


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"attempt": "1", "retry": False, "replay": False}, "webhook-id a  verified"),
        ({"attempt": "2", "retry": True, "replay": False}, "webhook-id a  retry, attempt 2  verified"),
        ({"attempt": "2", "retry": True, "replay": True}, "webhook-id a  replay, attempt 2  verified"),
        ({"attempt": "1", "retry": False, "replay": True}, "webhook-id a  replay, attempt 1  verified"),
    ],
)
def test_the_text_says_retry_or_replay(seen: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A request is called a retry or a replay, whichever it is; the first one is neither."""
    about = {
        "event": "request.received",
        "path": "/",
        "webhook_id": "a",
        "verified": True,
        "message": "m",
        "body": "{}",
    }
    up._say_text(about | seen)
    assert f"received  /  {words}, m" == capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize("say", [up._say_text, listen._say_text])
def test_a_request_is_never_laid_out_as_a_command(
    say: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a request has, `up` and `listen` print no line on a terminal that begins as a command does."""
    monkeypatch.setenv("COLUMNS", "60")
    text = f"{'word ' * 5}hookseal up {'word ' * 9}hookseal up `hookseal up {'word ' * 20}`"
    names = ("path", "webhook_id", "attempt", "message")
    about = {"event": "request.received", "status": 401, "verified": False, "retry": True}
    with on_a_terminal() as terminal:
        say(dict.fromkeys(names, text) | about | {"body": f"hookseal up {text}"})
    assert [] == [line for line in terminal.getvalue().splitlines() if line.lstrip(" `").startswith("hookseal")]
    assert re.search(r"^ +\| hookseal up word", terminal.getvalue(), re.MULTILINE)


def test_only_the_beginning_of_a_body_is_printed() -> None:
    """As text, up to 1,000 characters of a body are printed, and how many more there are."""
    assert "a" * 1_000 == printable_body("a" * 1_000)
    assert "a" * 1_000 + " ... and 1 more character" == printable_body("a" * 1_001)
    assert "a" * 999 + "\\n ... and 2000 more characters" == printable_body("a" * 999 + "\n" + "b" * 2_000)


@pytest.mark.req("OPS-04", part="errors")
async def test_an_error_about_an_address_names_up_env(terminal: Terminal) -> None:
    """In the folder of an `up`, a shell with no settings or with old ones learns from the error how to get them."""
    nowhere = {"DATABASE_URL": f"postgresql://127.0.0.1:{closed_port()}/db"}
    calls: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
        (("delivery", "list"), {}),
        (("delivery", "list"), nowhere),
        (("check",), {"HOOKSEAL_HEALTH_PORT": str(closed_port())}),
    )
    elsewhere = {"DATABASE_URL": "postgresql://nowhere.invalid/db"}

    async def advised(words: str) -> list[bool]:
        """Return of each call whether its error has these words in a line of its own."""
        errors = [(await terminal.hookseal(*arguments, **settings)).err for arguments, settings in calls]
        return [
            any(words in line and 'eval "$(hookseal up env)"' in line for line in each.splitlines()) for each in errors
        ]

    assert [False] * 3 == await advised("")
    with state.lock_folder(terminal.state), state.publish_settings(terminal.state, nowhere):
        assert [True, False, True] == await advised("runs in this folder")
        stale = await terminal.hookseal("delivery", "list", "--json", DATABASE_URL="postgresql://127.0.0.1:1/db")
        assert "hookseal up env" in stale.json["error"]["message"]
    assert [True] * 3 == await advised("do not run")
    # A server at another address is none of `up`.
    assert "eval" not in (await terminal.hookseal("delivery", "list", **elsewhere)).err
    assert "eval" not in (await terminal.hookseal("up", "env")).err
