"""The API as an ASGI application, alone or mounted in another one.

app = hookseal.api.app(admin, publisher)                    # with the tokens of `admin.tokens`
app = hookseal.api.app(admin, publisher, who=signed_in)     # with the sessions of your product

async def signed_in(request: Request) -> Access | None:
    user = ...
    return user and Access(tenant_id=user.customer, scopes=ALL, actor=user.email)
"""

import inspect
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from hookseal.admin import Admin, SchemeName
from hookseal.api import bodies, problems
from hookseal.api.access import NOBODY, Access, bearer, of_token, require_every_tenant, require_scopes, require_tenant
from hookseal.api.bodies import Bodies, Shape
from hookseal.api.call import Answer, Asked, Call, Once, Trace
from hookseal.api.calls import CALLS
from hookseal.api.calls.refused import REFUSED
from hookseal.api.description import text
from hookseal.api.problems import Problem
from hookseal.api.rate import DEFAULT_RATE, RateLimit
from hookseal.client.publisher import Publisher
from hookseal.errors import Conflict, Malformed, NotFound, with_advice
from hookseal.ground import ids
from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.log import logger
from hookseal.ground.wire import Scheme, framed, is_traceparent

Who = Callable[[Request], Awaitable[Access | None] | Access | None]

CALL: Final = "hookseal.call"  # the key of the ASGI scope under which a server finds the name of the call
PAGE: Final = "page"  # that name for every request for a page
_JSON: Final = "application/json"
_HEADERS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_ALLOWED_HEADERS: Final = (
    "authorization",
    "content-type",
    "idempotency-key",
    "hookseal-user",
    "svix-req-id",
    "traceparent",
    "tracestate",
)


def app(
    admin: Admin,
    publisher: Publisher,
    *,
    who: Who | None = None,
    scheme: Scheme | SchemeName = "standard",
    origins: Sequence[str] = (),
    rate: int = DEFAULT_RATE,
    clock: Clock | None = None,
) -> ASGIApp:
    """Return the application. The caller opens both objects, and closes them after the last request.

    `who` says what a request may do, None for nothing; by default its bearer token does, one of `admin.tokens`. New
    endpoints sign in `scheme`. Pages of the `origins` may use the API from a browser. For one token, or one actor of
    `who`, this process answers `rate` requests a second, and twice as many at once after a pause.
    """
    serving = _Calls(admin, publisher, who or tokens(admin), scheme, RateLimit(rate), clock or SystemClock())
    most_called, *others = serving.routes(CALLS)
    refused = [Route(path, _response(problems.not_supported(why))) for path, why in REFUSED.items()]
    described = Route("/api/v1/openapi.json", Response(text(CALLS).encode(), headers=_HEADERS, media_type=_JSON))
    router = Router([most_called, *refused, *others, described], redirect_slashes=False, default=serving.nothing)
    if not origins:
        return router
    methods = sorted({call.method for call in CALLS})
    return _Origins(
        router,
        allow_origins=origins,
        allow_methods=methods,
        allow_headers=_ALLOWED_HEADERS,
        expose_headers=sorted({name for call in CALLS for name in call.headers}),
        max_age=600,
    )


def tokens(admin: Admin) -> Who:
    """Return what reads the token of a request, from PostgreSQL each time: the next one with a revoked token fails."""

    async def who(request: Request) -> Access | None:
        token = bearer(bodies.header(request, b"authorization"))
        if token is None:
            raise problems.unauthenticated("No token: send the header `Authorization: Bearer TOKEN`")
        found = await admin.tokens.find(token)
        return None if found is None else of_token(found, bodies.header(request, b"hookseal-user"))

    return who


