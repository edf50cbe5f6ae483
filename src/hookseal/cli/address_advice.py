"""What an error adds in a folder of `hookseal up`, if the shell may not have the addresses of its servers."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from hookseal.errors import ConfigError, HooksealError, Unavailable

_SETTINGS: Final = (
    "DATABASE_URL",
    "REDIS_URL",
    "SECRETS_MASTER_KEY",
    "health_url",
)  # in errors: what is to be corrected
_ITS_OWN: Final = frozenset({"up", "demo"})  # they need no addresses
_HOST: Final = "127.0.0.1"  # of the servers of `up`, in their urls


def address_advice(error: HooksealError, arguments: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """Return the line to add to the error of this command, None without such a folder, or if addresses are no cause.

    It loads nothing unless there is such a folder.
    """
    text = str(error)
    is_theirs = (
        type(error) is Unavailable and _HOST in text
    )  # what does not answer at another host is no server of `up`
    is_fitting = is_theirs or (type(error) is ConfigError and "is not set" in text)
    if not (is_fitting and any(name in text for name in _SETTINGS)) or _ITS_OWN.intersection(arguments[:1]):
        return None
    with suppress(OSError):  # what cannot be read is no such folder
        if Path(".hookseal").is_dir():
            from hookseal.demo import state  # noqa: PLC0415 -- without such a folder, nothing needs it

            return state.advice(state.default_folder(), environ)
    return None
