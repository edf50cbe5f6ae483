"""The endpoint's own headers in the ten steps: in memory only while the request is sent, and required for a request."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest

from hookseal.dispatcher.core.model import Attempt, Claim, State, Verdict, WaitingFor
from hookseal.dispatcher.core.prepare import START_WITHIN_SECONDS
from hookseal.errors import CannotSign, Defect
from hookseal.ground.pointer import Pointer
from hookseal.secrets.core.material import SecretMaterial
from tests.dispatcher.scene import OK, Scene, take
from tests.doubles.claims import CLAIM, DELIVERY, RING, target
from tests.doubles.ledger import MemoryLedger
from tests.doubles.replaced import replace
from tests.doubles.signers import FixedSigners
from tests.doubles.transport import ScriptedTransport

OWN = {"x-api-key": b"canary-4f1d"}
WITH_HEADERS = target(headers_ref="db:acme:webhook-endpoint-headers:1")


def with_headers(signers: FixedSigners, during: Callable[[], object] | None = None) -> Scene:
    """Return a pipeline whose endpoint has headers of its own."""
    scene = Scene(signers=signers, during=during)
    scene.ledger.target(DELIVERY, WITH_HEADERS)
    return scene


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_own_headers_are_sent_beside_hookseals() -> None:
    """The request has the values, masked, and our own headers, which are the same with and without them."""
    scene = with_headers(FixedSigners("db:acme:n:2", headers=OWN))
    await scene.run()
    plain = Scene(signers=FixedSigners("db:acme:n:2"))
    await plain.run()

    assert ([OWN], State.DELIVERED) == (scene.transport.own, scene.row.state)
    assert plain.transport.sent[0].headers == scene.transport.sent[0].headers


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_signers_end_before_and_values_after_the_request() -> None:
    """While the request is sent, the values are in memory and no signer is; while it is recorded, neither is."""
    in_memory: list[tuple[str, int, int]] = []
    signers = FixedSigners("db:acme:n:2", headers=OWN)

    class WatchingLedger(MemoryLedger):
        async def record(self, claim: Claim, attempt: Attempt, verdict: Verdict, error: str | None) -> Verdict | None:
            in_memory.append(("recording", signers.open, signers.headers_open))
            return await super().record(claim, attempt, verdict, error)

    scene = with_headers(signers, during=lambda: in_memory.append(("sending", signers.open, signers.headers_open)))
    scene.ledger = WatchingLedger(scene.clock)
    scene.ledger.add(replace(CLAIM, target=WITH_HEADERS))
    scene.parts = replace(scene.parts, ledger=scene.ledger)
    await scene.run()

    assert [("sending", 0, 1), ("recording", 0, 0)] == in_memory
    assert {} == scene.transport.sent[0].sealed_headers


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_without_header_values_a_delivery_waits() -> None:
    """If the headers are not available, the delivery waits as without a secret: unsent, unspent, and counted."""
    scene = with_headers(FixedSigners("db:acme:n:2", headers_error=CannotSign("the record was altered")))
    await scene.run()

    assert ([], []) == (scene.transport.sent, scene.row.attempts)
    assert (State.PENDING, "secret", "the record was altered") == (
        scene.row.state,
        scene.row.waiting_for,
        scene.row.error,
    )
    assert [WaitingFor.SECRET] == scene.meter.holds
    scene.clock.elapsed += 20
    assert await take(RING, scene.parts) is not None


class SlowHeaders(FixedSigners):
    """Signers that await `wait` before they hand out the headers."""

    def __init__(self, wait: Callable[[], object]) -> None:
        super().__init__("db:acme:n:2", headers=OWN)
        self._wait = wait

    @asynccontextmanager
    async def headers(self, pointer: Pointer) -> AsyncIterator[Mapping[str, SecretMaterial]]:
        """Yield the values after the wait."""
        waiting = self._wait()
        if hasattr(waiting, "__await__"):
            await waiting
        async with super().headers(pointer) as values:
            yield values


async def test_an_endpoint_without_headers_fetches_none() -> None:
    """If an endpoint has no headers of its own, none are fetched."""
    scene = Scene(signers=SlowHeaders(lambda: pytest.fail("headers were fetched")))
    await scene.run()

    assert ([{}], State.DELIVERED) == (scene.transport.own, scene.row.state)


@pytest.mark.req("DEL-13", part="sealed-values")
@pytest.mark.parametrize(("seconds", "begins"), [(START_WITHIN_SECONDS - 0.5, True), (START_WITHIN_SECONDS, False)])
async def test_fetching_headers_counts_against_the_time_to_begin(seconds: float, begins: bool) -> None:
    """A request begins within two seconds of its claim, including the time for the headers; else it is given back."""
    scene = with_headers(SlowHeaders(lambda: scene.clock.sleep(seconds)))
    await scene.run()

    assert [START_WITHIN_SECONDS][: int(begins)] == [request.start_by for request in scene.transport.sent]
    assert int(begins) == len(scene.row.attempts)
    assert int(not begins) == scene.meter.returns
    assert 0 == scene.signers.headers_open


async def cancel_at(scene: Scene, reached: asyncio.Event) -> None:
    """Start one delivery, and cancel it once it has reached this point."""
    task = asyncio.create_task(scene.run())
    await asyncio.wait_for(reached.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_a_delivery_cancelled_before_its_headers_is_given_back() -> None:
    """A delivery that is cancelled before its headers are fetched is given back, due at once, without an attempt."""
    fetching = asyncio.Event()

    async def hang() -> None:
        fetching.set()
        await asyncio.Event().wait()

    scene = with_headers(SlowHeaders(hang))
    await cancel_at(scene, fetching)

    assert (State.PENDING, [], []) == (scene.row.state, scene.row.attempts, scene.transport.sent)
    assert await take(RING, scene.parts) is not None


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_a_request_cancelled_with_headers_is_unknown() -> None:
    """A request that is cancelled is on record as unknown, and its values are no longer in memory."""
    sending = asyncio.Event()

    async def hang() -> None:
        sending.set()
        await asyncio.Event().wait()

    scene = with_headers(FixedSigners("db:acme:n:2", headers=OWN), during=hang)
    await cancel_at(scene, sending)

    assert (State.PENDING, ["unknown"]) == (scene.row.state, [kept.outcome for kept in scene.row.attempts])
    assert 0 == scene.signers.headers_open


@pytest.mark.req("DEL-13", part="rules")
@pytest.mark.parametrize(
    ("name", "value"),
    [("webhook-signature", b"v1,forged"), ("X-Api-Key", b"k"), ("x-api-key", b"k\r\nx-admin: 1"), ("x-api-key", b"")],
)
async def test_invalid_own_headers_are_a_defect(name: str, value: bytes) -> None:
    """Invalid own headers are a defect: nothing is sent, no attempt is spent, and the delivery is due later.

    The operator is referred to the log, without the value.
    """
    scene = with_headers(FixedSigners("db:acme:n:2", headers={name: value}))
    with pytest.raises(Defect):
        await scene.run()

    assert ([], [], State.PENDING) == (scene.transport.sent, scene.row.attempts, scene.row.state)
    assert (None, "a fault of hookseal: see the worker's log") == (scene.row.waiting_for, scene.row.error)
    assert await take(RING, scene.parts) is None
    scene.clock.elapsed += 20
    assert await take(RING, scene.parts) is not None


@pytest.mark.req("DEL-13", part="sealed-values")
async def test_no_log_or_record_has_a_value() -> None:
    """Neither the log of an attempt, nor its record, nor the repr of the request contains the value."""
    reprs: list[str] = []
    scene = with_headers(FixedSigners("db:acme:n:2", headers=OWN))
    scene.transport = ScriptedTransport(OK, during=lambda: reprs.append(repr(scene.transport.sent[0])))
    scene.parts = replace(scene.parts, transport=scene.transport)
    logs = await scene.run_logged()

    assert 1 == len(reprs)
    assert "canary" not in f"{logs} {scene.row} {reprs}"
