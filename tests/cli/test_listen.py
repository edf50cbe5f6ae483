"""`hookseal listen` is a receiver that verifies every scheme, reports why it refuses, and ends at a signal."""

import asyncio
import json
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from hookseal.cli import listen
from hookseal.demo import sink as served
from hookseal.ground.clock import SystemClock
from hookseal.ground.wire import MAX_BODY_BYTES, Algorithm, Scheme, signed_content, standard_headers, x_webhook_content
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.signing import Signer, generate_signing_secret, public_key_of
from tests import forked
from tests.cli.command import DEADLINE_SECONDS, hookseal
from tests.cli.listeners import SOON_SECONDS
from tests.doubles.raw_request import raw_request
from tests.doubles.stuck_client import stuck_client
from tests.worker.canary import Canary, search, signing
from tests.worker.waiting import eventually
from tests.worker.world import world

pytestmark = pytest.mark.req("OPS-12")

SECRET, OTHER = generate_signing_secret(), generate_signing_secret()
TEXT = SecretMaterial(b"canary of an x-webhook secret, 4f1d")
PAIR = generate_signing_secret(Algorithm.ED25519)
BODY = b'{"type":"invoice.paid","data":{"id":1}}'


class Listening:
    """A running command and its output."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.url = ""

    async def line(self) -> str:
        """Return the next line."""
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), DEADLINE_SECONDS)).decode()

    async def next_object(self) -> dict[str, Any]:
        """Return the next line, parsed as JSON."""
        found: dict[str, Any] = json.loads(await self.line())
        return found

    async def post(self, headers: Mapping[str, str], body: bytes = BODY) -> int:
        """Send a request, and return the status."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url + "hook", headers=headers, data=body) as got,
        ):
            return got.status


@asynccontextmanager
async def listening(*options: str, folder: Path) -> AsyncIterator[Listening]:
    """Run the command until the end of the block."""
    process = await forked.start(*("listen", *options), stdout=PIPE, stderr=PIPE, cwd=folder)
    found = Listening(process)
    try:
        yield found
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


def file(folder: Path, *secrets: bytes, mode: int = 0o600) -> str:
    """Return a private file with these secrets, one a line."""
    path = folder / "secrets"
    path.touch(mode=0o600)
    path.write_bytes(b"\n".join(secrets) + b"\n")
    path.chmod(mode)
    return str(path)


def signed(secret: SecretMaterial, *, at: int, algorithm: Algorithm = Algorithm.HMAC) -> dict[str, str]:
    """Return the headers of a request that was signed at that time."""
    signature = Signer("r", secret, Scheme.STANDARD, algorithm).sign(signed_content("msg_1", at, BODY))
    return standard_headers("msg_1", at, (signature,))


def signed_in_x_webhook(at: int) -> dict[str, str]:
    """Return the headers of a request signed in `x-webhook`."""
    signature = Signer("r", TEXT, Scheme.X_WEBHOOK, Algorithm.HMAC).sign(x_webhook_content(at, BODY))
    return {"x-webhook-timestamp": str(at), "x-webhook-delivery-id": "d-1", "x-webhook-signature": signature}


async def test_a_request_is_verified_or_refused_with_its_reason(tmp_path: Path) -> None:
    """A signature by any of its secrets, scheme or public key gets 204; any other gets 401 with the reason."""
    public = str(public_key_of(PAIR)).encode()
    secrets = file(tmp_path, OTHER.reveal(), SECRET.reveal(), b"", TEXT.reveal(), public)
    now = int(SystemClock().now().timestamp())
    async with listening("--json", "--secret-file", secrets, folder=tmp_path) as found:
        ready = await found.next_object()
        assert ({"event", "url", "secrets"}, 4) == (set(ready), ready["secrets"])
        assert ready["url"].startswith("http://127.0.0.1:")
        found.url = ready["url"]
        for headers, number, scheme in (
            (signed(SECRET, at=now), 2, "standard"),
            (signed_in_x_webhook(now), 3, "x-webhook"),
            (signed(PAIR, at=now, algorithm=Algorithm.ED25519), 4, "standard"),
        ):
            assert 204 == await found.post(headers | {"authorization": "Bearer canary-4f1d"})
            shown = await found.next_object()
            assert (True, None, number, scheme, 204) == tuple(
                shown[name] for name in ("verified", "reason", "secret_number", "scheme", "status")
            )
            assert (BODY.decode(), "/hook") == (shown["body"], shown["path"])
            assert "authorization" in shown["other_headers"]
            assert headers.items() <= shown["headers"].items()
            assert "canary-4f1d" not in json.dumps(shown)
        for headers, body, reason in (
            (signed(generate_signing_secret(), at=now), BODY, "no_matching_signature"),
            (signed(SECRET, at=now), BODY + b" ", "no_matching_signature"),
            (signed(SECRET, at=now - 3600), BODY, "outside_tolerance"),
            ({}, BODY, "missing_header"),
            (signed(SECRET, at=now) | {"webhook-timestamp": "soon"}, BODY, "malformed_header"),
        ):
            assert 401 == await found.post(headers, body)
            shown = await found.next_object()
            assert (False, reason, 401) == (shown["verified"], shown["reason"], shown["status"])
            assert shown["message"]
        assert 413 == await found.post({}, b"x" * (MAX_BODY_BYTES + 1))


