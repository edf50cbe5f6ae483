"""`endpoint rotate --verify` and `rotation-status --probe` and `--end-when-switched`, against real receivers."""

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
from typing import Any

import pytest

from hookseal.dispatcher.store.ledger import PostgresLedger
from hookseal.dispatcher.store.publish import Event, publish_raw
from hookseal.ground.ids import TenantId
from hookseal.ground.wire import Algorithm
from hookseal.secrets.core.signing import generate_signing_secret, public_key_of
from tests import forked
from tests.cli.command import Ended
from tests.cli.counted_connections import counted_connections
from tests.cli.endpoint.test_rotation import ASKS_FOR_OLDER_CLAIMS, run
from tests.cli.installation import Begun
from tests.cli.switching import Switching, switching
from tests.doubles.logins import login
from tests.doubles.receivers import hang, listening
from tests.worker.waiting import eventually

OLD = "whsec_" + base64.b64encode(bytes(range(32))).decode()
NEW = "whsec_" + base64.b64encode(bytes(range(100, 132))).decode()
TEXT = "a new secret of any text"
PAIR = generate_signing_secret(Algorithm.ED25519)
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
SENT = {"HOOKSEAL_ALLOW_HTTP": "true", "HOOKSEAL_EGRESS_ALLOW": "127.0.0.0/8"}
STANDARD = ("--scheme", "standard")
pytestmark = pytest.mark.req("OPS-12", part="rotate-verify")


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


async def rotated(begun: Begun, endpoint: str, folder: Path, *options: str, secret: str = NEW) -> Ended:
    """Rotate to the new secret."""
    return await run(begun, "rotate", endpoint, "--secret-file", private(folder, secret), *options)


async def probed(begun: Begun, endpoint: str) -> tuple[str, int | None, int | None]:
    """Probe the receiver; return the verdict and both statuses."""
    ended = await run(begun, "rotation-status", endpoint, "--probe")
    assert (0, "") == (ended.code, ended.err)
    found = ended.json["canary"]
    return found["verdict"], found["status"], found["control_status"]


async def evidence(begun: Begun) -> list[dict[str, Any]]:
    """Return the recorded canaries, oldest first."""
    rows = await begun.stored.pool.fetch("SELECT * FROM hookseal.rotation_canaries ORDER BY sent_at")
    return [dict(row) for row in rows]


async def overlap_state(begun: Begun) -> tuple[int, bool]:
    """Return the generation of the endpoint, and whether it has a previous secret."""
    row = await begun.stored.pool.fetchrow("SELECT generation, previous_secret_ref FROM hookseal.endpoints")
    assert row is not None
    return row["generation"], row["previous_secret_ref"] is not None


@pytest.mark.parametrize(
    ("before", "after", "secret", "known"),
    [
        pytest.param(STANDARD, (), NEW, NEW, id="standard"),
        pytest.param(("--scheme", "x-webhook"), (), TEXT, TEXT, id="x-webhook"),
        pytest.param(
            STANDARD, ("--algorithm", "ed25519"), PAIR.reveal().decode(), str(public_key_of(PAIR)), id="ed25519"
        ),
    ],
)
async def test_each_receiver_has_its_verdict(
    sending: Begun,
    receiver: Switching,
    tmp_path: Path,
    before: tuple[str, ...],
    after: tuple[str, ...],
    secret: str,
    known: str,
) -> None:
    """A receiver that accepts the new secret has switched; each other behaviour has a verdict of its own."""
    endpoint = await added(sending, receiver.url, tmp_path, *before)
    first = await rotated(sending, endpoint, tmp_path, *after, "--verify", secret=secret)
    assert (0, "not_switched", 401, None, 2) == (
        first.code,
        *(first.json["canary"][name] for name in ("verdict", "status", "control_status", "generation")),
    )
    assert 1 == len(receiver.received), "no control is sent if it would prove nothing"

    receiver.secrets = [known]
    assert ("switched", 204, 401) == await probed(sending, endpoint)
    receiver.secrets = [OLD, known]
    assert ("switched", 204, 401) == await probed(sending, endpoint)
    receiver.always = 200
    assert ("does_not_verify", 200, 200) == await probed(sending, endpoint)
    receiver.always = 500
    assert ("no_answer", 500, None) == await probed(sending, endpoint)

    assert ["not_switched", "switched", "switched", "does_not_verify", "no_answer"] == [
        row["verdict"] for row in await evidence(sending)
    ]


