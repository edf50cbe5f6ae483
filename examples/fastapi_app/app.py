"""A product whose customers manage their own webhooks: `uvicorn app:app`, with the settings of hookseal set."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qs

import asyncpg
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from pydantic import BaseModel

import hookseal.api
import hookseal.pages
from hookseal import Admin, Publisher
from hookseal.api import Access, Scope
from hookseal.errors import Conflict, HooksealError, Malformed, NotFound, Refused, Unavailable

TABLES = """
CREATE TABLE IF NOT EXISTS invoices_of_customers (tenant_id text, number integer, PRIMARY KEY (tenant_id, number));
CREATE TABLE IF NOT EXISTS activity (tenant_id text, text text, at timestamptz DEFAULT now());
"""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the connections of the product, of the Publisher and of the Admin, and close them at the end."""
    async with (
        asyncpg.create_pool(os.environ["DATABASE_URL"]) as pool,
        Publisher.connect() as publisher,
        Admin.connect() as admin,
    ):
        await pool.execute(TABLES)
        app.state.pool, app.state.publisher, app.state.admin = pool, publisher, admin
        app.mount("/svix", hookseal.api.app(admin, publisher, who=access))
        app.mount("/settings/webhooks", hookseal.pages.app(admin, who=access, look=LOOK, back_url="/"))
        yield


app = FastAPI(lifespan=lifespan)


@dataclass
class User:
    """A user of a customer."""

    tenant_id: str
    email: str


# In place of the sessions of your product.
USERS = {
    "token-of-jane": User(tenant_id="acme", email="jane@acme.example"),
    "token-of-omar": User(tenant_id="globex", email="omar@globex.example"),
}


async def signed_in(authorization: Annotated[str, Header()] = "") -> User:
    """Return who sends the request. The tenant comes from the session, never from the request."""
    user = USERS.get(authorization.removeprefix("Bearer "))
    if user is None:
        raise HTTPException(401)
    return user


Who = Annotated[User, Depends(signed_in)]


SESSION = "session"  # the cookie of the product
LOOK = hookseal.pages.Look(name="Invoices", accent="#8a2be2", time_zone="Europe/Zurich")
OF_A_CUSTOMER = frozenset({Scope.READ, Scope.MANAGE, Scope.OPERATE, Scope.REVEAL})  # everything but to publish


async def access(request: Request) -> Access | None:
    """Say what a request to the HTTP API or to the pages may do: what the user of the product may, for one tenant."""
    token = request.headers.get("Authorization", "").removeprefix("Bearer ") or request.cookies.get(SESSION)
    user = USERS.get(token or "")
    if user is None:
        return None
    return Access(tenant_id=user.tenant_id, scopes=OF_A_CUSTOMER, actor=user.email)


@app.get("/")
async def home(request: Request) -> HTMLResponse:
    """Show who is signed in, and the way to the pages about webhooks."""
    user = USERS.get(request.cookies.get(SESSION, ""))
    if user is None:
        form = '<form method="post" action="/session"><label>Token <input name="token"></label><button>Sign in</button>'
        return HTMLResponse(f"{PAGE}<p>Who are you?</p>{form}</form>")
    return HTMLResponse(f'{PAGE}<p>{user.email}</p><a href="/settings/webhooks/">Webhooks</a>')


PAGE = '<!doctype html><html lang="en"><title>Invoices</title><h1>Invoices</h1>'


@app.post("/session")
async def sign_in(request: Request) -> Response:
    """Begin the session of a user."""
    [token] = parse_qs((await request.body()).decode()).get("token", [""])
    answer = RedirectResponse("/", 303)
    if token in USERS:
        answer.set_cookie(SESSION, token, httponly=True, samesite="lax")
    return answer


class Webhook(BaseModel):
    """What a customer asks for."""

    url: str
    event_types: list[str] = ["*"]


