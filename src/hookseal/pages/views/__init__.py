"""The pages by subject: what each needs and shows, and what its forms do by methods of an `Admin`."""

from typing import Final

from hookseal.pages.page import Page
from hookseal.pages.views import deliveries, endpoints, entry, files, operator, recovering, secrets, verifying

PAGES: Final[tuple[Page, ...]] = (
    *endpoints.PAGES,
    *secrets.PAGES,
    *deliveries.PAGES,
    *recovering.PAGES,
    *verifying.PAGES,
    *operator.PAGES,
    *entry.PAGES,
    *files.PAGES,
)
