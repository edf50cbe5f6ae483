"""Tokens of the HTTP API: what a token may do, its text, and the rows that keep its digest.

Those of a portal let a customer in for a while, and may have a code, which makes one token of a session.
"""

import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Protocol

from asyncpg import Record

from hookseal.errors import Conflict, Defect, Malformed, NotFound
from hookseal.ground.ids import TenantId, before, paged, require_limit
from hookseal.postgres.pool import Connection, Executor
from hookseal.postgres.statements import Statements

_SQL: Final = Statements("hookseal.dispatcher.store", "tokens.sql")
_PREFIX: Final = b"whst_"  # ground/log.py masks what begins with it
_CODE_PREFIX: Final = b"whsc_"  # the same
_BYTES: Final = 32
_ONE: Final = re.compile(rb"wh(?:st|sc)_[A-Za-z0-9_-]{43}")  # 32 bytes in base64
_COLUMNS: Final = (  # of a token that is added, in the order of the statement
    *("tenant_id", "token_id", "name", "digest", "scopes", "created_at", "expires_at", "portal", "user", "session_id"),
    *("refresh_url", "code_digest", "made_of", "generation", "signature", "signature_key_id", "code_spent_at"),
)


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


class Seal(Protocol):
    """Signs tokens, and tells whether one is as it was signed."""

    def signed(self, token: Mapping[str, Any]) -> dict[str, Any]:
        """Return the token with its signature."""
        ...

    def is_authentic(self, token: Mapping[str, Any]) -> bool:
        """Return whether the token is as it was signed."""
        ...


async def add(connection: Connection, token: NewToken, seal: Seal) -> dict[str, Any]:
    """Store the token, in the caller's transaction. The name of a token that has expired is free.

    Raises `Conflict` if a token of this name is in use, `Malformed` if it would have expired already, `Unavailable`.
    """
    await _SQL.execute(connection, "free_name", token.name)
    begun = await _SQL.row(connection, "begin", token.tenant_id, token.name, None, token.expires_at)
    granted = {"tenant_id": token.tenant_id, "scopes": token.scopes, "digest": token.digest}
    row = await _add(connection, begun, granted, seal)
    if row is None:
        raise Conflict("a token of this name is in use: revoke it first, or choose another name", field="name")
    if row["state"] != "active":
        raise Malformed("expires_at must be a time in the future", field="expires_at")
    return row


