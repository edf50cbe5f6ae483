"""The master keys of an Admin, which seal the secrets, and the integrity key."""

import os
from collections.abc import Callable
from dataclasses import asdict

from hookseal.admin import arguments
from hookseal.admin.results.base import Page, of_row
from hookseal.admin.results.keys import (
    Compromise,
    ExposedPlace,
    FailedReplacement,
    InitialisedKeys,
    IntegrityKey,
    MasterKey,
    MasterKeys,
    MovedKey,
    RewrappedKey,
    SealedVersion,
    UnopenedRecord,
)
from hookseal.admin.session import NOBODY, Session
from hookseal.config.keys import NEXT_KEY
from hookseal.config.settings import Secrets
from hookseal.dispatcher.core.endpoint_rules import LIVE_SECONDS
from hookseal.errors import Refused, with_advice
from hookseal.ground.ids import require_limit
from hookseal.operations.key import keys as operations
from hookseal.operations.key.keys import CompromiseOptions, Replaced
from hookseal.operations.operator import Operator
from hookseal.secrets import migrate_secrets
from hookseal.secrets.core.key_rules import KeyState
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.key import compromise as exposure
from hookseal.secrets.key import keys
from hookseal.secrets.key.compromise import Remedy
from hookseal.secrets.key.rewrap import BEGINNING, Cursor, Unopened


