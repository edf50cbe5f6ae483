"""Which arq and redis a deployed worker accepts. Nothing here imports either."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from hookseal.errors import ConfigError

ARQ: Final = "0.28.0"
REDIS_BELOW: Final = 6  # what this arq requires
_REMEDY: Final = (
    "install the worker in an environment of its own, with `pip install 'hookseal[worker]'`, or start it with "
    "`uvx --from 'hookseal[worker]' hookseal worker`. Everything else can stay in this environment"
)


def require_arq() -> None:
    """Return if arq, and the redis beside it, are as the worker needs them. Raises `ConfigError` with the remedy."""
    if (problem := problem_with(_installed("arq"), _installed("redis"))) is not None:
        raise ConfigError(f"{problem}: {_REMEDY}")


def problem_with(arq: str | None, redis: str | None) -> str | None:
    """Return what is wrong with these versions, None if nothing is; None as a version: the package is not installed."""
    if arq is None:
        return "`hookseal worker` needs arq, which is not installed"
    if arq != ARQ:
        return f"arq {arq} is installed, which pip chooses beside a newer redis, and `hookseal worker` needs arq {ARQ}"
    if redis is not None and int(redis.partition(".")[0]) >= REDIS_BELOW:
        return (
            f"redis {redis} is installed, and `hookseal worker` needs arq {ARQ}, which requires redis < {REDIS_BELOW}"
        )
    return None


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