async def test_a_dead_receiver_has_no_answer(sending: Begun, tmp_path: Path) -> None:
    """Without a listening receiver the verdict is `no_answer`, and the rotation is still made."""
    async with switching() as gone:
        endpoint = await added(sending, gone.url, tmp_path)
    ended = await rotated(sending, endpoint, tmp_path, "--verify")

    assert (0, "no_answer", None, None) == (
        ended.code,
        *(ended.json["canary"][name] for name in ("verdict", "status", "control_status")),
    )
    assert "the connection failed" in ended.json["canary"]["detail"]
    assert (2, True) == await overlap_state(sending)


async def test_the_json_of_a_canary_has_every_field(sending: Begun, receiver: Switching, tmp_path: Path) -> None:
    """The JSON of a canary has its verdict, generation, statuses and time; without a canary it is null."""
    endpoint = await added(sending, receiver.url, tmp_path)
    receiver.secrets = [NEW]
    assert (await rotated(sending, endpoint, tmp_path)).json["canary"] is None
    looked = await run(sending, "rotation-status", endpoint)
    assert (None, False) == (looked.json["canary"], looked.json["overlap_ended"])
    has_request = await run(sending, "rotation-status", endpoint, "--probe")
    [row] = await evidence(sending)

    assert {
        "verdict": "switched",
        "status": 204,
        "control_status": 401,
        "detail": "the receiver accepted what only the current secret signed, and refused an invalid signature",
        "sent_at": row["sent_at"].isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "generation": 2,
    } == has_request.json["canary"]
    assert has_request.json == (await run(sending, "rotation-status", endpoint)).json | {
        "seconds_left": has_request.json["seconds_left"]
    }
    assert looked.json.keys() == has_request.json.keys()
    assert (f"db:acme:webhook-endpoint-{endpoint}:2", receiver.received[0][0]["webhook-id"]) == (
        row["secret_ref"],
        str(row["id"]),
    )


async def test_canary_and_control_differ_only_in_id_time_and_signature(
    sending: Begun, receiver: Switching, tmp_path: Path
) -> None:
    """Canary and control differ only in id, time and signature, and both have the endpoint's own headers."""
    endpoint = await added(sending, receiver.url, tmp_path, "--header", "Authorization: Bearer t0ken")
    receiver.secrets = [NEW]
    await rotated(sending, endpoint, tmp_path, "--verify")
    [(first, body, taken), (second, other, refused)] = receiver.received

    assert (204, 401) == (taken, refused)
    assert first.keys() == second.keys()
    assert "Bearer t0ken" == first["authorization"]
    differing = {name for name in first if first[name] != second[name]}
    ids_and_signature = {"webhook-id", "x-hookseal-event-id", "webhook-signature"}
    assert ids_and_signature <= differing <= ids_and_signature | {"webhook-timestamp"}
    for headers, sent in ((first, body), (second, other)):
        printed = json.loads(sent)
        assert ("hookseal.ping", {"id": headers["webhook-id"], "endpoint_id": endpoint}) == (
            printed["type"],
            printed["data"],
        )
        assert UUID7.fullmatch(headers["webhook-id"])
        assert 1 == headers["webhook-signature"].count("v1,"), "only one secret signed"
    assert body != other


