"""The whole run: every scenario on its own servers, the most important ones first."""

import asyncio
import os
import platform
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from tools.bench import backlog, environments, plan, publishing, steady, throughput
from tools.bench.environments import Environment, NotInstalled
from tools.bench.plan import Case, Size
from tools.bench.results import Machine, Round, Run
from tools.bench.runner import Runner, Scenario
from tools.bench.site import ENDPOINTS, TENANT, WIDE, Site, differing, environment_of, site
from tools.governance.recording import commit_of, cpu_model, is_dirty

ROOT: Final = Path(__file__).resolve().parents[2]
PARTS: Final = ("base", "cases", "publishing", "latency", "steady", "backlogs", "crowded", "durable")
_KB: Final = 1_024
_BODIES: Final = "A body is an order as JSON with pseudo-random ids, names and amounts, the same for all contenders."


class _Run:
    """One run on one site, with the environments and the latest rate of each contender."""

    def __init__(self, size: Size, runner: Runner, environments_: dict[str, Environment]) -> None:
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
        scenarios = [
            Scenario(name=case.name, contender=contender, run=partial(self._round, here, case, contender))
            for contender in case.contenders
            if contender in self.environments and (case.name == "base" or contender in self.size.beside)
        ]
        await self.runner.rounds(scenarios, rounds)

    async def publishing(self, here: Site) -> None:
        scenarios = [
            Scenario(
                name="publish", contender=way, run=partial(publishing.publishing, here, way, self.size.publish_seconds)
            )
            for way in publishing.WAYS
        ]
        await self.runner.rounds(scenarios, self.size.rounds_of_cases)

    async def latency(self, here: Site) -> None:
        await self._latency(here, "latency-20", len(publishing.LATENCIES), self.size.latency_rounds)

    async def crowded(self, here: Site) -> None:
        await self._latency(here, "latency-500", self.size.crowded, 1)

    async def _latency(self, here: Site, name: str, most: int, rounds: int) -> None:
        scenarios = [
            Scenario(
                name=asked.scenario,
                contender=asked.title,
                run=partial(publishing.latency, here, asked, self.size.latency_seconds),
            )
            for asked in publishing.LATENCIES
            if asked.scenario == name
        ]
        await self.runner.rounds(scenarios[:most], rounds)

    async def steady(self, here: Site) -> None:
        await self._ours("idle", lambda: steady.idle(here, self.size.idle_seconds))
        await self._ours("hung", lambda: steady.hung(here, publishing.HUNG_REQUESTS, self.size.idle_seconds), plan.WIDE)
        for contender, tenant in {plan.HOOKSEAL: TENANT, plan.WIDE: TENANT + WIDE}.items():
            counted = partial(steady.statements, here, self.size.statements, None, tenant)
            await self._ours("statements", counted, contender)
        await self._ours("statements-20", lambda: steady.statements(here, self.size.statements_at_20, 20.0))
        await self._ours("memory-1kb", lambda: steady.in_flight(here, _KB), plan.WIDE)
        await self._ours("memory-256kb", lambda: steady.in_flight(here, 256 * _KB), plan.WIDE)

    async def backlogs(self, here: Site) -> None:
        await self.runner.prepared(here.add_many())
        async with AsyncExitStack() as kept:
            scenarios = [
                Scenario(
                    name=f"backlog-{number}", contender=plan.HOOKSEAL, run=self._backlog(here, number, place, kept)
                )
                for place, number in enumerate(self.size.backlogs)
            ]
            await self.runner.rounds(scenarios, self.size.backlog_rounds)
        for number in set(plan.FULL.backlogs) - set(self.size.backlogs):
            self.runner.leave_out(f"backlog-{number}", plan.HOOKSEAL, f"a {self.size.name} run does not fill it")

    def _backlog(self, here: Site, deliveries: int, place: int, kept: AsyncExitStack) -> Callable[[], Awaitable[Round]]:
        """Return a function that measures a round. The database of the first one is kept for the others."""
        found: list[backlog.Waiting] = []

        async def run() -> Round:
            if not found:
                found.append(await kept.enter_async_context(backlog.waiting(here, deliveries, place)))
            return await backlog.backlog(here, found[0], self.size.backlog_seconds)

        return run

    async def _ours(self, name: str, run: Callable[[], Awaitable[Round]], contender: str = plan.HOOKSEAL) -> None:
        await self.runner.rounds([Scenario(name=name, contender=contender, run=run)], 1)

    async def _round(self, here: Site, case: Case, contender: str) -> Round:
        case = plan.for_contender(case, contender)
        number = plan.deliveries_for(self.size, case, contender, self._rates)
        if contender in plan.OURS:
            measured = await throughput.ours(here, case, number)
        else:
            measured = await throughput.theirs(
                here, case, number, contender=contender, environment=self.environments[contender]
            )
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
    run = _Run(size, runner, found)
    async with site() as here:
        machine = await _machine(here)
        settings = differing(environment_of(here.installation, here.receiver))
        for name in ("base", "cases", "publishing", "latency", "steady", "backlogs", "crowded"):
            if not only:
                runner.until = begun + size.deadline_seconds * size.ends.get(name, 1.0)
            if name in only or not only:
                await getattr(run, name)(here)
        runner.until = begun + size.deadline_seconds
        if "durable" in only or (not only and not _is_quick(size)):
            async with site(durable=True) as durable:
                await run.case(durable, plan.DURABLE, size.rounds_of_cases)
    return Run(
        commit=commit_of(ROOT),
        is_dirty=is_dirty(ROOT),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        command=command,
        is_quick=_is_quick(size),
        seconds=round(loop.time() - begun, 1),
        machine=machine,
        settings=settings,
        bodies=_BODIES,
        versions={name: environment.version for name, environment in found.items()},
        rows=runner.rows(),
        left_out=tuple(runner.left_out.values()),
    )


def _is_quick(size: Size) -> bool:
    return size is plan.QUICK


def _environments() -> tuple[dict[str, Environment], dict[str, str]]:
    ours = environments.ours("hookseal")
    found = dict.fromkeys((*plan.OURS, *plan.TRANSPORT), ours)
    found |= {plan.BARE: environments.ours("aiohttp"), plan.STOCK: environments.ours("arq")}
    missing = {}
    for name in plan.QUEUES:
        try:
            found[name] = environments.of(name)
        except NotInstalled as error:
            missing[name] = str(error)
    return found, missing


async def _machine(here: Site) -> Machine:
    postgresql, redis = await here.versions()
    return Machine(
        cpu=cpu_model(),
        cpus=len(os.sched_getaffinity(0)),
        memory_mb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _KB**2,
        kernel=platform.release().split("-")[0],
        python=platform.python_version(),
        postgresql=postgresql,
        redis=redis,
    )
