"""The pages as an ASGI application, mounted in that of a product or alone.

pages = hookseal.pages.app(admin, who=signed_in)     # with the sessions of your product
pages = hookseal.pages.app(admin)                    # for the visitors of a link

async def signed_in(request: Request) -> Access | Visitor | None:
    user = ...
    return user and Access(tenant_id=user.customer, scopes=ALL, actor=user.email)
"""

import inspect
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from hookseal.admin import Admin, Scope
from hookseal.api import problems
from hookseal.api.access import NOBODY, Access, require_scopes
from hookseal.api.application import CALL, PAGE, answer_and_close
from hookseal.api.bodies import FORM, MOST_BYTES, Bodies
from hookseal.api.problems import Problem
from hookseal.api.rate import DEFAULT_RATE, RateLimit
from hookseal.config.api import origins
from hookseal.errors import HooksealError, Malformed, with_advice
from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.log import logger
from hookseal.pages import guard, rendering, words
from hookseal.pages.forms import NAME, Fields, parsed
from hookseal.pages.guard import FORM_COOKIE, RANDOM_BYTES, Site
from hookseal.pages.look import Look
from hookseal.pages.page import Asked, File, Links, Moved, Page, Shown, Visitor
from hookseal.pages.views import PAGES
from hookseal.pages.views.entry import COOKIE, LinkSessions

Who = Callable[[Request], Awaitable[Visitor | Access | None] | Visitor | Access | None]

_NOBODY: Final = "authentication_failed"
_HTML: Final = "text/html; charset=utf-8"
_FORM_SECONDS: Final = 86_400
_MOVED: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_KEPT: Final = {"cache-control": "public, max-age=86400", "x-content-type-options": "nosniff"}
_IDS: Final = frozenset({"tenant_id", "endpoint_id", "delivery_id", "replay_id", "event_id"})


def app(
    admin: Admin,
    *,
    who: Who | None = None,
    look: Look | None = None,
    url: str | None = None,
    back_url: str | None = None,
    frames: Sequence[str] = (),
    rate: int = DEFAULT_RATE,
    clock: Clock | None = None,
) -> ASGIApp:
    """Return the application. The caller opens the Admin, and closes it after the last request.

    `who` says what a visitor may do, None for nothing; by default the session does that a link from
    `admin.portal` has begun. `look` and `back_url` hold where the visitor has no others: the latter is a page of the
    product, to which "Back" leads, also for who is not signed in. `url` is the address at which browsers see the pages,
    if it is another one than the request says: no forwarded header is believed. Pages of the origins in `frames` may
    frame them. For one visitor this process answers `rate` requests a second, as the API does. Raises `ValueError` for
    what is no origin.
    """
    site_of = partial(guard.site_of, url=url, frames=origins(",".join(frames)) if frames else ())
    pages = _Pages(
        admin,
        who,
        sessions=LinkSessions(admin, site_of),
        look=look or Look(),
        back_url=back_url,
        site_of=site_of,
        limit=RateLimit(rate),
        clock=clock or SystemClock(),
    )
    return Router(pages.routes(), redirect_slashes=False, default=pages.nothing)


