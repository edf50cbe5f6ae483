"""What the command says if only the part of hookseal that producers and receivers need is installed."""

from typing import Final

from hookseal.errors import ConfigError

EXIT_CODE: Final = ConfigError.exit_code
_OF_THE_API: Final = frozenset({"httptools", "starlette", "uvicorn"})


def message(error: ModuleNotFoundError) -> str | None:
    """Return what to install; None if a module of hookseal itself is missing."""
    package = (error.name or "").partition(".")[0]
    if package in {"", "hookseal"}:
        return None
    if package in _OF_THE_API:
        return f"{package} is not installed: `hookseal api` needs `pip install 'hookseal[api]'`"
    return f"{package} is not installed: the command hookseal needs `pip install 'hookseal[cli]'`"
