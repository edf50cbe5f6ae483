"""The secrets of an Admin: what signs the requests to an endpoint."""

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, Final, cast

from hookseal.admin import arguments
from hookseal.admin.arguments import Text
from hookseal.admin.results.base import of_row
from hookseal.admin.results.signing_secrets import (
    Canary,
    ClearedCaches,
    FailedEndpoint,
    FailedPurge,
    MigratedSecrets,
    MovedSecrets,
    PastRotation,
    PublicKeys,
    Purge,
    RevealedSecret,
    Rotation,
    RotationSchedule,
    RotationStatus,
    SecretVersion,
    SigningSecrets,
)
from hookseal.admin.session import Session
from hookseal.dispatcher.store import held
from hookseal.errors import Conflict, HooksealError, InDoubt, Unavailable, with_advice
from hookseal.ground.clock import SystemClock
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.literals import AlgorithmName, Lead, ProviderName, SchemeName
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations import migrate_secrets, move_secrets
from hookseal.operations import secret as secret_operations
from hookseal.operations.bulk import Tally
from hookseal.operations.endpoint import reports
from hookseal.operations.endpoint import rotation as operations
from hookseal.operations.endpoint.probe import ask_whether_switched, end_if_switched
from hookseal.operations.migrate_secrets import Migration
from hookseal.operations.move_secrets import Movement
from hookseal.operations.operator import OfEndpoint
from hookseal.postgres.pool import Connection
from hookseal.postgres.translate import is_locked
from hookseal.secrets.core import overlap
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Provider
from hookseal.secrets.core.signing import generate_signing_secret
from hookseal.secrets.endpoint import canary_results
from hookseal.secrets.endpoint.canary_results import Evidence
from hookseal.secrets.endpoint.rotation import RotationRequest, RotationResult
from hookseal.secrets.store import retention
from hookseal.secrets.store.retention import BATCH

_NOBODY: Final = "-"  # reads with the master key, and leaves nothing on record


