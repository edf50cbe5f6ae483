"""The whole run: every scenario on its own servers, rounds alternating, the most important ones first."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final

from hookseal.config.variables import Variables
from tools.bench import environments, measures, plan
from tools.bench.environments import Environment, NotInstalled
from tools.bench.plan import Case, Size
from tools.bench.results import LeftOut, Round, Row, Run
from tools.harness import ENDPOINTS, KB, TENANT, WIDE, WORKER, Site, environment_of, site
from tools.records import ROOT, commit_of, is_dirty

PARTS: Final = ("base", "cases", "publishing", "latency", "steady", "backlogs", "crowded", "durable")
OUT_OF_TIME: Final = "the time of the run was over"
_LEAST_SECONDS: Final = 4.0  # with less time left, no round is started
_BODIES: Final = "A body is an order as JSON with pseudo-random ids, names and amounts, the same for all contenders."


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One contender in one scenario; `run` sets it up, measures one round, and removes it."""

    name: str
    contender: str
    run: Callable[[], Awaitable[Round]]


@dataclass(slots=True)
class Runner:
    """Alternates rounds until a deadline (seconds of the running loop): what does not fit or fails is reported."""

    until: float
    found: dict[tuple[str, str], list[Round]] = field(default_factory=dict)
    left_out: dict[tuple[str, str], LeftOut] = field(default_factory=dict)

    async def rounds(self, scenarios: Sequence[Scenario], number: int) -> None:
        """Run that many rounds of each, alternating, so that a slow minute of the machine affects all of them."""
        for round_ in range(1, number + 1):
            for scenario in scenarios:
                key = (scenario.name, scenario.contender)
                if key not in self.left_out and (measured := await self._one(scenario)) is not None:
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
        if self.until - asyncio.get_running_loop().time() < _LEAST_SECONDS:
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


class _Parts:
    """The parts of a run, by name, with the environments and the latest rate of each contender."""

    def __init__(self, size: Size, runner: Runner, environments_: Mapping[str, Environment]) -> None:
        self.size = size
        self.runner = runner
        self.environments = environments_
        self._rates: dict[tuple[str, str], float] = {}

    async def base(self, here: Site) -> None:
        case = plan.CASES[0]
        await self.case(here, case, self.size.rounds)
        await self.case(here, replace(case, contenders=plan.COMPARED), self.size.more_rounds)

    async def cases(self, here: Site) -> None:
        for case in plan.CASES[1:]:
            if case.endpoints == ENDPOINTS:
                await self.runner.prepared(here.add_many())
            await self.case(here, case, self.size.rounds_of_cases)

    async def case(self, here: Site, case: Case, rounds: int) -> None:
        runs = {
            contender: partial(self._full_speed, here, case, contender)
            for contender in case.contenders
            if contender in self.environments and (case.name == "base" or contender in self.size.beside)
        }
        await self._rounds(case.name, runs, rounds)

    async def publishing(self, here: Site) -> None:
        runs = {way: partial(measures.publishing, here, way, self.size.publish_seconds) for way in measures.WAYS}
        await self._rounds("publish", runs, self.size.rounds_of_cases)

    async def latency(self, here: Site) -> None:
        await self._latency(here, "latency-20", len(measures.LATENCIES), self.size.latency_rounds)

    async def crowded(self, here: Site) -> None:
        await self._latency(here, "latency-500", self.size.crowded, 1)

    async def steady(self, here: Site) -> None:
        size = self.size
        await self._rounds("idle", {plan.HOOKSEAL: partial(measures.idle, here, size.idle_seconds)})
        await self._rounds("hung", {plan.WIDE: partial(measures.hung, here, size.idle_seconds)})
        saturated = partial(measures.statements, here, size.statements, None)
        tenants = {plan.HOOKSEAL: TENANT, plan.WIDE: TENANT + WIDE}
        await self._rounds("statements", {name: partial(saturated, tenant) for name, tenant in tenants.items()})
        at_20 = partial(measures.statements, here, size.statements_at_20, 20.0)
        await self._rounds("statements-20", {plan.HOOKSEAL: at_20})
        for name, body_bytes in {"memory-1kb": KB, "memory-256kb": 256 * KB}.items():
            await self._rounds(name, {plan.WIDE: partial(measures.in_flight, here, body_bytes)})

    async def backlogs(self, here: Site) -> None:
        await self.runner.prepared(here.add_many())
        async with AsyncExitStack() as kept:
            scenarios = [
                Scenario(name=f"backlog-{number}", contender=plan.HOOKSEAL, run=self._backlog(here, number, at, kept))
                for at, number in enumerate(self.size.backlogs)
            ]
            await self.runner.rounds(scenarios, self.size.backlog_rounds)
        for number in set(plan.FULL.backlogs) - set(self.size.backlogs):
            self.runner.leave_out(f"backlog-{number}", plan.HOOKSEAL, f"a {self.size.name} run does not fill it")

    def _backlog(self, here: Site, deliveries: int, place: int, kept: AsyncExitStack) -> Callable[[], Awaitable[Round]]:
        """Return a function that measures a round. The database of the first one is kept for the others."""
        found: list[measures.Backlog] = []

        async def run() -> Round:
            if not found:
                found.append(await kept.enter_async_context(measures.backlog(here, deliveries, place)))
            return await found[0].measured(self.size.backlog_seconds)

        return run

    async def _latency(self, here: Site, name: str, most: int, rounds: int) -> None:
        asked = [each for each in measures.LATENCIES if each.scenario == name][:most]
        runs = {each.title: partial(measures.latency, here, each, self.size.latency_seconds) for each in asked}
        await self._rounds(name, runs, rounds)

    async def _rounds(self, name: str, runs: Mapping[str, Callable[[], Awaitable[Round]]], number: int = 1) -> None:
        scenarios = [Scenario(name=name, contender=contender, run=run) for contender, run in runs.items()]
        await self.runner.rounds(scenarios, number)

    async def _full_speed(self, here: Site, case: Case, contender: str) -> Round:
        case = plan.for_contender(case, contender)
        number = plan.deliveries_for(self.size, case, contender, self._rates)
        if contender in plan.OURS:
            measured = await measures.ours(here, case, number)
        else:
            measured = await measures.theirs(here, case, number, contender, self.environments[contender])
        self._rates[case.name, contender] = measured.per_second
        return measured


