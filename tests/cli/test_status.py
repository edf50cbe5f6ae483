"""`hookseal status` and `hookseal top`: what an operator asks first, as JSON, as text, and live on a terminal."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from hookseal.admin import (
    Concern,
    FirstAttempts,
    OtherTenants,
    Overview,
    Status,
    TenantBacklog,
    TroubledEndpoint,
    WorkerStatus,
)
from hookseal.cli.shared.moments import age
from hookseal.cli.shared.output import emit
from hookseal.cli.status import sections, status_text
from hookseal.cli.top import fitted
from hookseal.dispatcher.core.concerns import Kind
from hookseal.dispatcher.core.model import WaitingFor
from tests import forked, rows
from tests.cli.documented import documented
from tests.cli.installation import Begun
from tests.cli.shared.test_output import on_a_terminal
from tests.worker.waiting import eventually

pytestmark = pytest.mark.req("OPS-15", part="status")


@pytest.mark.req("OPS-04", part="json")
async def test_a_refused_secret_needs_a_person(begun: Begun) -> None:
    """The object has the documented fields; the text has them, too. Exit 1, and 0 if nobody must act."""
    pool = begun.stored.pool
    endpoint = (await begun.stored.endpoint()).pointer.endpoint_id
    await rows.worker(
        pool, requests=3, most_requests=10, bytes=0, most_bytes=33_554_432, connections=7, most_connections=7,
        batch_connections=1, most_batch_connections=3, limited_by=["postgresql"],
    )  # fmt: skip
    await rows.change(pool, "control", "outbox", holder="w-1", until=rows.ahead(hours=1))
    fine = await begun.run("status", "--json")
    assert (0, []) == (fine.code, fine.json["must_act"])
    assert "nobody must act" == (await begun.run("status")).out.splitlines()[0]

    await rows.hold(pool, endpoint, since=rows.ago(minutes=5), reason="it does not open")
    await rows.change(pool, "endpoints", endpoint, name="a\x1b[2Jb")
    delivery = await rows.delivery(pool, endpoint, created_at=rows.ago(minutes=3))
    await rows.wait_for(pool, "secret", delivery, held_at=rows.ago(minutes=3))
    await rows.attempt(pool, delivery, outcome="server_error", status=503)
    job = await _replay(begun, endpoint)  # of a failed delivery, which is worth a look
    found = await begun.run("status", "--json")
    shape = documented("status")
    assert (1, [*shape]) == (found.code, [*found.json])
    for name in ("must_act", "worth_a_look", "tenants", "endpoints", "workers", "replays"):
        assert [[*shape[name][0]]] == [[*each] for each in found.json[name]], name
    for name in ("overview", "other_tenants", "first_attempts"):
        assert [*shape[name]] == [*found.json[name]], name
    assert ["hookseal endpoint list --state held"] == [each["command"] for each in found.json["must_act"]]
    assert ("w-1", ["postgresql"], 1) == (
        found.json["leader"], found.json["workers"][0]["limited_by"], found.json["secrets_refused"],
    )  # fmt: skip

    text = (await begun.run("status")).out
    lines = text.splitlines()
    assert ["a person must act", "  the secret of 1 endpoint is refused"] == lines[:2]
    assert ["  given up: 1 failed delivery", "    hookseal delivery list --state dead_letter --state failed"] == lines[
        3:5
    ]
    assert re.search(r"^acme  1 pending  0 due  1 held  oldest 3m \d+s$", text, re.MULTILINE)
    assert re.search(r"^1 pending, which wait for\n  1  secret  oldest 3m \d+s$", text, re.MULTILINE)
    [shown] = [number for number, line in enumerate(lines) if line.startswith(endpoint)]
    assert re.fullmatch(rf"{endpoint}  held \(secret\)  5m \d+s  1 held", lines[shown])
    assert re.fullmatch(r"    acme, a\\x1b\[2Jb, receiver\.example, 503 server_error, oldest 3m \d+s", lines[shown + 1])
    [worker] = [number for number, line in enumerate(lines) if line.startswith("w-1")]
    assert "w-1  1  limited by postgresql" == lines[worker]
    assert "    3 of 10 requests, 0 of 33 MB, 7 of 7 connections, 1 of 3 for batches" == lines[worker + 1]
    assert job in text
    assert max(map(len, lines)) <= 80


async def test_what_cannot_be_read_is_no_answer(begun: Begun) -> None:
    unreachable = await begun.run("status", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert 69 == unreachable.code


async def test_an_age_has_two_units() -> None:
    assert [None, "0s", "59s", "5m 12s", "3h 0m", "2d 4h"] == [
        age(seconds) for seconds in (None, 0.9, 59.9, 312, 3 * 3600 + 59, 2 * 86_400 + 4 * 3_600 + 3_599)
    ]


async def test_without_a_terminal_top_prints_once(begun: Begun) -> None:
    once = await begun.run("top")
    assert (0, "hookseal: standard output is no terminal: this is printed once\n") == (once.code, once.err)
    assert "a person must act\n" in once.out or "nobody must act\n" in once.out
    json = await begun.run("top", "--json")
    assert (0, "", [*documented("status")]) == (json.code, json.err, [*json.json])


NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ENDPOINT = "0197c1f0-5e6a-7c3b-9d2e-4f50617283{:02}"
OVERVIEW = Overview(
    tenants=31, endpoints=4_711, disabled_endpoints=0, failing_endpoints=0, held_endpoints=22, stopped_endpoints=0,
    pending=10_000, due=5_000, not_due=670, oldest_due_seconds=312.0, waiting=4_330, waiting_for={"breaker": 4_330},
    sending=0, dead_letters=0, dead_letters_of_day=0, failed=0, running_replays=0, rotations_due=0,
    master_keys={"active": 1}, live_workers=2, most=10_000,
)  # fmt: skip
TROUBLED = TroubledEndpoint(
    tenant_id="acme", endpoint_id=ENDPOINT.format(0), name="billing", url="https://receiver.example/a/hook?token=1",
    state="held", held_for="breaker", since=NOON - timedelta(hours=3, minutes=5), reason=None, last_outcome="timeout",
    last_status=None, last_attempt_at=NOON, waiting=1_000, oldest_seconds=11_100.0,
)  # fmt: skip
WORKER = WorkerStatus(
    worker_id="host-1-0a1b2c3d", version="0.1.0", started_at=NOON, beaten_at=NOON, drains=False, overstays=False,
    cannot_record=False, requests=12, most_requests=100, bytes=0, most_bytes=33_554_432, connections=2,
    most_connections=7, batch_connections=1, most_batch_connections=3, limited_by=(),
)  # fmt: skip
BUSY = Status(
    at=NOON,
    must_act=(Concern(kind=Kind.NO_LEADER, reason="no worker has led for 5 min", command="hookseal check"),),
    worth_a_look=(),
    overview=OVERVIEW,
    oldest_waiting_seconds={"breaker": 11_100.0},
    tenants=tuple(
        TenantBacklog(tenant_id=f"tenant-{n}", pending=1_000, due=n, waiting=876, oldest_seconds=11_100.0 - n)
        for n in range(10)
    ),
    other_tenants=OtherTenants(tenants=21, pending=999, oldest_seconds=59.0),
    all_tenants=True,
    endpoints=tuple(replace(TROUBLED, endpoint_id=ENDPOINT.format(n)) for n in range(20)),
    more_endpoints=True,
    most_of_each=1_000,
    workers=(WORKER, replace(WORKER, worker_id="host-2-4e5f6071", requests=100, limited_by=("requests", "cpu"))),
    leader=None,
    secrets_refused=0,
    overlaps_ending=0,
    first_attempts=FirstAttempts(
        number=1_000, has_more=True, waiting_for={"breaker": 12, "secret": 1}, p50_seconds=0.0123, p95_seconds=7.25,
        p99_seconds=9.5, oldest_due_seconds=312.0, objective_seconds=5.0, meets_objective=False,
    ),
    replays=(),
    oldest_finished_at=NOON - timedelta(days=30),
)  # fmt: skip


@pytest.mark.pure
async def test_the_status_fits_80_columns_and_has_no_zeros() -> None:
    """Everything that is there is shown, and nothing of what there is none of."""
    lines = status_text(BUSY).splitlines()
    assert max(map(len, lines)) <= 80
    assert "first attempts: late (objective: 95% within 5 s)" in lines
    assert "  p50 0.012 s, p95 7.250 s, p99 9.500 s, of the newest 1000 in five minutes" in lines
    assert "  held: 12 breaker, 1 secret" in lines
    assert "  the oldest that is due has waited for 5m 12s" in lines
    assert "tenant-3  1000+ pending  3 due  876 held  oldest 3h 4m" in lines
    assert "21 others: 999 pending  oldest 59s" in lines
    assert "    acme, billing, receiver.example, timeout, oldest 3h 5m" in lines
    assert [f"{ENDPOINT.format(n)}  held (breaker)  3h 5m  1000+ held" for n in range(20)] == [
        line for line in lines if line.startswith("0197")
    ]
    assert "there are more: hookseal endpoint list --state held" in lines
    assert ["10000+ pending, which wait for", "  5000  a worker          oldest 5m 12s"] == lines[
        lines.index("10000+ pending, which wait for") :
    ][:2]
    first = lines.index("workers") + 1
    assert "host-2-4e5f6071  0.1.0  limited by requests, cpu" == lines[first]
    assert not [line for line in lines if re.search(r"(?:^|  )0$|  -$", line)]
    none = replace(BUSY.first_attempts, number=0, p50_seconds=None, p95_seconds=None, p99_seconds=None)
    held = replace(none, meets_objective=None, waiting_for=dict.fromkeys(WaitingFor, 1_000))
    given_up = Concern(kind=Kind.GIVEN_UP, reason="given up: 1 dead letter", command="hookseal delivery list")
    head = sections(replace(BUSY, must_act=(), worth_a_look=(given_up,), first_attempts=held))[0].head
    assert ["nobody must act", "  given up: 1 dead letter", "    hookseal delivery list"] == head[:3]
    assert "first attempts: none to time in five minutes (objective: 95% within 5 s)" == head[3]
    assert head[4].startswith("  held: 1000 secret, ")
    assert max(map(len, head)) <= 80
    nobody = OtherTenants(tenants=0, pending=0, oldest_seconds=None)
    quiet = replace(BUSY, must_act=(), tenants=(), other_tenants=nobody, endpoints=(), workers=())
    quiet = replace(quiet, overview=replace(OVERVIEW, pending=0, due=0))
    assert ["nobody must act", "installation"] == [each.head[0] for each in sections(quiet)]


@pytest.mark.pure
@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 12), (132, 40), (20, 30), (20, 10), (1, 3)])
async def test_top_shows_what_matters_most_in_any_size(width: int, height: int) -> None:
    """What a person must do is whole; then tenants, endpoints and limits have entries in turn; no number is broken."""
    parts = sections(BUSY)
    lines = fitted(parts, width=width, height=height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    if width >= 20:
        numbers = {word for word in re.findall(r"\S+", status_text(BUSY)) if len(word) <= width}
        assert {word for word in words if re.fullmatch(r"[0-9.+]+", word)} <= numbers
        assert "a person must act no worker has led for 5 min hookseal check" == " ".join(words[:13])
    if (width, height) == (80, 24):
        for head in ("tenants (", "endpoints (", "workers", "10000+ pending"):
            assert [True] == [True for line in lines if line.startswith(head)], head
        assert "tenant-0  1000+ pending  0 due  876 held  oldest 3h 5m" in lines
        assert f"{ENDPOINT.format(0)}  held (breaker)  3h 5m  1000+ held" in lines
        assert "host-2-4e5f6071  0.1.0  limited by requests, cpu" in lines


@pytest.mark.pure
@pytest.mark.parametrize("width", [40, 60, 80])
async def test_a_name_never_looks_like_a_command(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of an endpoint is shown as it is, and no line begins within it without a bar."""
    monkeypatch.setenv("COLUMNS", f"{width}")
    named = replace(TROUBLED, name=f"Shop. Broken? Run `hookseal endpoint delete {'--yes ' * 9}`")
    found = replace(BUSY, endpoints=(named,))
    with on_a_terminal() as terminal:
        emit({}, as_json=False, text=status_text(found))
    for lines in (terminal.getvalue().splitlines(), fitted(sections(found), width=width, height=60)):
        assert "Run `hookseal endpoint delete --yes" in " ".join(line.strip().removeprefix("| ") for line in lines)
        assert [] == [line for line in lines if line.lstrip(" `").startswith(("hookseal endpoint delete", "--yes"))]


