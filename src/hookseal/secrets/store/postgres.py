"""The store `db`: sealed records in PostgreSQL. The master key never reaches the database."""

from dataclasses import replace
from typing import Final

from hookseal.errors import Conflict, KeyRetired, SecretDestroyed
from hookseal.ground.ids import TenantId
from hookseal.postgres.pool import Connection, Executor
from hookseal.secrets.core.envelope import key_id_of, open_sealed, seal
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretContext, SecretRef
from hookseal.secrets.core.trust import require_fresh_record, require_provider
from hookseal.secrets.key import active_key
from hookseal.secrets.statements import statements
from hookseal.secrets.store import external, records
from hookseal.secrets.store.port import SecretVersion, first_ref, no_such_secret, require_purpose
from hookseal.secrets.store.records import Records

_SQL: Final = statements("postgres.sql", package="hookseal.secrets.store")


class PostgresStore:
    """Secrets in the table `secret_records`, each in an envelope that opens only in its own row.

    On a pool every call is a transaction of its own; on a connection it joins the transaction that is open there.
    """

    provider: Final = Provider.DB

    def __init__(self, connection: Executor, keyring: KeyRing) -> None:
        self._source = connection
        self._keyring = keyring
        self._records = Records(connection)

    @property
    def providers(self) -> frozenset[Provider]:
        """The provider whose refs it reads: its own."""
        return frozenset({self.provider})

    @property
    def keyring(self) -> KeyRing:
        """The master keys of this store."""
        return self._keyring

    async def sealing_key_id(self) -> str:
        """Return the id of the active master key. In a transaction that sealed a record it is the key of that record.

        Raises `ConfigError` if no key is active, and `SecretUnavailable`.
        """
        return await active_key.current(self._source)

    def joined_to(self, connection: Executor) -> "PostgresStore":
        """Return this store on another pool or connection; on a connection it joins the open transaction."""
        return PostgresStore(connection, self._keyring)

    async def put(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Keep the first version of a new name (see `SecretStore`)."""
        first = first_ref(self.provider, tenant, name)
        async with _SQL.one_write(self._source) as connection:
            ref = replace(first, version=await records.next_version(connection, tenant, name))
            sealed = await self._sealed(connection, ref, material, purpose)
            stored = await _SQL.value(connection, "put", *_columns(ref, purpose, scheme, sealed))
        if stored is None:
            raise Conflict("the tenant has a secret of this name: rotate it", field="name")
        return ref

    async def get(self, ref: SecretRef, *, purpose: Purpose) -> SecretMaterial:
        """Return the material of that version (see `SecretStore`)."""
        require_provider(ref, self.provider)
        row = await self._records.row(ref)
        if row is None:
            raise no_such_secret()
        require_purpose(row["purpose"], purpose)
        if row["sealed"] is None:
            raise SecretDestroyed
        if row["key_is_closed"]:  # closed since this process started, so its keyring does not know it
            raise KeyRetired(f"master key {key_id_of(row['sealed'])} is retired: it opens nothing any more")
        material = open_sealed(self._keyring, row["sealed"], SecretContext.of(ref, purpose))
        require_fresh_record(
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
        async with _SQL.transaction(self._source) as connection:
            await records.lock(connection, tenant, name, purpose)
            ref = replace(first, version=await records.next_version(connection, tenant, name))
            sealed = await self._sealed(connection, ref, material, purpose)
            await records.step_back(connection, tenant, name)
            await _SQL.execute(connection, "add", *_columns(ref, purpose, scheme, sealed))
        return ref

    async def versions(self, tenant: TenantId, name: str) -> tuple[SecretVersion, ...]:
        """Return every version of the name, oldest first (see `SecretStore`)."""
        return await records.versions(self._source, tenant, name, provider=self.provider)

    async def destroy(self, ref: SecretRef) -> None:
        """Remove the material of that version for good (see `SecretStore`)."""
        require_provider(ref, self.provider)
        async with _SQL.transaction(self._source) as connection:
            destroyed = await _SQL.value(connection, "destroy", ref.tenant, ref.name, ref.version)
        if destroyed is None:
            raise no_such_secret()

    async def take_over(
        self, connection: Connection, ref: SecretRef, material: SecretMaterial, *, purpose: Purpose
    ) -> SecretRef:
        """Move a version of another provider here, in the caller's transaction; it keeps its number and its state."""
        moved = replace(ref, provider=self.provider)
        sealed = await self._sealed(connection, moved, material, purpose)
        await external.add_left(connection, ref)
        await _SQL.execute(connection, "take_over", ref.tenant, ref.name, ref.version, sealed, key_id_of(sealed))
        return moved

    async def _sealed(
        self, connection: Connection, ref: SecretRef, material: SecretMaterial, purpose: Purpose
    ) -> bytes:
        # The active key may have changed since this process started.
        keyring = self._keyring.sealing_as(await active_key.lock_shared(connection))
        return seal(keyring, material, SecretContext.of(ref, purpose))


def _columns(
    ref: SecretRef, purpose: Purpose, scheme: str | None, sealed: bytes
) -> tuple[str | int | bytes | None, ...]:
    return ref.tenant, ref.name, ref.version, purpose.value, scheme, sealed, key_id_of(sealed)
