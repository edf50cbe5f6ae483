"""How a visitor comes in by a link, is known by a cookie with the token of a portal, and leaves."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from starlette.requests import Request

from hookseal.admin import Admin, Scope
from hookseal.api.access import of_token
from hookseal.errors import Malformed, NotFound
from hookseal.pages import words
from hookseal.pages.guard import Site
from hookseal.pages.page import Asked, Moved, Page, Shown, Visitor

COOKIE: Final = "hookseal"
KEPT_SECONDS: Final = 86_400  # after the end of the session: until then a page knows where the product lets in again


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


async def welcome(asked: Asked) -> Shown:
    """Show a button: only who presses it uses the link, and no program that looks at it first."""
    return Shown(template="login.html", values={"code": asked.query.text("code")})


async def enter(asked: Asked) -> Shown | Moved:
    """Begin a session with the code of the link, which is used by that."""
    code = asked.form.text("code")
    try:
        session = await asked.admin.portal.exchange(code=code)
    except (Malformed, NotFound):
        return await _without_session(asked, code, "This link does not work any more", words.USED_LINK, status=401)
    seconds = max(0, int((session.expires_at - asked.now).total_seconds())) + KEPT_SECONDS
    return Moved(to=asked.link("endpoints"), cookies={COOKIE: (session.token.reveal().decode(), seconds)})


async def leave(asked: Asked) -> Shown:
    """End the session, and the token of it."""
    if asked.access.token is not None:
        with suppress(NotFound):  # it has ended meanwhile
            await asked.admin.tokens.revoke(name=asked.access.token, actor=asked.access.actor)
    left = await _without_session(asked, asked.session or "", "You have left", words.LEFT)
    return replace(left, cookies={COOKIE: ("", 0)})


async def _without_session(asked: Asked, code: str, title: str, text: str, *, status: int = 200) -> Shown:
    """Return the page for who has no session, with the way back to the product. A session that runs goes on."""
    back_url = await asked.admin.portal.refresh_url(code=code)
    values = {"title": title, "text": text, "signed_in": False} | ({} if back_url is None else {"back_url": back_url})
    return Shown(template="problem.html", values=values, status=status)


PAGES: Final = (
    Page(name="login", method="GET", path="/login", handler=welcome, scopes=None, only_by_link=True),
    Page(name="login.enter", method="POST", path="/login", handler=enter, scopes=None, only_by_link=True),
    Page(
        name="logout", method="POST", path="/logout", handler=leave, scopes=frozenset({Scope.READ}), only_by_link=True
    ),
)
