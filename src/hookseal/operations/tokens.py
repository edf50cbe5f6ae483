"""Adds and ends tokens of the HTTP API, audited in the log of the tenant, or of the installation for `*`."""

from collections.abc import Iterable, Sequence
from typing import Any

from hookseal.audit.chain import Action
from hookseal.dispatcher.store import tokens
from hookseal.dispatcher.store.tokens import NewPortal, NewToken
from hookseal.ground.ids import TenantId
from hookseal.operations.operator import Operator
from hookseal.postgres.pool import Connection
from hookseal.secrets.core.token_seal import TokenSeal, public_key
from hookseal.secrets.core.trust import IntegrityKey


async def add_token(operator: Operator, token: NewToken) -> dict[str, Any]:
    """Store the token. Raises `Conflict` if one of this name is in use, `Malformed` if it would have expired already.

    Raises `Unavailable`.
    """
    async with operator.changing() as connection:
        added = await tokens.add(connection, token, _seal(operator))
        await operator.audit(
            Action.TOKEN_ADDED,
            of=f"token:{token.name}",
            tenant=token.tenant_id,
            after=_facts(added) | _generation(added),
        )
    return added


async def revoke_token(operator: Operator, name: str) -> dict[str, Any]:
    """Revoke the token: it is refused from the next request on, and so is a session that was made of its code.

    Raises `NotFound` and `Unavailable`.
    """
    async with operator.changing() as connection:
        revoked, sessions = await tokens.revoke(connection, name)
        await audit_ends(operator, sessions)
        counted = {"sessions": len(sessions)} if sessions else {}
        await operator.audit(
            Action.TOKEN_REVOKED,
            of=f"token:{name}",
            tenant=revoked["tenant_id"],
            before=_facts(revoked),
            after=counted | _generation(revoked),
        )
    return revoked


async def audit_ends(operator: Operator, ended: Iterable[dict[str, Any]]) -> None:
    """Append the end of each token to the audit log: no copy of its row, as it was before, is used from then on."""
    for token in ended:
        action = Action.TOKEN_REVOKED if token["state"] == "revoked" else Action.PORTALS_EXPIRED
        after = {"expires_at": token["expires_at"], **_generation(token)}
        await operator.audit(action, of=f"token:{token['name']}", tenant=token["tenant_id"], after=after)


async def add_portal(operator: Operator, portal: NewPortal) -> dict[str, Any]:
    """Store a token of a portal with its code. Raises `Malformed` if it would have ended already, and `Unavailable`."""
    async with operator.changing() as connection:
        added = await tokens.add_portal(connection, portal, _seal(operator))
        await operator.audit(
            Action.PORTAL_ADDED,
            of=f"token:{added['name']}",
            tenant=portal.tenant_id,
            after=_facts_of_portal(added),
        )
    return added


async def exchange_code(operator: Operator, *, code: bytes, token: bytes) -> dict[str, Any]:
    """Spend the code with that digest, and store the token of a session with this one.

    Raises `NotFound` if the code was used, or cannot be used any more, and `Unavailable`.
    """
    async with operator.changing() as connection:
        session, spent = await tokens.exchange(connection, code=code, token=token, seal=_seal(operator))
        await operator.audit(
            Action.PORTAL_CODE_SPENT,
            of=f"token:{spent['name']}",
            tenant=spent["tenant_id"],
            after=_generation(spent),
        )
        await operator.audit(
            Action.PORTAL_OPENED,
            of=f"token:{session['name']}",
            tenant=session["tenant_id"],
            after=_facts_of_portal(session),
        )
    return session


async def expire_portals(operator: Operator, tenant: TenantId, *, seconds: int, session_ids: Sequence[str]) -> int:
    """Let the tokens of the tenant's portals end in so many seconds; with `session_ids` only those of these.

    Return of how many the end has changed; if it is none, nothing is done. Raises `Unavailable`.
    """
    async with operator.changing() as connection:
        ended = await tokens.expire_portals(
            connection, tenant, seconds=seconds, session_ids=session_ids, seal=_seal(operator)
        )
        await audit_ends(operator, ended)
        if ended:
            facts = {"tokens": len(ended), "seconds": seconds, "session_ids": [*session_ids]}
            await operator.audit(Action.PORTALS_EXPIRED, of=f"tenant:{tenant}", tenant=tenant, after=facts)
    return len(ended)


async def publish_key(connection: Connection, integrity: IntegrityKey) -> None:
    """Store the public key of the newest version, with which processes without a master key verify tokens."""
    await tokens.publish_key(connection, integrity.key_id, public_key(integrity, integrity.key_id))


def _seal(operator: Operator) -> TokenSeal:
    return TokenSeal(operator.unlocked.integrity)


def _generation(token: dict[str, Any]) -> dict[str, object]:
    return {"generation": token["generation"]}


def _facts(token: dict[str, Any]) -> dict[str, object]:
    return {name: token[name] for name in ("token_id", "tenant_id", "scopes", "expires_at")}


def _facts_of_portal(token: dict[str, Any]) -> dict[str, object]:
    return _facts(token) | {name: token[name] for name in ("user", "session_id", "generation")}