class _Calls:
    """Answers requests by the table of calls."""

    def __init__(
        self, admin: Admin, publisher: Publisher, who: Who, scheme: Scheme | SchemeName, limit: RateLimit, clock: Clock
    ) -> None:
        self._admin = admin
        self._publisher = publisher
        self._who = who
        self._scheme = scheme
        self._limit = limit
        self._clock = clock
        self._bodies = Bodies()
        self._shapes = {kind: Shape(kind) for call in CALLS for kind in (call.query, call.body) if kind is not None}
        self._log: Any = logger()

    def routes(self, calls: Iterable[Call]) -> list[Route]:
        """Return a route for each path, which knows all methods of it."""
        by_path: defaultdict[str, dict[str, Call]] = defaultdict(dict)
        for call in calls:
            by_path[call.path][call.method] = call
        return [Route(path, _Path(self, methods)) for path, methods in by_path.items()]

    async def nothing(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer a request for a path that nothing serves."""
        if scope["type"] == "http":
            await _response(problems.no_call(scope["path"]))(scope, receive, send)

    async def answer(self, call: Call, request: Request, send: Send) -> None:
        """Answer a request, whatever happens: with the answer of the call, or with a problem."""
        request.scope[CALL] = call.name
        try:
            response = await self._answered(call, request)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 -- a client gets JSON for every error
            problem = self._problem(call, error)
            if problem.headers.get("connection") == "close":
                await answer_and_close(_response(problem), request, send)
                return
            response = _response(problem)
        await response(request.scope, request.receive, send)

    async def _answered(self, call: Call, request: Request) -> Response:
        access, tenant = await self._allowed(call, request) if call.scopes else (NOBODY, "")
        given = request.query_params.multi_items() if request.scope["query_string"] else ()
        query = self._shapes[call.query].parameters(given)
        of = tenant or access.tenant_id or access.caller
        async with nullcontext(b"") if call.body is None else self._bodies.held(request, call.most, of=of) as raw:
            body = None if call.body is None else self._shapes[call.body].decoded(raw)
            asked = Asked(
                admin=self._admin,
                publisher=self._publisher,
                access=access,
                scheme=self._scheme,
                tenant=tenant,
                path=request.path_params,
                query=query,
                body=body,
                key=_key(request),
                trace=_trace(request),
            )
            if call.once is None or asked.key is None:
                answer = _answer(call, await call.handler(asked))
            else:
                content = framed(request.scope["query_string"], raw, *(part.encode() for part in asked.path.values()))
                answer = await self._once(call, call.once, asked, asked.key, content)
            if answer.content is None:
                return Response(status_code=answer.status, headers=_HEADERS)
            response = _Json(msgspec.json.encode(answer.content), answer.status)
            response.headers.update(answer.headers)
            return response

    async def _once(self, call: Call, once: Once, asked: Asked[Any, Any], key: str, content: bytes) -> Answer:
        """Answer a request with a key. What it changes and the record of its answer are committed together."""
        tenant = asked.access.tenant_id or ids.EVERY_TENANT
        try:
            async with self._admin.once(
                idempotency_key=key,
                call=call.name,
                content=content,
                tenant_id=tenant,
                actor=asked.access.actor,
                about=asked.tenant or None,
            ) as request:
                within = replace(asked, admin=request.admin)
                if request.first is not None:
                    again = await _again(once, within, request.first.result_id)
                    return Answer(status=request.first.status, content=again)
                answer = _answer(call, await call.handler(within))
                result_id = str(getattr(answer.content, once.result_id))
                await request.record(status=answer.status, result_id=result_id)
                return answer
        except Conflict as error:
            if error.field == "idempotency_key":
                raise problems.other_content() from None
            raise

    async def _allowed(self, call: Call, request: Request) -> tuple[Access, str]:
        """Return what the request may do, and the tenant that its path names. Raises `Problem`."""
        found = self._who(request)
        access = await found if inspect.isawaitable(found) else found
        if not access:
            raise problems.unauthenticated("Invalid token")
        if wait := self._limit.wait(access.caller, self._clock.monotonic()):
            raise problems.rate_limited(wait)
        require_scopes(access, call.scopes)
        if call.of_every_tenant:
            require_every_tenant(access)
        name = request.path_params.get("app_id")
        if name is None:
            return access, call.tenant
        tenant = await self._tenant(call, name)
        require_tenant(access, tenant)
        return access, tenant

    async def _tenant(self, call: Call, name: str) -> str:
        """Return the tenant with this id or uid. What has the form of an id is one, and is not looked up."""
        with suppress(Malformed):
            return ids.tenant_id(name)
        try:
            return (await self._admin.tenants.get(tenant_id=name)).tenant_id
        except NotFound:
            if call.may_add_tenant:
                return ""
            raise
        except Malformed:
            raise problems.absent() from None

    def _problem(self, call: Call, error: Exception) -> Problem:
        """Return the answer for an error, and log what an operator, and not the client, must correct."""
        body = frozenset[str]() if call.body is None else self._shapes[call.body].members
        query = self._shapes[call.query].members
        loc = bodies.place(getattr(error, "field", None), call.names, path=call.path, body=body, query=query)
        problem = problems.of_error(
            error, loc, names=lambda text, field: bodies.renamed(text, field, call.names, body | query)
        )
        if problem.status >= problems.INTERNAL and problem.status != problems.UNAVAILABLE:
            self._log.error("api.failed", call=call.name, exc_info=error)
        elif problem.status == problems.UNAVAILABLE or problems.is_for_the_operator(error, loc):
            self._log.warning("api.refused", call=call.name, code=problem.code, reason=with_advice(error))
        return problem


class _Origins(CORSMiddleware):
    """Answers the question of a browser whether a page may use the API: without a body, or with a problem."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return the answer of the library, whose texts are not JSON, in the form of all others."""
        answer = super().preflight_response(request_headers)
        headers = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        if answer.status_code == HTTPStatus.OK:
            return Response(status_code=HTTPStatus.NO_CONTENT, headers=_HEADERS | headers)
        return _response(Problem(403, "origin_refused", bytes(answer.body).decode(), headers=headers))


class _Path:
    """Answers requests for one path, each by its method."""

    def __init__(self, calls: _Calls, methods: Mapping[str, Call]) -> None:
        self._calls = calls
        self._methods = methods
        allowed = [*methods, "HEAD"] if "GET" in methods else [*methods]
        self._refused = _response(
            Problem(405, "method_not_allowed", "Method Not Allowed", headers={"allow": ", ".join(sorted(allowed))})
        )

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        call = self._methods.get(method)
        if call is None:
            await self._refused(scope, receive, send)
        else:
            await self._calls.answer(call, Request(scope, receive, send), send)


class _Json(Response):
    """A good answer, whose headers are made once but for its length."""

    _raw: Final = [(name.encode(), value.encode()) for name, value in {**_HEADERS, "content-type": _JSON}.items()]

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Set the headers, which are the same for each."""
        del headers
        self.raw_headers = [*self._raw, (b"content-length", b"%d" % len(self.body))]


def _response(problem: Problem) -> Response:
    return Response(problem.body(), problem.status, {**_HEADERS, **problem.headers}, _JSON)


def _answer(call: Call, result: msgspec.Struct | Answer | None) -> Answer:
    return result if isinstance(result, Answer) else Answer(status=call.status, content=result)


async def _again(once: Once, asked: Asked[Any, Any], result_id: str) -> msgspec.Struct:
    try:
        return await once.again(asked, result_id)
    except NotFound:
        raise problems.conflict("the first request with this key did this, and its result is gone since") from None


def _key(request: Request) -> str | None:
    """Return the `Idempotency-Key` of the request. Raises `Problem` for two, or one that may not be."""
    keys = [value for name, value in request.scope["headers"] if name == b"idempotency-key"]
    if len(keys) > 1:
        raise Problem(HTTPStatus.BAD_REQUEST, "bad_request", "the header `idempotency-key` is given twice")
    try:
        return ids.idempotency_key(str(keys[0], "latin-1")) if keys else None
    except Malformed:
        raise problems.invalid(("header", "idempotency-key"), "must be 1 to 256 visible ASCII characters") from None


def _trace(request: Request) -> Trace:
    """Return the trace of the request. As the standard says, a `traceparent` that is none counts as absent."""
    traceparent = bodies.header(request, b"traceparent")
    if traceparent is None or not is_traceparent(traceparent):
        return {}
    states = request.headers.getlist("tracestate")
    return {"traceparent": traceparent, "tracestate": ",".join(states)} if states else {"traceparent": traceparent}


async def answer_and_close(response: Response, request: Request, send: Send) -> None:
    """Send the answer, and read a little of what the client still sends, before the connection is closed.

    Without this the client would often see a reset of the connection in place of the answer.
    """
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    await bodies.discard(request)
    await send({"type": "http.response.body", "body": b"", "more_body": False})