async def revoke(connection: Connection, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Revoke the token, in the caller's transaction: no search that begins after the commit finds it.

    Return it, and the sessions that ended with it: those that were made of its code. The audit log must get the
    `generation` of each, so that no copy of it is used. Raises `NotFound` if no token of this name is in use,
    `Unavailable`.
    """
    found = await _revoked(connection, await _locked(connection, "lock_name", name))
    if not found:
        raise NotFound("no token of this name is in use", field="name")
    [row] = found
    # A statement of its own: the first one may have waited for a session that was being made, which it cannot see.
    sessions = await _locked(connection, "lock_sessions", row["tenant_id"], row["token_id"])
    return row, await _revoked(connection, sessions)


async def revoke_all(connection: Connection, tenant: TenantId) -> list[dict[str, Any]]:
    """Revoke every token of the tenant, in the caller's transaction, and return them as `revoke` does.

    Raises `Unavailable`.
    """
    # A session that is being made of a code has the row of the code locked, so the first run waits for it, and cannot
    # see it. The second one does.
    return [
        token for _ in range(2) for token in await _revoked(connection, await _locked(connection, "lock_all", tenant))
    ]


async def add_portal(connection: Connection, portal: NewPortal, seal: Seal) -> dict[str, Any]:
    """Store a token of a portal with its code, in the caller's transaction. Its name is new.

    Raises `Malformed` if it would have ended already, `Unavailable`.
    """
    begun = await _SQL.row(connection, "begin", portal.tenant_id, None, portal.seconds, portal.not_after)
    granted = {
        "tenant_id": portal.tenant_id,
        "scopes": portal.scopes,
        "digest": portal.digest,
        "portal": True,
        "user": portal.user,
        "session_id": portal.session_id,
        "refresh_url": portal.refresh_url,
        "code_digest": portal.code_digest,
    }
    row = await _add(connection, begun, granted, seal)
    if row is None:
        raise Defect("the name and the texts of a portal are new")
    if row["state"] != "active":
        raise Malformed("not_after must be a time in the future", field="not_after")
    return row


async def exchange(
    connection: Connection, *, code: bytes, token: bytes, seal: Seal
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Spend the code with that digest, and store the token of a session with this one, in the caller's transaction.

    Return the session, which may do what the token of the code may do, and ends with it; and the token of the code,
    whose new `generation` the audit log must get. Raises `NotFound` if the code was used, cannot be used any more, or
    is not genuine, and `Unavailable`.
    """
    found = await _newest(connection, await _locked(connection, "lock_code", code), seal)
    if not found:
        raise unusable_code()
    [spent] = found
    [spent] = await _sign_again(connection, [spent | {"code_spent_at": spent["read_at"]}], seal)
    begun = await _SQL.row(connection, "begin", spent["tenant_id"], None, None, spent["expires_at"])
    granted = {
        **{name: spent[name] for name in ("tenant_id", "scopes", "portal", "user", "session_id", "refresh_url")},
        "digest": token,
        "made_of": spent["token_id"],
    }
    session = await _add(connection, begun, granted, seal)
    if session is None:  # a code that was spent before is spent, whatever its row says
        raise unusable_code()
    return session, spent


def unusable_code() -> NotFound:
    """Return the error for every text that is no code which may be used now."""
    return NotFound("the code was used, or has expired", field="code")


async def of_portals(executor: Executor, texts: Iterable[bytes]) -> dict[bytes, dict[str, Any]]:
    """Return the tokens of portals with these texts, or with these codes, by one statement, each by its text.

    Neither need be usable any more, or genuine. Raises `Unavailable`.
    """
    digests = {digest(text).hex(): text for text in texts}
    rows = await _SQL.rows(executor, "of_portals", list(digests))
    return {digests[row["asked"]]: dict(row) for row in rows}


async def expire_portals(
    connection: Connection, tenant: TenantId, *, seconds: int, session_ids: Sequence[str], seal: Seal
) -> list[dict[str, Any]]:
    """Let the tokens of the tenant's portals end in so many seconds; with `session_ids` only those of these.

    It is done in the caller's transaction. One that is not genuine ends at once. Return those whose end has changed,
    with the `generation` that the audit log must get. Raises `Unavailable`.
    """
    ended: list[dict[str, Any]] = []
    for _ in range(2):  # as in `revoke_all`
        ids = await _locked(connection, "lock_portals", tenant, seconds, list(session_ids))
        kept = await _newest(connection, ids, seal) if seconds else []
        ended += await _revoked(connection, sorted({*ids} - {token["token_id"] for token in kept}))
        shorter = [token | {"expires_at": token["read_at"] + timedelta(seconds=seconds)} for token in kept]
        ended += await _sign_again(connection, shorter, seal)
    return ended


async def publish_key(connection: Connection, key_id: str, public_key: bytes) -> None:
    """Store the key that verifies tokens, for processes without a master key. Raises `Unavailable`."""
    await _SQL.execute(connection, "publish_key", key_id, public_key)


async def _add(
    connection: Connection, begun: Record | None, granted: Mapping[str, Any], seal: Seal
) -> dict[str, Any] | None:
    """Sign and store a token; return None if its name is in use."""
    if begun is None:
        raise Defect("begin returns one row")
    scopes = [str(scope) for scope in granted["scopes"]]
    token = seal.signed({**dict.fromkeys(_COLUMNS), "portal": False, **dict(begun), **granted, "scopes": scopes})
    row = await _SQL.row(connection, "add", *(token[name] for name in _COLUMNS if name != "code_spent_at"))
    return None if row is None else dict(row)


async def _locked(connection: Connection, name: str, *arguments: Any) -> list[str]:
    return [row["token_id"] for row in await _SQL.rows(connection, name, *arguments)]


async def _revoked(connection: Connection, ids: list[str]) -> list[dict[str, Any]]:
    return [dict(row) for row in await _SQL.rows(connection, "revoke", ids)] if ids else []


async def _newest(connection: Connection, ids: list[str], seal: Seal) -> list[dict[str, Any]]:
    """Return those of the tokens that are genuine, and no older copies."""
    found = await _SQL.rows(connection, "newest", ids) if ids else []
    return [token for token in map(dict, found) if seal.is_authentic(token)]


async def _sign_again(connection: Connection, tokens: list[dict[str, Any]], seal: Seal) -> list[dict[str, Any]]:
    """Store the changes of genuine tokens, each with the next generation."""
    signed = [seal.signed(token | {"generation": token["generation"] + 1}) for token in tokens]
    columns = ("token_id", "expires_at", "code_spent_at", "generation", "signature", "signature_key_id")
    await _SQL.execute(connection, "sign_again", *([_text(token[name]) for token in signed] for name in columns))
    return signed


def _text(value: str | int | bytes | datetime | None) -> str | None:
    """Return the value as PostgreSQL reads it from a text."""
    match value:
        case None | str():
            return value
        case bytes():
            return "\\x" + value.hex()
        case datetime():
            return value.isoformat()
        case _:
            return str(value)


async def get(executor: Executor, token_id: str) -> dict[str, Any]:
    """Return the token with this id, also one that has ended. Raises `NotFound` and `Unavailable`."""
    row = await _SQL.row(executor, "get", token_id)
    if row is None:
        raise NotFound("there is no token with this id", field="token_id")
    return dict(row)


async def find(executor: Executor, texts: Iterable[bytes]) -> dict[bytes, dict[str, Any]]:
    """Return the tokens with these texts that may be used now, if they are genuine, by one statement, each by its text.

    None is an older copy of a token that has ended. Raises `Unavailable`.

    Any text costs the same: it is hashed first, and the digest is looked up in an index. The comparison with other
    digests tells nothing, because nobody can choose the digest of a text.
    """
    digests = {digest(text).hex(): text for text in texts}
    return {digests[row["asked"]]: dict(row) for row in await _SQL.rows(executor, "find", list(digests))}


async def use(executor: Executor, tokens: Iterable[Mapping[str, Any]]) -> None:
    """Record the first use of a day of tokens that `find` returned. Raises `Unavailable`."""
    if unused := [token["token_id"] for token in tokens if not token["was_used_today"]]:
        await _SQL.execute(executor, "use", unused)


async def page(
    executor: Executor, tenant: TenantId | None, *, limit: int, cursor: str | None, portal: bool
) -> tuple[list[dict[str, Any]], str | None]:
    """Return up to `limit` tokens, newest first, of every tenant if it is None, and the cursor of the next page.

    They are those of portals, or all others. Raises `Malformed` for an invalid cursor or a limit outside 1 to 1000,
    `Unavailable`.
    """
    require_limit(limit)
    return paged(await _SQL.rows(executor, "page", tenant, before(cursor), limit + 1, portal), limit, "token_id")
