"""The pages of an operator: what waits and why, in every tenant. Each change is audited with the operator's name."""

from typing import Final

from hookseal.pages.page import Page
from hookseal.pages.views.operator import audit, deliveries, overview, replays

PAGES: Final[tuple[Page, ...]] = (*overview.PAGES, *deliveries.PAGES, *replays.PAGES, *audit.PAGES)
