"""How a receiver verifies what it gets, in a language that the visitor chooses."""

import tomllib
from importlib.resources import files
from typing import Final

import msgspec

from hookseal.pages.page import Asked, Page, Shown, read
from hookseal.pages.views.endpoints import ONE


class Language(msgspec.Struct, frozen=True, kw_only=True):
    """A language: what to install, and a function that verifies a request, of docs/guide/verifying.md."""

    id: str
    name: str
    install: str
    code: str
    note: str = ""


def _languages() -> dict[str, Language]:
    text = files("hookseal.pages").joinpath("languages.toml").read_text(encoding="utf-8")
    return {each.id: each for each in msgspec.convert(tomllib.loads(text)["language"], list[Language])}


LANGUAGES: Final = _languages()
_FIRST: Final = next(iter(LANGUAGES))


async def show(asked: Asked) -> Shown:
    """Show how to verify, as this endpoint signs."""
    endpoint = await asked.admin.endpoints.find(tenant_id=asked.tenant, endpoint_id=asked.path["endpoint_id"])
    chosen = LANGUAGES.get(asked.query.text("language"), LANGUAGES[_FIRST])
    values = {"endpoint": endpoint, "languages": LANGUAGES.values(), "chosen": chosen}
    return Shown(template="verify.html", values=values)


PAGES: Final[tuple[Page, ...]] = (read("verify", ONE + "/verify", show),)
