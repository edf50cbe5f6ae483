"""What a call is: a method and a path, what it needs and takes, and the function that answers it."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypedDict, TypeVar

import msgspec

from hookseal.admin import Admin, Scheme, SchemeName, Scope
from hookseal.api.access import Access
from hookseal.api.bodies import MOST_BYTES
from hookseal.client.publisher import Publisher
from hookseal.ground import ids

Query = TypeVar("Query")
Body = TypeVar("Body")


class In(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What a request has: members that it does not know are refused."""


class Out(msgspec.Struct, rename="camel"):
    """What an answer has."""


class Trace(TypedDict, total=False):
    """The trace of a request: the arguments of `Publisher.publish` for it."""

    traceparent: str
    tracestate: str


class NoQuery(In):
    """No parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Generic[Query, Body]):
    """A request that may be answered: its access, tenant, parameters and body have been checked.

    `tenant` is the one that the path names, or that of the call; without both it is "". `key` is the `Idempotency-Key`.
    `trace` is empty unless the request has a valid `traceparent`.
    """

    admin: Admin
    publisher: Publisher
    access: Access
    scheme: Scheme | SchemeName
    tenant: str
    path: Mapping[str, str]
    query: Query
    body: Body
    key: str | None
    trace: Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer of a call, with another status than usual, or with headers."""

    status: int
    content: msgspec.Struct | None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """How a call has one effect for an `Idempotency-Key`: its change and the record of its answer are one transaction.

    `result_id` is the member of its answer that names what it made. `again` answers a repetition from that name, and
    raises `NotFound` if it is not there any more.
    """

    result_id: str
    again: Callable[[Asked[Any, Any], str], Awaitable[msgspec.Struct]]


Handler = Callable[[Asked[Any, Any]], Awaitable[msgspec.Struct | Answer | None]]
APP: Final = "/api/v1/app/{app_id}"
OURS: Final = "/api/hookseal/v1"  # what Svix does not have
OWN: Final = OURS + "/app/{app_id}"
ANYBODY: Final[frozenset[Scope]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of the API. One with no scopes is answered to anybody, also without a token.

    One that is `of_every_tenant` needs an access for all of them, and may be about one `tenant` that its path does not
    name. With `once` it has one effect for a key; a POST without it makes an id of the key. One that `may_add_tenant`
    gets no tenant if the path names an unknown one by its uid. `names` has the arguments of an Admin whose member or
    parameter has another name than theirs in camel case. `most` is how many bytes a body may have. `headers` says what
    each header means that its answer may have.
    """

    name: str
    method: str
    path: str
    scopes: frozenset[Scope]
    handler: Handler
    query: type[Any] = NoQuery
    body: type[Any] | None = None
    result: type[Any] | None = None
    status: int = 200
    of_every_tenant: bool = False
    tenant: str = ""
    once: Once | None = None
    may_add_tenant: bool = False
    most: int = MOST_BYTES
    names: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def read(name: str, path: str, handler: Handler, **more: Any) -> Call:
    """Return a call that only reads."""
    return Call(name=name, method="GET", path=path, scopes=frozenset({Scope.READ}), handler=handler, **more)


def manage(name: str, method: str, path: str, handler: Handler, **more: Any) -> Call:
    """Return a call that changes what an installation has."""
    return Call(name=name, method=method, path=path, scopes=frozenset({Scope.MANAGE}), handler=handler, **more)


def operate(name: str, path: str, handler: Handler, **more: Any) -> Call:
    """Return a call that sends something again."""
    return Call(name=name, method="POST", path=path, scopes=frozenset({Scope.OPERATE}), handler=handler, **more)


def derived_id(access: Access, key: str) -> str:
    """Return the id that an `Idempotency-Key` of this access stands for, which shows nothing of the key."""
    whole = f"{access.tenant_id or ids.EVERY_TENANT}\n{access.actor}\n{key}"  # neither has a line break
    return f"key_{hashlib.sha256(whole.encode()).hexdigest()[:40]}"
