"""Secrets that a provider keeps: writing, reading and removing them, and what an interrupted change left behind."""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Final

from hookseal.errors import Conflict, SecretDestroyed, SecretError, SecretUnavailable
from hookseal.ground.ids import TenantId
from hookseal.postgres.pool import Connection, Executor
from hookseal.secrets.core.halves import Halves, divide, divide_again, join
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider, Purpose, SecretContext, SecretRef
from hookseal.secrets.core.trust import require_fresh_record, require_provider
from hookseal.secrets.statements import statements
from hookseal.secrets.store import records
from hookseal.secrets.store.port import (
    NumberTaken,
    ProviderApi,
    Rest,
    SecretVersion,
    first_ref,
    no_answer,
    no_such_secret,
    require_purpose,
)
from hookseal.secrets.store.records import Records

UNSETTLED_SECONDS: Final = 3_600.0  # no transaction that adds a version takes nearly as long
_MOST_ATTEMPTS: Final = 16
_FIRST: Final = ("", "", 0)  # before every version

_LEFTOVERS: Final = statements("leftovers.sql", package="hookseal.secrets.store")


Place = tuple[str, str, int]  # the tenant, the name and the version


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """How many versions were removed at their providers, and the first error of those that could not be.

    `last` is the last version that was tried, None if no more are to be tried for now.
    """

    removed: int
    error: SecretError | SecretUnavailable | None = None
    last: Place | None = None


async def take_number(apart: Connection, first: SecretRef, *, at_least: int) -> int:
    """Take the next number of the name for a version that is about to be written, and return it.

    `apart` must not be in a transaction that may be rolled back. Raises `SecretUnavailable`.
    """
    for _ in range(_MOST_ATTEMPTS):  # another change may take the same number at this moment
        number = await _LEFTOVERS.value(apart, "take", first.tenant, first.name, first.provider.value, at_least)
        if number is not None:
            return int(number)
    raise SecretUnavailable("other changes of this secret take all version numbers: try again")


async def begin(apart: Connection, ref: SecretRef, share: bytes) -> bytes:
    """Note that a version that keeps its number is about to be written with this share, or that of an earlier attempt.

    Returns the share to use. Raises `SecretUnavailable`.
    """
    used: bytes = await _LEFTOVERS.value(apart, "begin", ref.tenant, ref.name, ref.version, ref.provider.value, share)
    return used


async def burn(apart: Connection, ref: SecretRef) -> None:
    """Note that the number is taken by something that must not be removed. Raises `SecretUnavailable`."""
    await _LEFTOVERS.execute(apart, "burn", ref.tenant, ref.name, ref.version)


async def settle(connection: Connection, ref: SecretRef) -> None:
    """Note that the version has its row, in the transaction that adds the row. Raises `SecretUnavailable`."""
    await _LEFTOVERS.execute(connection, "settle", ref.tenant, ref.name, ref.version)


async def add_left(connection: Connection, ref: SecretRef) -> None:
    """Note that the version leaves this provider, before its row names the next one. Raises `SecretUnavailable`.

    If it returns before it was removed there, what lies there is used again.
    """
    if ref.provider is not Provider.DB:
        await _LEFTOVERS.execute(connection, "add_left", ref.tenant, ref.name, ref.version, ref.provider.value)


async def add_destroyed(connection: Connection, tenant: TenantId, places: Sequence[tuple[str, int]]) -> None:
    """Note the versions outside PostgreSQL among these, in the transaction that destroys them.

    Raises `SecretUnavailable`.
    """
    names, numbers = [name for name, _ in places], [str(number) for _, number in places]
    await _LEFTOVERS.execute(connection, "add_destroyed", tenant, names, numbers)


