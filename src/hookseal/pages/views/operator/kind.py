"""What every page of an operator has: it needs an access for every tenant, and shows 25 of a list."""

from typing import Final

from hookseal.admin import Scope
from hookseal.pages.page import Handler, Page

PAGE_SIZE: Final = 25
TENANT: Final = "/tenant/{tenant_id}"
_OPERATES: Final = frozenset({Scope.READ, Scope.OPERATE})


def read(name: str, path: str, handler: Handler) -> Page:
    """Return a page that shows something of any tenant."""
    return Page(
        name=f"operator{name}",
        method="GET",
        path=f"/operator{path}",
        handler=handler,
        scopes=_OPERATES,
        of_every_tenant=True,
    )


def act(name: str, path: str, handler: Handler) -> Page:
    """Return what a form does to something of any tenant."""
    return Page(
        name=f"operator{name}",
        method="POST",
        path=f"/operator{path}",
        handler=handler,
        scopes=_OPERATES,
        of_every_tenant=True,
    )
