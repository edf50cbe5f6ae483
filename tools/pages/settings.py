"""The page docs/settings.md, written from the table that parses the variables."""

from collections.abc import Iterable

from hookseal.config.keys import MASTER_KEY, WRAPPED_KEY
from hookseal.config.names import FROM_FILE, PREFERRED
from hookseal.config.openbao import CREDENTIALS, FALLBACKS
from hookseal.config.settings import Part
from hookseal.config.urls import IGNORED, REDIS_IGNORED, REDIS_SUPPORTED, SSLMODE_ALIASES, SUPPORTED, UNSUPPORTED
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
        f"These name a file with the value instead: {_list(FROM_FILE)}. One trailing newline is removed.",
        f"{_list(f'{name}_FILE' for name in CREDENTIALS)} are read again while a process runs:",
        "for each login, near the end of the token, and when it is refused, so that an agent may replace the file. It",
        "must then still be a regular file, with the same rules for its rights and its size; until it is, the error",
        "names it. The files of the urls of PostgreSQL and Redis are read for each new connection. A new user or",
        "password is used from then on. If the file cannot be read, or names another server or database, the old login",
        "stays in use.",
        "A pipe (`/dev/fd/63`) is read once. All others are read once, at the start: restart the process.",
        "Files that the libraries of AWS and Google read, such as that of `AWS_WEB_IDENTITY_TOKEN_FILE`, are read",
        "again by their own rules.",
        "",
        "An unknown name that begins with `HOOKSEAL_` or `SECRETS_` is refused, unless `HOOKSEAL_UNKNOWN_SETTINGS` is",
        "`warn`.",
        "",
        *_preferred_names(),
        *_parameters(),
    ]
    return "\n".join(lines)


def _preferred_names() -> list[str]:
    return [
        f"{_list(PREFERRED)}, or their `_FILE`, take precedence over {_list(PREFERRED.values())},",
        "which then belong to an app that shares the environment, and are not checked.",
        "",
        "A `Publisher` in your own process checks only these urls and `HOOKSEAL_QUEUE`, and names within two edits of",
        "them. There an empty variable counts as not set, and without a url of Redis no worker is notified.",
        "An `Admin` checks only what guide/managing.md lists, in the same way.",
        "",
        f"{_list(FALLBACKS)} count in place of the variables of these names with `BAO_`, if those are not set.",
        "",
    ]


def _parameters() -> list[str]:
    ignored = [f"| `{name}` | ignored: {why} |" for name, why in IGNORED.items()]
    unsupported = [
        f"| `{name}` | {'only ' + ', '.join(harmless) + ', else ' if harmless else ''}refused: {advice} |"
        for name, (harmless, advice) in UNSUPPORTED.items()
    ]
    return [
        "## Parameters of the url of PostgreSQL",
        "",
        "`postgresql+asyncpg://` and similar schemes of SQLAlchemy mean `postgresql://`. These parameters behind `?`",
        "have the same meaning as in libpq:",
        f"{_list(SUPPORTED)}.",
        "",
        "| parameter | effect |",
        "|---|---|",
        *[f"| `{name}` | an alias of `sslmode` |" for name in SSLMODE_ALIASES],
        "| `channel_binding=require` | accepted with `sslmode=verify-full`, which protects as well |",
        "| `sslrootcert=system` | the certificate authorities of the operating system, with `sslmode=verify-full` |",
        *sorted(ignored + unsupported),
        "",
        "Any other is refused, and the error says at which place it stands.",
        "Set a server setting with `options=-c%20NAME%3DVALUE`.",
        "",
        "## Parameters of the url of Redis",
        "",
        "`valkey://` and `valkeys://` mean `redis://` and `rediss://`. These parameters behind `?` have the same",
        "meaning as in the Python package redis, and those of TLS need `rediss://`:",
        f"{_list(REDIS_SUPPORTED)}.",
        "",
        f"An application may share the url, so these are ignored: {_list(REDIS_IGNORED)}.",
        "hookseal sets them itself. Any other is refused, as above.",
        "A value or a file that could not be used for a connection is refused at the start.",
        "",
    ]


def _default(name: str, default: object) -> str:
    if name in frozenset(Part):
        return "required"
    if default is None:
        return f"required with `db`, or `{WRAPPED_KEY}`" if name == MASTER_KEY else "none"
    text = str(default).lower() if isinstance(default, bool) else str(default)
    return "none" if default in ((), frozenset()) else f"`{text}`"


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))