async def measured(size: Size, only: Sequence[str], command: str) -> Run:
    """Measure all of it, or only the named parts, within the deadline of that size, and return the results."""
    found, missing = _environments()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    runner = Runner(until=begun + size.deadline_seconds)
    for contender, reason in missing.items():
        runner.leave_out("base", contender, reason)
    parts, is_quick = _Parts(size, runner, found), size is plan.QUICK
    async with site() as here:
        for name in PARTS[:-1]:
            if not only:
                runner.until = begun + size.deadline_seconds * size.ends.get(name, 1.0)
            if name in only or not only:
                await getattr(parts, name)(here)
        runner.until = begun + size.deadline_seconds
        if "durable" in only or (not only and not is_quick):
            async with site(durable=True) as durable:
                await parts.case(durable, plan.DURABLE, size.rounds_of_cases)
        settings = differing(environment_of(here.installation, here.receiver))
    return Run(
        commit=commit_of(ROOT),
        is_dirty=is_dirty(ROOT),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        command=command,
        is_quick=is_quick,
        seconds=round(loop.time() - begun, 1),
        machine=here.machine,
        settings=settings,
        bodies=_BODIES,
        versions={name: environment.version for name, environment in found.items()},
        rows=runner.rows(),
        left_out=tuple(runner.left_out.values()),
        most_installed=plan.CASES[0].most_in_flight,
    )


def differing(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings `HOOKSEAL_*` of a worker that differ from their defaults; empty if not to be shown."""
    fields = {str(each.alias): each for each in Variables.model_fields.values()}
    return {
        name: value if fields[name].repr else ""
        for name, value in environment.items()
        if name.startswith("HOOKSEAL_") and name in fields and str(fields[name].default).lower() != value
    }


def _environments() -> tuple[dict[str, Environment], dict[str, str]]:
    found = dict.fromkeys((*plan.OURS, *plan.TRANSPORT), environments.ours("hookseal"))
    found |= {plan.BARE: environments.ours("aiohttp"), plan.STOCK: environments.ours("arq")}
    missing = {}
    for name in plan.QUEUES:
        try:
            found[name] = environments.of(name)
        except NotInstalled as error:
            missing[name] = str(error)
    return found, missing


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
