"""What a page is: a method and a path, what it needs, and the function that answers it."""

import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from hookseal.admin import Admin, Scope
from hookseal.admin import Page as ListPage
from hookseal.api.access import Access
from hookseal.errors import Malformed, NotFound
from hookseal.pages import words
from hookseal.pages.forms import Fields
from hookseal.pages.look import Look

PAGE_SIZE: Final = 25  # of a list
_PARAMETER: Final = re.compile(r"{(\w+)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Who looks at the pages: what that person may do, and how the pages look; None is the look of the application.

    `back_url` is where the product shows its own pages, or lets somebody in again.
    """

    access: Access
    look: Look | None = None
    back_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Makes the addresses of pages: under the path at which a browser sees them, and never with a host."""

    root: str
    paths: Mapping[str, str]

    def __call__(self, name: str, query: Mapping[str, object] | None = None, /, **path: str) -> str:
        """Return the address of the page with this name; parameters of the query that are None are left out."""
        there = _PARAMETER.sub(lambda found: quote(path[found[1]], safe=""), self.paths[name])
        given = {key: value for key, value in (query or {}).items() if value is not None}
        return f"{self.root}{there}{'?' if given else ''}{urlencode(given, doseq=True)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that may be answered: the access, and the token of a form, have been checked.

    `tenant` is that of the access, "" for a page that is not of one. `session` is the cookie of a visitor who came by a
    link. `draw` returns a new random text.
    """

    admin: Admin
    access: Access
    tenant: str
    path: Mapping[str, str]
    query: Fields
    form: Fields
    session: str | None
    link: Links
    look: Look
    now: datetime
    draw: Callable[[], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A page: a template with its values. `cookies` are set, each with its value and its seconds; 0 removes it.

    Without a `status` it is 422 if `errors` of a form are among the values, else 200.
    """

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int | None = None
    cookies: Mapping[str, tuple[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Another page, which the browser gets next: so a reload changes nothing again."""

    to: str
    cookies: Mapping[str, tuple[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """What every page uses, and every visitor may have: a browser keeps it."""

    content: bytes
    media_type: str


Handler = Callable[[Asked], Awaitable[Shown | Moved | File]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page, or what a form does. One with `scopes` None is for everybody, also without an access.

    A GET changes nothing. One that is `of_every_tenant` needs an access for all of them, any other one for one tenant;
    with None it takes either. One that is `only_by_link` is not there under the sessions of a product.
    """

    name: str
    method: str
    path: str
    handler: Handler
    scopes: frozenset[Scope] | None
    of_every_tenant: bool | None = False
    only_by_link: bool = False


def read(name: str, path: str, handler: Handler, *more: Scope) -> Page:
    """Return a page that shows something, or the form of what needs the further scopes."""
    return Page(name=name, method="GET", path=path, handler=handler, scopes=frozenset({Scope.READ, *more}))


def act(name: str, path: str, handler: Handler, *scopes: Scope) -> Page:
    """Return what a form does, with the scopes that it needs."""
    return Page(name=name, method="POST", path=path, handler=handler, scopes=frozenset(scopes))


async def listed(
    asked: Asked,
    found: Callable[..., Awaitable[ListPage[Any]]],
    *,
    chosen: Mapping[str, str] | None = None,
    fields: Collection[str] = (),
) -> dict[str, Any]:
    """Return the values of a page with a list: its items, what leads to the next ones, and what is wrong with a filter.

    `found` is a list of an `Admin`, which gets a limit and a cursor; `chosen` are the filters of the address. An error
    of one of the `fields`, which are arguments of the list, is said beside it; any other one is raised.
    """
    after, filters = asked.query.text("after") or None, chosen or {}
    values: dict[str, Any] = {
        "items": (),
        "after": None,
        "is_first": after is None,
        "chosen": filters,
        "kept": {name: value for name, value in filters.items() if value},
        "errors": {},
    }
    try:
        page = await found(limit=PAGE_SIZE, cursor=after)
    except Malformed as error:
        return values | {"errors": words.said_of(error, fields)}
    except NotFound as error:
        if error.field is None or error.field not in fields:
            raise
        return values | {"errors": {error.field: words.sentence(error.public)}}
    return values | {"items": page.items, "after": page.next_cursor}