class Secrets:
    """Rotates, revokes and reveals the signing secret of an endpoint.

    Actor, connection and errors are as for `Endpoints`; a row or record that was altered raises `CannotSign`.

    A revocation (an overlap of 0, `end_overlap`, `force`) is complete once no request that was claimed before it can
    begin any more. Without a connection these methods return then; `older_claims` is 0, or None if PostgreSQL stopped
    answering meanwhile. With `wait=False` they count them, and return. With `wait=None` or a connection they return at
    once with None: await `wait_until_complete` after the commit.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def rotate(
        self,
        *,
        tenant_id: str,
        endpoint_id: str,
        actor: str,
        overlap_seconds: int | None = None,
        rotation_id: str | None = None,
        expect_generation: int | None = None,
        scheme: Scheme | SchemeName | None = None,
        algorithm: Algorithm | AlgorithmName | None = None,
        lead: Lead | None = None,
        secret: Text | SecretMaterial | None = None,
        drawn: SecretMaterial | None = None,
        force: bool = False,
        wait: bool | None = True,
        connection: Connection | None = None,
    ) -> Rotation:
        """Give the endpoint a new signing secret; during the overlap, 0 to 604,800 s, both it and the old one sign.

        0 revokes every older secret. The default is `SECRETS_ROTATION_OVERLAP_SECONDS`. Without a `secret` a new one is
        made, or `drawn` is taken if it suits the endpoint: a new one that the caller has made, and stored where the
        receiver finds it before the change. Repeating a `rotation_id` changes nothing and returns the first result,
        without the secret if it joins a transaction. `force` rotates even while an overlap runs, and retires its
        previous secret. Raises `Conflict` for another generation than the expected one, a running overlap, and a
        rotation id that was used with other arguments. If no rotation id was given, `InDoubt` names the one with which
        to call it again.
        """
        new = generate_signing_secret() if drawn is None else arguments.secret(drawn)
        request = RotationRequest(
            tenant_id=arguments.tenant_id(tenant_id),
            endpoint_id=arguments.endpoint_id(endpoint_id),
            overlap_seconds=self._overlap(overlap_seconds),
            secret=new if secret is None else arguments.secret(secret),
            given=secret is not None,
            rotation_id=os.urandom(16).hex() if rotation_id is None else arguments.rotation_id(rotation_id),
            expect_generation=arguments.optional_whole(expect_generation, "expect_generation"),
            scheme=None if scheme is None else arguments.choice(Scheme, scheme, "scheme"),
            algorithm=None if algorithm is None else arguments.choice(Algorithm, algorithm, "algorithm"),
            lead=None if lead is None else arguments.lead(lead),
            force=arguments.flag(force, "force"),
        )
        try:
            async with self._session.changing(actor, connection, tenant=request.tenant_id) as operator:
                rotated = await operations.rotate_secret(operator, request)
        except InDoubt as error:
            if rotation_id is not None:
                raise
            again = f"call it again with rotation_id={request.rotation_id!r}: that returns the rotation if it was made"
            raise InDoubt(f"{error}; {again}", field="rotation_id") from None
        is_revocation = rotated.previous_secret_ref is None or force
        older_claims = (
            await self._older_claims(request, rotated.generation, connection, wait=wait) if is_revocation else 0
        )
        if connection is not None and rotated.before is None:  # a rollback would take back the record of it
            rotated = replace(rotated, secret=None)
        return _rotation(request, rotated, older_claims)

    async def roll_back(
        self,
        *,
        tenant_id: str,
        endpoint_id: str,
        actor: str,
        overlap_seconds: int | None = None,
        expect_generation: int | None = None,
        wait: bool | None = True,
        connection: Connection | None = None,
    ) -> SigningSecrets:
        """Make the previous secret current again while its overlap runs; then both sign for another overlap.

        Raises `Conflict` unless an overlap is running.
        """
        owner, endpoint = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        seconds = self._overlap(overlap_seconds)
        expected = arguments.optional_whole(expect_generation, "expect_generation")
        async with self._session.changing(actor, connection, tenant=owner) as operator:
            after = await operations.roll_back(
                operator,
                tenant=owner,
                endpoint_id=endpoint,
                overlap_seconds=seconds,
                expect_generation=expected,
            )
        return await self._moved(after, connection, wait=wait)

    async def end_overlap(
        self,
        *,
        tenant_id: str,
        endpoint_id: str,
        actor: str,
        expect_generation: int | None = None,
        wait: bool | None = True,
        connection: Connection | None = None,
    ) -> SigningSecrets:
        """Retire the previous secret now. Raises `Conflict` if there is none."""
        owner, endpoint = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        expected = arguments.optional_whole(expect_generation, "expect_generation")
        async with self._session.changing(actor, connection, tenant=owner) as operator:
            after = await operations.end_overlap(
                operator, tenant=owner, endpoint_id=endpoint, expect_generation=expected
            )
        return await self._moved(after, connection, wait=wait)

    async def wait_until_complete(self, *, tenant_id: str, endpoint_id: str, generation: int) -> None:
        """Return once no request that was claimed before this generation can begin any more; it takes a lease at most.

        `generation` is that of a committed revocation. Raises `Conflict` if the endpoint has not reached it. An
        endpoint that is deleted while this waits is waited for as well; one that was deleted before is `NotFound`.
        """
        owner, endpoint = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        revoked = arguments.generation(generation)
        async with self._session.reading() as connection:
            state = await reports.rotation_state(connection, owner, endpoint)
        overlap.require_reached(state["generation"], revoked)
        await self._wait(owner, endpoint, revoked)

    async def older_claims(
        self,
        *,
        tenant_id: str,
        endpoint_id: str,
        generation: int,
        wait: bool = False,
        report: Callable[[int], None] | None = None,
    ) -> int:
        """Return how many requests that were claimed before this generation may still begin.

        With `wait` it returns once there are none; `report` is called with the number after each look. The endpoint
        may be deleted meanwhile, and it need not have reached the generation.
        """
        owner, endpoint = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        revoked = arguments.generation(generation)
        if wait:
            await self._wait(owner, endpoint, revoked, report)
        with self._session.failures():
            return await held.older_claims(await self._session.source(), owner, endpoint, revoked)

    async def status(self, *, tenant_id: str, endpoint_id: str, connection: Connection | None = None) -> RotationStatus:
        """Return which secrets sign for the endpoint, the rest of its overlap, its schedule, and its last rotations."""
        owner, endpoint = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        async with self._session.reading(connection) as db:
            state = await reports.rotation_state(db, owner, endpoint)
            return _status(state, await canary_results.last(db, owner, endpoint, state["generation"]))

    async def check_switch(
        self, *, tenant_id: str, endpoint_id: str, actor: str, end_overlap: bool = False
    ) -> RotationStatus:
        """Probe the receiver, and return the status with its answer.

        With `end_overlap`, end the overlap if the receiver has switched. It waits for no older claim. Raises as `probe`
        does, and `Conflict` if an overlap is to be ended and none is running.
        """
        owner, endpoint = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        ending = arguments.flag(end_overlap, "end_overlap")
        async with self._session.pinging(actor, owner) as (operator, how):
            state = await reports.rotation_state(operator.connection, owner, endpoint)
            if ending and not state["overlapping"]:
                raise Conflict(
                    "no overlap is running, so none can be ended",
                    advice="`hookseal endpoint rotation-status --probe` asks the receiver",
                    joint="; ",
                    field="endpoint_id",
                )
            canary = await ask_whether_switched(
                operator, how, tenant=owner, endpoint_id=endpoint, expect_generation=state["generation"]
            )
            has_ended = ending and await end_if_switched(operator, canary)
            after = await reports.rotation_state(operator.connection, owner, endpoint)
        return _status(after, canary, overlap_ended=has_ended)

    async def probe(
        self, *, tenant_id: str, endpoint_id: str, actor: str, expect_generation: int | None = None
    ) -> Canary:
        """Ask the receiver whether it has switched to the current secret, by one or two signed pings.

        If it has, `end_overlap` with the `generation` of the answer ends the overlap. It joins no transaction, because
        it waits for the receiver. Raises `Conflict` for another generation than the expected one, and `Refused` if the
        endpoint is disabled.
        """
        owner, endpoint = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        expected = arguments.optional_whole(expect_generation, "expect_generation")
        async with self._session.pinging(actor, owner) as (operator, how):
            canary = await ask_whether_switched(
                operator, how, tenant=owner, endpoint_id=endpoint, expect_generation=expected
            )
        return of_row(Canary, asdict(canary))

    async def versions(
        self, *, tenant_id: str, endpoint_id: str, connection: Connection | None = None
    ) -> tuple[SecretVersion, ...]:
        """Return every version of the secret, oldest first, without its material: its use, and if it is needed."""
        owner, endpoint = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        async with self._session.reading(connection) as db:
            versions = await reports.versions(db, owner, endpoint)
        return tuple(of_row(SecretVersion, each) for each in versions)

    async def public_keys(
        self, *, tenant_id: str, endpoint_id: str, connection: Connection | None = None
    ) -> PublicKeys:
        """Return the public keys with which the receiver verifies. Raises `Refused` if the endpoint has none."""
        owner, endpoint = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        async with self._session.changing(_NOBODY, connection, tenant=owner) as operator:
            return of_row(PublicKeys, await reports.public_keys(operator, owner, endpoint))

    async def purge(
        self,
        *,
        tenant_id: str,
        actor: str,
        older_than_days: int | None = None,
        dry_run: bool = False,
        report: Callable[[str, int | HooksealError], None] | None = None,
    ) -> Purge:
        """Destroy the material of the tenant's versions that were retired so many days ago.

        The default is `SECRETS_RETIRED_RETENTION_DAYS`. It destroys no version that still signs or that a request in
        flight may need. A tenant whose audit log is broken or locked, or that has a row which cannot be read, is then
        in `failed`, and does not stop the others. `report` is called with a tenant, and how many of its versions are
        destroyed so far, or why no more are. It joins no transaction, because each batch is one. Workers do it by
        themselves.
        """
        owner, is_dry = self._session.tenant_of_one(tenant_id), arguments.flag(dry_run, "dry_run")
        days = self._retention_days if older_than_days is None else arguments.days(older_than_days)
        notify = report or (lambda _tenant, _destroyed: None)
        versions, failed = 0, list[FailedPurge]()
        async with self._session.changing(actor) as operator:
            tenants = await retention.tenants(operator.connection, days=days) if owner is None else [owner]
            for tenant in tenants:
                destroyed, batch = 0, BATCH
                try:
                    if is_dry:
                        versions += await secret_operations.purgeable(operator, tenant, days=days)
                        continue
                    while batch == BATCH:
                        batch = await secret_operations.purge_batch(operator, tenant, days=days)
                        destroyed, versions = destroyed + batch, versions + batch
                        if batch:
                            notify(tenant, destroyed)
                except HooksealError as error:
                    if isinstance(error, Unavailable) and not is_locked(error):
                        raise
                    failed.append(FailedPurge(tenant_id=tenant, code=error.code, message=with_advice(error)))
                    notify(tenant, error)
        return Purge(tenant_id=owner, older_than_days=days, dry_run=is_dry, versions=versions, failed=tuple(failed))

    async def move(
        self,
        *,
        to: Provider | ProviderName,
        actor: str,
        tenant_id: str | None = None,
        dry_run: bool = False,
        report: Callable[[str], None] | None = None,
        on_progress: Callable[[int, int | None], None] | None = None,
    ) -> MovedSecrets:
        """Move the secrets of all endpoints, or of those of a tenant, to the provider `to`: db, aws, gcp or openbao.

        Each endpoint is moved in one transaction; its overlap, schemes and schedule stay, and the versions that it
        leaves are retired. If no tenant is named and none failed, the installation's own secrets follow. Failures,
        `dry_run`, `report`, `on_progress` and connections are as for `Endpoints.import_rows`; a repeat continues.
        Raises `Refused` if this process does not use the provider, and `Conflict` while a live worker does not read it.
        """
        provider, owner = arguments.provider(to, "to"), arguments.optional(arguments.customer_id, tenant_id)
        is_dry = arguments.flag(dry_run, "dry_run")
        async with self._session.changing_many(actor) as (operator, further):
            moved = await move_secrets.move_all(
                operator,
                further,
                provider,
                owner,
                is_dry=is_dry,
                report=report or (lambda _line: None),
                on_progress=on_progress,
            )
        return MovedSecrets(
            to=cast("ProviderName", provider.value),  # dev is none
            dry_run=is_dry,
            moved=moved.tally.counts[Movement.MOVED],
            present=moved.tally.counts[Movement.PRESENT],
            gone=moved.tally.counts[Movement.GONE],
            own=moved.own,
            failures=moved.tally.failures,
            failed=_failed(moved.tally),
        )

    async def migrate(
        self,
        *,
        actor: str,
        scheme: Scheme | SchemeName = "x-webhook",
        dry_run: bool = False,
        finalize: bool = False,
        report: Callable[[str], None] | None = None,
        on_progress: Callable[[int, int | None], None] | None = None,
    ) -> MigratedSecrets:
        """Seal the plaintext secrets of an older system, byte for byte, each endpoint in one transaction.

        A migrated endpoint signs in `scheme`. The plaintext stays in its column until a call with `finalize`, which
        migrates nothing: if every secret is sealed, it empties the column, and PostgreSQL refuses plaintext afterwards.
        Failures, `dry_run`, `report`, `on_progress` and connections are as for `Endpoints.import_rows`; a repeat
        continues. Raises `SecretDenied` if the database role may not read plaintext, and `Refused` if `finalize` finds
        an endpoint that is not migrated.
        """
        how = arguments.choice(Scheme, scheme, "scheme")
        is_dry, is_final = arguments.flag(dry_run, "dry_run"), arguments.flag(finalize, "finalize")
        async with self._session.changing_many(actor) as (operator, further):
            found = await migrate_secrets.migrate_all(
                operator,
                further,
                how,
                is_dry=is_dry,
                finalize=is_final,
                report=report or (lambda _line: None),
                on_progress=on_progress,
            )
        return MigratedSecrets(
            dry_run=is_dry,
            finalize=is_final,
            scheme=how.value,
            column=found.column.value,
            migrated=found.tally.counts[Migration.MIGRATED],
            present=found.tally.counts[Migration.PRESENT],
            also_standard=found.also_standard,
            emptied=found.emptied,
            failures=found.tally.failures,
            failed=_failed(found.tally),
            finalized=found.is_final,
        )

    async def clear_caches(self, *, actor: str, connection: Connection | None = None) -> ClearedCaches:
        """Make every worker discard its cached secrets at its next claim, and try held deliveries again.

        The oldest delivery of every held endpoint is tried now; the others are released once it is signed.
        """
        async with self._session.changing(actor, connection) as operator:
            cleared = await secret_operations.clear_caches(operator)
        return ClearedCaches(epoch=cleared.epoch, woken=cleared.woken)

    async def reveal(self, *, tenant_id: str, endpoint_id: str, actor: str) -> RevealedSecret:
        """Return the current secret of the endpoint, or its public key; the audit log records it.

        It joins no transaction, because a rollback would take the record back.
        """
        owner, endpoint = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        async with self._session.changing(actor, tenant=owner) as operator:
            revealed = await secret_operations.reveal(operator, owner, endpoint)
        return RevealedSecret(
            tenant_id=owner,
            endpoint_id=endpoint,
            secret_ref=revealed.pointer.secret_ref,
            scheme=revealed.scheme.value,
            algorithm=revealed.algorithm.value,
            generation=revealed.pointer.generation,
            secret=revealed.secret,
            public_key=revealed.public_key,
        )

    @property
    def _retention_days(self) -> int:
        return self._session.settings.secrets.retired_retention_days

    def _overlap(self, seconds: int | None) -> int:
        if seconds is not None:
            return arguments.overlap_seconds(seconds)
        settings = self._session.settings.loaded_secrets
        return 0 if settings is None else settings.rotation_overlap_seconds  # without keys the change is refused

    async def _moved(self, after: Pointer, connection: Connection | None, *, wait: bool | None) -> SigningSecrets:
        is_revocation = after.previous_secret_ref is None
        older_claims = await self._older_claims(after, after.generation, connection, wait=wait) if is_revocation else 0
        return SigningSecrets(
            tenant_id=after.tenant_id,
            endpoint_id=after.endpoint_id,
            secret_ref=after.secret_ref or "",
            previous_secret_ref=after.previous_secret_ref,
            previous_secret_expires_at=after.previous_secret_expires_at,
            generation=after.generation,
            older_claims=older_claims,
        )

    async def _older_claims(
        self, of: OfEndpoint, generation: int, connection: Connection | None, *, wait: bool | None
    ) -> int | None:
        """Return how many older claims are left, None if that is not known. The change is made: nothing is raised."""
        if connection is not None or wait is None:
            return None
        try:
            if wait:
                await self._wait(of.tenant_id, of.endpoint_id, generation)
                return 0
            with self._session.failures():
                return await held.older_claims(await self._session.source(), of.tenant_id, of.endpoint_id, generation)
        except HooksealError:
            return None

    async def _wait(
        self, owner: TenantId, endpoint: EndpointId, generation: int, report: Callable[[int], None] | None = None
    ) -> None:
        """Wait for older claims. It needs no row: the endpoint may be deleted meanwhile, with requests in flight."""
        with self._session.failures():
            await operations.wait_until_complete(
                await self._session.source(),
                tenant=owner,
                endpoint_id=endpoint,
                generation=generation,
                clock=SystemClock(),
                report=report or (lambda _claims: None),
            )


def _failed(tally: Tally) -> tuple[FailedEndpoint, ...]:
    return tuple(of_row(FailedEndpoint, each) for each in tally.failed)


def _status(state: dict[str, Any], canary: Evidence | None, *, overlap_ended: bool = False) -> RotationStatus:
    return of_row(
        RotationStatus,
        state,
        rotations=tuple(of_row(PastRotation, each) for each in state["rotations"]),
        schedule=None if state["schedule"] is None else of_row(RotationSchedule, state["schedule"]),
        canary=None if canary is None else of_row(Canary, asdict(canary)),
        overlap_ended=overlap_ended,
    )


def _rotation(request: RotationRequest, rotated: RotationResult, older_claims: int | None) -> Rotation:
    return Rotation(
        tenant_id=request.tenant_id,
        endpoint_id=request.endpoint_id,
        secret_ref=rotated.secret_ref,
        previous_secret_ref=rotated.previous_secret_ref,
        previous_secret_expires_at=rotated.previous_secret_expires_at,
        generation=rotated.generation,
        older_claims=older_claims,
        rotation_id=rotated.rotation_id,
        repeated=rotated.before is None,
        secret=rotated.secret,
        public_key=rotated.public_key,
    )
