"""A product in Django that mounts the pages of hookseal under its sessions: `uvicorn app:app`, with settings."""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import django
from django.conf import settings
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.middleware.csrf import get_token
from django.urls import path
from django.utils.html import format_html
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount
from starlette.types import ASGIApp

import hookseal.pages
from hookseal import Admin
from hookseal.api import Access, Scope

settings.configure(
    SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY") or secrets.token_urlsafe(),
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
)
django.setup()

USERS = {"jane": "acme", "omar": "globex"}  # in place of the users of your product: the tenant of each
OF_A_CUSTOMER = frozenset({Scope.READ, Scope.MANAGE, Scope.OPERATE, Scope.REVEAL})


def home(request: HttpRequest) -> HttpResponse:
    """Show who is signed in, and the way to the pages about webhooks."""
    user = request.session.get("user")
    if user is None:
        return HttpResponse(
            format_html(
                '<!doctype html><html lang="en"><title>Shop</title><h1>Shop</h1><form method="post" action="/session">'
                '<input type="hidden" name="csrfmiddlewaretoken" value="{}"><label>User <input name="user"></label>'
                "<button>Sign in</button></form>",
                get_token(request),
            )
        )
    page = '<!doctype html><html lang="en"><title>Shop</title><h1>Shop</h1><p>{}</p><a href="{}">Webhooks</a>'
    return HttpResponse(format_html(page, user, "/settings/webhooks/"))


def sign_in(request: HttpRequest) -> HttpResponse:
    """Begin the session of a user."""
    if request.POST.get("user") in USERS:
        request.session["user"] = request.POST["user"]
    return HttpResponseRedirect("/")


urlpatterns = [path("", home), path("session", sign_in)]


async def access(request: Request) -> Access | None:
    """Say what a visitor of the pages may do, by the session of Django."""
    session = SessionStore(request.cookies.get(settings.SESSION_COOKIE_NAME))
    user = session.get("user")
    return user and Access(tenant_id=USERS[user], scopes=OF_A_CUSTOMER, actor=user)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Open the Admin, and serve the pages beside Django."""
    async with Admin.connect() as admin:
        pages = hookseal.pages.app(admin, who=access, back_url="/")
        product = cast("ASGIApp", get_asgi_application())
        app.router.routes[:] = [Mount("/settings/webhooks", pages), Mount("/", product)]
        yield


app = Starlette(lifespan=lifespan)
