"""Tokens of the HTTP API: what a token may do, its text, and the rows that keep its digest.

Those of a portal let a customer in for a while, and may have a code, which makes one token of a session.
"""

import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from hookseal.errors import Conflict, Defect, Malformed, NotFound
from hookseal.ground.ids import TenantId, before, paged, require_limit
from hookseal.postgres.pool import Connection, Executor
from hookseal.postgres.statements import Statements

_SQL: Final = Statements("hookseal.dispatcher.store", "tokens.sql")
_PREFIX: Final = b"whst_"  # ground/log.py masks what begins with it
_CODE_PREFIX: Final = b"whsc_"  # the same
_BYTES: Final = 32
_ONE: Final = re.compile(rb"wh(?:st|sc)_[A-Za-z0-9_-]{43}")  # 32 bytes in base64


class Scope(StrEnum):
    """What a token may do. `reveal` and `operate` are given only to a token for which they are named."""

    READ = "read"
    PUBLISH = "publish"
    MANAGE = "manage"
    OPERATE = "operate"
    REVEAL = "reveal"


DEFAULT_SCOPES: Final = (Scope.READ, Scope.PUBLISH, Scope.MANAGE)
PORTAL_SCOPES: Final = (Scope.READ, Scope.MANAGE, Scope.OPERATE)  # by default
PORTAL_SECONDS: Final = 3_600  # by default
MOST_PORTAL_SECONDS: Final = 604_800


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token to add, by its digest. `tenant_id` may be `*`, every tenant."""

    name: str
    tenant_id: TenantId
    scopes: tuple[Scope, ...]
    expires_at: datetime | None
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPortal:
    """A token of a portal to add, and its code, both by their digests.

    It ends after `seconds`, and not after the time `not_after`. The audit log names `user`; the tokens of one
    `session_id` can be ended together; at `refresh_url` the product lets the user in again.
    """

    tenant_id: TenantId
    scopes: tuple[Scope, ...]
    seconds: int
    not_after: datetime | None
    user: str | None
    session_id: str | None
    refresh_url: str | None
    digest: bytes = field(repr=False)
    code_digest: bytes = field(repr=False)


def drawn(random: Callable[[int], bytes]) -> bytes:
    """Return the text of a new token, with 256 random bits."""
    return _PREFIX + urlsafe_b64encode(random(_BYTES)).rstrip(b"=")


def drawn_code(random: Callable[[int], bytes]) -> bytes:
    """Return the text of a new code, with 256 random bits."""
    return _CODE_PREFIX + urlsafe_b64encode(random(_BYTES)).rstrip(b"=")


def may_be_one(text: bytes) -> bool:
    """Return whether the text has the form of a token or a code. One that has not needs no look-up."""
    return _ONE.fullmatch(text) is not None


def digest(text: bytes) -> bytes:
    """Return the SHA-256 of a token or a code, by which it is found. Nobody can guess one: no slow hash is needed."""
    return hashlib.sha256(text).digest()


def scopes(names: Sequence[str]) -> tuple[Scope, ...]:
    """Return the scopes, each once, in the order of `Scope`. Raises `Malformed` for another name, and for none."""
    if not names or not set(names) <= set(Scope):
        raise Malformed(f"scopes must be one or more of {', '.join(Scope)}", field="scopes")
    return tuple(scope for scope in Scope if scope in names)


async def add(connection: Connection, token: NewToken) -> dict[str, Any]:
    """Store the token, in the caller's transaction. The name of a token that has expired is free.

    Raises `Conflict` if a token of this name is in use, `Malformed` if it would have expired already, `Unavailable`.
    """
    await _SQL.execute(connection, "free_name", token.name)
    row = await _SQL.row(
        connection,
        "add",
        token.tenant_id,
        token.name,
        token.digest,
        [scope.value for scope in token.scopes],
        token.expires_at,
    )
    if row is None:
        raise Conflict("a token of this name is in use: revoke it first, or choose another name", field="name")
    if row["state"] != "active":
        raise Malformed("expires_at must be a time in the future", field="expires_at")
    return dict(row)


async def revoke(connection: Connection, name: str) -> tuple[dict[str, Any], int]:
    """Revoke the token, in the caller's transaction: no search that begins after the commit finds it.

    Return it, and how many sessions ended with it: those that were made of its code. Raises `NotFound` if no token of
    this name is in use, `Unavailable`.
    """
    row = await _SQL.row(connection, "revoke", name)
    if row is None:
        raise NotFound("no token of this name is in use", field="name")
    # A statement of its own: the first one may have waited for a session that was being made, which it cannot see.
    sessions = await _SQL.execute(connection, "revoke_sessions", row["tenant_id"], row["token_id"])
    return dict(row), sessions


async def revoke_all(connection: Connection, tenant: TenantId) -> int:
    """Revoke every token of the tenant, in the caller's transaction; return how many. Raises `Unavailable`."""
    return await _twice(connection, "revoke_all", tenant)


