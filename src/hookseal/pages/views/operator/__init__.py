"""The pages of an operator: what waits and why, in every tenant. Each change is audited with the operator's name."""

from dataclasses import replace
from typing import Final

from hookseal.admin import Scope
from hookseal.pages.page import Page
from hookseal.pages.views.operator import audit, deliveries, overview, replays

_OPERATES: Final = frozenset({Scope.READ, Scope.OPERATE})


def _of_operator(page: Page) -> Page:
    """Return the page under `/operator`, for an access for every tenant with both scopes."""
    name, path = f"operator{page.name}", f"/operator{page.path}"
    return replace(page, name=name, path=path, scopes=_OPERATES, of_every_tenant=True)


PAGES: Final = tuple(map(_of_operator, (*overview.PAGES, *deliveries.PAGES, *replays.PAGES, *audit.PAGES)))
