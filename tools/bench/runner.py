"""Alternates rounds within a deadline: what does not fit or fails is reported, and the rest continues."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from tools.bench.results import WORKER, LeftOut, Round, Row

_LEAST_SECONDS: Final = 4.0  # with less time left, no round is started
OUT_OF_TIME: Final = "the time of the run was over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One contender in one scenario; `run` sets it up, measures one round, and removes it."""

    name: str
    contender: str
    run: Callable[[], Awaitable[Round]]


@dataclass(slots=True)
class Runner:
    """The measurements so far, and the deadline for more (seconds of the running loop)."""

    until: float
    found: dict[tuple[str, str], list[Round]] = field(default_factory=dict)
    left_out: dict[tuple[str, str], LeftOut] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float:
        """The remaining time, negative after the deadline."""
        return self.until - asyncio.get_running_loop().time()

    async def rounds(self, scenarios: Sequence[Scenario], number: int) -> None:
        """Run that many rounds of each, alternating, so that a slow minute of the machine affects all of them."""
        for round_ in range(1, number + 1):
            for scenario in scenarios:
                key = (scenario.name, scenario.contender)
                if key in self.left_out:
                    continue
                measured = await self._one(scenario)
                if measured is not None:
                    self.found.setdefault(key, []).append(measured)
                    _say(f"{scenario.name}: {scenario.contender}, round {round_} of {number}: {summary(measured)}")

    async def prepared(self, preparing: Coroutine[object, object, None]) -> None:
        """Prepare the next rounds, if there is time; otherwise they do not run."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self.until):
                await preparing

    def leave_out(self, scenario: str, contender: str, reason: str, *, is_failure: bool = False) -> None:
        """Report something that is not measured."""
        _say(f"{scenario}: {contender}: left out: {reason}")
        self.left_out[scenario, contender] = LeftOut(
            scenario=scenario, contender=contender, reason=reason, is_failure=is_failure
        )

    def rows(self) -> tuple[Row, ...]:
        """Return all measurements."""
        return tuple(Row(scenario=key[0], contender=key[1], rounds=tuple(all_)) for key, all_ in self.found.items())

    async def _one(self, scenario: Scenario) -> Round | None:
        if self.seconds_left < _LEAST_SECONDS:
            self._out_of_time(scenario)
            return None
        bound = asyncio.timeout_at(self.until)
        try:
            async with bound:
                return await scenario.run()
        except TimeoutError:
            if bound.expired():
                self._out_of_time(scenario)
            else:
                self.leave_out(scenario.name, scenario.contender, "it did not end in time", is_failure=True)
        except Exception as error:  # noqa: BLE001 -- whatever goes wrong in one scenario, the others are measured
            first = str(error).split("\n", 1)[0][:200]
            self.leave_out(scenario.name, scenario.contender, f"{type(error).__name__}: {first}", is_failure=True)
        return None

    def _out_of_time(self, scenario: Scenario) -> None:
        if (scenario.name, scenario.contender) not in self.found:  # otherwise the earlier rounds count
            self.leave_out(scenario.name, scenario.contender, OUT_OF_TIME)


def summary(measured: Round) -> str:
    """Return a round as a short text."""
    if not measured.deliveries or not measured.cpu:
        return ", ".join(f"{name} {value:,.1f}" for name, value in measured.figures.items())
    text = f"{measured.per_second:,.0f}/s"
    if WORKER in measured.cpu:
        text += f", worker {measured.microseconds(WORKER):,.0f} us"
    if "p99_ms" in measured.figures:
        text += f", p50 {measured.figures['p50_ms']:,.1f} ms, p99 {measured.figures['p99_ms']:,.1f} ms"
    return text


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
