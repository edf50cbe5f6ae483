"""Reads a request: its body, within limits, and its parameters. What is not known is refused."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Hashable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, Generic, NoReturn, TypeVar, cast, get_args

import msgspec
from starlette.requests import ClientDisconnect, Request

from hookseal.api.problems import CLOSE, RETRY, Problem, invalid
from hookseal.dispatcher.core.payload import MOST_LEVELS, is_too_deep

T = TypeVar("T")

MOST_BYTES: Final = 65_536
MOST_MESSAGE_BYTES: Final = 1_048_576
MOST_BYTES_AT_ONCE: Final = 67_108_864
BODY_SECONDS: Final = 10.0
_MOST_DISCARDED: Final = 4_194_304
_DISCARD_SECONDS: Final = 2.0
JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
_MEDIA: Final = {
    JSON: re.compile(r"application/(?:[a-z0-9.+-]+\+)?json(?:\s*;.*)?", re.IGNORECASE),
    FORM: re.compile(rf"{FORM}(?:\s*;.*)?", re.IGNORECASE),
}
_PLACE: Final = re.compile(r"(.*) - at (?:`key` in )?`\$(.*)`", re.DOTALL)
_PART: Final = re.compile(r"\.([^.\[\]]+)|\[([0-9]+)\]")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_ONLY_NULL: Final = "Expected `null`,"
_NO_MATCH: Final = "Expected `str` matching regex"  # only iterators have a form that is checked here
_NOT_ALLOWED: Final = "Invalid enum value"
# All before half of a surrogate pair, read once: an escape is taken whole, and nothing is tried again.
_LONE_SURROGATE: Final = re.compile(
    r"(?:[^\\]++|\\(?:[^u]|u(?:(?![dD][89a-fA-F])|[dD][89abAB]..\\u[dD][c-fC-F])))*+\\u", re.DOTALL
)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`", re.DOTALL)

# Members and parameters of Svix that hookseal does not have, and why.
NOT_SUPPORTED: Final = {
    "application": "create the application by a call of its own",
    "contentType": "the content type is application/json",
    "deliverAt": "a message is delivered at once",
    "expunge": "what was sent is kept until its retention ends",
    "featureFlag": "there are no feature flags",
    "featureFlags": "there are no feature flags",
    "groupName": "event types have no groups",
    "payloadRetentionHours": "the retention is a setting of the server",
    "payloadRetentionPeriod": "the retention is a setting of the server",
    "rateLimit": "use throttleRate",
    "tag": "messages have no tags: use channels",
    "tags": "messages have no tags: use channels",
    "throttleRate": "an application has no rate of its own: set that of its endpoints",
    "transformationsParams": "there are no transformations: the payload is sent as it is",
}


def header(request: Request, name: bytes) -> str | None:
    """Return the first header of this name, in lower case. `Request.headers` takes three times as long."""
    for each, value in request.scope["headers"]:
        if each == name:
            return str(value, "latin-1")
    return None


class Bodies:
    """Reads bodies, and bounds what those of all requests in work have in memory.

    Those of one tenant have at most as much as is free beside them: half of it if the tenant is alone, and two tenants
    have a third each.
    """

    def __init__(self, *, most: int = MOST_BYTES_AT_ONCE, seconds: float = BODY_SECONDS) -> None:
        self._free = most
        self._seconds = seconds
        self._held: dict[Hashable, int] = {}

    @asynccontextmanager
    async def held(self, request: Request, most: int, *, of: Hashable, media: str = JSON) -> AsyncIterator[bytes]:
        """Give the body, of which no more than `most` bytes are read. It counts until the block ends, as one `of` them.

        `of` is the tenant, or what stands for one. Raises `Problem` if the body is longer, is no JSON or no form by its
        type (`media`), does not come in time, or if too much is in work.
        """
        encoding = header(request, b"content-encoding")
        if encoding is not None and encoding.lower() != "identity":
            raise Problem(415, "unsupported_media_type", "send the body without a content encoding")
        declared = header(request, b"content-length") or ""
        if declared.isdigit() and int(declared) > most:
            raise _too_long(most)
        body = await self._read(request, most, of)
        try:
            if body and not _MEDIA[media].fullmatch(header(request, b"content-type") or ""):
                raise Problem(415, "unsupported_media_type", f"the content type must be {media}")
            yield body
        finally:
            self._count(of, -len(body))

    async def _read(self, request: Request, most: int, of: Hashable) -> bytes:
        """Return the body, which counts from now on. If this raises, nothing of it does."""
        body, is_whole = bytearray(), False
        try:
            async with asyncio.timeout(self._seconds):
                async for chunk in request.stream():
                    self._count(of, len(chunk))
                    body += chunk
                    if len(body) > most:
                        raise _too_long(most)
                    if self._held.get(of, 0) > self._free:
                        raise Problem(503, "busy", "too many bodies come at once: try again", headers=CLOSE | RETRY)
            is_whole = True
        except TimeoutError:
            raise Problem(408, "timeout", f"the body must come within {self._seconds:g} s", headers=CLOSE) from None
        finally:
            if not is_whole:
                self._count(of, -len(body))
        return bytes(body)

    def _count(self, of: Hashable, size: int) -> None:
        """Count so many bytes more, or less."""
        self._free -= size
        if held := self._held.get(of, 0) + size:
            self._held[of] = held
        else:
            self._held.pop(of, None)


async def discard(request: Request) -> None:
    """Read a little of what is left of a body, so that a client which still sends sees the answer."""
    size = 0
    try:
        async with asyncio.timeout(_DISCARD_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > _MOST_DISCARDED:
                    return
    except (TimeoutError, ClientDisconnect, RuntimeError):
        return


def _too_long(most: int) -> Problem:
    return Problem(413, "payload_too_large", f"the body may have at most {most} bytes", headers=CLOSE)


class Shape(Generic[T]):
    """How a struct is read. `members` are its names in JSON, or in a query."""

    def __init__(self, kind: type[T]) -> None:
        fields = msgspec.structs.fields(cast("type[msgspec.Struct]", kind))
        self.members: Final = frozenset(each.encode_name for each in fields)
        self._kind = kind
        self._lists = frozenset(each.encode_name for each in fields if _has(list, each.type))
        self._times = frozenset(each.encode_name for each in fields if _has(datetime, each.type))
        self._decoder = msgspec.json.Decoder(kind)

    def decoded(self, body: bytes) -> T:
        """Return the body as this struct. Raises `Problem` (422), which names the faulty member."""
        require_json(body)
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise _problem("body", str(error), self._kind) from None
        except (msgspec.DecodeError, RecursionError):
            if _LONE_SURROGATE.match(body.decode()):
                raise _no_json("contains a lone surrogate, which is not a character") from None
            raise _no_json("is not JSON") from None

    def parameters(self, given: Iterable[tuple[str, str]]) -> T:
        """Return the parameters of a query as this struct. Raises `Problem` (422), which names the faulty one.

        A list is repeated, or has its items separated by commas: clients do both.
        """
        values: dict[str, Any] = {}
        for name, text in given:
            if name in self._lists:
                values.setdefault(name, []).extend(part for part in text.split(",") if part)
            elif name in values:
                raise invalid(("query", name), "is given twice")
            else:
                values[name] = _time(name, text) if name in self._times else text
        try:
            return msgspec.convert(values, self._kind, strict=False)
        except msgspec.ValidationError as error:
            raise _problem("query", str(error), self._kind) from None


def _time(name: str, text: str) -> datetime:
    """Return the time that a parameter has. Not strict, `msgspec` takes a number for seconds since 1970."""
    try:
        return msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        raise invalid(("query", name), "must be a time as in RFC 3339, with its zone", "type_error") from None


def _has(kind: type[Any], of: Any) -> bool:
    """Return whether a value of this type may be one of this kind."""
    return kind in {getattr(each, "__origin__", each) for each in (of, *get_args(of))}


def require_json(body: bytes) -> None:
    """Raise `Problem` (422) unless this is JSON in UTF-8, at most 200 levels deep, and no object has a member twice.

    `msgspec` alone accepts a part that it does not decode with bytes that are no UTF-8, and takes the last of two
    members.
    """
    if not body:
        raise _no_json("is missing: send a JSON object")
    if is_too_deep(body):
        raise _no_json(f"is nested more than {MOST_LEVELS} levels deep")
    try:
        _CHECKER.decode(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise _no_json("must be in UTF-8") from None
    except _DuplicateMember:
        raise _no_json("has an object with a member twice") from None
    except (ValueError, RecursionError):
        raise _no_json("is not JSON") from None


class _DuplicateMember(Exception):
    pass


def _members(pairs: list[tuple[str, object]]) -> None:
    if len(pairs) != len(dict(pairs)):
        raise _DuplicateMember


def _no_constant(_text: str) -> NoReturn:
    raise ValueError  # NaN and Infinity are no JSON


def _no_number(_text: str) -> None:
    return None


_CHECKER: Final = json.JSONDecoder(
    object_pairs_hook=_members, parse_constant=_no_constant, parse_int=_no_number, parse_float=_no_number
)


def _no_json(detail: str) -> Problem:
    return invalid(("body",), detail, "value_error.jsondecode")


def _problem(where: str, text: str, kind: type[Any]) -> Problem:
    """Return the problem that an error of msgspec about a value of this type describes, with its place."""
    found = _PLACE.fullmatch(text)
    message, place = (text, "") if found is None else found.groups()
    loc = [where, *(name or number for name, number in _PART.findall(place))]
    unknown = _UNKNOWN.fullmatch(message)
    if unknown is not None:
        loc.append(unknown[1])
    if (unknown is not None or message.startswith(_ONLY_NULL)) and (why := NOT_SUPPORTED.get(loc[-1])):
        return invalid(loc, f"is not supported: {why}", "not_supported")
    if unknown is not None:
        return invalid(loc, "is not known", "value_error.extra")
    if missing := _MISSING.fullmatch(message):
        return invalid([*loc, missing[1]], "is missing", "value_error.missing")
    if message.startswith(_NO_MATCH):
        message = "must be one that a page of this list has returned"
    if message.startswith(_NOT_ALLOWED) and (values := _allowed(msgspec.inspect.type_info(kind), loc[1:])):
        message = f"must be one of {', '.join(values)}"
    return invalid(loc, message, "type_error")


def _allowed(info: msgspec.inspect.Type, loc: Sequence[str]) -> list[str]:
    """Return the values that the type has at this place; none if it is no enumeration there."""
    match info:
        case msgspec.inspect.Metadata():
            return _allowed(info.type, loc)
        case msgspec.inspect.UnionType():
            return [value for each in info.types for value in _allowed(each, loc)]
        case msgspec.inspect.StructType() if loc:
            return [
                value for each in info.fields if each.encode_name == loc[0] for value in _allowed(each.type, loc[1:])
            ]
        case msgspec.inspect.ListType() if loc:
            return _allowed(info.item_type, loc[1:])
        case msgspec.inspect.EnumType() if not loc:
            return [str(each.value) for each in info.cls]
        case msgspec.inspect.LiteralType() if not loc:
            return [str(value) for value in info.values]
        case _:
            return []


# The arguments of an Admin that a path has, each with the name of its parameter.
_IN_PATH: Final = {
    "tenant_id": "app_id",
    "endpoint_id": "endpoint_id",
    "uid": "endpoint_id",
    "event_id": "msg_id",
    "attempt_id": "attempt_id",
    "delivery_id": "delivery_id",
    "replay_id": "task_id",
    "name": "event_type_name",
}


def place(
    field: str | None, names: Mapping[str, str], *, path: str, body: Iterable[str], query: Iterable[str]
) -> list[str] | None:
    """Return where the request has this argument of an Admin; None if it has it nowhere, or the error names none.

    `names` has the arguments whose member has another name than theirs, also in camel case. What a body and a path have
    is the one of the body.
    """
    if field is None:
        return None
    if (name := _member(field, names, frozenset(body))) is not None:
        return ["body", name]
    if (name := _member(field, names, frozenset(query))) is not None:
        return ["query", name]
    parameter = _IN_PATH.get(field)
    return ["path", parameter] if parameter is not None and f"{{{parameter}}}" in path else None


_SUBJECT: Final = re.compile(r"[A-Za-z][A-Za-z_ -]*?(?= (?:must|is|are|has|have|may|holds|names)\b)")
_ARGUMENT: Final = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")


def renamed(text: str, field: str | None, names: Mapping[str, str], members: Iterable[str]) -> str:
    """Return a message of an Admin with the names that the members of the request have.

    It may begin with the argument at fault, spelled as a name or as words, with or without its unit, and have others.
    """
    known = frozenset(members)
    own = None if field is None else _member(field, names, known)
    if field is not None and own is not None and (subject := _SUBJECT.match(text)) is not None:
        spelled = re.sub("[ _-]", "", subject[0]).removesuffix("s").lower()
        if field.replace("_", "").startswith(spelled):
            text = own + text[subject.end() :]

    def of_request(found: re.Match[str]) -> str:
        return _member(found[0], names, known) or found[0]

    return _ARGUMENT.sub(of_request, text)


def _member(field: str, names: Mapping[str, str], known: frozenset[str]) -> str | None:
    """Return the one of these members that is this argument of an Admin; None if none is."""
    return next((name for name in (names.get(field), _camel(field), field) if name in known), None)


def _camel(field: str) -> str:
    first, *others = field.split("_")
    return first + "".join(map(str.capitalize, others))