async def remove(
    source: Executor,
    apis: Mapping[Provider, ProviderApi],
    *,
    owner: str,
    after: Place | None = None,
    goes_on: Callable[[], bool] = lambda: True,
    unsettled_seconds: float = UNSETTLED_SECONDS,
) -> Removal:
    """Remove at their providers the versions after that one that nobody needs, while `goes_on`.

    One that is refused does not stop the others. A provider that does not answer ends it. Each is removed in a
    transaction of its own that locks it, so that several may do this at the same time. Raises `SecretUnavailable` if
    PostgreSQL does not answer.
    """
    removed, error, last = 0, None, after or _FIRST
    while goes_on():
        async with _LEFTOVERS.transaction(source) as connection:
            row = await _LEFTOVERS.row(connection, "lock_one", sorted(apis), unsettled_seconds, *last)
            if row is None:
                return Removal(removed=removed, error=error)
            last = (row["tenant_id"], row["name"], row["version"])
            ref = SecretRef(
                provider=Provider(row["provider"]),
                tenant=TenantId(row["tenant_id"]),
                name=row["name"],
                version=row["version"],
            )
            active = None if row["active"] is None else SecretRef.parse(row["active"], reserved=True)
            try:
                await apis[ref.provider].remove(ref, Rest(is_needed=row["is_needed"], active=active), owner=owner)
            except SecretUnavailable as failed:  # the others would wait for it, too
                return Removal(removed=removed, error=failed)
            except SecretError as failed:
                error = error or failed
                continue
            await _LEFTOVERS.execute(connection, "removed", *last)
            removed += 1
    return Removal(removed=removed, error=error, last=last)


_SQL: Final = statements("external.sql", package="hookseal.secrets.store")
_MOST_TAKEN: Final = 8  # version numbers in a row that failed changes have used up

