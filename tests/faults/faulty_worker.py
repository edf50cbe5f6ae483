"""A `hookseal worker` that causes the fault of the variable FAULT in itself, at one step of a delivery."""

import asyncio
import inspect
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import wraps
from typing import Any, Final, Self

from hookseal.cli.main import main
from hookseal.dispatcher.core import deliver, prepare
from hookseal.dispatcher.core.ports import Parts
from hookseal.ground.pointer import Pointer
from hookseal.worker import resources

STEPS: Final = ("claim", "admit", "resolve", "compose", "sign", "send", "classify", "decide", "record", "report")
POINTS: Final = tuple(f"{step}.{side}" for step in STEPS for side in ("before", "after"))


class Action(StrEnum):
    """`kill` is SIGKILL, `pause` is SIGSTOP; `stall` blocks the event loop for `seconds`."""

    KILL = "kill"
    PAUSE = "pause"
    STALL = "stall"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault caused once, when the point is passed for the `number`th time. As text: `send.after@3=stall:9.5`."""

    point: str
    action: Action
    number: int = 1
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.point}@{self.number}={self.action}:{self.seconds:g}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the fault of that text. Raises `ValueError`."""
        where, _, what = text.partition("=")
        point, _, number = where.partition("@")
        action, _, seconds = what.partition(":")
        if point not in POINTS:
            raise ValueError(f"there is no point {point!r}")
        return cls(point=point, action=Action(action), number=int(number or 1), seconds=float(seconds or 0))


PURE_STEPS = {"admit": prepare, "compose": prepare, "classify": deliver, "decide": deliver}


class FaultTrigger:
    """Called at every point; causes the fault at its point, when the point is passed for the given time."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._passed = 0

    def __call__(self, point: str) -> None:
        if point != self._fault.point:
            return
        self._passed += 1
        if self._passed != self._fault.number:
            return
        match self._fault.action:
            case Action.KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            case Action.PAUSE:
                os.kill(os.getpid(), signal.SIGSTOP)
            case Action.STALL:
                time.sleep(self._fault.seconds)  # blocking the event loop is the fault


def with_points(step: str, function: Callable[..., Any], trigger: FaultTrigger) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            trigger(f"{step}.before")
            result = await function(*args, **kwargs)
            trigger(f"{step}.after")
            return result

        return asynchronous

    @wraps(function)
    def synchronous(*args: Any, **kwargs: Any) -> Any:
        trigger(f"{step}.before")
        result = function(*args, **kwargs)
        if isinstance(result, asyncio.Future):
            result.add_done_callback(lambda _: trigger(f"{step}.after"))
        else:
            trigger(f"{step}.after")
        return result

    return synchronous


class PartWithPoints:
    """The same part, with the points before and after each of its methods that is a step."""

    def __init__(self, part: Any, steps: Mapping[str, str], trigger: FaultTrigger) -> None:
        self._part = part
        self._steps = steps
        self._trigger = trigger

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        return with_points(self._steps[name], found, self._trigger) if name in self._steps else found


class Signers:
    """The same signers: resolving them is a step, and so is each signature."""

    def __init__(self, signers: Any, trigger: FaultTrigger) -> None:
        self._signers = signers
        self._trigger = trigger

    @asynccontextmanager
    async def signers(self, pointer: Pointer) -> AsyncIterator[tuple[Any, ...]]:
        self._trigger("resolve.before")
        async with self._signers.signers(pointer) as given:
            self._trigger("resolve.after")
            yield tuple(PartWithPoints(each, {"sign": "sign"}, self._trigger) for each in given)

    def headers(self, pointer: Pointer) -> Any:
        return self._signers.headers(pointer)

    def tls(self, pointer: Pointer) -> Any:
        return self._signers.tls(pointer)


class Log:
    """The same log: the line about an attempt is the end of the step `report`."""

    def __init__(self, log: Any, trigger: FaultTrigger) -> None:
        self._log = log
        self._trigger = trigger

    def __getattr__(self, name: str) -> Any:
        write = getattr(self._log, name)

        def logged(event: str, **values: Any) -> None:
            write(event, **values)
            if event == "delivery.attempted":
                self._trigger("report.after")

        return logged if name in {"info", "warning"} else write


class Meter:
    """The same meter: the count of an attempt is the beginning of the step `report`."""

    def __init__(self, meter: Any, trigger: FaultTrigger) -> None:
        self._meter = meter
        self._trigger = trigger

    def __getattr__(self, name: str) -> Any:
        if name == "attempted":
            self._trigger("report.before")
        return getattr(self._meter, name)


def install_fault(fault: Fault) -> None:
    """Make the pipeline of this process pass every point from now on."""
    trigger = FaultTrigger(fault)
    for step, room in PURE_STEPS.items():
        setattr(room, step, with_points(step, getattr(room, step), trigger))
    make_parts = resources._parts

    def parts_with_points(*args: Any, **kwargs: Any) -> Parts:
        parts = make_parts(*args, **kwargs)
        claims: Any = PartWithPoints(parts.claims, {"claim_all": "claim"}, trigger)
        ledger: Any = PartWithPoints(parts.ledger, {"record": "record"}, trigger)
        transport: Any = PartWithPoints(parts.transport, {"send": "send"}, trigger)
        signers: Any = Signers(parts.signers, trigger)
        meter: Any = Meter(parts.meter, trigger)
        log, success_log = Log(parts.log, trigger), Log(parts.success_log, trigger)
        given = {"claims": claims, "ledger": ledger, "transport": transport, "signers": signers, "meter": meter}
        return replace(parts, **given, log=log, success_log=success_log)

    resources._parts = parts_with_points


if __name__ == "__main__":
    install_fault(Fault.parse(os.environ.pop("FAULT")))
    sys.argv[0] = "hookseal"
    main()
