"""Tokens of the API. Nobody can make one that may do more than the own access."""

from datetime import date, datetime
from typing import Any, Final

from hookseal.admin import Scope, Token
from hookseal.api.access import require_end, require_scopes
from hookseal.api.call import OURS, Asked, Call, In, NoQuery, Once, Out, manage, read
from hookseal.api.forms import TenantOrEvery, TokenName
from hookseal.api.paging import ListOut, Moment, OfTokens, Paged, following, one_way
from hookseal.ground.ids import EVERY_TENANT, encode_cursor

_ALL: Final = OURS + "/token"


class TokenIn(In):
    """A token to make, for one tenant, or for every one (`*`)."""

    name: TokenName
    tenant_id: TenantOrEvery
    scopes: list[Scope]
    expires_at: Moment | None = None


class TokenOut(Out):
    """A token. Its text, `token`, is only in the first answer to the request that made it."""

    id: str
    name: str
    tenant_id: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    state: str
    last_used_on: date | None
    token: str | None = None


def shown(token: Token) -> TokenOut:
    """Return a token without its text."""
    return TokenOut(
        id=token.token_id,
        name=token.name,
        tenant_id=token.tenant_id,
        scopes=[*token.scopes],
        created_at=token.created_at,
        expires_at=token.expires_at,
        state=token.state,
        last_used_on=token.last_used_on,
    )


class Tokens(Paged):
    """Which tokens a list has."""

    iterator: OfTokens | None = None


async def listing(asked: Asked[Tokens, None]) -> ListOut[TokenOut]:
    """List the tokens, also those that ended, the newest first."""
    after = following(asked.query.iterator)
    page = await asked.admin.tokens.list(
        tenant_id=EVERY_TENANT, limit=asked.query.limit, cursor=None if after is None else encode_cursor(after)
    )
    tokens = [shown(each) for each in page.items]
    return one_way(tokens, [each.id for each in tokens], done=page.next_cursor is None)


async def create(asked: Asked[NoQuery, TokenIn]) -> TokenOut:
    """Make a token, with scopes that the own access has, and no longer than it. Only this answer has its text."""
    body = asked.body
    require_scopes(asked.access, frozenset(body.scopes))
    require_end(asked.access, body.expires_at)
    added = await asked.admin.tokens.add(
        name=body.name,
        tenant_id=body.tenant_id,
        scopes=body.scopes,
        expires_at=body.expires_at,
        actor=asked.access.actor,
    )
    return TokenOut(
        id=added.token_id,
        name=added.name,
        tenant_id=added.tenant_id,
        scopes=[*added.scopes],
        created_at=added.created_at,
        expires_at=added.expires_at,
        state="active",
        last_used_on=None,
        token=added.token.reveal().decode(),
    )


async def by_id(asked: Asked[Any, Any], token_id: str) -> TokenOut:
    """Return the token with this id, without its text. Raises `NotFound`."""
    return shown(await asked.admin.tokens.get(token_id=token_id))


async def revoke(asked: Asked[NoQuery, None]) -> TokenOut:
    """Revoke a token: the next request with it is refused."""
    return shown(await asked.admin.tokens.revoke(name=asked.path["token_name"], actor=asked.access.actor))


CALLS: Final[tuple[Call, ...]] = (
    read(
        *("hookseal.token.list", _ALL, listing),
        query=Tokens,
        result=ListOut[TokenOut],
        names={"cursor": "iterator"},
        of_every_tenant=True,
    ),
    manage(
        *("hookseal.token.create", "POST", _ALL, create),
        body=TokenIn,
        result=TokenOut,
        status=201,
        of_every_tenant=True,
        once=Once(result_id="id", again=by_id),
    ),
    manage("hookseal.token.revoke", "DELETE", _ALL + "/{token_name}", revoke, result=TokenOut, of_every_tenant=True),
)
