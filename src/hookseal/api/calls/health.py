"""Whether the server answers."""

from typing import Any, Final

from hookseal.api.call import ANYBODY, Asked, Call


async def get(_asked: Asked[Any, Any]) -> None:
    """Answer that this server is there, to anybody. Whether it can work, its probes say."""


CALLS: Final = (Call(name="health.get", method="GET", path="/api/v1/health", scopes=ANYBODY, handler=get, status=204),)
