"""`hookseal doctor`: what is wrong with the installation, and what to do."""

from collections import Counter
from dataclasses import asdict

import typer

from hookseal.cli.shared.output import Json, emit
from hookseal.cli.shared.printing import printable
from hookseal.cli.shared.runtime import run, start
from hookseal.ground.clock import SystemClock


def doctor(*, as_json: Json = False) -> None:
    """Examine the installation with the settings of a worker: exit 0 if nothing is wrong, else 1. It changes nothing.

    It looks at clocks, the way to PostgreSQL, its durability, connections, time-outs and autovacuum, old transactions,
    schema and roles, keys and refused secrets, the live workers, and Redis. Each finding is ok, risk, wrong or unknown;
    each but ok has a line with what to do. Run it where a worker runs, with its settings, before the first start, after
    an upgrade, and when something is strange.

    Example: hookseal doctor
    """
    from hookseal.worker.doctor import Verdict, examined  # noqa: PLC0415 -- it loads all that a worker needs

    findings = run(examined(start(), clock=SystemClock()))
    number = Counter(finding.verdict for finding in findings)
    lines = []
    for each in sorted(findings, key=lambda finding: list(Verdict).index(finding.verdict)):
        lines.append(printable(f"{each.verdict:8}{each.check}: {each.found}"))
        lines += [printable(f"{'':8}-> {each.fix}")] if each.fix else []
    lines.append(f"{number[Verdict.WRONG]} wrong, {number[Verdict.RISK]} at risk, {number[Verdict.UNKNOWN]} unknown")
    emit(
        {"findings": [asdict(each) for each in findings], **{verdict: number[verdict] for verdict in Verdict}},
        as_json=as_json,
        text="\n".join(lines),
    )
    raise typer.Exit(1 if number[Verdict.WRONG] else 0)
