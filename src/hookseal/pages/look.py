"""How the pages look: the name and the logo of the product, its colour, and the language of dates. Pure."""

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel import Locale, UnknownLocaleError
from babel.dates import format_skeleton, format_time

MAX_NAME_CHARACTERS: Final = 64
_COLOUR: Final = re.compile(r"#[0-9a-f]{6}")
_LOGO: Final = re.compile(r"(?:https://[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?)?/(?!/)[!#-&(-;=?-\[\]_a-z{-~]{0,1000}")
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}")
# The grounds on which the colour must be readable, the darkest of the light page and the lightest of the dark one.
_LIGHT_GROUND: Final = "#f4f5f7"
_DARK_GROUND: Final = "#23272e"
_WHITE: Final = "#ffffff"
_BLACK: Final = "#000000"
_READABLE: Final = 4.5  # WCAG 2.2, 1.4.3
_STEPS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How the pages look for a visitor.

    `accent` is a colour as `#1f5fbf`. `logo` is an https url, or a path of the same host. `language` is that of dates,
    as `de` or `pt-BR`, and `time_zone` one of the IANA, as `Europe/Zurich`. Raises `ValueError`, which names what is
    wrong.
    """

    name: str = "Webhooks"
    accent: str = "#1f5fbf"
    logo: str | None = None
    language: str = "en"
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        """Check all of it."""
        if not (1 <= len(self.name) <= MAX_NAME_CHARACTERS and self.name.isprintable()):
            raise ValueError(f"name must be 1 to {MAX_NAME_CHARACTERS} printable characters")
        if not _COLOUR.fullmatch(self.accent):
            raise ValueError("accent must be a colour as #1f5fbf, in lower case")
        if self.logo is not None and not _LOGO.fullmatch(self.logo):
            raise ValueError("logo must be an https url, or a path that begins with one slash")
        if _locale(self.language) is None:
            raise ValueError("language must be one that has a format of dates, as de or pt-BR")
        if _zone(self.time_zone) is None:
            raise ValueError("time_zone must be one of the IANA, as Europe/Zurich")

    @property
    def image_origin(self) -> str | None:
        """The origin of a logo elsewhere."""
        parts = urlsplit(self.logo or "")
        return f"{parts.scheme}://{parts.netloc}" if parts.netloc else None

    @property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return _zone(self.time_zone) or ZoneInfo("UTC")

    def written(self, moment: datetime) -> str:
        """Return the time in this language and zone: the date as the language writes it, and 24 hours."""
        zone, locale = self.zone, _locale(self.language)
        date = format_skeleton("yMMMd", moment, tzinfo=zone, locale=locale)
        return f"{date}, {format_time(moment, 'HH:mm:ss', tzinfo=zone, locale=locale)}"

    def typed(self, moment: datetime) -> str:
        """Return the time in this zone as a field of a form has it: `2026-11-30T08:00`."""
        return moment.astimezone(self.zone).strftime("%Y-%m-%dT%H:%M")


@lru_cache(maxsize=64)
def _locale(language: str) -> Locale | None:
    if not _LANGUAGE.fullmatch(language):
        return None
    try:
        return Locale.parse(language, sep="-")
    except (UnknownLocaleError, ValueError):
        return None


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def stylesheet(accent: str) -> str | None:
    """Return the style sheet with this colour, six hexadecimal digits; None if it is no colour.

    Text in it, and on it, is readable on the grounds of the pages, light and dark.
    """
    colour = f"#{accent}"
    if not _COLOUR.fullmatch(colour):
        return None
    on_accent = max((_WHITE, _BLACK), key=lambda ink: contrast(ink, colour))
    light, dark = _readable(colour, _LIGHT_GROUND, _BLACK), _readable(colour, _DARK_GROUND, _WHITE)
    return (
        f":root{{--accent:{colour};--on-accent:{on_accent};--link:{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{--link:{dark}}}}}\n"
    )


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, 1 to 21, as WCAG 2.2 defines it."""
    lower, higher = sorted((_luminance(one), _luminance(other)))
    return (higher + 0.05) / (lower + 0.05)


def _readable(colour: str, ground: str, towards: str) -> str:
    """Return the colour, mixed with as much of the other as makes it readable on the ground."""
    mixtures = (_mixed(colour, towards, step / _STEPS) for step in range(_STEPS + 1))
    return next((each for each in mixtures if contrast(each, ground) >= _READABLE), towards)


def _mixed(colour: str, other: str, share: float) -> str:
    pairs = zip(_parts(colour), _parts(other), strict=True)
    return "#" + "".join(f"{round(one + (two - one) * share):02x}" for one, two in pairs)


def _parts(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))


def _luminance(colour: str) -> float:
    red, green, blue = (
        part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4  # noqa: PLR2004 -- sRGB
        for part in _parts(colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