async def add_portal(connection: Connection, portal: NewPortal) -> dict[str, Any]:
    """Store a token of a portal with its code, in the caller's transaction. Its name is new.

    Raises `Malformed` if it would have ended already, `Unavailable`.
    """
    row = await _SQL.row(
        connection,
        "add_portal",
        portal.tenant_id,
        portal.digest,
        [scope.value for scope in portal.scopes],
        portal.seconds,
        portal.not_after,
        portal.user,
        portal.session_id,
        portal.refresh_url,
        portal.code_digest,
    )
    if row is None:
        raise Defect("add_portal returns one row")
    if row["state"] != "active":
        raise Malformed("not_after must be a time in the future", field="not_after")
    return dict(row)


async def exchange(connection: Connection, *, code: bytes, token: bytes) -> dict[str, Any]:
    """Spend the code with that digest, and store the token of a session with this one, in the caller's transaction.

    It may do what the token of the code may do, and ends with it. Raises `NotFound` if the code was used, or cannot be
    used any more, and `Unavailable`.
    """
    row = await _SQL.row(connection, "exchange", code, token)
    if row is None:
        raise unusable_code()
    return dict(row)


def unusable_code() -> NotFound:
    """Return the error for every text that is no code which may be used now."""
    return NotFound("the code was used, or has expired", field="code")


async def of_portals(executor: Executor, texts: Iterable[bytes]) -> dict[bytes, dict[str, Any]]:
    """Return the tokens of portals with these texts, or with these codes, by one statement, each by its text.

    Neither need be usable any more. Raises `Unavailable`.
    """
    digests = {digest(text).hex(): text for text in texts}
    rows = await _SQL.rows(executor, "of_portals", list(digests))
    return {digests[row["digest"]]: dict(row) for row in rows}


async def expire_portals(connection: Connection, tenant: TenantId, *, seconds: int, session_ids: Sequence[str]) -> int:
    """Let the tokens of the tenant's portals end in so many seconds; with `session_ids` only those of these.

    It is done in the caller's transaction. Return of how many the end has changed. Raises `Unavailable`.
    """
    return await _twice(connection, "expire_portals", tenant, seconds, list(session_ids))


async def _twice(connection: Connection, name: str, *arguments: Any) -> int:
    """Run a statement that ends tokens of a tenant, and run it again; return how many it changed.

    A session that is being made of a code has the row of the code locked, so the first run waits for it, and cannot see
    it. The second one does.
    """
    return sum([await _SQL.execute(connection, name, *arguments) for _ in range(2)])


async def get(executor: Executor, token_id: str) -> dict[str, Any]:
    """Return the token with this id, also one that has ended. Raises `NotFound` and `Unavailable`."""
    row = await _SQL.row(executor, "get", token_id)
    if row is None:
        raise NotFound("there is no token with this id", field="token_id")
    return dict(row)


async def find(executor: Executor, texts: Iterable[bytes]) -> dict[bytes, dict[str, Any]]:
    """Return the tokens with these texts that may be used now, by one statement, each by its text.

    The first use of a day is recorded, by a second statement. Raises `Unavailable`.

    Any text costs the same: it is hashed first, and the digest is looked up in an index. The comparison with other
    digests tells nothing, because nobody can choose the digest of a text.
    """
    digests = {digest(text).hex(): text for text in texts}
    rows = await _SQL.rows(executor, "find", list(digests))
    if unused := [row["token_id"] for row in rows if not row["was_used_today"]]:
        await _SQL.execute(executor, "use", unused)
    return {digests[row["digest"]]: dict(row) for row in rows}


async def page(
    executor: Executor, tenant: TenantId | None, *, limit: int, cursor: str | None, portal: bool
) -> tuple[list[dict[str, Any]], str | None]:
    """Return up to `limit` tokens, newest first, of every tenant if it is None, and the cursor of the next page.

    They are those of portals, or all others. Raises `Malformed` for an invalid cursor or a limit outside 1 to 1000,
    `Unavailable`.
    """
    require_limit(limit)
    return paged(await _SQL.rows(executor, "page", tenant, before(cursor), limit + 1, portal), limit, "token_id")
