"""`endpoint rotate --verify`, `rotation-status --probe`, `end-overlap --when-switched`: JSON, text, codes, steps."""

import asyncio
import base64
import json
import os
import re
import signal
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.dispatcher.store.publish import NewEvent, publish_raw
from hookseal.ground.ids import TenantId
from tests import forked
from tests.cli.command import Ended
from tests.cli.counted_connections import counted_connections
from tests.cli.endpoint.test_rotation import ASKS_FOR_OLDER_CLAIMS, run
from tests.cli.installation import Begun
from tests.cli.switching import Switching, switching
from tests.doubles.receivers import hang, listening
from tests.worker.waiting import eventually

OLD = "whsec_" + base64.b64encode(bytes(range(32))).decode()
NEW = "whsec_" + base64.b64encode(bytes(range(100, 132))).decode()
SENT = {"HOOKSEAL_ALLOW_HTTP": "true", "HOOKSEAL_EGRESS_ALLOW": "127.0.0.0/8"}
pytestmark = pytest.mark.req("OPS-12")


@pytest.fixture
async def receiver() -> AsyncIterator[Switching]:
    """Yield a receiver that knows only the old secret."""
    async with switching() as found:
        found.secrets = [OLD]
        yield found


@pytest.fixture
async def sending(begun: Begun) -> Begun:
    """Return the installation with settings that allow requests to this machine."""
    return replace(begun, settings=begun.settings | SENT)


def private(folder: Path, secret: str) -> str:
    """Return the path of a file with the secret that only its owner may read."""
    file = folder / f"secret-{len(list(folder.iterdir()))}"
    file.touch(0o600)
    file.write_text(secret)
    return str(file)


async def added(begun: Begun, url: str, folder: Path, *options: str) -> str:
    """Add an endpoint for that url that signs with the old secret, and return its id."""
    ended = await begun.run(
        *("endpoint", "add", "--tenant", "acme", "--url", url, "--event-type", "*", "--json"),
        *("--secret-file", private(folder, OLD), *options),
    )
    endpoint: str = ended.json["endpoint_id"]
    return endpoint


async def rotated(begun: Begun, endpoint: str, folder: Path, *options: str) -> Ended:
    """Rotate to the new secret."""
    return await run(begun, "rotate", endpoint, "--secret-file", private(folder, NEW), *options)


async def test_the_json_of_a_canary_has_every_field(sending: Begun, receiver: Switching, tmp_path: Path) -> None:
    """The JSON of a canary has its verdict, statuses, time and generation; without a canary it is null."""
    endpoint = await added(sending, receiver.url, tmp_path)
    receiver.secrets = [NEW]
    assert (await rotated(sending, endpoint, tmp_path)).json["canary"] is None
    looked = await run(sending, "rotation-status", endpoint)
    assert (None, False) == (looked.json["canary"], looked.json["overlap_ended"])
    probed = await run(sending, "rotation-status", endpoint, "--probe")
    row = await sending.stored.pool.fetchrow("SELECT * FROM hookseal.rotation_canaries")
    assert row is not None

    assert (0, "") == (probed.code, probed.err)
    assert [
        ("verdict", "switched"),
        ("status", 204),
        ("control_status", 401),
        ("detail", "the receiver accepted what only the current secret signed, and refused an invalid signature"),
        ("sent_at", row["sent_at"].isoformat(timespec="milliseconds").replace("+00:00", "Z")),
        ("generation", 2),
    ] == list(probed.json["canary"].items())
    again = (await run(sending, "rotation-status", endpoint)).json | {"seconds_left": probed.json["seconds_left"]}
    assert list(probed.json.items()) == list(again.items())
    assert list(looked.json) == list(again)


async def test_the_end_of_an_overlap_has_exit_codes(sending: Begun, receiver: Switching, tmp_path: Path) -> None:
    """`--when-switched` exits 1 until the receiver has switched, then 0; without an overlap it exits 4."""
    endpoint = await added(sending, receiver.url, tmp_path)
    await rotated(sending, endpoint, tmp_path)
    ended = await run(sending, "end-overlap", endpoint, "--when-switched")
    assert (1, "not_switched", False) == (ended.code, ended.json["canary"]["verdict"], ended.json["overlap_ended"])
    receiver.secrets = [NEW]
    ended = await run(sending, "end-overlap", endpoint, "--when-switched")
    assert (0, "switched", 2, True, 3, 0) == (
        *(ended.code, ended.json["canary"]["verdict"], ended.json["canary"]["generation"]),
        *(ended.json[name] for name in ("overlap_ended", "generation", "older_claims")),
    )
    refused = await run(sending, "end-overlap", endpoint, "--when-switched")
    message = (
        "no overlap is running, so none can be ended; `hookseal endpoint rotation-status --probe` asks the receiver"
    )
    assert (4, message) == (refused.code, refused.json["error"]["message"])


