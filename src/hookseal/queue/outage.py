"""Translates the errors of the Redis client into the one error that the rest of hookseal handles."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import AuthenticationError, RedisError, ResponseError

from hookseal.ground.errors import Unavailable


@contextmanager
def translate_redis_errors(*, address: str | None = None, variable: str = "REDIS_URL") -> Iterator[None]:
    """Translate errors of the Redis client into `Unavailable`. With an address it names the variable to correct."""
    place = "Redis" if address is None else f"Redis at {address}"
    try:
        yield
    except AuthenticationError:
        raise Unavailable(f"{place} refuses the user or the password: correct {variable}") from None
    except ResponseError as error:  # Redis is full, a replica, or has another type at the key
        raise Unavailable(f"{place} refuses the command ({_code(error)})") from None
    except (RedisError, OSError, TimeoutError) as error:
        advice = "" if address is None else f": start it or correct {variable}"
        raise Unavailable(f"{place} does not answer ({type(error).__name__}){advice}") from None


def _code(error: ResponseError) -> str:
    """Return the code of a Redis error, its first word, or else the name of its class; never more of its text."""
    text = str(error).rpartition("caused error: ")[2]
    word = text.lstrip("('\"").partition(" ")[
        0
    ]  # some versions of the client quote the text in the error of a pipeline
    return word if word.isalpha() and word.isupper() else type(error).__name__
