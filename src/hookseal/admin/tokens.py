"""The tokens of an Admin: who may call the HTTP API, for which tenant, and for what."""

import os
from collections.abc import Sequence
from datetime import datetime

from hookseal.admin import arguments
from hookseal.admin.results.base import Page, of_row
from hookseal.admin.results.tokens import AddedToken, Token
from hookseal.admin.session import Session
from hookseal.dispatcher.store import tokens
from hookseal.dispatcher.store.tokens import DEFAULT_SCOPES, NewToken, Scope
from hookseal.ground.batches import Batch, Batches, resolve
from hookseal.ground.literals import ScopeName
from hookseal.operations.tokens import add_token, revoke_token
from hookseal.postgres.pool import Connection
from hookseal.secrets.core.material import SecretMaterial


class Tokens:
    """Adds, lists, finds and revokes tokens. Actor, connection and errors are as for `Endpoints`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sought: Batches[bytes, Token | None] = Batches(self._find)

    async def add(
        self,
        *,
        name: str,
        tenant_id: str,
        actor: str,
        scopes: Sequence[Scope | ScopeName] = DEFAULT_SCOPES,
        expires_at: datetime | None = None,
        connection: Connection | None = None,
    ) -> AddedToken:
        """Make a token for one tenant, or for every one (`*`). Its text is in the result, and stored nowhere.

        The audit log shows what is done with it as `token:NAME`. Raises `Conflict` if a token of this name is in use;
        the name of one that was revoked or has expired is free.
        """
        text = tokens.drawn(os.urandom)
        new = NewToken(
            name=arguments.token_name(name),
            tenant_id=arguments.customer_or_every(tenant_id),
            scopes=arguments.scopes(scopes),
            expires_at=arguments.expiry(expires_at),
            digest=tokens.digest(text),
        )
        async with self._session.changing(actor, connection) as operator:
            added = await add_token(operator, new)
        return of_row(AddedToken, added, token=SecretMaterial(text))

    async def list(
        self,
        *,
        tenant_id: str,
        portal: bool = False,
        limit: int = 50,
        cursor: str | None = None,
        connection: Connection | None = None,
    ) -> Page[Token]:
        """Return up to `limit` (1 to 1000) tokens of the tenant, also those that ended, the newest first.

        `*` is every tenant, and also the tokens that are for every tenant. With `portal` they are those of portals, of
        which each visit makes one, and else all others. A token is deleted 30 days after its end, that of a portal 7.
        """
        owner, of_portals = arguments.tenant_or_every(tenant_id), arguments.flag(portal, "portal")
        arguments.page(limit, cursor)
        async with self._session.reading(connection) as db:
            items, following = await tokens.page(db, owner, limit=limit, cursor=cursor, portal=of_portals)
        return Page(items=tuple(of_row(Token, item) for item in items), next_cursor=following)

    async def get(self, *, token_id: str, connection: Connection | None = None) -> Token:
        """Return the token with this id, also one that has ended. Raises `NotFound`."""
        wanted = arguments.token_id(token_id)
        async with self._session.reading(connection) as db:
            return of_row(Token, await tokens.get(db, wanted))

    async def revoke(self, *, name: str, actor: str, connection: Connection | None = None) -> Token:
        """Revoke a token, also that of a portal: `find` does not find it any more.

        A session that was made of its code ends with it. Raises `NotFound` if no token of this name is in use.
        """
        wanted = arguments.token_name(name)
        async with self._session.changing(actor, connection) as operator:
            return of_row(Token, await revoke_token(operator, wanted))

    async def find(self, token: str) -> Token | None:
        """Return the token with this text if it may be used now, else None. It needs no master key, and no actor.

        It must be signed under the integrity key, and be no older copy: what only SQL wrote is not found.
        It is looked up each time; calls that come while a look-up runs share the next one. Every wrong text that has
        the form of a token takes as long as another one, and any other text is none without a look-up. The first use of
        a day is recorded as `last_used_on`.
        """
        text = arguments.token_text(token)
        return await self._sought.add(text) if tokens.may_be_one(text) else None

    async def _find(self, batch: Batch[bytes, Token | None]) -> None:
        async with self._session.reading() as db:
            rows = await tokens.find(db, [text for text, _ in batch])
        rows = await self._session.genuine(rows)
        if not all(row["was_used_today"] for row in rows.values()):
            async with self._session.reading() as db:
                await tokens.use(db, rows.values())
        found = {text: of_row(Token, row) for text, row in rows.items()}
        for text, future in batch:
            resolve(future, found.get(text))
