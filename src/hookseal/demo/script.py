"""`hookseal demo` as a script: the whole job on real servers, read from top to bottom.

It publishes events and manages the installation as its users do, through `Publisher` and `Admin`. A real worker process
signs and sends, and a receiver verifies each request. Each chapter makes one promise come true, and lists what must
have been seen; what was not seen is `missing`, and fails the demo.
"""

import asyncio
import json
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, Final, TypeVar

from hookseal.admin import Admin
from hookseal.admin.results.deliveries import DeliveryDetails
from hookseal.admin.results.endpoints import AddedEndpoint
from hookseal.admin.results.signing_secrets import Rotation
from hookseal.client import Published, Publisher
from hookseal.demo.installation import Installation, install, with_next_key
from hookseal.demo.process import worker_process
from hookseal.demo.receiver import Answer, Arrival, Receiver, run_receiver
from hookseal.dispatcher.core.model import Outcome, State
from hookseal.embedded.stack import temporary_stack
from hookseal.errors import Defect
from hookseal.ground.clock import Clock
from hookseal.ground.wire import Scheme
from hookseal.postgres.connect import connect
from hookseal.postgres.statements import statements

T = TypeVar("T")

EVENTS: Final = 50
ENOUGH: Final = 20  # requests in each phase of a rotation
ENOUGH_WITH_A_KEY: Final = 10  # requests before each step of a change of the master key, and after the last one
LEAST_BACK_OFF_SECONDS: Final = 0.75  # one second, less a quarter by jitter
RETRY_AFTER_SECONDS: Final = 2  # longer than the longest back-off
_ACTOR: Final = "hookseal demo"
_ENDPOINTS: Final = (("/acme/invoices", "invoice.*"), ("/acme/everything", "*"), ("/globex/everything", "*"))
_EVENTS: Final = (("acme", "invoice.paid"), ("globex", "user.created"), ("acme", "user.created"))
_MOST_EVENTS: Final = 1_000  # if a secret or a key never changes
_LIMIT_SECONDS: Final = 60.0  # of a chapter: it only ends what hangs, also on a machine that is busy with others
_LOOK_AGAIN_SECONDS: Final = 0.05
_SQL: Final = statements("hookseal.demo", "script.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The deliveries of one endpoint. `verified` counts those with a valid signature."""

    tenant: str
    endpoint: str
    deliveries: int
    delivered: int
    verified: int
    refused: int

    @property
    def holds(self) -> bool:
        """Whether there were deliveries, all verified and recorded as delivered, and none was refused."""
        return self.deliveries > 0 and self.deliveries == self.delivered == self.verified and self.refused == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """What one chapter saw: as a sentence, and as facts. `missing` says what it expected but did not see."""

    name: str
    detail: str
    seen: dict[str, object]
    missing: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of the demo. `events` is the number of events that the lines count."""

    events: int
    lines: tuple[Line, ...]
    chapters: tuple[Chapter, ...]
    seconds: float

    @property
    def all_verified(self) -> bool:
        """Whether every endpoint had deliveries, all of them were verified and recorded, and none was refused."""
        return bool(self.lines) and all(line.holds for line in self.lines)

    @property
    def holds(self) -> bool:
        """Whether all deliveries verified, and every chapter saw what it expected."""
        return self.all_verified and bool(self.chapters) and all(chapter.holds for chapter in self.chapters)


async def run_demo(say: Callable[[str], None], clock: Clock) -> Result:
    """Run the demo and return its result; no process and no file is left. Raises `Unavailable`."""
    started = clock.monotonic()
    say("starting an embedded PostgreSQL and Valkey")
    with tempfile.TemporaryDirectory(prefix="hookseal-demo-") as name:
        folder = Path(name)
        async with temporary_stack() as stack, run_receiver(clock) as receiver:
            say("migrating, and creating a master key and the next one")
            installation = await with_next_key(await install(stack, folder), folder)
            environment = installation.environment(os.environ)
            say("starting a worker process")
            async with (
                worker_process(environment, folder / "worker.log"),
                Admin.connect(environ=environment) as admin,
                Publisher.connect(installation.database_url, installation.redis_url) as publisher,
            ):
                demo = Demo(installation, admin, publisher, receiver, clock)
                say(f"publishing {EVENTS} events for two tenants")
                lines = await demo.traffic()
                say("rotating secrets and keys, retrying, replaying, writing a stale row")
                chapters = await side_by_side(
                    demo.rotation(),
                    demo.retries(),
                    demo.dead_letter(),
                    demo.x_webhook(),
                    demo.stale_row(),
                    demo.master_key(),
                )
        say("stopped everything")
    return Result(events=EVENTS, lines=tuple(lines), chapters=tuple(chapters), seconds=clock.monotonic() - started)


class Demo:
    """The traffic and the chapters, and what they need: an installation with a running worker, and a receiver."""

    def __init__(
        self, installation: Installation, admin: Admin, publisher: Publisher, receiver: Receiver, clock: Clock
    ) -> None:
        self._installation = installation
        self._admin = admin
        self._publisher = publisher
        self._receiver = receiver
        self._clock = clock

    async def traffic(self) -> list[Line]:
        """Publish 50 events for two tenants and three endpoints, and count what arrived and what is on record."""
        endpoints = [(path, await self._add(path, subscription)) for path, subscription in _ENDPOINTS]
        expected = Counter[str]()
        for number in range(EVENTS):
            published = await self._publish(*_EVENTS[number % len(_EVENTS)], number)
            expected.update(ring.endpoint_id for ring in published.deliveries)
        async with time_limit():
            for _, endpoint in endpoints:
                await self._all_ended(endpoint)
        return [
            Line(
                tenant=endpoint.tenant_id,
                endpoint=path,
                deliveries=expected[endpoint.endpoint_id],
                delivered=(await self._states(endpoint))[State.DELIVERED],
                verified=len(self._receiver.verified(path)),
                refused=self._receiver.refused(path),
            )
            for path, endpoint in endpoints
        ]

    async def rotation(self) -> Chapter:
        """Rotate a secret with an overlap, then revoke it, while events are published."""
        path, event_type = "/initech/rotated", "report.filed"
        endpoint = await self._add(path, event_type)
        arrivals = self._receiver.arrivals
        revoked_at: int | None = None  # the number of requests when the revocation was complete
        over = asyncio.Event()

        async def arrived_with(*secrets: int) -> None:
            numbers = frozenset(secrets)
            await self._receiver.wait_until(
                lambda: sum(each.verified_by == numbers for each in arrivals(path)) >= ENOUGH
            )

        async def rotate(overlap_seconds: int) -> Rotation:
            return await self._admin.secrets.rotate(
                tenant_id=endpoint.tenant_id,
                endpoint_id=endpoint.endpoint_id,
                actor=_ACTOR,
                overlap_seconds=overlap_seconds,
                secret=self._receiver.expect_another(path),  # it may sign before the rotation returns
            )

        async def change() -> None:
            nonlocal revoked_at
            await arrived_with(1)
            await rotate(3_600)
            await arrived_with(1, 2)
            revocation = await rotate(0)  # returns once no request with an older secret can begin any more
            mark = len(arrivals(path))
            revoked_at = mark if revocation.older_claims == 0 else None
            await self._arrived(path, mark + ENOUGH)
            over.set()

        async with time_limit():
            await side_by_side(self._flow(endpoint, path, event_type, over), change())
            await self._all_ended(endpoint)
        seen = rotation_seen(arrivals(path), revoked_at, await self._states(endpoint))
        return _chapter(
            "rotation",
            f"{seen['old']} requests with the old secret, {seen['both']} with both, {seen['new']} after revoking",
            seen,
            (seen["old"] >= ENOUGH, "requests with the old secret before the rotation"),
            (seen["both"] >= ENOUGH, "requests that verify with the old and with the new secret"),
            (seen["complete"], "the completion of the revocation"),
            (seen["after"] >= ENOUGH, "requests after the revocation"),
            (
                not seen["older_after"],
                f"no request with an older secret after the revocation: {seen['older_after']} came",
            ),
            _none_refused(seen["refused"]),
            (not seen["other"], f"the expected secrets in each request: {seen['other']} had others"),
            (seen["deliveries"] == seen["delivered"], f"{seen['deliveries'] - seen['delivered']} deliveries on record"),
        )

    async def retries(self) -> Chapter:
        """A receiver fails twice, the second time with Retry-After, and then accepts the delivery."""
        path, event_type = "/initech/shaky", "printer.jammed"
        endpoint = await self._add(path, event_type, retry_schedule=(1, 1))
        self._receiver.answer(path, (Answer(status=500), Answer(status=503, retry_after=RETRY_AFTER_SECONDS)))
        delivery = await self._state(await self._publish(endpoint.tenant_id, event_type, 1), State.DELIVERED)
        attempts, refused = attempts_of(delivery), self._receiver.refused(path)
        waits = [attempt["waited_seconds"] for attempt in attempts[1:]]
        first_wait, second_wait, *_ = [*waits, 0.0, 0.0]
        verified = len(self._receiver.arrivals(path)) - refused
        expected = [(500, Outcome.SERVER_ERROR), (503, Outcome.THROTTLED), (204, Outcome.DELIVERED)]
        return _chapter(
            "retries",
            f"{delivery.state} at attempt {len(attempts)}; the 503 asked for {RETRY_AFTER_SECONDS} s",
            {"state": delivery.state, "attempt_log": attempts, "verified": verified, "refused": refused},
            (delivery.state == "delivered", f"state delivered: the delivery is {delivery.state}"),
            (_answers(attempts) == expected, "attempts with the answers 500, 503 and 204"),
            (first_wait >= LEAST_BACK_OFF_SECONDS, "a back-off after the first failure"),
            (second_wait >= RETRY_AFTER_SECONDS, "a wait of Retry-After after the second failure"),
            (verified == len(expected), f"three requests that verify: there were {verified}"),
            _none_refused(refused),
        )

    async def dead_letter(self) -> Chapter:
        """A receiver fails until all attempts are used up; after its repair, a replay delivers."""
        path, event_type = "/initech/broken", "stapler.lost"
        endpoint = await self._add(path, event_type, retry_schedule=(1,))
        self._receiver.answer(path, repeat(Answer(status=500)))
        published = await self._publish(endpoint.tenant_id, event_type, 1)
        before = delivery = await self._state(published, State.DEAD_LETTER)
        if before.state == "dead_letter":
            self._receiver.answer(path, ())
            await self._admin.deliveries.replay(
                tenant_id=endpoint.tenant_id, delivery_id=before.delivery_id, actor=_ACTOR
            )
            delivery = await self._state(published, State.DELIVERED)
        attempts, refused = attempts_of(delivery), self._receiver.refused(path)
        ids = len(self._receiver.verified(path))
        failed = (500, Outcome.SERVER_ERROR)
        return _chapter(
            "dead letter",
            f"{before.state} before its replay, {delivery.state} after it",
            {
                "before_replay": before.state,
                "after_replay": delivery.state,
                "attempt_log": attempts,
                "delivery_ids": ids,
                "refused": refused,
            },
            (before.state == "dead_letter", f"state dead_letter before the replay: it was {before.state}"),
            (delivery.state == "delivered", f"state delivered after the replay: it is {delivery.state}"),
            (
                _answers(attempts) == [failed, failed, (204, Outcome.DELIVERED)],
                "attempts with the answers 500, 500 and 204",
            ),
            (ids == 1, f"one delivery id in all requests: there were {ids}"),
            _none_refused(refused),
        )

    async def x_webhook(self) -> Chapter:
        """An endpoint with the scheme `x-webhook`: its requests verify as those of the system before hookseal."""
        path, event_type, number = "/initech/x-webhook", "memo.sent", 5
        endpoint = await self._add(path, event_type, scheme=Scheme.X_WEBHOOK)
        for each in range(number):
            await self._publish(endpoint.tenant_id, event_type, each)
        async with time_limit():
            await self._all_ended(endpoint)
        seen = await self._counts(path, endpoint)
        return _chapter(
            "x-webhook",
            f"{seen['verified']} requests verified by hookseal.receiver",
            seen,
            (seen["deliveries"] == number, f"{number} deliveries: there were {seen['deliveries']}"),
            (seen["verified"] == number, f"{number} requests that verify: there were {seen['verified']}"),
            (seen["delivered"] == number, f"{number} deliveries on record: there were {seen['delivered']}"),
            _none_refused(seen["refused"]),
        )

    async def stale_row(self) -> Chapter:
        """An attacker writes back an older endpoint row with a revoked secret: it is detected, and nothing is sent."""
        path, event_type = "/initech/stale", "printer.moved"
        endpoint = await self._add(path, event_type)
        of_endpoint = (endpoint.tenant_id, endpoint.endpoint_id)
        heads = asdict(await self._admin.audit.heads(tenant_id=endpoint.tenant_id))
        attacker = await connect(self._installation.database_url)
        try:
            row = await attacker.fetchrow(_SQL["read_row"], *of_endpoint)
            await self._admin.secrets.rotate(
                tenant_id=endpoint.tenant_id, endpoint_id=endpoint.endpoint_id, actor=_ACTOR, overlap_seconds=0
            )
            await attacker.execute(_SQL["write_row"], *of_endpoint, *(row or ()))
        finally:
            await attacker.close()
        published = await self._publish(endpoint.tenant_id, event_type, 1)
        held = await self._until(published, lambda delivery: delivery.waiting_for is not None)
        arrived = len(self._receiver.verified(path))
        accepted = await self._admin.restores.accept(heads=json.dumps(heads, default=str), actor=_ACTOR)
        await self._state(published, State.DELIVERED)
        number = sum(each.endpoint_id == endpoint.endpoint_id for each in accepted.accepted)
        verified, refused = len(self._receiver.verified(path)), self._receiver.refused(path)
        return _chapter(
            "stale row",
            "an old row with a revoked secret sent nothing until it was accepted",
            {
                "waited_for": held.waiting_for,
                "arrived_before": arrived,
                "accepted": number,
                "verified": verified,
                "refused": refused,
            },
            (held.waiting_for == "secret", f"a delivery that waits for its secret: it waited for {held.waiting_for}"),
            (not arrived, f"no request with the revoked secret: {arrived} came"),
            (number == 1, f"one accepted endpoint: there were {number}"),
            (verified == 1, f"one request that verifies: there were {verified}"),
            _none_refused(refused),
        )

    async def master_key(self) -> Chapter:
        """All secrets are sealed under a new master key while events are published, and the old key is retired."""
        path, event_type = "/initech/sealed", "vault.moved"
        endpoint = await self._add(path, event_type)
        old, new = (key.key_id for key in self._installation.keyring.keys)
        began_at = ended_at = None
        moved = remaining = 0
        state = None
        over = asyncio.Event()

        def arrived() -> int:
            return len(self._receiver.arrivals(path))

        async def more() -> int:
            await self._arrived(path, arrived() + ENOUGH_WITH_A_KEY)
            return arrived()

        async def change() -> None:
            nonlocal began_at, ended_at, moved, remaining, state
            began_at = await more()
            await self._admin.keys.promote(key_id=new, actor=_ACTOR)
            await more()
            rewrapped = await self._admin.keys.rewrap(key_id=old, actor=_ACTOR)
            moved, remaining = rewrapped.moved, rewrapped.left
            if not remaining:
                state = (await self._admin.keys.retire(key_id=old, actor=_ACTOR)).state
            ended_at = arrived()
            await more()
            over.set()

        async with time_limit():
            await side_by_side(self._flow(endpoint, path, event_type, over, ahead=5), change())
            await self._all_ended(endpoint)
        seen = await self._counts(path, endpoint) | {
            "meanwhile": (ended_at or arrived()) - (began_at or arrived()),
            "after": arrived() - (ended_at or arrived()),
            "moved": moved,
            "left": remaining,
            "old_key": state,
        }
        return _chapter(
            "master key",
            f"{moved} secrets sealed under a new one, {seen['meanwhile']} requests meanwhile",
            seen,
            (moved > 0, "secrets sealed under the new key"),
            (not remaining, f"all secrets under the new key: {remaining} are left"),
            (state == "retired", f"state retired of the old key: it is {state}"),
            (
                seen["meanwhile"] >= ENOUGH_WITH_A_KEY,
                f"{ENOUGH_WITH_A_KEY} requests during the change: there were {seen['meanwhile']}",
            ),
            (seen["after"] >= ENOUGH_WITH_A_KEY, f"{ENOUGH_WITH_A_KEY} requests after it: there were {seen['after']}"),
            _none_refused(seen["refused"]),
            (seen["verified"] == seen["deliveries"], f"{seen['deliveries'] - seen['verified']} deliveries that verify"),
            (seen["delivered"] == seen["deliveries"], f"{seen['deliveries'] - seen['delivered']} deliveries on record"),
        )

    async def _add(self, path: str, event_type: str, **settings: Any) -> AddedEndpoint:
        """Add an endpoint for the tenant that the path begins with, and let the receiver expect its secret."""
        added = await self._admin.endpoints.add(
            tenant_id=path.split("/")[1],
            url=self._receiver.base_url + path,
            event_types=[event_type],
            actor=_ACTOR,
            **settings,
        )
        scheme = settings.get("scheme", Scheme.STANDARD)
        if added.secret is None:
            raise Defect("a new endpoint that signs with HMAC must have a secret")
        self._receiver.expect(path, added.secret.reveal().decode("ascii"), scheme)
        return added

    async def _publish(self, tenant_id: str, event_type: str, number: int) -> Published:
        return await self._publisher.publish(
            tenant_id=tenant_id, event_type=event_type, correlation_id=f"demo-{number}", data={"number": number}
        )

    async def _flow(
        self, endpoint: AddedEndpoint, path: str, event_type: str, over: asyncio.Event, *, ahead: int = 10
    ) -> None:
        """Publish until it is over, with at most `ahead` deliveries on their way."""
        published = 0
        while published < _MOST_EVENTS and not over.is_set():
            await self._publish(endpoint.tenant_id, event_type, published)
            published += 1
            await self._arrived(path, published - ahead)

    async def _arrived(self, path: str, least: int) -> None:
        await self._receiver.wait_until(lambda: len(self._receiver.arrivals(path)) >= least)

    async def _states(self, endpoint: AddedEndpoint) -> Counter[str]:
        """Return how many deliveries of the endpoint are in each state."""
        page = await self._admin.deliveries.list(
            tenant_id=endpoint.tenant_id, endpoint_id=endpoint.endpoint_id, limit=_MOST_EVENTS
        )
        return Counter(delivery.state for delivery in page.items)

    async def _counts(self, path: str, endpoint: AddedEndpoint) -> dict[str, Any]:
        states = await self._states(endpoint)
        return {
            "deliveries": states.total(),
            "delivered": states[State.DELIVERED],
            "verified": len(self._receiver.verified(path)),
            "refused": self._receiver.refused(path),
        }

    async def _all_ended(self, endpoint: AddedEndpoint) -> None:
        while {State.PENDING, State.SENDING} & (await self._states(endpoint)).keys():
            await self._clock.sleep(_LOOK_AGAIN_SECONDS)

    async def _state(self, published: Published, state: State) -> DeliveryDetails:
        return await self._until(published, lambda delivery: delivery.state == state)

    async def _until(self, published: Published, holds: Callable[[DeliveryDetails], bool]) -> DeliveryDetails:
        """Return the only delivery of the event once this holds, or as it is when the time of a chapter is over."""
        (ring,) = published.deliveries
        get = partial(self._admin.deliveries.get, tenant_id=ring.tenant_id, delivery_id=ring.delivery_id)
        delivery = await get()
        async with time_limit():
            while not holds(delivery):
                await self._clock.sleep(_LOOK_AGAIN_SECONDS)
                delivery = await get()
        return delivery


def rotation_seen(arrivals: Sequence[Arrival], revoked_at: int | None, states: Counter[str]) -> dict[str, Any]:
    """Return the number of requests by the secrets that verify them, each secret tried separately.

    `old`: the first only; `both`: the first and the second; `new`: only the third, which came with the revocation;
    `other`: any other set; `refused`: none. `complete` says whether the revocation was completed; `after` counts the
    requests after that, and `older_after` those of them that an older secret verified. `revoked_at` is the number of
    requests before it was complete, None if it was not.
    """
    old, both, new, none = frozenset({1}), frozenset({1, 2}), frozenset({3}), frozenset[int]()
    kinds = Counter(arrival.verified_by for arrival in arrivals)
    after = arrivals[len(arrivals) if revoked_at is None else revoked_at :]
    return {
        "deliveries": states.total(),
        "delivered": states[State.DELIVERED],
        "old": kinds[old],
        "both": kinds[both],
        "new": kinds[new],
        "other": len(arrivals) - sum(kinds[each] for each in (old, both, new, none)),
        "refused": kinds[none],
        "complete": revoked_at is not None,
        "after": len(after),
        "older_after": sum(not arrival.verified_by <= new for arrival in after),
    }


def attempts_of(delivery: DeliveryDetails) -> list[dict[str, Any]]:
    """Return the attempts, oldest first, each with the time since the end of the previous one, None for the first."""
    attempts: list[dict[str, Any]] = []
    ended: float | None = None
    for attempt in delivery.attempt_log:
        waited = None if ended is None else round(attempt.started_at.timestamp() - ended, 2)
        attempts.append(
            {"number": attempt.number, "status": attempt.status, "outcome": attempt.outcome, "waited_seconds": waited}
        )
        ended = attempt.started_at.timestamp() + (attempt.duration_ms or 0) / 1_000
    return attempts


def _answers(attempts: Sequence[dict[str, Any]]) -> list[tuple[int | None, str]]:
    return [(attempt["status"], attempt["outcome"]) for attempt in attempts]


def _chapter(name: str, detail: str, seen: dict[str, Any], *checks: tuple[bool, str]) -> Chapter:
    """Return the chapter; the sentence of each check that is false is missing."""
    missing = tuple(sentence for is_true, sentence in checks if not is_true)
    return Chapter(name=name, detail=detail, seen=seen, missing=missing)


def _none_refused(refused: int) -> tuple[bool, str]:
    return not refused, f"a valid signature in each request: {refused} refused"


@asynccontextmanager
async def time_limit(seconds: float = _LIMIT_SECONDS) -> AsyncIterator[None]:
    """End the block silently after so many seconds: what was not seen by then is missing."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            yield


async def side_by_side(*coroutines: Coroutine[Any, Any, T]) -> list[T]:
    """Run all coroutines, return their results in order. If one raises, cancel the others and raise its error."""
    tasks = [asyncio.create_task(one) for one in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
