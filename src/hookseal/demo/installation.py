"""A whole installation on embedded parts: migrated, with a master key and the environment that reaches it."""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import asyncpg

from hookseal.embedded.folders import write_private
from hookseal.embedded.stack import Stack
from hookseal.operations.keys import begin
from hookseal.schema.upgrade import upgrade
from hookseal.secrets import keys
from hookseal.secrets.derivation import KEY_BYTES
from hookseal.secrets.keyring import KeyRing, MasterKey

_OURS: Final = ("HOOKSEAL_", "SECRETS_", "DATABASE_URL", "REDIS_URL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What a process needs to be part of it: `settings` are environment variables, with no key among them."""

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    keyring: KeyRing
    settings: dict[str, str] = field(repr=False)

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return an environment with these settings and none of another installation's."""
        return {name: value for name, value in inherited.items() if not name.startswith(_OURS)} | self.settings


async def install(stack: Stack, folder: Path) -> Installation:
    """Migrate and, the first time, make a master key in the folder (0600) and begin the installation with it."""
    await upgrade(stack.postgres.url)
    key_file = folder / "master.key"
    begun = key_file.exists()
    if not begun:
        write_private(key_file, base64.b64encode(os.urandom(KEY_BYTES)).decode("ascii") + "\n")
    keyring = KeyRing(MasterKey.parse(key_file.read_text(encoding="ascii"), variable="SECRETS_MASTER_KEY_FILE"))
    connection = await asyncpg.connect(stack.postgres.url)
    try:
        if not await keys.registered(connection):
            await begin(connection, keyring, "hookseal up or demo", os.urandom)
    finally:
        await connection.close()
    return Installation(
        database_url=stack.postgres.url,
        redis_url=stack.valkey.url,
        keyring=keyring,
        settings={
            "HOOKSEAL_ENV": "development",
            "HOOKSEAL_ALLOW_HTTP": "true",
            "HOOKSEAL_EGRESS_ALLOW": "127.0.0.0/8",
            "HOOKSEAL_HEALTH_PORT": "0",
            "DATABASE_URL": stack.postgres.url,
            "REDIS_URL": stack.valkey.url,
            "SECRETS_PROVIDER": "db",
            "SECRETS_MASTER_KEY_FILE": str(key_file),
        },
    )
