"""A complete installation on embedded servers: a migrated database, a master key, and an environment for processes."""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from hookseal.config.keys import MASTER_KEY, NEXT_KEY, PREVIOUS_KEYS
from hookseal.embedded.folders import read_private, write_private
from hookseal.embedded.server import HOST
from hookseal.embedded.stack import Stack
from hookseal.operations.key.keys import begin, stage_key
from hookseal.operations.operator import Operator
from hookseal.postgres.connect import connect
from hookseal.postgres.schema.upgrade import upgrade
from hookseal.secrets.boot import unlock
from hookseal.secrets.core.keyring import KEY_BYTES, KeyRing, MasterKey
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.key import keys

WHO: Final = "hookseal up or demo"
_MASTER: Final = "master.key"
_OURS: Final = ("HOOKSEAL_", "SECRETS_", "DATABASE_URL", "REDIS_URL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What a process needs to use the installation. `settings` are environment variables, without a key."""

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    keyring: KeyRing
    settings: dict[str, str] = field(repr=False)

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return an environment with these settings and without settings of another installation."""
        return {name: value for name, value in inherited.items() if not name.startswith(_OURS)} | self.settings


def not_used(inherited: Mapping[str, str], settings: Mapping[str, str]) -> list[str]:
    """Return which settings of this environment an installation with `settings` does not use, by name.

    Addresses that `up env` has given this shell are left out: they change with each start. It also gave it the key.
    """
    key_file = f"{MASTER_KEY}_FILE"
    is_ours = key_file in inherited and inherited[key_file] == settings[key_file]
    return sorted(
        name
        for name, value in inherited.items()
        if name.startswith(_OURS)
        and (name not in settings or (value != settings[name] and not (is_ours and HOST in value)))
    )


async def install(stack: Stack, folder: Path) -> Installation:
    """Migrate the database and, the first time, create a master key in the folder (0600) and begin the installation.

    The files `next.key` and `previous.key` in the folder are used as well if they exist, so that the master key can be
    changed.
    """
    await upgrade(stack.postgres.url)
    key_file = folder / _MASTER
    if not key_file.exists():
        _make(key_file)
    key_files = {name: file for name, file in _files(folder).items() if file.exists()}
    keyring = _ring(key_files)
    connection = await connect(stack.postgres.url)
    try:
        if not await keys.registered(connection):
            await begin(connection, keyring, WHO, os.urandom)
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
            **{f"{name}_FILE": str(file) for name, file in key_files.items()},
        },
    )


async def with_next_key(installation: Installation, folder: Path) -> Installation:
    """Create the next master key in the folder (0600), register it, and return the installation with it."""
    next_file = _files(folder)[NEXT_KEY]
    key = _make(next_file)
    connection = await connect(installation.database_url)
    try:
        unlocked = await unlock(connection, Provider.DB, installation.keyring)
        await stage_key(Operator(connection=connection, unlocked=unlocked, who=WHO), key)
    finally:
        await connection.close()
    return replace(
        installation,
        keyring=KeyRing(installation.keyring.sealing, (*installation.keyring.keys, key)),
        settings=installation.settings | {f"{NEXT_KEY}_FILE": str(next_file)},
    )


def _files(folder: Path) -> dict[str, Path]:
    return {MASTER_KEY: folder / _MASTER, NEXT_KEY: folder / "next.key", PREVIOUS_KEYS: folder / "previous.key"}


def _ring(key_files: Mapping[str, Path]) -> KeyRing:
    sealing, *opening = [
        MasterKey.parse(text, variable=f"{name}_FILE")
        for name, file in key_files.items()
        for text in read_private(file).decode("ascii").split(",")
    ]
    return KeyRing(sealing, tuple(opening))


def _make(key_file: Path) -> MasterKey:
    text = base64.b64encode(os.urandom(KEY_BYTES)).decode("ascii")
    write_private(key_file, text + "\n")
    return MasterKey.parse(text, variable=str(key_file.name))
