"""The store `db`: sealed records in PostgreSQL. The master key never reaches the database."""

from dataclasses import replace
from typing import Final

import asyncpg

from hookseal.ground.errors import Conflict
from hookseal.ground.ids import TenantId
from hookseal.ground.sql import statements
from hookseal.schema.database import ANSWER_SECONDS, Connection, Executor, connected
from hookseal.secrets import active_key
from hookseal.secrets.context import Purpose, SecretContext
from hookseal.secrets.database import one_write, outages_translated, transaction
from hookseal.secrets.envelope import key_id_of, open_sealed, seal
from hookseal.secrets.errors import KeyRetired, SecretDestroyed, SecretNotFound, SecretTampered
from hookseal.secrets.keyring import KeyRing
from hookseal.secrets.known import require_as_known
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.ref import Provider, SecretRef
from hookseal.secrets.store import SecretVersion, VersionState, first_ref, require_provider, require_purpose

_SQL: Final = statements("hookseal.secrets.stores", "postgres.sql")


class PostgresStore:
    """Secrets in the table `secret_records`, each in an envelope that opens in its own row only.

    Given a pool, every call is a transaction of its own; given a connection, it joins the transaction
    that the caller has open there.
    """

    provider: Final = Provider.DB

    def __init__(self, connection: Executor, keyring: KeyRing) -> None:
        self._source = connection
        self._keyring = keyring

    @property
    def keyring(self) -> KeyRing:
        """The master keys that this store seals and opens with."""
        return self._keyring

    async def sealing_key_id(self) -> str:
        """Return the id of the master key that seals what is put now: in a transaction that put, the one that did.

        Raises `ConfigError` if none is active, `SecretUnavailable`.
        """
        with outages_translated():
            async with connected(self._source) as connection:
                return await active_key.current(connection)

    def joined_to(self, connection: Executor) -> "PostgresStore":
        """Return this store on another pool or connection, in the transaction that the caller has open on it."""
        return PostgresStore(connection, self._keyring)

    async def put(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Keep the first version of a new name (see `SecretStore`)."""
        first = first_ref(self.provider, tenant, name)
        async with one_write(self._source) as connection:
            ref = replace(first, version=await connection.fetchval(_SQL["next_version"], tenant, name))
            sealed = await self._sealed(connection, ref, material, purpose)
            written = await connection.fetchval(_SQL["put"], *_row(ref, purpose, scheme, sealed))
        if written is None:
            raise Conflict("the tenant has a secret of this name: rotate it", field="name")
        return ref

    async def get(self, ref: SecretRef, *, purpose: Purpose) -> SecretMaterial:
        """Return the material of that version (see `SecretStore`)."""
        require_provider(ref, self.provider)
        with outages_translated():
            async with connected(self._source) as connection:
                row = await connection.fetchrow(
                    _SQL["get"], ref.tenant, ref.name, ref.version, str(ref), timeout=ANSWER_SECONDS
                )
        if row is None:
            raise SecretNotFound
        require_purpose(row["purpose"], purpose)
        if row["sealed"] is None:
            raise SecretDestroyed
        if row["key_is_closed"]:  # since this process started: its ring does not know
            raise KeyRetired(f"master key {key_id_of(row['sealed'])} is retired: it opens nothing any more")
        material = open_sealed(self._keyring, row["sealed"], SecretContext.of(ref, purpose))
        require_as_known(
            state=row["state"],
            pointed=row["pointed_state"],
            key_id=key_id_of(row["sealed"]),
            audited_key_id=row["audited_key_id"],
            key_is_drained=row["key_is_drained"],
        )
        return material

    async def rotate(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Keep a new version, active; the older ones step back (see `SecretStore`)."""
        first = first_ref(self.provider, tenant, name)
        async with transaction(self._source) as connection:
            # The oldest row never leaves, so it is the lock of its name; only a statement after it sees
            # what the rotation before this one wrote.
            locked = await connection.fetchrow(_SQL["lock"], tenant, name)
            if locked is None:
                raise SecretNotFound
            require_purpose(locked["purpose"], purpose)
            ref = replace(first, version=await connection.fetchval(_SQL["next_version"], tenant, name))
            sealed = await self._sealed(connection, ref, material, purpose)
            await connection.execute(_SQL["step_back"], tenant, name)
            await connection.execute(_SQL["add"], *_row(ref, purpose, scheme, sealed))
        return ref

    async def versions(self, tenant: TenantId, name: str) -> tuple[SecretVersion, ...]:
        """Return every version of the name, oldest first (see `SecretStore`)."""
        first = first_ref(self.provider, tenant, name)
        with outages_translated():
            async with connected(self._source) as connection:
                rows = await connection.fetch(_SQL["versions"], tenant, name, timeout=ANSWER_SECONDS)
        return tuple(_version(first, row) for row in rows)

    async def destroy(self, ref: SecretRef) -> None:
        """Remove the material of that version for good (see `SecretStore`)."""
        require_provider(ref, self.provider)
        async with transaction(self._source) as connection:
            found = await connection.fetchval(_SQL["destroy"], ref.tenant, ref.name, ref.version)
        if found is None:
            raise SecretNotFound

    async def _sealed(
        self, connection: Connection, ref: SecretRef, material: SecretMaterial, purpose: Purpose
    ) -> bytes:
        # Not under the key that was active when this process started: it may have been changed since.
        ring = self._keyring.sealing_as(await active_key.settled(connection))
        return seal(ring, material, SecretContext.of(ref, purpose))


def _row(ref: SecretRef, purpose: Purpose, scheme: str | None, sealed: bytes) -> tuple[str | int | bytes | None, ...]:
    return ref.tenant, ref.name, ref.version, purpose.value, scheme, sealed, key_id_of(sealed)


def _version(first: SecretRef, row: asyncpg.Record) -> SecretVersion:
    if row["purpose"] not in tuple(Purpose):
        raise SecretTampered("a secret record has a purpose that this hookseal does not know")
    return SecretVersion(
        ref=replace(first, version=row["version"]),
        state=VersionState(row["state"]),
        purpose=Purpose(row["purpose"]),
        scheme=row["scheme"],
        created_at=row["created_at"],
        changed_at=row["changed_at"],
    )
