"""The settings page, written from the table that the variables are parsed with."""

from collections.abc import Iterable

from hookseal.config.keys import MASTER_KEY
from hookseal.config.names import FROM_FILE, IN_PLACE, LATER
from hookseal.config.settings import Part
from hookseal.config.url_parameters import KEPT_BY_NOBODY, MAPPED, PASSED_OVER, TAKEN
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
        *_in_place(),
        *_parameters(),
    ]
    return "\n".join(lines)


def _in_place() -> list[str]:
    return [
        f"{_list(IN_PLACE)}, or their `_FILE`, win over {_list(IN_PLACE.values())}, which then",
        "belong to somebody else and are not looked at: for a process that shares its environment with an app.",
        "",
        "A `Publisher` in a process of yours judges only these urls and `HOOKSEAL_QUEUE`, and names within two edits",
        "of theirs; an empty variable counts as not set there, and without a url of Redis nothing is rung.",
        "",
    ]


def _parameters() -> list[str]:
    passed_over = [f"| `{name}` | passed over: {why} |" for name, why in PASSED_OVER.items()]
    in_part = [
        f"| `{name}` | {'only ' + ', '.join(harmless) + ', else ' if harmless else ''}refused: {advice} |"
        for name, (harmless, advice) in KEPT_BY_NOBODY.items()
    ]
    return [
        "## Parameters of the url of PostgreSQL",
        "",
        "`postgresql+asyncpg://` and its like, as SQLAlchemy spells them, are `postgresql://`; `valkey://` and",
        "`valkeys://` are `redis://` and `rediss://`. Of the parameters behind `?`, taken as libpq takes them are",
        f"{_list(TAKEN)}.",
        "",
        "| parameter | what becomes of it |",
        "|---|---|",
        *[f"| `{name}` | another word for `sslmode` |" for name in MAPPED],
        "| `channel_binding=require` | taken with `sslmode=verify-full`, which promises as much |",
        "| `sslrootcert=system` | the file of authorities of the system, with `sslmode=verify-full` |",
        *sorted(passed_over + in_part),
        "",
        "Any other is refused by its name. A setting of the server goes into `options=-c%20NAME%3DVALUE`.",
        "",
    ]


def _default(name: str, default: object) -> str:
    if name in frozenset(Part):
        return "required"
    if default is None:
        return "required with `db`" if name == MASTER_KEY else "none"
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return f"`{text}`" if default != () else "none"


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))