@app.post("/webhooks", status_code=201)
async def add(webhook: Webhook, user: Who) -> dict[str, Any]:
    """Add an endpoint, and note it among the customer's activities, both or neither; show its secret once."""
    async with app.state.pool.acquire() as connection, connection.transaction():
        added = await app.state.admin.endpoints.add(
            tenant_id=user.tenant_id,
            url=webhook.url,
            event_types=webhook.event_types,
            actor=user.email,
            connection=connection,
        )
        await connection.execute(
            "INSERT INTO activity VALUES ($1, $2)", user.tenant_id, f"{user.email} added {webhook.url}"
        )
    return {"endpoint_id": added.endpoint_id, "secret": added.secret.reveal().decode()}


@app.get("/webhooks")
async def webhooks(user: Who) -> dict[str, Any]:
    """List the customer's endpoints."""
    page = await app.state.admin.endpoints.list(tenant_id=user.tenant_id)
    return {"webhooks": page.items}


@app.get("/webhooks/{endpoint_id}/deliveries")
async def deliveries(endpoint_id: str, user: Who, cursor: str | None = None) -> dict[str, Any]:
    """List what was sent to an endpoint, the newest first, and what became of it."""
    page = await app.state.admin.deliveries.list(tenant_id=user.tenant_id, endpoint_id=endpoint_id, cursor=cursor)
    return {"deliveries": page.items, "next": page.next_cursor}


@app.post("/webhooks/{endpoint_id}/rotate")
async def rotate(endpoint_id: str, user: Who) -> dict[str, Any]:
    """Give the endpoint a new secret; the old one signs beside it until the overlap ends."""
    rotated = await app.state.admin.secrets.rotate(tenant_id=user.tenant_id, endpoint_id=endpoint_id, actor=user.email)
    return {"secret": rotated.secret.reveal().decode(), "both_until": rotated.previous_secret_expires_at}


@app.get("/deliveries/{delivery_id}")
async def delivery(delivery_id: str, user: Who) -> dict[str, Any]:
    """Show every attempt of a delivery."""
    found = await app.state.admin.deliveries.get(tenant_id=user.tenant_id, delivery_id=delivery_id)
    return {"state": found.state, "attempts": found.attempt_log}


@app.post("/webhooks/{endpoint_id}/test")
async def test(endpoint_id: str, user: Who) -> dict[str, Any]:
    """Send a signed ping to the endpoint."""
    ping = await app.state.admin.endpoints.test(tenant_id=user.tenant_id, endpoint_id=endpoint_id, actor=user.email)
    return {"delivered": ping.delivered, "status": ping.status, "detail": ping.detail}


@app.delete("/webhooks/{endpoint_id}", status_code=204)
async def delete(endpoint_id: str, user: Who) -> None:
    """Delete an endpoint, and cancel what waits for it."""
    await app.state.admin.endpoints.delete(tenant_id=user.tenant_id, endpoint_id=endpoint_id, actor=user.email)


@app.post("/invoices/{number}/paid")
async def pay(number: int, user: Who) -> dict[str, Any]:
    """Store an invoice and publish its event, both or neither."""
    async with app.state.pool.acquire() as connection, connection.transaction():
        try:
            await connection.execute("INSERT INTO invoices_of_customers VALUES ($1, $2)", user.tenant_id, number)
        except asyncpg.UniqueViolationError:
            raise HTTPException(409, "this invoice is paid already") from None
        published = await app.state.publisher.publish(
            tenant_id=user.tenant_id,
            event_type="invoice.paid",
            data={"number": number},
            event_id=f"customer-invoice-{number}-paid",
            connection=connection,
        )
    await published.ring()  # after the commit
    return {"event_id": published.event_id}


@app.exception_handler(HooksealError)
async def explain(_request: Request, error: HooksealError) -> JSONResponse:
    """Answer with the text for a customer: the message and the advice of an error are for the operator."""
    statuses = {Malformed: 422, NotFound: 404, Conflict: 409, Refused: 403}
    for kind, status in statuses.items():
        if isinstance(error, kind):
            return JSONResponse({"error": error.public, "field": error.field}, status)
    return JSONResponse({"error": error.public}, 503 if isinstance(error, Unavailable) else 500)
