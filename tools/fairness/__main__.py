"""Draw docs/proof/fairness.svg from a simulated outage; with --sockets, measure what failing endpoints cost others."""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Final

from tools.fairness import sockets
from tools.fairness.figures import in_flight_over_time, most_by_minute
from tools.fairness.picture import picture
from tools.fairness.receivers import failing_between, healthy
from tools.fairness.simulation import Simulation

ROOT: Final = Path(__file__).resolve().parents[2]
MINUTES: Final = 30
BEGIN: Final = 5
END: Final = 15
_PER_SECOND: Final = 5
_OTHERS: Final = 20


def drawn() -> str:
    """Return the picture of one endpoint that hangs for ten minutes, beside others that answer."""
    simulation = Simulation(workers=3)
    sick = simulation.add("sick", 1, failing_between(BEGIN * 60, END * 60, seconds=0.2))
    record = in_flight_over_time(simulation, sick)
    others = [simulation.add("well", number, healthy(0.05)) for number in range(_OTHERS)]
    for each in range(MINUTES * 60 * _PER_SECOND):
        simulation.publish(each / _PER_SECOND, sick)
        simulation.publish(each / _PER_SECOND, others[each % _OTHERS])
    waiting: list[float] = []
    for minute in range(MINUTES):
        simulation.run((minute + 1) * 60)
        waiting.append(float(len(simulation.endpoints[sick].parked)))
    longest = [0.0] * MINUTES
    for each_ in simulation.deliveries:
        minute = int(each_.published_at // 60)
        if each_.key[0] == "well" and each_.begun_at is not None:
            longest[minute] = max(longest[minute], each_.begun_at - each_.published_at)
    return picture(
        [
            ("The endpoint that hangs: most requests in flight", most_by_minute(record, MINUTES), ""),
            ("The endpoint that hangs: deliveries that wait in PostgreSQL", waiting, ""),
            ("All other endpoints: longest wait for a first request, seconds", longest, " s"),
        ],
        shaded=(BEGIN, END),
        unit="minutes",
    )


def main(arguments: list[str]) -> None:
    """Do what the arguments ask for."""
    parser = argparse.ArgumentParser(prog="make fairness", description=__doc__)
    parser.add_argument("--sockets", action="store_true", help="measure with real sockets, in ten minutes")
    parser.add_argument("--only", default="", metavar="KINDS", help=f"some of {', '.join(sockets.KINDS)}, with commas")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each measurement lasts")
    parser.add_argument("--rounds", type=int, default=5, help="how often; the medians are printed")
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    asked = parser.parse_args(arguments)
    kinds = [kind.strip() for kind in asked.only.split(",") if kind.strip()] or [*sockets.KINDS][1:]
    if unknown := set(kinds) - set(sockets.KINDS):
        parser.error(f"--only does not know {', '.join(sorted(unknown))}")
    if asked.sockets:
        print(sockets.report(asyncio.run(sockets.run(kinds, asked.seconds, max(asked.rounds, 1))), as_json=asked.json))
        return
    (ROOT / "docs/proof/fairness.svg").write_text(drawn(), encoding="utf-8")
    print("wrote docs/proof/fairness.svg")


if __name__ == "__main__":
    main(sys.argv[1:])