async def test_a_switched_receiver_ends_the_overlap(sending: Begun, receiver: Switching, tmp_path: Path) -> None:
    """Until the receiver has switched it exits 1 and changes nothing; then it ends the overlap, which is audited."""
    endpoint = await added(sending, receiver.url, tmp_path)
    await rotated(sending, endpoint, tmp_path)
    for always, verdict in ((None, "not_switched"), (200, "does_not_verify"), (503, "no_answer")):
        receiver.always = always
        ended = await run(sending, "rotation-status", endpoint, "--end-when-switched")
        assert (1, verdict, False, True) == (
            ended.code,
            ended.json["canary"]["verdict"],
            ended.json["overlap_ended"],
            ended.json["overlapping"],
        )
    assert (2, True) == await overlap_state(sending)

    receiver.always, receiver.secrets = None, [NEW]
    ended = await run(sending, "rotation-status", endpoint, "--end-when-switched")
    assert (0, "switched", 2, True, 3, None, 0) == (
        ended.code,
        ended.json["canary"]["verdict"],
        ended.json["canary"]["generation"],
        *(ended.json[name] for name in ("overlap_ended", "generation", "previous_secret_ref", "older_claims")),
    )
    assert (3, False) == await overlap_state(sending)
    assert "secret.overlap_ended" == await sending.stored.pool.fetchval(
        "SELECT action FROM hookseal.audit_log WHERE tenant_id = 'acme' ORDER BY sequence DESC LIMIT 1"
    )


async def test_without_an_overlap_there_is_nothing_to_end(sending: Begun, receiver: Switching, tmp_path: Path) -> None:
    """Without a previous secret `--end-when-switched` exits 4 without a request; `--probe` still sends one."""
    endpoint = await added(sending, receiver.url, tmp_path)
    ended = await run(sending, "rotation-status", endpoint, "--end-when-switched")

    assert (4, "conflict", []) == (ended.code, ended.json["error"]["code"], receiver.received)
    assert ("switched", 204, 401) == await probed(sending, endpoint)


async def test_an_older_generations_canary_does_not_count(sending: Begun, receiver: Switching, tmp_path: Path) -> None:
    """A canary of an older generation is not shown, and does not end an overlap."""
    endpoint = await added(sending, receiver.url, tmp_path)
    receiver.secrets = [NEW]
    assert "switched" == (await rotated(sending, endpoint, tmp_path, "--verify")).json["canary"]["verdict"]
    await run(sending, "rollback", endpoint)

    assert (await run(sending, "rotation-status", endpoint)).json["canary"] is None
    assert 1 == (await run(sending, "rotation-status", endpoint, "--end-when-switched")).code
    assert (3, True) == await overlap_state(sending)


async def test_a_disabled_endpoint_gets_no_canary(sending: Begun, receiver: Switching, tmp_path: Path) -> None:
    """A disabled endpoint gets no canary: the rotation is made and reports that; `--probe` exits 5."""
    endpoint = await added(sending, receiver.url, tmp_path)
    await sending.run("endpoint", "disable", "--tenant", "acme", "--endpoint", endpoint)
    ended = await rotated(sending, endpoint, tmp_path, "--verify")

    reason = "nothing is sent: the endpoint is disabled"
    assert (0, 2) == (ended.code, ended.json["generation"])
    assert {
        "verdict": None,
        "status": None,
        "control_status": None,
        "sent_at": None,
        "detail": reason,
        "generation": 2,
    } == ended.json["canary"]
    assert f"hookseal: rotated, but whether the receiver has switched is not known: {reason}\n" == ended.err
    refused = await run(sending, "rotation-status", endpoint, "--probe")
    assert (5, reason) == (refused.code, refused.json["error"]["message"])
    assert ([], []) == (receiver.received, await evidence(sending))


