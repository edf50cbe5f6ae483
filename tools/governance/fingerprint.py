"""Writes `fingerprints.json`: how each object of the schema must look, from a database that the migrations made.

`make docs` runs it, also `python -m tools.governance.fingerprint` alone, after every change of a migration.
"""

import asyncio
import json
from pathlib import Path
from typing import Final

from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.postgres import postgres
from hookseal.postgres.connect import connect
from hookseal.postgres.pool import Connection
from hookseal.postgres.schema import fingerprint, plaintext, revision
from hookseal.postgres.schema.plaintext import PlaintextColumn
from hookseal.postgres.schema.upgrade import upgrade

PATH: Final = Path(__file__).resolve().parents[2] / "src/hookseal/postgres/schema" / fingerprint.FILE


async def main() -> None:
    """Write the objects of the newest revision; those of older revisions stay."""
    stored = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {}
    with scratch(for_servers()) as folder:
        async with postgres(folder, durable=False) as server:
            await upgrade(server.url)
            connection = await connect(server.url)
            try:
                stored[revision.EXPECTED] = fingerprint.contents_of_file(await in_each_state(connection))
            finally:
                await connection.close()
    PATH.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n", encoding="utf-8")


async def in_each_state(connection: Connection) -> dict[PlaintextColumn, dict[str, str]]:
    """Return the objects in each state of the plaintext column; the database is in the last of them then."""
    states = {PlaintextColumn.THERE: await fingerprint.read(connection)}
    await connection.execute("SELECT hookseal.forbid_plaintext()")
    states[PlaintextColumn.FORBIDDEN] = await fingerprint.read(connection)
    async with connection.transaction():
        await plaintext.remove_forbidden(connection)
    states[PlaintextColumn.GONE] = await fingerprint.read(connection)
    return states


if __name__ == "__main__":
    asyncio.run(main())
