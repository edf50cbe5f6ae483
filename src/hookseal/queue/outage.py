"""What the client of Redis raises in an outage, as the one error that the rest of the house knows."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import AuthenticationError, RedisError, ResponseError

from hookseal.ground.errors import Unavailable


@contextmanager
def redis_translated(*, address: str | None = None, variable: str = "REDIS_URL") -> Iterator[None]:
    """Turn what the client of Redis raises into `Unavailable`; with an address it says which variable to correct."""
    place = "Redis" if address is None else f"Redis at {address}"
    try:
        yield
    except AuthenticationError:
        raise Unavailable(f"{place} refuses the user or the password: correct {variable}") from None
    except ResponseError as error:  # full, a replica, something else in the place of ours: it answers, and will not
        raise Unavailable(f"{place} refuses what is asked of it ({_code(error)})") from None
    except (RedisError, OSError, TimeoutError) as error:
        advice = "" if address is None else f": start it or correct {variable}"
        raise Unavailable(f"{place} does not answer ({type(error).__name__}){advice}") from None


def _code(error: ResponseError) -> str:
    """Return the word with which Redis begins its error, or the error's class: never more of its text."""
    word = str(error).rpartition("caused error: ")[2].partition(" ")[0]
    return word if word.isalpha() and word.isupper() else type(error).__name__
