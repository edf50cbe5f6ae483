"""Results about tokens and portals."""

from dataclasses import dataclass, field
from datetime import date, datetime

from hookseal.admin.results.base import HIDDEN
from hookseal.ground.literals import ScopeName, TokenState
from hookseal.secrets.core.material import SecretMaterial


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedToken:
    """A new token. `token.reveal()` is its text, which nothing shows again. `tenant_id` `*` is every tenant.

    `tenant_is_known` is false if the tenant was not added and has no endpoint: it may be misspelled.
    """

    token_id: str
    name: str
    tenant_id: str
    tenant_is_known: bool
    scopes: tuple[ScopeName, ...]
    expires_at: datetime | None
    created_at: datetime
    token: SecretMaterial


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token without its text. `state`: active, expired or revoked. `last_used_on` is a day in UTC.

    `revoked_at` is the time of its expiry if another token took its name after that. That of a `portal` may have the
    `user` whom the audit log names, and the `session_id` that the product gave.
    """

    token_id: str
    name: str
    tenant_id: str
    scopes: tuple[ScopeName, ...]
    state: TokenState
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_on: date | None
    portal: bool
    user: str | None
    session_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalAccess:
    """What lets a customer in for a while: a token until `expires_at`, and a code for a link, used once.

    `token.reveal()` and `code.reveal()` are texts that nothing shows again. `url` is the link with the code, None
    without HOOKSEAL_PORTAL_URL. The audit log names what is done with the token `token:NAME/USER`.
    """

    token_id: str
    name: str
    tenant_id: str
    tenant_is_known: bool
    scopes: tuple[ScopeName, ...]
    user: str | None
    session_id: str | None
    created_at: datetime
    expires_at: datetime
    url: SecretMaterial | None
    token: SecretMaterial = field(metadata=HIDDEN)
    code: SecretMaterial = field(metadata=HIDDEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalSession:
    """The session of a page, which began with a code: `token.reveal()` is its token, until `expires_at`.

    At `refresh_url` the product lets the user in again, None if it gave no address.
    """

    token_id: str
    name: str
    tenant_id: str
    scopes: tuple[ScopeName, ...]
    user: str | None
    session_id: str | None
    created_at: datetime
    expires_at: datetime
    refresh_url: str | None
    token: SecretMaterial


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiredPortals:
    """How many tokens of the portals of a tenant ended, or will end in the time that was given."""

    tenant_id: str
    tokens: int
