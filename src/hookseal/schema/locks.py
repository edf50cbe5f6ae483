"""Waiting for a lock: never for longer than a bound, and who holds it is named when the bound is over.

What is locked are tables that only our own roles may lock. An advisory lock would do for nothing here: every role that
may log in can take it, and keep it.
"""

from typing import Final

import asyncpg

from hookseal.ground.errors import Busy
from hookseal.schema.database import Connection

WAIT_SECONDS: float = 5

_ANSWER_SECONDS: Final = WAIT_SECONDS + 1.0  # PostgreSQL ends the wait, and says so, before we give it up
_TAKE: Final = """
SAVEPOINT hookseal_lock;
SET LOCAL lock_timeout = '{seconds}s';
{statement};
RELEASE SAVEPOINT hookseal_lock;
SET LOCAL lock_timeout = '{before}'
"""
_UNDO: Final = "ROLLBACK TO SAVEPOINT hookseal_lock; RELEASE SAVEPOINT hookseal_lock"
# A lock to read holds up nobody but who alters the table. `xact_start` is null for who may not see another role's.
_HOLDERS: Final = """
SELECT DISTINCT a.pid, a.usename, a.application_name, a.xact_start
  FROM pg_locks AS l
  JOIN pg_stat_activity AS a ON a.pid = l.pid
  JOIN pg_database AS d ON d.oid = l.database AND d.datname = current_database()
  LEFT JOIN pg_class AS c ON c.oid = l.relation
  LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE l.granted AND l.locktype = 'relation' AND l.pid <> pg_backend_pid()
   AND (n.nspname = 'hookseal' AND ($1::text IS NULL OR c.relname = $1 AND l.mode <> 'AccessShareLock')
        OR $1::text IS NULL AND a.application_name = $2::text)
 ORDER BY a.xact_start NULLS LAST
 LIMIT 3
"""


async def take(connection: Connection, statement: str, table: str) -> None:
    """Run a `LOCK TABLE` on that table of ours in the caller's transaction, which keeps its own bound for other locks.

    Raises `Busy`, naming who holds it, after `WAIT_SECONDS`; the transaction is then as it was before.
    """
    before: str = await connection.fetchval("SELECT current_setting('lock_timeout')")
    script = _TAKE.format(seconds=WAIT_SECONDS, statement=statement, before=before)
    try:
        await connection.execute(script, timeout=_ANSWER_SECONDS)
    except asyncpg.LockNotAvailableError:
        await connection.execute(_UNDO)
        held = await holders(connection, table=table)
        raise Busy(
            f"waited {WAIT_SECONDS} s for the lock hookseal.{table}, {held}: try again once it has ended"
        ) from None


async def holders(connection: Connection, *, table: str | None = None, application: str | None = None) -> str:
    """Return in words who else holds a lock on that table of ours now.

    Without a table it is who holds one on any of them, or on whatever else under that name of an application.
    """
    rows = await connection.fetch(_HOLDERS, table, application)
    if not rows:
        return "which nobody holds any more"
    return f"which is held by {' and '.join(map(_described, rows))}"


def _described(row: asyncpg.Record) -> str:
    since = "" if row["xact_start"] is None else f", since {row['xact_start']:%Y-%m-%dT%H:%M:%SZ}"
    name = row["application_name"] or "without a name"
    return f"process {row['pid']} (role {row['usename']}, application {name!r}{since})"
