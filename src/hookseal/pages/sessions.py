"""The sessions of visitors who came by a link: a cookie with the token of a portal, which ends with it."""

from collections.abc import Callable
from typing import Final

from starlette.requests import Request

from hookseal.admin import Admin
from hookseal.api.access import of_token
from hookseal.pages.guard import Site
from hookseal.pages.page import Visitor

COOKIE: Final = "hookseal"


class LinkSessions:
    """Knows visitors by the token in their cookie, which PostgreSQL is asked for each time."""

    def __init__(self, admin: Admin, site_of: Callable[[Request], Site]) -> None:
        self._admin = admin
        self._site_of = site_of

    async def visitor(self, request: Request) -> Visitor | None:
        """Return who asks; None without a token of a portal that may be used now."""
        text = self._text(request)
        found = None if text is None else await self._admin.tokens.find(text)
        return Visitor(access=of_token(found)) if found is not None and found.portal else None

    async def back_url(self, request: Request) -> str | None:
        """Return where the product lets the visitor in again, also some days after the session has ended."""
        text = self._text(request)
        return None if text is None else await self._admin.portal.refresh_url(code=text)

    def _text(self, request: Request) -> str | None:
        return request.cookies.get(self._site_of(request).cookie_name(COOKIE))
