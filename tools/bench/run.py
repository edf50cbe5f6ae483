"""The whole run: every scenario on its own servers, rounds alternating, the most important ones first."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from typing import Final

from hookseal.config.variables import Variables
from tools import records
from tools.bench import api, environments, measures, plan
from tools.bench.environments import Environment, NotInstalled
from tools.bench.plan import Case, Size
from tools.bench.results import TOOLS, LeftOut, Round, Row, Run
from tools.harness import API, KB, WORKER, Site, environment_of, site
from tools.records import ROOT, SOURCE, commit_of, digest_of, is_dirty

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
    for part in (WORKER, API):
        if part in measured.cpu:
            text += f", {part} {measured.microseconds(part):,.0f} us"
    if "p99_ms" in measured.figures:
        text += f", p50 {measured.figures['p50_ms']:,.1f} ms, p99 {measured.figures['p99_ms']:,.1f} ms"
    return text


class _Parts:
    """The parts of a run, by name, with the environments and the latest rate of each contender."""

    def __init__(self, size: Size, runner: Runner, environments_: Mapping[str, Environment]) -> None:
        self.size = size
        self.runner = runner
        self.titles: dict[str, str] = {}
        self._environments = environments_
        self._rates: dict[tuple[str, str], float] = {}

    async def run(self, here: Site, part: str) -> None:
        """Measure this part on these servers, which it needs."""
        for case in plan.CASES:
            if case.part == part and (not self.size.cases or case.name in self.size.cases):
                await self._case(here, case)
        if part in {"publishing", "api", "steady", "backlogs"}:
            await getattr(self, f"_{part}")(here)

    async def _case(self, here: Site, case: Case) -> None:
        is_steady, size = bool(case.per_second or case.half_of), self.size
        self._entitle(here, case)
        runs = {
            contender: partial(self._latency if is_steady else self._full_speed, here, case, contender)
            for contender in case.contenders
            if contender in size.beside and (is_steady or contender in self._environments)
        }
        rounds = 1 if case.is_long else size.rounds if case.name == "base" else size.rounds_of_cases
        await self._rounds(case.name, runs, size.latency_rounds if is_steady else rounds)
        if case.name == "base":
            await self._rounds(case.name, {each: runs[each] for each in plan.COMPARED}, size.more_rounds)

    async def _publishing(self, here: Site) -> None:
        seconds = self.size.publish_seconds
        runs = {name: partial(measures.publishing, here, way, seconds) for name, way in measures.WAYS.items()}
        await self._rounds("publish", runs, self.size.rounds_of_cases)

    async def _api(self, here: Site) -> None:
        size = self.size
        seconds = size.publish_seconds
        runs: dict[str, Callable[[], Awaitable[Round]]] = {plan.BY_API: partial(api.messages, here, seconds)}
        runs |= {name: partial(measures.publishing, here, way, seconds) for name, way in api.BESIDE.items()}
        await self._rounds("api", runs, size.rounds_of_cases)
        kinds = {
            "api-50": partial(api.steady, here, 50.0, size.latency_seconds),
            "api-slow": partial(api.slow, here, min(size.idle_seconds, api.SLOW_SECONDS)),
            "api-reads": partial(api.reads, here, size.api_endpoints, size.api_deliveries, size.api_times),
        }
        for name, run in kinds.items():
            await self._rounds(name, {plan.HOOKSEAL: run})

    async def _steady(self, here: Site) -> None:
        size = self.size
        kinds: dict[str, Callable[[], Awaitable[Round]]] = {
            "idle": partial(measures.idle, here, size.idle_seconds),
            "hung": partial(measures.hung, here, size.idle_seconds),
            "statements": partial(measures.statements, here, size.statements, None),
            "statements-20": partial(measures.statements, here, size.statements_at_20, 20.0),
            "memory-1kb": partial(measures.in_flight, here, KB),
            "memory-256kb": partial(measures.in_flight, here, 256 * KB),
        }
        for name, run in kinds.items():
            await self._rounds(name, {plan.HOOKSEAL: run})

    async def _backlogs(self, here: Site) -> None:
        async with AsyncExitStack() as kept:
            scenarios = []
            for number, case in enumerate(plan.backlogs(self.size)):
                self._entitle(here, case)
                run = self._backlog(here, case, number, kept)
                scenarios.append(Scenario(name=case.name, contender=plan.HOOKSEAL, run=run))
            await self.runner.rounds(scenarios, self.size.backlog_rounds)

    def _backlog(self, here: Site, case: Case, number: int, kept: AsyncExitStack) -> Callable[[], Awaitable[Round]]:
        """Return a function that measures a round. The database of the first one is kept for the others."""
        found: list[measures.Backlog] = []

        async def run() -> Round:
            if not found:
                found.append(await kept.enter_async_context(measures.backlog(here, case, number)))
            return await found[0].measured(self.size.backlog_seconds)

        return run

    async def _rounds(self, name: str, runs: Mapping[str, Callable[[], Awaitable[Round]]], number: int = 1) -> None:
        scenarios = [Scenario(name=name, contender=contender, run=run) for contender, run in runs.items()]
        await self.runner.rounds(scenarios, number)

    async def _latency(self, here: Site, case: Case, contender: str) -> Round:
        per_second = case.per_second or await self._half_of(here, case.half_of)
        return await measures.latency(here, case, contender, per_second, self.size.latency_seconds)

    async def _half_of(self, here: Site, name: str) -> float:
        """Return half of the rate at which events of that case were last published and delivered at once."""
        if (name, plan.MEANWHILE) not in self._rates:
            await self._full_speed(here, next(case for case in plan.CASES if case.name == name), plan.MEANWHILE)
        return self._rates[name, plan.MEANWHILE] / 2

    async def _full_speed(self, here: Site, case: Case, contender: str) -> Round:
        case = plan.for_contender(case, contender)
        number = plan.deliveries_for(self.size, case, contender, self._rates)
        if contender == plan.MEANWHILE:
            measured = await measures.at_once(here, case, self.size.publish_seconds)
        elif contender in plan.OURS:
            measured = await measures.ours(here, case, number)
        else:
            measured = await measures.theirs(here, case, number, contender, self._environments[contender])
        self._rates[case.name, contender] = measured.per_second
        return measured

    def _entitle(self, here: Site, case: Case) -> None:
        self.titles[case.name] = case.title.format(postgresql=here.machine.postgresql)


async def measured(size: Size, only: Sequence[str], command: str) -> Run:
    """Measure all of it, or only the named parts, within the deadline of that size, and return the results."""
    found, missing = _environments()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    runner = Runner(until=begun + size.deadline_seconds)
    for contender, reason in missing.items():
        runner.leave_out("base", contender, reason)
    parts, asked = _Parts(size, runner, found), only or size.parts
    machine, settings = records.machine("", ""), dict[str, str]()
    for servers, names in groupby((name for name in plan.PARTS if name in asked), plan.PARTS.__getitem__):
        async with site(servers) as here:
            for name in names:
                if not only:
                    runner.until = begun + size.deadline_seconds * size.ends.get(name, 1.0)
                await parts.run(here, name)
            if not servers.oldest or not machine.postgresql:
                machine, settings = here.machine, differing(environment_of(here.installation, here.receiver))
    return Run(
        commit=commit_of(ROOT),
        is_dirty=is_dirty(ROOT),
        digest=digest_of(ROOT, "HEAD", SOURCE, *TOOLS),
        tools=TOOLS,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        command=command,
        is_quick=size is plan.QUICK,
        seconds=round(loop.time() - begun, 1),
        machine=machine,
        settings=settings,
        bodies=_BODIES,
        versions={name: environment.version for name, environment in found.items()},
        rows=runner.rows(),
        left_out=tuple(runner.left_out.values()),
        titles=parts.titles,
        conditions=plan.CONDITIONS,
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
    found = dict.fromkeys((*plan.OURS, plan.CLIENT), environments.ours("hookseal"))
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