class Keys:
    """Initialises an installation, changes its master keys, and rotates its integrity key.

    Every method concerns all tenants. Actor and errors are as for `Endpoints`. A new key comes from the settings.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def initialise(self, *, actor: str, keyring: KeyRing | None = None) -> InitialisedKeys:
        """Initialise the installation, once: register the master key, create the integrity key and the sentinel.

        The key is that of the settings, or the sealing one of `keyring`; with a provider outside PostgreSQL there is
        none. Raises `Conflict` if the installation was initialised before.
        """
        who, secrets = arguments.actor(actor), self._session.settings.secrets
        first = _first_keyring(secrets) if keyring is None else keyring
        async with self._session.reading() as connection, self._session.outside() as outside:
            begun = await operations.begin(
                connection, first, who, os.urandom, provider=secrets.provider, outside=outside
            )
        created = (str(begun.integrity_ref), str(begun.sentinel_ref)) if begun.created else ()
        return InitialisedKeys(key_id=begun.key_id, state=begun.state, created=created)

    async def status(self) -> MasterKeys:
        """Return every master key: its state, its records, the live workers that have it, and if the settings do."""
        secrets = self._session.settings.secrets
        held = secrets.keyring or _first_keyring(secrets)
        async with self._session.reading() as connection:
            rows = await keys.status(connection, held, live_seconds=LIVE_SECONDS)
            plaintext = await migrate_secrets.count_plaintext(connection)
        items = tuple(of_row(MasterKey, asdict(row)) for row in rows)
        return MasterKeys(items=items, next_cursor=None, plaintext_endpoints=plaintext)

    async def registered(self) -> tuple[str, ...]:
        """Return the ids of the registered master keys, oldest first."""
        async with self._session.reading() as connection:
            return tuple(row.key_id for row in await keys.registered(connection))

    async def stage(self, *, actor: str) -> MovedKey:
        """Register the next key of the settings, which seals nothing yet. Then every worker may have it.

        Raises `Conflict` if it was active before or is compromised.
        """
        key = self._session.settings.secrets.next_key
        if key is None:
            raise Refused(f"{NEXT_KEY} is not set", advice="set it to the key that is to seal next", field=NEXT_KEY)
        async with self._session.changing(actor) as operator:
            return _moved(await operations.stage_key(operator, key))

    async def promote(self, *, key_id: str, actor: str) -> MovedKey:
        """Encrypt new secrets with this key from now on, in every process; the key before it only decrypts.

        Raises `Conflict` while a live worker does not have the key.
        """
        key = arguments.key_id(key_id)
        async with self._session.changing(actor) as operator:
            moved = await operations.promote_key(operator, key)
            rows = await keys.registered(operator.connection)
        return _moved(moved, older=tuple(row.key_id for row in rows if row.state is KeyState.DECRYPT_ONLY))

    async def retire(self, *, key_id: str, actor: str) -> MovedKey:
        """Stop using this key for decryption. Raises `Conflict` while it is active or a record needs it."""
        key = arguments.key_id(key_id)
        async with self._session.changing(actor) as operator:
            return _moved(await operations.retire_key(operator, key))

    async def destroy(self, *, key_id: str, actor: str) -> MovedKey:
        """Mark a retired key, whose material you destroyed: a process that has it will not start.

        Raises `Conflict` unless it is retired, and while these settings or a live worker have it.
        """
        key = arguments.key_id(key_id)
        async with self._session.changing(actor) as operator:
            return _moved(await operations.destroy_key(operator, key))

    async def records(self, *, key_id: str) -> int:
        """Return how many records are under this key."""
        key = arguments.key_id(key_id)
        async with self._session.changing(NOBODY) as operator:
            return await operations.records_of(operator, key)

    async def rewrap(
        self, *, key_id: str, actor: str, report: Callable[[int, UnopenedRecord | None], None] | None = None
    ) -> RewrappedKey:
        """Re-wrap all records of this key under the active one, in batches, while workers run; decrypt no secret.

        `report` is called with the number of records that were re-wrapped since the last call, and with each record
        that the key does not open, which stays as it is. A repeat continues with the records that are left.
        """
        key = arguments.key_id(key_id)
        run = _Rewrap(key, report or (lambda _more, _unopened: None))
        async with self._session.changing(actor) as operator:
            return await run.whole(operator)

    async def count_versions(self, *, key_id: str) -> int:
        """Return how many secret versions were ever sealed under this key."""
        key = arguments.key_id(key_id)
        async with self._session.changing(NOBODY) as operator:
            await keys.life(operator.connection, key)
            return await exposure.count(operator.connection, key)

    async def versions(self, *, key_id: str, limit: int = 50, cursor: str | None = None) -> Page[SealedVersion]:
        """Return up to `limit` (1 to 1000) secret versions that were ever sealed under this key, and their use now."""
        key = arguments.key_id(key_id)
        arguments.page(limit, cursor)
        require_limit(limit)
        after = exposure.BEGINNING if cursor is None else exposure.place_of(cursor)
        async with self._session.changing(NOBODY) as operator:
            await keys.life(operator.connection, key)
            rows = await exposure.page(operator.connection, key, after, limit + 1)
        following = exposure.cursor_of(rows[limit - 1]) if len(rows) > limit else None
        return Page(items=tuple(of_row(SealedVersion, asdict(each)) for each in rows[:limit]), next_cursor=following)

    async def compromise(
        self,
        *,
        key_id: str,
        actor: str,
        overlap_seconds: int | None = None,
        force: bool = False,
        dry_run: bool = False,
        report: Callable[[str, str | None], None] | None = None,
    ) -> Compromise:
        """After a master key leaked, rotate every signing secret that was ever sealed under it, of all tenants.

        Promote another key first. A previous secret signs until its overlap ends; with an overlap of 0 it ends now.
        Header values and client keys are only listed, because their owners must replace them. `report` is called with
        the reference of each version, and why it could not be replaced. A repeat continues.
        """
        key, secrets = arguments.key_id(key_id), self._session.settings.secrets
        how = CompromiseOptions(
            overlap_seconds=secrets.rotation_overlap_seconds
            if overlap_seconds is None
            else arguments.overlap_seconds(overlap_seconds),
            force=arguments.flag(force, "force"),
            dry_run=arguments.flag(dry_run, "dry_run"),
            random_bytes=os.urandom,
        )
        tally = _Replacements(key, how, report or (lambda _ref, _message: None))
        async with self._session.changing(actor) as operator:
            await operations.drill(operator, key, how, tally.take)
        return tally.result()

    async def rotate_integrity(self, *, actor: str) -> IntegrityKey:
        """Create a new version of the integrity key, which makes the MACs from now on; older ones only verify."""
        async with self._session.changing(actor) as operator:
            rotated = await operations.rotate_integrity_key(operator, os.urandom)
        return IntegrityKey(key_id=rotated.key_id, integrity_ref=str(rotated.ref), older=rotated.older)


class _Rewrap:
    """One re-wrap of the records of a key: how many were moved, and those that did not open."""

    def __init__(self, key_id: str, report: Callable[[int, UnopenedRecord | None], None]) -> None:
        self._key_id = key_id
        self._report = report
        self._moved = 0
        self._to: str | None = None
        self._unopened: list[UnopenedRecord] = []

    async def whole(self, operator: Operator) -> RewrappedKey:
        """Re-wrap all records."""
        await operations.records_of(operator, self._key_id)
        for wait in (False, True):  # the second pass waits for records that were locked in the first
            await self._pass(operator, wait=wait)
        remaining = (await operations.finish_rewrap(operator, self._key_id)).records
        if remaining > len(self._unopened):
            self._note(await operations.altered(operator, self._key_id))
        return RewrappedKey(
            key_id=self._key_id, to=self._to, moved=self._moved, left=remaining, failed=tuple(self._unopened)
        )

    async def _pass(self, operator: Operator, *, wait: bool) -> None:
        after: Cursor | None = BEGINNING
        while after is not None:
            batch = await operations.rewrap_batch(operator, self._key_id, after, wait=wait)
            if batch is None:
                return
            self._moved += batch.moved
            self._to = batch.to
            self._report(batch.moved, None)
            if wait:
                self._note(batch.unopened)
            after = batch.last

    def _note(self, unopened: tuple[Unopened, ...]) -> None:
        for one in unopened:
            record = UnopenedRecord(tenant_id=one.tenant_id, name=one.name, version=one.version, code=one.code)
            self._unopened.append(record)
            self._report(0, record)


class _Replacements:
    """The versions that a leaked key sealed, those that were replaced, and those that a person must replace."""

    def __init__(self, key_id: str, how: CompromiseOptions, report: Callable[[str, str | None], None]) -> None:
        self._key_id = key_id
        self._how = how
        self._report = report
        self._counts: dict[Remedy, int] = dict.fromkeys(Remedy, 0)
        self._by_owners: dict[Remedy, list[ExposedPlace]] = {
            Remedy.NEW_HEADER_VALUES: [],
            Remedy.NEW_CLIENT_KEY: [],
        }
        self._failed: list[FailedReplacement] = []

    def take(self, replaced: Replaced) -> None:
        """Count the outcome for one version."""
        exposed, error = replaced.exposed, replaced.error
        place = ExposedPlace(tenant_id=exposed.tenant_id, endpoint_id=exposed.endpoint_id, ref=exposed.ref)
        message = None if error is None else with_advice(error)
        if error is not None:
            self._failed.append(of_row(FailedReplacement, asdict(place), code=error.code, message=message))
        else:
            self._counts[exposed.remedy] += 1
            if exposed.remedy in self._by_owners:
                self._by_owners[exposed.remedy].append(place)
        self._report(exposed.ref, message)

    def result(self) -> Compromise:
        """Return what was done."""
        ended = self._counts[Remedy.END_OF_OVERLAP]
        return Compromise(
            key_id=self._key_id,
            dry_run=self._how.dry_run,
            overlap_seconds=self._how.overlap_seconds,
            versions=sum(self._counts.values()) + len(self._failed),
            rotated=self._counts[Remedy.ROTATION],
            overlaps_ended=ended if self._how.ends_overlaps else 0,
            previous_still_signing=0 if self._how.ends_overlaps else ended,
            integrity_rotated=self._counts[Remedy.NEW_INTEGRITY_KEY] > 0,
            header_values=tuple(self._by_owners[Remedy.NEW_HEADER_VALUES]),
            client_keys=tuple(self._by_owners[Remedy.NEW_CLIENT_KEY]),
            failed=tuple(self._failed),
        )


def _moved(moved: operations.MovedKey, *, older: tuple[str, ...] = ()) -> MovedKey:
    return of_row(MovedKey, asdict(moved.life), was=moved.was, older=older)


def _first_keyring(secrets: Secrets) -> KeyRing | None:
    """Return the keyring of the settings; None with a provider outside PostgreSQL. Raises `Refused` with `dev`."""
    if secrets.provider not in (Provider.DB, Provider.DEV):
        return None
    if secrets.keyring is None:
        raise Refused(
            f"SECRETS_PROVIDER {secrets.provider} has no master keys that last", advice="set SECRETS_PROVIDER=db"
        )
    return secrets.keyring
