"""Installs the schema of hookseal from a migration of an application, such as one of Alembic or Django."""

import asyncio
import json
import subprocess
import sys
from typing import Final

from hookseal.config.producer import producer_settings
from hookseal.config.settings import Database
from hookseal.errors import Busy, ConfigError, Defect, HooksealError, Refused, Unavailable, with_advice
from hookseal.postgres import opening

_CONNECT_SECONDS: Final = 5.0
_CLASSES: Final[dict[str, type[HooksealError]]] = {
    each.__name__: each for each in (Busy, ConfigError, Refused, Unavailable)
}


def install(database_url: str) -> str:
    """Upgrade the database to the schema of this version, as `hookseal db upgrade` does; return its revision.

    It does so in a process of its own, because Alembic can run only once in a process, and in transactions of its own,
    so that a rollback of the migration leaves the schema. It may be called any number of times, and also while an event
    loop runs. `database_url` has the login that owns the schema, and may name a driver (`postgresql+psycopg://`). It
    needs the extra `migrate`. Raises `ConfigError`, `Refused`, `Busy` and `Unavailable`.
    """
    _database(database_url)  # reports a wrong url at once
    ended = subprocess.run(
        [sys.executable, "-m", __name__], input=database_url, capture_output=True, text=True, check=False
    )
    lines = ended.stdout.splitlines()
    if not lines:
        reason = ended.stderr.strip().rpartition("\n")[2]
        raise Defect(f"the process that upgrades the schema has ended with {ended.returncode}: {reason}")
    answer = json.loads(lines[-1])
    if ended.returncode:
        raise _CLASSES[answer["class"]](answer["message"])
    revision: str = answer["revision"]
    return revision


def _database(url: str) -> Database:
    return producer_settings(database_url=url, redis_url="", environ={}).database


async def _upgrade(database: Database) -> str:
    try:
        from hookseal.postgres.schema.upgrade import upgrade  # noqa: PLC0415 -- the extra may not be installed
    except ModuleNotFoundError as error:
        raise Unavailable(f"{error.name} is not installed: pip install 'hookseal[migrate]'") from None
    connection = await opening.opened(database, name="hookseal", seconds=_CONNECT_SECONDS)  # its errors say why
    await connection.close()
    return await upgrade(database.url)


def _main() -> int:
    try:
        answer = {"revision": asyncio.run(_upgrade(_database(sys.stdin.read())))}
    except tuple(_CLASSES.values()) as error:
        print(json.dumps({"class": type(error).__name__, "message": with_advice(error)}))
        return error.exit_code
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(_main())