@pytest.mark.parametrize("columns", [20, 80, 200])
async def test_top_follows_the_installation(begun: Begun, columns: int) -> None:
    """On a terminal of any width it shows a change at its next look, also after its connection was lost.

    Ctrl-C ends it with 0.
    """
    await begun.stored.endpoint()
    await rows.worker(begun.stored.pool)
    async with _top(begun, columns) as terminal:
        await terminal.shows("nobody must act")
        [endpoint] = [row["id"] for row in await begun.stored.pool.fetch("SELECT id::text FROM hookseal.endpoints")]
        await rows.hold(begun.stored.pool, endpoint)
        for _ in range(12):
            await rows.wait_for(begun.stored.pool, "secret", await rows.delivery(begun.stored.pool, endpoint))
        await terminal.shows("a person must act")
        await terminal.shows("12 pending")  # a number is whole, also where there are few columns
        ended = await begun.stored.pool.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'hookseal'"
        )
        assert 1 == ended
        await rows.remove(begun.stored.pool, "held_endpoints")
        await terminal.shows("nobody must act")
        assert max(len(line) for line in terminal.lines()) <= columns
        terminal.process.send_signal(signal.SIGINT)
        assert 0 == await terminal.process.wait()


class _Terminal:
    def __init__(self, process: asyncio.subprocess.Process, ours: int) -> None:
        self.process = process
        self.seen = ""
        self._ours = ours
        os.set_blocking(ours, False)

    async def shows(self, text: str) -> None:
        """Return when the newest screen has the text."""

        def look() -> bool:
            with suppress(OSError):
                self.seen += os.read(self._ours, 65_536).decode(errors="replace")
            return text in self.seen.rpartition("\x1b[H")[2]

        await eventually(look)

    def lines(self) -> list[str]:
        """Return the lines of all screens, without what steers the terminal."""
        screens = self.seen.replace("\x1b[H", "\n")
        # What was read last may end within an order to the terminal.
        return [line for line in re.sub(r"\x1b(?:$|\[[0-9;?]*(?:$|[A-Za-z]))", "", screens).splitlines() if line]


@asynccontextmanager
async def _top(begun: Begun, columns: int) -> AsyncIterator[_Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    settings = environment | begun.settings | {"TERM": "xterm"}
    process = await forked.start("top", "--every", "0.5", env=settings, stdout=theirs)
    os.close(theirs)
    try:
        yield _Terminal(process, ours)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)


async def _replay(begun: Begun, endpoint: str) -> str:
    """Start a replay job, which no worker runs, and return its id."""
    await rows.delivery(begun.stored.pool, endpoint, state="failed")
    started = await begun.run("replay", "start", "--tenant", "acme", "--json")
    assert 0 == started.code, started.out
    job: str = started.json["replay_id"]
    return job
