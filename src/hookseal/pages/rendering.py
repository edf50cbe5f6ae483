"""Makes HTML of a template: every value is text, and what cannot be seen in a text is shown."""

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from hookseal.ground.ids import plural
from hookseal.pages import words
from hookseal.pages.look import Look

# Controls but line breaks and tabs; what turns the direction of a text, or is a mark without a width; half a character.
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_FIRST_PICTURE: Final = 0x2400  # of the controls 0 to 31
_CONTROLS: Final = 32
STATIC: Final = {
    "pages.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "frame.js": "text/javascript; charset=utf-8",
}


def visible(text: str) -> str:
    """Return the text with a sign in place of each character that cannot be seen, or that turns the text."""
    return _UNSEEN.sub(_sign, text)


def _sign(found: re.Match[str]) -> str:
    code = ord(found[0])
    return chr(_FIRST_PICTURE + code) if code < _CONTROLS else f"\u27e8U+{code:04X}\u27e9"


def fitting(text: str, most: int) -> tuple[str, bool]:
    """Return the beginning of the text that has at most so many bytes as HTML, and whether that is all of it.

    It has at most as many characters, of which each has at most five bytes as HTML; so it is cut at most six times.
    """
    shown = text[:most]
    while len(str(escape(visible(shown))).encode()) > most:
        shown = shown[: len(shown) * 3 // 4]
    return shown, len(shown) == len(text)


def _finalized(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hookseal.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals["plural"] = plural
    environment.globals["words"] = words
    environment.globals["version"] = _VERSION
    return environment


def static(name: str) -> bytes:
    """Return a file that pages use."""
    return files("hookseal.pages").joinpath("static", name).read_bytes()


# In the address of these files: a browser keeps them until it is another one.
_VERSION: Final = hashlib.sha256(b"".join(map(static, STATIC))).hexdigest()[:12]
_ENVIRONMENT: Final = _environment()


def html(template: str, values: Mapping[str, Any], look: Look) -> bytes:
    """Return the page."""

    def moment(at: datetime | None, missing: str = "never") -> Markup | str:
        if at is None:
            return missing
        stamp = at.isoformat(timespec="seconds")
        return Markup('<time datetime="{}" lang="{}">{}</time>').format(stamp, look.language, look.written(at))

    given = {**values, "look": look, "moment": moment}
    return _ENVIRONMENT.get_template(template).render(given).encode()
