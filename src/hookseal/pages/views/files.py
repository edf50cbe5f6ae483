"""What every page uses: the style sheet, the one with the colour of a product, and the icon."""

from typing import Final

from hookseal.api import problems
from hookseal.pages import rendering
from hookseal.pages.look import stylesheet
from hookseal.pages.page import Asked, File, Page


async def static(asked: Asked) -> File:
    """Return a file. Raises `Problem`."""
    media_type = rendering.STATIC.get(asked.path["name"])
    if media_type is None:
        raise problems.absent()
    return File(content=rendering.static(asked.path["name"]), media_type=media_type)


async def accent(asked: Asked) -> File:
    """Return the style sheet with a colour. Raises `Problem` if it is none."""
    sheet = stylesheet(asked.path["accent"])
    if sheet is None:
        raise problems.absent()
    return File(content=sheet.encode(), media_type=rendering.STATIC["pages.css"])


PAGES: Final = (
    Page(name="static", method="GET", path="/static/{name}", handler=static, scopes=None),
    Page(name="accent", method="GET", path="/look/{accent}.css", handler=accent, scopes=None),
)
