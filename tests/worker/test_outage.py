"""Outages are told when they begin and when they end."""

import pytest
import structlog
from redis.exceptions import ConnectionError as RedisConnectionError

from hookseal.ground.errors import Unavailable
from hookseal.queue.outage import redis_translated
from hookseal.worker.outage import Outage


def test_told_once_and_over_once() -> None:
    """However often a try fails in the same way, it is told once; then once that it is over."""
    with structlog.testing.capture_logs() as logs:
        outage = Outage("loop", structlog.get_logger())
        lasting = []
        for error in (
            None,
            Unavailable("a"),
            Unavailable("a"),
            Unavailable("b"),
            KeyError("x"),
            KeyError("y"),
            None,
            None,
        ):
            with outage.survived():
                if error is not None:
                    raise error
            lasting.append(outage.lasts)

    assert ["loop.failed", "loop.failed", "loop.defect", "loop.resumed"] == [line["event"] for line in logs]
    assert ["a", "b"] == [line["reason"] for line in logs if "reason" in line]
    assert [False, True, True, True, True, True, False, False] == lasting


@pytest.mark.parametrize("error", [RedisConnectionError("redis://:hunter2@host"), OSError("x"), TimeoutError()])
def test_what_redis_raises(error: Exception) -> None:
    """What the client of Redis raises is `Unavailable`, naming the kind and nothing of its text."""
    with pytest.raises(Unavailable, match=type(error).__name__) as told, redis_translated():
        raise error
    assert "hunter2" not in str(told.value)
