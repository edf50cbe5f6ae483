"""The secrets of an Admin: what signs the requests to an endpoint."""

import os
from dataclasses import replace
from typing import Any, Final

from hookseal.admin import arguments
from hookseal.admin.arguments import Text
from hookseal.admin.results import PastRotation, RevealedSecret, Rotation, RotationStatus, SigningSecrets, of_row
from hookseal.admin.session import Session
from hookseal.dispatcher import held_deliveries
from hookseal.ground.clock import SystemClock
from hookseal.ground.errors import HooksealError, InDoubt
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations import secret as secret_operations
from hookseal.operations.endpoint import rotation as operations
from hookseal.operations.operator import OfEndpoint
from hookseal.postgres.handles import Connection
from hookseal.secrets.endpoint import rotation
from hookseal.secrets.endpoint.rotation import RotationRequest, RotationResult
from hookseal.secrets.material import SecretMaterial
from hookseal.secrets.signing.signer import generate_signing_secret

_ROTATIONS: Final = 10


class Secrets:
    """Rotates, revokes and reveals the signing secret of an endpoint.

    Actor, connection and errors are as for `Endpoints`; a row or record that was altered raises `CannotSign`.

    A revocation (an overlap of 0, `end_overlap`, `force`) is complete once no request that was claimed before it can
    begin any more. Without a connection these methods return then; `older_claims` is 0, or None if PostgreSQL stopped
    answering meanwhile. With a connection they return at once with None: await `wait_until_complete` after the commit.
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
        scheme: str | None = None,
        algorithm: str | None = None,
        lead: str | None = None,
        secret: Text | SecretMaterial | None = None,
        force: bool = False,
        wait: bool = True,
        connection: Connection | None = None,
    ) -> Rotation:
        """Give the endpoint a new signing secret; during the overlap, 0 to 604,800 s, both it and the old one sign.

        0 revokes every older secret. The default is `SECRETS_ROTATION_OVERLAP_SECONDS`. Without a `secret` a new one is
        made. Repeating a `rotation_id` changes nothing and returns the first result, without the secret if it joins a
        transaction. `force` rotates even while an
        overlap runs, and retires its previous secret. Raises `Conflict` for another generation than the expected one,
        a running overlap, and a rotation id that was used with other arguments. `InDoubt` names the rotation id with
        which to call it again.
        """
        request = RotationRequest(
            tenant_id=arguments.tenant_id(tenant_id),
            endpoint_id=arguments.endpoint_id(endpoint_id),
            overlap_seconds=self._overlap(overlap_seconds),
            secret=generate_signing_secret() if secret is None else arguments.secret(secret),
            given=secret is not None,
            rotation_id=os.urandom(16).hex() if rotation_id is None else arguments.rotation_id(rotation_id),
            expect_generation=expect_generation,
            scheme=None if scheme is None else arguments.choice(Scheme, scheme, "scheme"),
            algorithm=None if algorithm is None else arguments.choice(Algorithm, algorithm, "algorithm"),
            lead=None if lead is None else arguments.lead(lead),
            force=force,
        )
        try:
            async with self._session.changing(actor, connection) as operator:
                rotated = await operations.rotate_secret(operator, request)
        except InDoubt as error:
            again = f"call it again with rotation_id={request.rotation_id!r}: that returns the rotation if it was made"
            raise InDoubt(f"{error}; {again}", field="rotation_id") from None
        is_revocation = rotated.previous_secret_ref is None or force
        left = await self._left(request, rotated.generation, connection, wait=wait) if is_revocation else 0
        if connection is not None and rotated.before is None:  # a rollback would take back the record of it
            rotated = replace(rotated, secret=None)
        return _rotation(request, rotated, left)

    async def roll_back(
        self,
        *,
        tenant_id: str,
        endpoint_id: str,
        actor: str,
        overlap_seconds: int | None = None,
        expect_generation: int | None = None,
        wait: bool = True,
        connection: Connection | None = None,
    ) -> SigningSecrets:
        """Make the previous secret current again while its overlap runs; then both sign for another overlap.

        Raises `Conflict` unless an overlap is running.
        """
        owner, wanted = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        seconds = self._overlap(overlap_seconds)
        async with self._session.changing(actor, connection) as operator:
            after = await operations.roll_back(
                operator,
                tenant=owner,
                endpoint_id=wanted,
                overlap_seconds=seconds,
                expect_generation=expect_generation,
            )
        return await self._moved(after, connection, wait=wait)

    async def end_overlap(
        self,
        *,
        tenant_id: str,
        endpoint_id: str,
        actor: str,
        expect_generation: int | None = None,
        wait: bool = True,
        connection: Connection | None = None,
    ) -> SigningSecrets:
        """Retire the previous secret now. Raises `Conflict` if there is none."""
        owner, wanted = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        async with self._session.changing(actor, connection) as operator:
            after = await operations.end_overlap(
                operator, tenant=owner, endpoint_id=wanted, expect_generation=expect_generation
            )
        return await self._moved(after, connection, wait=wait)

    async def wait_until_complete(self, *, tenant_id: str, endpoint_id: str, generation: int) -> None:
        """Return once no request that was claimed before this generation can begin any more; it takes a lease at most.

        `generation` is that of a committed revocation.
        """
        owner, wanted = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        with self._session.failures():
            await operations.wait_until_complete(
                self._session.pool,
                tenant=owner,
                endpoint_id=wanted,
                generation=generation,
                clock=SystemClock(),
                report=lambda _: None,
            )

    async def status(self, *, tenant_id: str, endpoint_id: str, connection: Connection | None = None) -> RotationStatus:
        """Return which secrets sign for the endpoint, the rest of its overlap, and its last ten rotations."""
        owner, wanted = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        async with self._session.reading(connection) as chosen:
            state = await rotation.status(chosen, owner, wanted, limit=_ROTATIONS)
            older = await held_deliveries.older_claims(chosen, owner, wanted, state["generation"])
        made = tuple(of_row(PastRotation, each) for each in state["rotations"])
        return of_row(RotationStatus, state, older_claims=older, rotations=made)

    async def reveal(self, *, tenant_id: str, endpoint_id: str, actor: str) -> RevealedSecret:
        """Return the current secret of the endpoint, or its public key; the audit log records it.

        It joins no transaction, because a rollback would take the record back.
        """
        owner, wanted = arguments.tenant_id(tenant_id), arguments.endpoint_id(endpoint_id)
        async with self._session.changing(actor) as operator:
            found = await secret_operations.reveal(operator, owner, wanted)
        return RevealedSecret(
            tenant_id=owner,
            endpoint_id=wanted,
            secret_ref=found.pointer.secret_ref,
            scheme=found.pointer.scheme,
            algorithm=found.pointer.algorithm,
            generation=found.pointer.generation,
            secret=found.secret,
            public_key=found.public_key,
        )

    def _overlap(self, seconds: int | None) -> int:
        if seconds is not None:
            return arguments.overlap_seconds(seconds)
        settings = self._session.settings.loaded_secrets
        return 0 if settings is None else settings.rotation_overlap_seconds  # without keys the change is refused

    async def _moved(self, after: Pointer, connection: Connection | None, *, wait: bool) -> SigningSecrets:
        is_revocation = after.previous_secret_ref is None
        left = await self._left(after, after.generation, connection, wait=wait) if is_revocation else 0
        return SigningSecrets(
            tenant_id=after.tenant_id,
            endpoint_id=after.endpoint_id,
            secret_ref=after.secret_ref or "",
            previous_secret_ref=after.previous_secret_ref,
            previous_secret_expires_at=after.previous_secret_expires_at,
            generation=after.generation,
            older_claims=left,
        )

    async def _left(self, of: OfEndpoint, generation: int, connection: Connection | None, *, wait: bool) -> int | None:
        """Return how many older claims are left, None if that is not known. The change is made: nothing is raised."""
        if connection is not None:
            return None
        names: dict[str, Any] = {"tenant_id": of.tenant_id, "endpoint_id": of.endpoint_id, "generation": generation}
        try:
            if wait:
                await self.wait_until_complete(**names)
                return 0
            with self._session.failures():
                return await held_deliveries.older_claims(self._session.pool, of.tenant_id, of.endpoint_id, generation)
        except HooksealError:
            return None


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
