"""Checks the rows of an import: endpoints of an older system, with the secrets that their receivers have."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeVar

from hookseal.admin import arguments
from hookseal.config.settings import Egress
from hookseal.dispatcher.core.endpoint_settings import SETTINGS
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import HooksealError, Malformed
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.import_endpoints import CheckedRow, OlderEndpoint
from hookseal.secrets.core.material import SecretMaterial

Member = TypeVar("Member", bound=StrEnum)

_REQUIRED: Final = ("event_types", "secret", "tenant_id", "url")
_KNOWN: Final = frozenset({*_REQUIRED, *SETTINGS, "scheme", "algorithm", "endpoint_id", "enabled"})
_WHSEC: Final = "whsec_"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRow:
    """A row to import: the line of its file, which a failure names, and arguments of `Endpoints.add` as `values`.

    Required are `tenant_id`, `url`, `event_types` and `secret`. It may have every other one but the headers, what is
    for TLS, the actor and the connection; and an `endpoint_id`, which is kept, and `enabled`, by default True. A row
    that cannot be read has a `problem`, which then is its failure.
    """

    line: int
    values: Mapping[str, Any] = field(repr=False)
    problem: HooksealError | None = None


def checked(egress: Egress, rows: Iterable[ImportRow], scheme: Scheme | None) -> Iterator[CheckedRow]:
    """Yield what each row describes, or its error. Raises `Malformed` for what is no row.

    `scheme` is that of rows which name none.
    """
    for row in rows:
        if not isinstance(row, ImportRow):
            raise Malformed(f"rows must be of the type ImportRow, not {type(row).__name__}", field="rows")
        try:
            wanted: OlderEndpoint | HooksealError = _wanted(egress, row, scheme)
        except HooksealError as error:
            wanted = error
        yield CheckedRow(line=row.line, wanted=wanted)


def _wanted(egress: Egress, row: ImportRow, scheme: Scheme | None) -> OlderEndpoint:
    """Return the endpoint of the row. Raises `Malformed` and `Refused`, with the name of the value and never itself."""
    if row.problem is not None:
        raise row.problem
    given = {name: value for name, value in row.values.items() if value is not None or name == "retry_schedule"}
    for name in _REQUIRED:
        if name not in given:
            raise Malformed(f"{name} is empty", field=name)
    if unknown := sorted(map(str, given.keys() - _KNOWN)):
        raise Malformed(f"{unknown[0]} cannot be imported", field=unknown[0])
    owner, secret = arguments.customer_id(given["tenant_id"]), arguments.secret(given["secret"])
    settings = {name: given[name] for name in SETTINGS if name in given}
    return OlderEndpoint(
        endpoint=NewEndpoint(
            tenant_id=owner,
            url=arguments.url(egress, owner, given["url"]),
            settings=arguments.endpoint_settings_of(settings, new=True),
            event_types=arguments.subscriptions(given["event_types"]),
            scheme=_scheme(given.get("scheme", scheme), secret),
            algorithm=_choice(Algorithm, given.get("algorithm", Algorithm.HMAC), "algorithm"),
            endpoint_id=arguments.optional(arguments.endpoint_id, given.get("endpoint_id")),
        ),
        secret=secret,
        enabled=_flag(given.get("enabled", True), "enabled"),
    )


def _scheme(named: str | None, secret: SecretMaterial) -> Scheme:
    if named is None and secret.reveal().decode(errors="replace").lstrip().startswith(_WHSEC):
        raise Malformed(
            "the secret is a whsec_",
            joint=", and ",
            advice="neither its row nor --scheme names the scheme: give standard if the receiver verifies Standard "
            "Webhooks, x-webhook if it uses the whole text as the key",
            field="scheme",
        )
    return _choice(Scheme, Scheme.X_WEBHOOK if named is None else named, "scheme")


def _choice(kind: type[Member], text: str, name: str) -> Member:
    try:
        return kind(text)
    except ValueError:
        raise Malformed(f"{name} must be {' or '.join(kind)}", field=name) from None


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise Malformed(f"{name} must be true or false", field=name)
    return value
