"""The pages beside the HTTP API, in the process of `hookseal api`: under `/portal`."""

from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from hookseal.admin import Admin
from hookseal.config.settings import Settings
from hookseal.errors import ConfigError
from hookseal.pages.application import app
from hookseal.pages.look import Look

PATH: Final = "/portal"
_VARIABLE: Final = "HOOKSEAL_PORTAL_"


def beside(settings: Settings) -> Callable[[Admin, ASGIApp], ASGIApp]:
    """Return what adds the pages to the API. Raises `ConfigError` if a setting of their look cannot be used."""
    portal = settings.portal
    try:
        look = Look(
            name=portal.name,
            accent=portal.accent,
            logo=portal.logo,
            language=portal.language,
            time_zone=portal.time_zone,
        )
    except ValueError as error:
        name, _, problem = str(error).partition(" ")
        raise ConfigError(f"{_VARIABLE}{name.upper()} {problem}", field=f"{_VARIABLE}{name.upper()}") from None

    def added(admin: Admin, api: ASGIApp) -> ASGIApp:
        pages = app(admin, look=look, url=settings.api.portal_url, frames=portal.frames, rate=settings.api.rate)

        async def both(scope: AsgiScope, receive: Receive, send: Send) -> None:
            path = scope.get("path", "")
            if path != PATH and not path.startswith(f"{PATH}/"):
                await api(scope, receive, send)
                return
            scope["root_path"] = scope.get("root_path", "") + PATH
            await pages(scope, receive, send)

        return both

    return added