async def test_a_repeat_of_an_older_rotation_sends_no_canary(
    sending: Begun, receiver: Switching, tmp_path: Path
) -> None:
    """A repeated rotation id with `--verify` sends no canary if a later rotation has been made."""
    endpoint = await added(sending, receiver.url, tmp_path)
    await run(sending, "rotate", endpoint, "--rotation-id", "r1")
    await run(sending, "rotate", endpoint, "--overlap", "0")
    again = await run(sending, "rotate", endpoint, "--rotation-id", "r1", "--verify")

    assert (0, 2, None, []) == (
        again.code,
        again.json["generation"],
        again.json["canary"]["verdict"],
        receiver.received,
    )
    assert "at generation 3, not 2" in again.json["canary"]["detail"]


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("UPDATE hookseal.endpoints SET url = url || '?elsewhere'", id="url"),
        pytest.param("UPDATE hookseal.endpoints SET secret_ref = previous_secret_ref", id="secret"),
    ],
)
async def test_an_altered_row_gets_no_request(
    sending: Begun, receiver: Switching, tmp_path: Path, statement: str
) -> None:
    """No request is sent for an endpoint row that was altered (5)."""
    endpoint = await added(sending, receiver.url, tmp_path)
    await rotated(sending, endpoint, tmp_path)
    await sending.stored.pool.execute(statement)
    ended = await run(sending, "rotation-status", endpoint, "--probe")

    assert (5, "secret_tampered", []) == (ended.code, ended.json["error"]["code"], receiver.received)


async def test_only_the_operator_role_may_probe(
    sending: Begun, receiver: Switching, tmp_path: Path, database_url: str
) -> None:
    """The operator role may probe and record; the read-only role sees the canary and may not probe (5)."""
    endpoint = await added(sending, receiver.url, tmp_path)
    pool = sending.stored.pool
    async with login(pool, database_url, "hookseal_operator") as (_, operator):
        allowed = replace(sending, settings=sending.settings | {"DATABASE_URL": operator})
        assert ("switched", 204, 401) == await probed(allowed, endpoint)
    async with login(pool, database_url, "hookseal_readonly") as (_, looker):
        only = replace(sending, settings=sending.settings | {"DATABASE_URL": looker})
        looked = await run(only, "rotation-status", endpoint)
        assert (0, "switched") == (looked.code, looked.json["canary"]["verdict"])
        assert 5 == (await run(only, "rotation-status", endpoint, "--probe")).code


async def test_no_output_shows_a_secret(sending: Begun, receiver: Switching, tmp_path: Path) -> None:
    """No output at any log level, and no recorded canary, contains a secret."""
    endpoint = await added(sending, receiver.url, tmp_path)
    receiver.secrets = [NEW]
    debug = replace(sending, settings=sending.settings | {"HOOKSEAL_LOG_LEVEL": "debug"})
    ends = [
        await rotated(debug, endpoint, tmp_path, "--verify"),
        await run(debug, "rotation-status", endpoint, "--end-when-switched"),
    ]
    seen = "".join(f"{ended.out}{ended.err}" for ended in ends) + repr(await evidence(sending))

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
    printed = re.compile(r"^canary +not_switched, \S+Z: the receiver refused .*: it answered 401$", re.MULTILINE)
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
    [ring] = (await publish_raw(pool, Event(tenant_id=TenantId("acme"), event_type="a"), b"{}")).deliveries
    assert await PostgresLedger(pool, worker="w1", lease_seconds=60).claim(ring) is not None
    command = asyncio.create_task(rotated(sending, endpoint, tmp_path, "--overlap", "0", "--verify"))

    async def cut() -> bool:
        waiting = await pool.fetch(ASKS_FOR_OLDER_CLAIMS)
        return any([await pool.fetchval("SELECT pg_terminate_backend($1)", asking["pid"]) for asking in waiting])

    await eventually(cut)
    ended = await asyncio.wait_for(command, 60)

    assert (69, None, "switched") == (ended.code, ended.json["older_claims"], ended.json["canary"]["verdict"])
    assert "changed, but older claims may still be in flight" in ended.err