async def test_an_unknown_canary_has_the_reason(sending: Begun, receiver: Switching, tmp_path: Path) -> None:
    """If the receiver cannot be asked after a rotation, which stays made, the answer says why; `--probe` exits 5."""
    endpoint = await added(sending, receiver.url, tmp_path)
    await run(sending, "rotate", endpoint, "--rotation-id", "r1")
    await run(sending, "rotate", endpoint, "--overlap", "0")
    again = await run(sending, "rotate", endpoint, "--rotation-id", "r1", "--verify")
    assert (0, 2, None) == (again.code, again.json["generation"], again.json["canary"]["verdict"])
    assert "at generation 3, not 2" in again.json["canary"]["detail"]

    await sending.run("endpoint", "disable", "--tenant", "acme", "--endpoint", endpoint)
    ended = await rotated(sending, endpoint, tmp_path, "--verify")
    reason = "nothing is sent: the endpoint is disabled"
    unknown = {"verdict": None, "status": None, "control_status": None, "sent_at": None}
    assert (0, 4) == (ended.code, ended.json["generation"])
    assert list((unknown | {"detail": reason, "generation": 4}).items()) == list(ended.json["canary"].items())
    assert f"hookseal: rotated, but whether the receiver has switched is not known: {reason}\n" == ended.err
    refused = await run(sending, "rotation-status", endpoint, "--probe")
    assert (5, reason, []) == (refused.code, refused.json["error"]["message"], receiver.received)


async def test_no_output_shows_a_secret(sending: Begun, receiver: Switching, tmp_path: Path) -> None:
    """No output at any log level, and no recorded canary, contains a secret."""
    endpoint = await added(sending, receiver.url, tmp_path)
    receiver.secrets = [NEW]
    debug = replace(sending, settings=sending.settings | {"HOOKSEAL_LOG_LEVEL": "debug"})
    ends = [
        await rotated(debug, endpoint, tmp_path, "--verify"),
        await run(debug, "end-overlap", endpoint, "--when-switched"),
    ]
    rows = await sending.stored.pool.fetch("SELECT * FROM hookseal.rotation_canaries")
    seen = "".join(f"{ended.out}{ended.err}" for ended in ends) + repr([dict(row) for row in rows])

    assert [0, 0] == [ended.code for ended in ends]
    assert not [secret for secret in (OLD, NEW) if secret.removeprefix("whsec_") in seen]


async def test_an_interrupted_rotation_still_prints_its_answer(sending: Begun, tmp_path: Path) -> None:
    """If it is interrupted while it waits for the receiver, `rotate` still prints its answer: the rotation was made."""
    async with listening(hang) as silent:
        endpoint = await added(sending, silent.url, tmp_path, "--timeout-ms", "20000")
        process = await forked.start(
            *("endpoint", "rotate", "--tenant", "acme", "--endpoint", endpoint),
            *("--verify", "--print-secret", "--json"),
            env={**os.environ, **sending.settings},
            stdout=PIPE,
            stderr=PIPE,
        )
        try:

            async def has_request() -> bool:
                return bool(silent.requests)

            await eventually(has_request)
            process.send_signal(signal.SIGINT)
            out, err = await asyncio.wait_for(process.communicate(), 60)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    printed = json.loads(out)
    assert (0, 2, None, "interrupted") == (
        process.returncode,
        printed["generation"],
        printed["canary"]["verdict"],
        printed["canary"]["detail"],
    )
    assert printed["secret"].startswith("whsec_")
    assert b"not known: interrupted" in err


async def test_the_text_states_the_verdict(sending: Begun, receiver: Switching, tmp_path: Path) -> None:
    """The text of both commands states the verdict in a sentence."""
    endpoint = await added(sending, receiver.url, tmp_path)
    of = ("--tenant", "acme", "--endpoint", endpoint)
    rotation = await sending.run("endpoint", "rotate", *of, "--verify")
    status = await sending.run("endpoint", "rotation-status", *of)
    receiver.always = 429
    probe = await sending.run("endpoint", "rotation-status", *of, "--probe")

    assert (0, 0, 0) == (rotation.code, status.code, probe.code)
    printed = re.compile(r"^receiver +has not switched, \S+Z: the receiver refused .*: it answered 401$", re.MULTILINE)
    assert printed.search(rotation.out)
    assert printed.search(status.out)
    assert "neither accepted nor refused what only the current secret signed: it answered 429" in probe.out


async def test_all_steps_share_one_connection(sending: Begun, receiver: Switching, tmp_path: Path) -> None:
    """Rotation, waiting for older claims and the probe use one connection, and unlock the secrets once."""
    endpoint = await added(sending, receiver.url, tmp_path)
    receiver.secrets = [NEW]
    async with counted_connections(sending.settings["DATABASE_URL"]) as counted:
        through = replace(sending, settings=sending.settings | {"DATABASE_URL": counted.url})
        ended = await rotated(through, endpoint, tmp_path, "--overlap", "0", "--verify")

    assert (0, 0, "switched") == (ended.code, ended.json["older_claims"], ended.json["canary"]["verdict"])
    assert 1 == counted.connections


async def test_a_lost_connection_leaves_older_claims_unknown(
    sending: Begun, receiver: Switching, tmp_path: Path
) -> None:
    """The number of older claims is then unknown (69), and the probe uses a new connection."""
    endpoint = await added(sending, receiver.url, tmp_path)
    receiver.secrets = [NEW]
    pool = sending.stored.pool
    [ring] = (await publish_raw(pool, NewEvent(tenant_id=TenantId("acme"), event_type="a"), b"{}")).deliveries
    assert await PostgresLedger(pool, worker="w1", lease_seconds=60).claim(ring) is not None
    command = asyncio.create_task(rotated(sending, endpoint, tmp_path, "--overlap", "0", "--verify"))

    async def cut() -> bool:
        waiting = await pool.fetch(ASKS_FOR_OLDER_CLAIMS)
        return any([await pool.fetchval("SELECT pg_terminate_backend($1)", asking["pid"]) for asking in waiting])

    await eventually(cut)
    ended = await asyncio.wait_for(command, 60)

    assert (69, None, "switched") == (ended.code, ended.json["older_claims"], ended.json["canary"]["verdict"])
    assert "changed, but older claims may still be in flight" in ended.err
