"""The begin and the end of an outage are logged once each."""

import pytest
import structlog
from redis.exceptions import ConnectionError as RedisConnectionError

from hookseal.errors import Unavailable
from hookseal.queue.rings import translate_redis_errors
from hookseal.worker.outage_log import Outage


def test_an_outage_and_its_end_are_logged_once() -> None:
    """Repeated failures for the same reason are logged once, and so is the end of the outage."""
    with structlog.testing.capture_logs() as logs:
        outage = Outage("loop", structlog.get_logger())
        lasting = []
        for error in (
            None,
            Unavailable("a"),
            Unavailable("a"),
            Unavailable("b"),
            Unavailable("a"),
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
    assert [False, True, True, True, True, True, True, False, False] == lasting


@pytest.mark.parametrize("error", [RedisConnectionError("redis://:hunter2@host"), OSError("x"), TimeoutError()])
def test_redis_errors_become_unavailable(error: Exception) -> None:
    """An error of the Redis client becomes `Unavailable` with the class of the error, without its text."""
    with pytest.raises(Unavailable, match=type(error).__name__) as raised, translate_redis_errors():
        raise error
    assert "hunter2" not in str(raised.value)