class _Pages:
    """Answers requests by the table of pages."""

    def __init__(
        self,
        admin: Admin,
        who: Who | None,
        *,
        sessions: LinkSessions,
        look: Look,
        back_url: str | None,
        site_of: Callable[[Request], Site],
        limit: RateLimit,
        clock: Clock,
    ) -> None:
        self._admin = admin
        self._who: Who = who or sessions.visitor
        self._sessions = sessions if who is None else None
        self._look = look
        self._back_url = back_url
        self._site_of = site_of
        self._limit = limit
        self._clock = clock
        self._bodies = Bodies()
        self._paths = {page.name: page.path for page in PAGES}
        self._needs = {page.name: page.scopes for page in PAGES}
        self._log: Any = logger()

    def routes(self) -> list[Route]:
        """Return a route for each path, which knows all methods of it."""
        by_path: defaultdict[str, dict[str, Page]] = defaultdict(dict)
        for page in PAGES:
            if self._sessions is not None or not page.only_by_link:
                by_path[page.path][page.method] = page
        return [Route(path, _Path(self, methods)) for path, methods in by_path.items()]

    async def nothing(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer a request for a path that nothing serves; that of the application itself leads to its first page."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive, send)
        if not scope["path"].removeprefix(scope.get("root_path", "")):
            response = Response(status_code=307, headers={"location": f"{self._site_of(request).root}/"})
        else:
            response = self._failed(request, problems.absent())
        await response(scope, receive, send)

    async def answer(self, page: Page, request: Request, send: Send) -> None:
        """Answer a request, whatever happens: with a page, or with a page that says what is wrong."""
        request.scope[CALL] = PAGE
        visitor: Visitor | None = None
        try:
            visitor = None if page.scopes is None else await self._visitor(request)
            if visitor is not None:
                self._admit(visitor, page)
            response = await self._answered(page, request, visitor)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 -- a visitor gets a page for every error
            problem = self._problem(page, error)
            back_url = await self._back_url_of(request) if problem.code == _NOBODY else None
            response = self._failed(request, problem, visitor, back_url)
            if problem.headers.get("connection") == "close":
                await answer_and_close(response, request, send)
                return
        await response(request.scope, request.receive, send)

    def refused(self, request: Request, allowed: str) -> Response:
        """Return the answer to a method that the path does not have."""
        problem = Problem(405, "method_not_allowed", "Method Not Allowed", headers={"allow": allowed})
        return self._failed(request, problem)

    async def _visitor(self, request: Request) -> Visitor:
        """Return who asks. Raises `Problem` if that is nobody."""
        found = self._who(request)
        visitor = await found if inspect.isawaitable(found) else found
        if not visitor:
            raise Problem(401, _NOBODY, "")
        return Visitor(access=visitor) if isinstance(visitor, Access) else visitor

    def _admit(self, visitor: Visitor, page: Page) -> None:
        """Return if the visitor may have the page now. Raises `Problem`."""
        if (seconds := self._limit.wait(visitor.access.caller, self._clock.monotonic())) > 0:
            raise problems.rate_limited(seconds)
        is_of_every = visitor.access.tenant_id is None
        if page.of_every_tenant not in {None, is_of_every}:
            raise Problem(403, "every_tenant" if is_of_every else "one_tenant", "")
        require_scopes(visitor.access, page.scopes or frozenset())

    async def _answered(self, page: Page, request: Request, visitor: Visitor | None) -> Response:
        site, access = self._site_of(request), NOBODY if visitor is None else visitor.access
        kept, query, form = self._kept(request), parsed(request.scope["query_string"]), Fields({})
        if page.method == "POST":
            form = await self._form(request, site, kept, access)
        result = await page.handler(
            Asked(
                admin=self._admin,
                access=access,
                tenant=access.tenant_id or "",
                path=request.path_params,
                query=query,
                form=form,
                session=request.cookies.get(site.cookie_name(COOKIE)),
                link=self._links(site),
                look=self._look_for(visitor),
                now=self._clock.now(),
                draw=lambda: guard.drawn(os.urandom(RANDOM_BYTES)),
            )
        )
        if isinstance(result, File):
            return Response(result.content, headers=_KEPT, media_type=result.media_type)
        cookies = [site.cookie(name, value, seconds=age) for name, (value, age) in result.cookies.items()]
        if isinstance(result, Moved):
            response = Response(status_code=303, headers={**_MOVED, "location": result.to})
        else:
            if kept is None:
                kept = guard.drawn(os.urandom(RANDOM_BYTES))
                cookies.append(site.cookie(FORM_COOKIE, kept, seconds=_FORM_SECONDS))
            reveals = Scope.REVEAL in access.scopes
            notice = words.notice(query.text("done"), query.number("n"), reveals=reveals)
            response = self._shown(request, result, visitor, kept=kept, notice=notice)
        for cookie in cookies:
            response.headers.append("set-cookie", cookie)
        return response

    def _kept(self, request: Request) -> str | None:
        return guard.kept(request.cookies.get(self._site_of(request).cookie_name(FORM_COOKIE)))

    async def _form(self, request: Request, site: Site, kept: str | None, access: Access) -> Fields:
        """Return the form, which a page of ours has sent for this visitor. Raises `Problem`."""
        if not guard.is_own(request.headers, site) or kept is None:
            raise Problem(403, "other_site", "")
        of = access.tenant_id or access.caller
        async with self._bodies.held(request, MOST_BYTES, of=of, media=FORM) as body:
            form = parsed(body)
        if not guard.is_token(form.text(NAME), guard.token(kept, access.tenant_id, access.actor)):
            raise Problem(403, "other_site", "")
        return form

    def _shown(
        self, request: Request, shown: Shown, visitor: Visitor | None, *, kept: str | None, notice: str | None = None
    ) -> Response:
        """Return the page. Without the cookie for forms, `kept`, it can have none that will be accepted."""
        site, look = self._site_of(request), self._look_for(visitor)
        access = NOBODY if visitor is None else visitor.access

        def may(name: str) -> bool:
            needed = self._needs[name]
            return needed is None or needed <= access.scopes

        shared = {
            "link": self._links(site),
            "may": may,
            "frames": site.frames,
            "form_token": None if kept is None else guard.token(kept, access.tenant_id, access.actor),
            "signed_in": visitor is not None,
            "of_every_tenant": visitor is not None and access.tenant_id is None,
            "may_leave": visitor is not None and kept is not None and self._sessions is not None,
            "back_url": self._back_url if visitor is None or visitor.back_url is None else visitor.back_url,
            "notice": notice,
        }
        body = rendering.html(shown.template, {**shared, **shown.values}, look)
        status = shown.status or (422 if shown.values.get("errors") else 200)
        return Response(body, status, guard.headers(site, look.image_origin), _HTML)

    async def _back_url_of(self, request: Request) -> str | None:
        """Return where the product lets in again a visitor whose session has ended, None if that is not known."""
        if self._sessions is None:
            return None
        with suppress(HooksealError):
            return await self._sessions.back_url(request)
        return None

    def _failed(
        self, request: Request, problem: Problem, visitor: Visitor | None = None, back_url: str | None = None
    ) -> Response:
        title, text = words.of_problem(problem)
        values = {"title": title, "text": text} | ({} if back_url is None else {"back_url": back_url})
        shown = Shown(template="problem.html", values=values, status=problem.status)
        response = self._shown(request, shown, visitor, kept=self._kept(request))
        response.headers.update(problem.headers)
        return response

    def _look_for(self, visitor: Visitor | None) -> Look:
        return self._look if visitor is None or visitor.look is None else visitor.look

    def _links(self, site: Site) -> Links:
        return Links(root=site.root, paths=self._paths)

    def _problem(self, page: Page, error: Exception) -> Problem:
        """Return the answer for an error, and log what an operator, and not the visitor, must correct."""
        if isinstance(error, Malformed) and error.field in _IDS:
            return problems.absent()
        loc = ("body", error.field or "") if isinstance(error, Malformed) else None
        problem = problems.of_error(error, loc)
        if problem.status >= problems.INTERNAL and problem.status != problems.UNAVAILABLE:
            self._log.error("pages.failed", page=page.name, exc_info=error)
        elif problem.status == problems.UNAVAILABLE or problems.is_for_the_operator(error, loc):
            self._log.warning("pages.refused", page=page.name, code=problem.code, reason=with_advice(error))
        return problem


class _Path:
    """Answers requests for one path, each by its method."""

    def __init__(self, pages: _Pages, methods: Mapping[str, Page]) -> None:
        self._pages = pages
        self._methods = methods
        self._allowed = ", ".join(sorted([*methods, "HEAD"] if "GET" in methods else methods))

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        page = self._methods.get("GET" if scope["method"] == "HEAD" else scope["method"])
        request = Request(scope, receive, send)
        if page is None:
            await self._pages.refused(request, self._allowed)(scope, receive, send)
        else:
            await self._pages.answer(page, request, send)