Apart = Callable[[], AbstractAsyncContextManager[Connection]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """The id of this installation, and how to get a connection outside of the caller's transaction."""

    id: str
    apart: Apart


class ExternalStore:
    """Secrets at a provider outside PostgreSQL, with a row in `secret_records` for each version.

    On a pool every call is a transaction of its own; on a connection it joins the transaction that is open there. A
    number is taken in a transaction apart, so that a change that fails does not use it again.
    """

    def __init__(self, source: Executor, api: ProviderApi, installation: Installation) -> None:
        self._source = source
        self._api = api
        self._installation = installation
        self._records = Records(source)

    @property
    def provider(self) -> Provider:
        """The provider in the references of this store."""
        return self._api.provider

    @property
    def providers(self) -> frozenset[Provider]:
        """The provider whose refs it reads: its own."""
        return frozenset({self.provider})

    @property
    def api(self) -> ProviderApi:
        """The interface of the provider."""
        return self._api

    def joined_to(self, connection: Executor) -> "ExternalStore":
        """Return this store on another pool or connection; on a connection it joins the open transaction."""
        return ExternalStore(connection, self._api, self._installation)

    async def put(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Keep the first version of a new name (see `SecretStore`)."""
        first = first_ref(self.provider, tenant, name)
        if await records.versions(self._source, tenant, name):  # first, so that nothing is written in vain
            raise _exists()
        ref, share = await self._write_next(self._source, first, material, purpose, is_first=True)
        async with _SQL.one_write(self._source) as connection:
            if not await _SQL.execute(connection, "put", *_columns(ref, purpose, scheme, share)):
                raise _exists()  # what was written is removed later
            await settle(connection, ref)
        return ref

    async def get(self, ref: SecretRef, *, purpose: Purpose) -> SecretMaterial:
        """Return the material of that version (see `SecretStore`)."""
        require_provider(ref, self.provider)
        row = await self._records.row(ref)
        if row is None:
            raise no_such_secret()
        require_purpose(row["purpose"], purpose)
        if row["share"] is None:
            raise SecretDestroyed
        require_fresh_record(
            state=row["state"], pointed=row["pointed_state"], key_id="", audited_key_id=None, key_is_drained=False
        )
        with self._answered():
            async with asyncio.timeout(self._api.seconds):
                payload = await self._api.read(ref)
        return join(Halves(row["share"], payload), SecretContext.of(ref, purpose))

    async def rotate(
        self, tenant: TenantId, name: str, material: SecretMaterial, *, purpose: Purpose, scheme: str | None = None
    ) -> SecretRef:
        """Keep a new version, active; the older ones step back (see `SecretStore`)."""
        first = first_ref(self.provider, tenant, name)
        async with _SQL.transaction(self._source) as connection:
            await records.lock(connection, tenant, name, purpose)
            is_first = not await _SQL.value(connection, "is_kept", tenant, name, self.provider.value)
            ref, share = await self._write_next(connection, first, material, purpose, is_first=is_first)
            await records.step_back(connection, tenant, name)
            await _SQL.execute(connection, "add", *_columns(ref, purpose, scheme, share))
            await settle(connection, ref)
        return ref

    async def versions(self, tenant: TenantId, name: str) -> tuple[SecretVersion, ...]:
        """Return every version of the name at this provider, oldest first (see `SecretStore`)."""
        return await records.versions(self._source, tenant, name, provider=self.provider)

    async def destroy(self, ref: SecretRef) -> None:
        """Remove the material of that version for good (see `SecretStore`).

        From then on the bytes at the provider are worthless; a worker removes them there within an hour.
        """
        require_provider(ref, self.provider)
        async with _SQL.transaction(self._source) as connection:
            destroyed = await _SQL.value(connection, "destroy", ref.tenant, ref.name, ref.version, str(ref))
            if destroyed is None:
                raise no_such_secret()
            await add_destroyed(connection, ref.tenant, [(ref.name, ref.version)])

    async def take_over(
        self, connection: Connection, ref: SecretRef, material: SecretMaterial, *, purpose: Purpose
    ) -> SecretRef:
        """Move a version of another provider here, in the caller's transaction; it keeps its number and its state.

        A repeat after a failure writes the same bytes. Raises what the provider raises.
        """
        moved = replace(ref, provider=self.provider)
        context = SecretContext.of(moved, purpose)
        is_first = not await _SQL.value(connection, "is_kept", ref.tenant, ref.name, self.provider.value)
        async with self._installation.apart() as apart:
            share = await begin(apart, moved, divide(material, context, os.urandom).share)
        halves = divide_again(share, material, context)
        await self._write(moved, halves.payload, is_first=is_first)
        await settle(connection, moved)
        await add_left(connection, ref)
        await _SQL.execute(
            connection, "take_over", ref.tenant, ref.name, ref.version, self.provider.value, halves.share
        )
        return moved

    async def _write_next(
        self, source: Executor, first: SecretRef, material: SecretMaterial, purpose: Purpose, *, is_first: bool
    ) -> tuple[SecretRef, bytes]:
        """Take a number, and write the material under it; return the ref and the share."""
        divide(material, SecretContext.of(first, purpose), os.urandom)  # refuses a size before a number is taken
        next_number = await records.next_version(source, first.tenant, first.name)
        for _ in range(_MOST_TAKEN):
            async with self._installation.apart() as apart:
                number = await take_number(apart, first, at_least=next_number)
            ref = replace(first, version=number)
            halves = divide(material, SecretContext.of(ref, purpose), os.urandom)
            try:
                await self._write(ref, halves.payload, is_first=is_first)
            except NumberTaken:  # what lies there may be in use by a newer copy of this database: it is left alone
                async with self._installation.apart() as apart:
                    await burn(apart, ref)
                next_number = number + 1
                continue
            return ref, halves.share
        raise SecretUnavailable(
            f"{_MOST_TAKEN} versions in a row are taken at {self.provider}, as after a restore of an older database: "
            "try again, which goes on with the next ones"
        )

    async def _write(self, ref: SecretRef, payload: bytes, *, is_first: bool) -> None:
        with self._answered():
            async with asyncio.timeout(self._api.seconds):
                await self._api.write(ref, payload, owner=self._installation.id, is_first=is_first)

    @contextmanager
    def _answered(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise no_answer(f"provider {self.provider}", f"within {self._api.seconds:g} s") from None


def _columns(
    ref: SecretRef, purpose: Purpose, scheme: str | None, share: bytes
) -> tuple[str | int | bytes | None, ...]:
    return ref.tenant, ref.name, ref.version, ref.provider.value, purpose.value, scheme, share


def _exists() -> Conflict:
    return Conflict("the tenant has a secret of this name: rotate it", field="name")