@pytest.mark.req("SEC-03")
@pytest.mark.parametrize("option", ["--json", None])
async def test_a_request_cannot_steer_the_terminal(tmp_path: Path, option: str | None) -> None:
    """Control characters and changes of direction in a path, a header or a body are escaped, in JSON as in text."""
    steering = "a\x1b[2J\x9b31m\u202e\u2066b"
    async with listening(*filter(None, [option]), folder=tmp_path) as found:
        first = await found.line()
        found.url = json.loads(first)["url"] if option else first.split()[1]
        headers = {"webhook-id": steering.replace("\x1b", ""), "x-hookseal-attempt": "\x9c"}
        assert 204 == await found.post(headers, steering.encode())
        lines = [await found.line() for _ in range(1 if option else 2)]

    assert all(line.removesuffix("\n").isprintable() for line in lines)
    if option:
        assert steering == json.loads(lines[0])["body"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it(tmp_path: Path, number: signal.Signals) -> None:
    """Without secrets every request is accepted and printed as not verified; a signal ends it with 0."""
    async with listening(folder=tmp_path) as found:
        ready = await found.line()
        assert "accepted, and not verified" in ready
        found.url = ready.split()[1]
        assert 204 == await found.post({"webhook-id": "msg_9", "x-hookseal-attempt": "2"})
        assert "204  /hook  msg_9  attempt 2  not verified" == (await found.line()).strip()
        assert BODY.decode() == (await found.line()).strip()
        os.kill(found.process.pid, number)
        out, err = await asyncio.wait_for(found.process.communicate(), DEADLINE_SECONDS)
        assert (0, b"", b"") == (found.process.returncode, out, err)


async def test_what_is_no_text_is_printed(tmp_path: Path) -> None:
    """Headers that are not UTF-8 are printed with replacement characters, a body that cannot be decoded as refused."""
    async with listening(folder=tmp_path) as found:
        url = (await found.line()).split()[1]
        assert 204 == await raw_request(url, b"webhook-id: caf\xe9", b"x-correlation-id: \xe9")
        printed = [await found.line() for _ in range(2)]
        assert 400 == await raw_request(url, b"webhook-id: b", b"content-encoding: gzip")
        printed.append(await found.line())
        os.kill(found.process.pid, signal.SIGINT)
        assert (b"", b"") == await asyncio.wait_for(found.process.communicate(), DEADLINE_SECONDS)
    refused = "400  /hook  b  REFUSED, the body cannot be decoded; its content-encoding is gzip\n"
    assert ["204  /hook  caf\ufffd  not verified\n", "     {}\n", refused] == printed


async def test_a_refused_body_and_a_repeated_header_in_json(tmp_path: Path) -> None:
    """A body that cannot be decoded is an event of its own; if a header occurs twice, `headers` has the first."""
    async with listening("--json", folder=tmp_path) as found:
        url = (await found.next_object())["url"]
        assert 204 == await raw_request(url, b"webhook-id: a", b"Webhook-Id: b")
        shown = await found.next_object()
        assert 400 == await raw_request(url, b"webhook-id: b", b"content-encoding: gzip")
        refused = await found.next_object()
    assert ("a", {"webhook-id": "a"}) == (shown["webhook_id"], shown["headers"])
    assert ("request.refused", 400, False) == (refused["event"], refused["status"], refused["verified"])


async def test_a_second_interrupt_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first signal waits a moment for a request whose body is still to come; a second one does not."""
    monkeypatch.setattr(served, "_SHUTDOWN_SECONDS", 600.0)
    said = asyncio.Queue[dict[str, Any]]()
    monkeypatch.setattr(listen, "_say_json", said.put_nowait)
    running = asyncio.create_task(listen._listen(0, served.LOOPBACK, None, as_json=True))
    async with asyncio.timeout(SOON_SECONDS):
        ready = await said.get()
        async with stuck_client(ready["url"]):
            port = int(ready["url"].rstrip("/").rpartition(":")[2])

            async def is_closed() -> bool:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection(served.LOOPBACK, port)
                    writer.close()
                    return False
                return True

            signal.raise_signal(signal.SIGINT)
            await eventually(is_closed)
            assert not running.done()
            signal.raise_signal(signal.SIGINT)
            await running
    assert said.empty()


async def test_an_unusable_file_or_port_is_refused_at_start(tmp_path: Path) -> None:
    """A file that others may read (5), one without a secret or with too many (2), and a busy port (69) are refused."""
    open_file = file(tmp_path, SECRET.reveal(), mode=0o644)
    ended = await hookseal("listen", "--secret-file", open_file)
    assert 5 == ended.code
    ends = [ended]
    for lines in ((b"", b" "), (SECRET.reveal(),) * (listen._MAX_SECRETS + 1), (b"\xff",)):
        ends.append(await hookseal("listen", "--secret-file", file(tmp_path, *lines)))
        assert 2 == ends[-1].code
    assert [] == search(
        {"output": "".join(end.out + end.err for end in ends).encode()}, [signing("s", SECRET.reveal())]
    )
    async with listening("--json", folder=tmp_path) as found:
        port = (await found.next_object())["url"].rstrip("/").rpartition(":")[2]
        ended = await hookseal("listen", "--port", port)
        assert (69, True) == (ended.code, f"cannot listen on 127.0.0.1:{port}" in ended.err)


async def test_a_workers_request_verifies(
    pool: "asyncpg.Pool[asyncpg.Record]", database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A request of a real worker verifies with the secret that `endpoint add` returned."""
    installed = await world(pool, database_url, redis_url, tmp_path)
    async with listening("--json", "--secret-file", file(tmp_path, SECRET.reveal()), folder=tmp_path) as found:
        url = (await found.next_object())["url"]
        await installed.endpoint(url + "hook", tenant="globex", secret=SECRET, timeout_ms=15_000)
        async with installed.worker():
            [ring] = await installed.publish("globex")
            await installed.state(ring, "delivered")
        shown = await found.next_object()
    assert (True, 1, ring.delivery_id) == (shown["verified"], shown["secret_number"], shown["webhook_id"])
    assert [] == search({"output": json.dumps(shown).encode()}, [Canary("secret", (SECRET.reveal(),))])
