"""Writes the rows of an installation, made by this version and its workers, for the versions after it.

When a revision is frozen, run `python -m tests.schema.make_dump tests/schema/dumps/NNNN` in its last commit. It writes
`NNNN.sql`, the rows, and `NNNN.json`, what the receiver of each path verifies with.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg

from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.embedded.folders import for_servers, scratch
from hookseal.embedded.postgres import postgres
from hookseal.embedded.server import postgres_tree
from hookseal.embedded.valkey import valkey
from hookseal.ground.ids import TenantId
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.postgres.schema.upgrade import upgrade
from tests import rows
from tests.worker.world import World, receiving, status, world

# The fields of each endpoint by the path of its url.
ENDPOINTS: Final[dict[str, dict[str, Any]]] = {
    "/standard": {"name": "billing", "concurrency": 8, "rate": 50},
    "/rotated": {"rotate_every_days": 14},
    "/ed25519": {"algorithm": Algorithm.ED25519},
    "/x-webhook": {"scheme": Scheme.X_WEBHOOK, "max_attempts": 3},
    "/in-order": {"ordered": True},
    "/with-headers": {"header_names": ("x-api-key",)},
    "/of-globex": {"tenant": "globex"},
    "/failing": {"tenant": "globex", "max_attempts": 1},
}
EVENTS: Final = 3  # of each tenant, delivered before and pending after


async def main(path: Path) -> None:
    """Write both files."""
    with scratch(for_servers()) as folder:
        async with postgres(folder, durable=False) as database, valkey(folder, durable=False) as redis:
            await upgrade(database.url)
            async with asyncpg.create_pool(database.url) as pool:
                secrets = await _fill(await world(pool, database.url, redis.url, folder))
            path.with_suffix(".json").write_text(json.dumps(secrets, indent=1) + "\n", encoding="utf-8")
            path.with_suffix(".sql").write_text(await _dumped(database.url), encoding="utf-8")


async def _fill(site: World) -> dict[str, str]:
    made, secrets = {}, {}
    async with receiving() as receiver:
        receiver.answers["/failing"] = status(500)
        for path, fields in ENDPOINTS.items():
            owner, others = fields.get("tenant", "acme"), {key: fields[key] for key in fields if key != "tenant"}
            new = NewEndpoint(tenant_id=TenantId(owner), url=receiver.base_url + path, event_types=("*",), **others)
            headers = dict.fromkeys(new.header_names, b"a value of acme")
            made[path] = added = await site.installation.add(new, headers=headers)
            secrets[path] = added.public_key or added.secret.reveal().decode()
        rotated = await site.rotate(made["/rotated"], overlap_seconds=7 * 86_400)
        assert rotated.secret is not None
        secrets["/rotated"] = rotated.secret.reveal().decode()
        async with site.worker():
            for tenant in ("acme", "globex"):
                for ring in [each for _ in range(EVENTS) for each in await site.publish(tenant)]:
                    is_failing = ring.endpoint_id == made["/failing"].pointer.endpoint_id
                    await site.state(ring, "dead_letter" if is_failing else "delivered")
    for tenant in ("acme", "globex"):
        for _ in range(EVENTS):
            await site.publish(tenant, rung=False)
    await rows.change(site.pool, "endpoints", made["/failing"].pointer.endpoint_id, enabled=False)
    return secrets


async def _dumped(url: str) -> str:
    parts = urlsplit(url)
    process = await asyncio.create_subprocess_exec(
        *(str(postgres_tree() / "bin" / "pg_dump"), "-h", str(parts.hostname), "-p", str(parts.port)),
        *("-U", str(parts.username), "--data-only", "--column-inserts", "--rows-per-insert=100", "--schema=hookseal"),
        *("--exclude-table=hookseal.alembic_version", "--exclude-table=hookseal.workers"),
        parts.path.removeprefix("/"),
        env={**os.environ, "PGPASSWORD": str(parts.password)},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    lines = out.decode().splitlines()
    # Neither what only psql reads, nor what only this version of PostgreSQL knows.
    kept = [
        line for line in lines if line and not line.startswith(("--", "\\", "SET ", "SELECT pg_catalog.set_config"))
    ]
    return "\n".join(kept) + "\n"


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
