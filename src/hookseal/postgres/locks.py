"""Takes a table lock within a time limit, and names the holder of the lock if the time is over.

The tables can be locked only by roles of hookseal. An advisory lock would not protect anything, because every role that
may log in can take it and keep it.
"""

from typing import Final

import asyncpg

from hookseal.ground.errors import Busy
from hookseal.postgres.handles import Connection

WAIT_SECONDS: float = 5

_ANSWER_SECONDS: Final = WAIT_SECONDS + 1.0  # longer than PostgreSQL's own time-out, so that its error arrives
_TAKE: Final = """
SAVEPOINT hookseal_lock;
SET LOCAL lock_timeout = '{seconds}s';
{statement};
RELEASE SAVEPOINT hookseal_lock;
SET LOCAL lock_timeout = '{before}'
"""
_UNDO: Final = "ROLLBACK TO SAVEPOINT hookseal_lock; RELEASE SAVEPOINT hookseal_lock"
# A read lock only blocks ALTER TABLE. `xact_start` is null if this role may not see that of another role.
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
    """Run a `LOCK TABLE` on that table of ours in the caller's transaction, whose `lock_timeout` does not change.

    Raises `Busy`, which names the holder, after `WAIT_SECONDS`; the transaction is then as it was before.
    """
    before: str = await connection.fetchval("SELECT current_setting('lock_timeout')")
    script = _TAKE.format(seconds=WAIT_SECONDS, statement=statement, before=before)
    try:
        await connection.execute(script, timeout=_ANSWER_SECONDS)
    except asyncpg.LockNotAvailableError:
        await connection.execute(_UNDO)
        held_by = await holders(connection, table=table)
        raise Busy(
            f"waited {WAIT_SECONDS} s for the lock hookseal.{table}, {held_by}: try again once it has ended"
        ) from None


async def holders(connection: Connection, *, table: str | None = None, application: str | None = None) -> str:
    """Return a text that names the sessions of others with a lock on that table of ours now.

    Without a table it is a lock on any table of ours, or on any table at all if the session has that application name.
    """
    rows = await connection.fetch(_HOLDERS, table, application)
    if not rows:
        return "which nobody holds any more"
    return f"which is held by {' and '.join(map(_described, rows))}"


def _described(row: asyncpg.Record) -> str:
    since = "" if row["xact_start"] is None else f", since {row['xact_start']:%Y-%m-%dT%H:%M:%SZ}"
    name = row["application_name"] or "without a name"
    return f"process {row['pid']} (role {row['usename']}, application {name!r}{since})"
