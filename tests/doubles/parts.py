"""The parts of a delivery over doubles, each of which a test may give."""

from typing import Any

import structlog

from hookseal.dispatcher.core.endpoint_health import FailingEndpoints
from hookseal.dispatcher.core.ports import Parts
from hookseal.ground.clock import Clock
from hookseal.worker.metrics.counters import WorkerMeter
from tests.doubles.ledger import WholeLedger
from tests.doubles.signers import FixedSigners
from tests.doubles.transport import ScriptedTransport


def parts(ledger: WholeLedger, clock: Clock, **given: Any) -> Parts:
    """Return the parts of a delivery, by default with signers of one version and a transport without answers."""
    by_default: dict[str, Any] = {
        "transport": ScriptedTransport(clock=clock),
        "signers": FixedSigners("db:acme:n:1"),
        "jitter": lambda: 0.5,
        "allow_http": False,
        "longest_seconds": 20,
        "user_agent": "hookseal/test",
        "meter": WorkerMeter(),
        "health": FailingEndpoints(clock),
        "log": structlog.get_logger(),
        "success_log": structlog.get_logger(),
    }
    return Parts(claims=ledger, ledger=ledger, clock=clock, **by_default | given)
