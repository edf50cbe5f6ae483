"""The portal of an Admin: lets a customer of the product into its pages, or into the HTTP API, for a while."""

import os
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from hookseal.admin import arguments
from hookseal.admin.results.base import of_row
from hookseal.admin.results.tokens import ExpiredPortals, PortalAccess, PortalSession
from hookseal.admin.session import Session
from hookseal.config.settings import Environment
from hookseal.dispatcher.store import tokens
from hookseal.dispatcher.store.tokens import MOST_PORTAL_SECONDS, PORTAL_SCOPES, PORTAL_SECONDS, NewPortal, Scope
from hookseal.ground.batches import Batch, Batches, resolve
from hookseal.ground.ids import token_actor
from hookseal.ground.literals import ScopeName
from hookseal.operations.tokens import add_portal, exchange_code, expire_portals
from hookseal.postgres.pool import Connection
from hookseal.secrets.core.material import SecretMaterial


class Portal:
    """Makes and ends tokens of portals. Actor, connection and errors are as for `Endpoints`.

    They are tokens of one tenant: `admin.tokens` finds, lists and revokes them.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sought: Batches[bytes, dict[str, Any] | None] = Batches(self._find)

    async def add(
        self,
        *,
        tenant_id: str,
        actor: str,
        scopes: Sequence[Scope | ScopeName] = PORTAL_SCOPES,
        user: str | None = None,
        session_id: str | None = None,
        refresh_url: str | None = None,
        expiry_seconds: int = PORTAL_SECONDS,
        not_after: datetime | None = None,
        connection: Connection | None = None,
    ) -> PortalAccess:
        """Make a token of a tenant that ends after `expiry_seconds` (60 to 604,800), and a code for a link.

        By default it may read, manage and operate, and not reveal. For `*`, which is every tenant, it lets an operator
        in, with the scopes read and operate at most: name them. It ends at `not_after` at the latest. The audit log
        shows what is done with it as `token:NAME/USER`. Both texts are in the result, and stored nowhere. The code can
        be used once, within 10 minutes. `refresh_url`, https, is where the product lets the user in again.
        """
        owner = arguments.customer_or_every(tenant_id)
        text, code = tokens.drawn(os.urandom), tokens.drawn_code(os.urandom)
        is_production = self._session.settings.environment is Environment.PRODUCTION
        new = NewPortal(
            tenant_id=owner,
            scopes=arguments.portal_scopes(scopes, owner),
            seconds=arguments.seconds(
                expiry_seconds,
                "expiry_seconds",
                least=60,
                most=MOST_PORTAL_SECONDS,
                advice="--expires 1m to --expires 7d",
            ),
            not_after=arguments.moment(not_after, "not_after"),
            user=arguments.optional(arguments.user, user),
            session_id=arguments.optional(arguments.session_id, session_id),
            refresh_url=None
            if refresh_url is None
            else arguments.refresh_url(refresh_url, allow_http=not is_production),
            digest=tokens.digest(text),
            code_digest=tokens.digest(code),
        )
        async with self._session.changing(actor, connection, tenant=owner) as operator:
            added = await add_portal(operator, new)
        pages = self._session.settings.api.portal_url
        link = None if pages is None else SecretMaterial(f"{pages}/login?code=".encode() + code)
        return of_row(PortalAccess, added, url=link, token=SecretMaterial(text), code=SecretMaterial(code))

    async def exchange(self, *, code: str) -> PortalSession:
        """Spend a code, and make the token of a session, which may do what that of the code may, and ends with it.

        The audit log has it as done by the token of the code. Raises `NotFound` if the code was used or has expired,
        and if its token has ended; of two at once one succeeds.
        """
        given, text = arguments.token_text(code, "code"), tokens.drawn(os.urandom)
        access = await self._of(given)
        if access is None:
            raise tokens.unusable_code()
        actor = token_actor(access["name"], access["user"])
        async with self._session.changing(actor, tenant=access["tenant_id"]) as operator:
            session = await exchange_code(operator, code=tokens.digest(given), token=tokens.digest(text))
        return of_row(PortalSession, session, token=SecretMaterial(text))

    async def refresh_url(self, *, code: str) -> str | None:
        """Return where the product lets in again the user of a code, also after the code was used or has expired.

        The token of a session has the address as well, until 7 days after its end. None if there is none, or if this
        is neither a code nor a token of a portal. It needs no master key, and no actor.
        """
        found = await self._of(arguments.token_text(code, "code"))
        return None if found is None else found["refresh_url"]

    async def expire_all(
        self,
        *,
        tenant_id: str,
        actor: str,
        session_ids: Sequence[str] = (),
        after_seconds: int = 0,
        connection: Connection | None = None,
    ) -> ExpiredPortals:
        """End the tokens of the tenant's portals, now or `after_seconds` (up to 604,800), and the codes with them.

        Those of `*` are the ones that let an operator in; the tenants keep theirs. With `session_ids` (up to 250) only
        those of these sessions end. What ends earlier stays as it is.
        """
        owner = arguments.customer_or_every(tenant_id)
        sessions = arguments.session_ids(session_ids)
        seconds = arguments.seconds(after_seconds, "after_seconds", least=0, most=MOST_PORTAL_SECONDS)
        async with self._session.changing(actor, connection, tenant=owner) as operator:
            ended = await expire_portals(operator, owner, seconds=seconds, session_ids=sessions)
        return ExpiredPortals(tenant_id=owner, tokens=ended)

    async def _of(self, text: bytes) -> dict[str, Any] | None:
        """Return the token of a portal with this text, or whose code it is; None if there is none.

        Anybody may ask, so it costs little: texts that come while a look-up runs share the next one.
        """
        return await self._sought.add(text) if tokens.may_be_one(text) else None

    async def _find(self, batch: Batch[bytes, dict[str, Any] | None]) -> None:
        async with self._session.reading() as db:
            found = await tokens.of_portals(db, [text for text, _ in batch])
        found = await self._session.genuine(found)
        for text, future in batch:
            resolve(future, found.get(text))
