"""The settings page, written from the table that the variables are parsed with."""

from collections.abc import Iterable

from hookseal.config.keys import MASTER_KEY
from hookseal.config.names import FROM_FILE, LATER
from hookseal.config.settings import Part
from hookseal.config.variables import NAMES


def settings_page() -> str:
    """Return the page `docs/settings.md` in Markdown."""
    rows = [
        f"| `{name}` | {_default(name, field.get_default())} | {field.title} | {field.description} |"
        for name, field in NAMES.items()
    ]
    lines = [
        "# Settings",
        "",
        "hookseal reads its settings from the environment, once, at start. All problems are reported at once,",
        "by name and never with the value; the command ends with exit code 78.",
        "",
        "| variable | default | form | meaning |",
        "|---|---|---|---|",
        *rows,
        "",
        f"Read from a file, if given instead: {_list(FROM_FILE)}. One trailing newline is removed.",
        "",
        "An unknown name that begins with `HOOKSEAL_` or `SECRETS_` is refused; so are names of a later",
        f"version: {_list(LATER)}.",
        "",
    ]
    return "\n".join(lines)


def _default(name: str, default: object) -> str:
    if name in frozenset(Part):
        return "required"
    if default is None:
        return "required with `db`" if name == MASTER_KEY else "none"
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return f"`{text}`" if default != () else "none"


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))
