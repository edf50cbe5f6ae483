"""For any order of events, the reader returns nothing expired or discarded, and has one request at a time."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookseal.errors import SecretDestroyed, SecretUnavailable
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretRef
from hookseal.secrets.resolve.reader import SecretReader
from tests.doubles.clock import FakeClock
from tests.secrets.doubles import ScriptedStore, reader_on, tasks_idle
from tests.secrets.samples import READ_AT, ref

TTL_SECONDS = 10
MAX_ENTRIES = 2
MAX_BYTES = 64
INDEX = st.integers(min_value=0, max_value=5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(min_value=1, max_value=3)),
        st.tuples(st.sampled_from(["answer", "destroyed", "unavailable", "leave"]), INDEX),
        st.tuples(st.just("wait"), st.integers(min_value=0, max_value=6)),
        st.tuples(st.just("clear"), st.integers(min_value=-1, max_value=2)),
    ),
    max_size=50,
)


@dataclass(eq=False)
class Asking:
    """A request to the store: its ref, time and epoch, and its outcome."""

    ref: SecretRef
    began: int
    epoch: int
    seconds: float
    outcome: "asyncio.Future[SecretMaterial]" = field(default_factory=asyncio.Future)
    answered: int | None = None


@dataclass(eq=False)
class Reading:
    """A caller of the reader, and the step at which it began."""

    ref: SecretRef
    began: int
    task: "asyncio.Task[tuple[SecretMaterial, ...]]"


class World(ScriptedStore):
    """A store that answers on request, and its callers; every answer contains the number of its request."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.reader: SecretReader = reader_on(
            self, self.clock, ttl_seconds=TTL_SECONDS, max_entries=MAX_ENTRIES, max_bytes=MAX_BYTES
        )
        self.step = self.epoch = 0
        self.reader.use_epoch((0, 0), READ_AT)
        self.askings: list[Asking] = []
        self.readings: list[Reading] = []
        self.cleared: list[int] = []
        self.destroyed: list[tuple[SecretRef, int]] = []
        self.flights: dict[object, int] = {}
        self.begun = 0

    async def get(self, ref: SecretRef, *, purpose: Purpose) -> SecretMaterial:
        """Wait for the answer of the test."""
        # A request from before a clear may ask again for its callers, beside the request from after the clear.
        epoch = self.flights.setdefault(asyncio.current_task(), self.epoch)
        asking = Asking(ref=ref, began=self.step, epoch=epoch, seconds=self.clock.elapsed)
        self.askings.append(asking)
        return await asking.outcome

    @property
    def open(self) -> list[Asking]:
        """The unanswered requests."""
        return [asking for asking in self.askings if not asking.outcome.done()]

    async def do(self, what: str, number: int) -> None:
        """Do one step, let all tasks run, and check the results."""
        self.step += 1
        match what:
            case "read":
                reading = self.reader.read([ref(number)], purpose=Purpose.WEBHOOK_SIGNING)
                self.readings.append(Reading(ref=ref(number), began=self.step, task=asyncio.create_task(reading)))
                self.begun += 1
            case "wait":
                self.clock.elapsed += number
            case "leave" if self.readings:
                self.readings[number % len(self.readings)].task.cancel()
            case "clear":
                self.reader.use_epoch((0, self.epoch + number), READ_AT)
                if number > 0:
                    self.epoch += number
                    self.cleared.append(self.step)
            case "answer" | "destroyed" | "unavailable" if self.open:
                self._end(self.open[number % len(self.open)], what)
        await tasks_idle()
        self._look()

    def _end(self, asking: Asking, how: str) -> None:
        asking.answered = self.step
        match how:
            case "answer":
                asking.outcome.set_result(SecretMaterial(self.askings.index(asking).to_bytes(4, "big")))
            case "destroyed":
                asking.outcome.set_exception(SecretDestroyed())
                self.destroyed.append((asking.ref, self.step))
            case _:
                asking.outcome.set_exception(SecretUnavailable())

    def _look(self) -> None:
        for reading in [reading for reading in self.readings if reading.task.done()]:
            self.readings.remove(reading)
            if not reading.task.cancelled() and reading.task.exception() is None:
                self._judge(reading, reading.task.result())
        under_way = [(asking.ref, asking.epoch) for asking in self.open]
        assert len(under_way) == len(set(under_way))
        figures = self.reader.statistics()
        assert figures.entries <= MAX_ENTRIES
        assert figures.bytes <= MAX_BYTES
        assert self.begun == figures.hits + figures.misses
        assert figures.definitive_failures + figures.transient_failures <= figures.misses
        assert len(self.cleared) == figures.clears

    def _judge(self, reading: Reading, materials: Sequence[SecretMaterial]) -> None:
        asking = self.askings[int.from_bytes(materials[0].reveal(), "big")]
        assert reading.ref == asking.ref
        assert asking.answered is not None
        assert [] == [step for step in self.cleared if asking.began < step < reading.began]
        if asking.answered < reading.began:  # the answer was cached
            assert self.clock.elapsed - asking.seconds < TTL_SECONDS
            assert [] == [
                step for ref, step in self.destroyed if ref == asking.ref and asking.answered < step < reading.began
            ]


@pytest.mark.req("SEC-06", part="cache")
@pytest.mark.req("SEC-06", part="single-flight")
@pytest.mark.req("SEC-06", part="cache-epoch")
@given(steps=STEPS)
async def test_no_interleaving_returns_an_invalid_secret(steps: list[tuple[str, int]]) -> None:
    world, complaints = World(), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    for what, number in steps:
        await world.do(what, number)
    while world.open:
        await world.do("answer", 0)

    assert [] == world.readings
    assert set() == world.reader._flights._running
    assert [] == complaints
