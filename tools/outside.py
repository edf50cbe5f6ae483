"""What a page of the site asks other servers for: it must be nothing, so that it works where there is no internet."""

from html.parser import HTMLParser
from typing import Final

# A link that a reader may follow is not asked for by the page: `href` counts only where the browser loads it by itself.
_LOADED: Final = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "image": ("href", "xlink:href"),
    "img": ("src", "srcset"),
    "input": ("src",),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "track": ("src",),
    "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}
_NOT_LOADED: Final = {
    "alternate",
    "author",
    "canonical",
    "edit",
    "help",
    "license",
    "next",
    "prev",
}  # by `rel` of a link


def addresses(html: str) -> list[str]:
    """Return the addresses on other servers that a browser loads by itself when it shows this page."""
    page = _Page()
    page.feed(html)
    page.close()
    return page.found


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "link" and set(given.get("rel", "").split()) <= _NOT_LOADED:
            return
        loaded = (given.get(name, "").strip() for name in _LOADED.get(tag, ()))
        self.found += [address for address in loaded if "//" in address and not address.startswith("data:")]
