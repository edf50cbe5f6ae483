"""`hookseal import-endpoints`: add the endpoints of an older system, with their secrets, from a CSV file."""

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

import typer
import uvloop

from hookseal.cli.context import CHANGES
from hookseal.cli.csv_rows import CsvRow, csv_rows
from hookseal.cli.endpoint import options
from hookseal.cli.shared.operating import operate
from hookseal.cli.shared.output import Json, emit, note
from hookseal.cli.shared.parallel import Tally, side_by_side
from hookseal.cli.shared.printing import option_named
from hookseal.cli.shared.runtime import start
from hookseal.cli.shared.secret_files import private_file
from hookseal.config.settings import Settings
from hookseal.dispatcher.core import endpoint_rules
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import Conflict, HooksealError, Malformed
from hookseal.ground import ids
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.operations.endpoint import values
from hookseal.operations.import_endpoints import import_endpoint
from hookseal.operations.operator import Operator
from hookseal.secrets.core.material import SecretMaterial

T = TypeVar("T")

_REQUIRED: Final = frozenset({"tenant_id", "url", "event_types", "secret"})
_NUMBERS: Final = ("timeout_ms", "max_attempts", "backoff_base_seconds", "backoff_cap_seconds")
_OPTIONAL: Final = frozenset(
    {"endpoint_id", "name", "scheme", "algorithm", "retry_schedule", "rotate_every_days", "enabled", *_NUMBERS}
    | {"concurrency", "rate", "ordered", "on_dead_letter"}
)
_YES_OR_NO: Final = {
    "true": True,
    "t": True,
    "1": True,
    "yes": True,
    "false": False,
    "f": False,
    "0": False,
    "no": False,
}
_MOST_DIGITS: Final = 9
_WHSEC: Final = "whsec_"
_FORETOLD: Final = {"added": "would be added", "present": "exists already"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    endpoint: NewEndpoint
    secret: SecretMaterial
    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReadRow:
    """The endpoint that the row on this line describes, or the error in the row."""

    line: int
    wanted: _Wanted | HooksealError


class _Lines:
    """The lines of the endpoints so far: of two rows for one endpoint the first counts, whichever is added sooner."""

    def __init__(self) -> None:
        self._of_url: dict[tuple[str, str], int] = {}
        self._of_id: dict[str, int] = {}

    def take(self, line: int, endpoint: NewEndpoint) -> None:
        """Remember the row. Raises `Conflict` if one before it is for the same url of that tenant, or the same id."""
        before = self._of_url.setdefault((endpoint.tenant_id, endpoint.url), line)
        if before != line:
            raise _duplicate(before, "tenant_id and url", field="url")
        if endpoint.endpoint_id is not None:
            before = self._of_id.setdefault(endpoint.endpoint_id, line)
            if before != line:
                raise _duplicate(before, "endpoint_id", field="endpoint_id")


def import_endpoints(
    *,
    from_csv: Annotated[str, typer.Option(metavar="FILE", help="The CSV file, which must be private; - is stdin.")],
    scheme: Annotated[
        Scheme | None,
        typer.Option(help="The scheme of rows that name none. Default: x-webhook; required if a secret is a whsec_."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; print for each row what would be done.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Add the endpoints of an older system, with the secrets that their receivers have.

    The first line names the columns. Required are tenant_id, url, event_types (separated by spaces or ;) and secret.
    Optional are endpoint_id (a UUID, which is kept), name, scheme (default: --scheme), algorithm (default: hmac),
    timeout_ms, max_attempts, backoff_base_seconds, backoff_cap_seconds, retry_schedule, concurrency, rate (as in 50/s),
    ordered, on_dead_letter, rotate_every_days and enabled.
    Each row is one transaction. A row whose endpoint exists with the same secret changes nothing, so you may import a
    file again. Of two rows for one endpoint the first counts. Exit 1 if a row failed: each is reported with its line.

    Example: hookseal import-endpoints --from-csv endpoints.csv --dry-run
    """
    settings, tally = start(CHANGES), _tally(dry_run=dry_run)
    with private_file(from_csv, field="from_csv") as file:
        rows = csv_rows(file, required=_REQUIRED, known=_REQUIRED | _OPTIONAL)
        operate(
            settings,
            lambda operator: _import(settings, operator, rows, tally, scheme=scheme, dry_run=dry_run),
            loop_factory=uvloop.new_event_loop,
        )
    emit(_shape(tally, dry_run=dry_run), as_json=as_json, text=lambda: _text(tally, dry_run=dry_run))
    raise typer.Exit(1 if tally.failures else 0)


def _shape(tally: Tally, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "added": tally.counts["added"],
        "present": tally.counts["present"],
        "failures": tally.failures,
        "failed": tally.failed,
    }


def _text(tally: Tally, *, dry_run: bool) -> str:
    added = f"{'would be ' * dry_run}added  {tally.counts['added']}"
    return f"{added}\nexisting  {tally.counts['present']}\nfailed  {tally.failures}"


async def _import(
    settings: Settings,
    operator: Operator,
    rows: Iterator[CsvRow],
    tally: Tally,
    *,
    scheme: Scheme | None,
    dry_run: bool,
) -> None:
    async def import_row(operator: Operator, read: _ReadRow) -> None:
        outcome = await tally.attempt(
            operator, {"line": read.line}, _import_row(settings, operator, read, dry_run=dry_run)
        )
        if dry_run and outcome is not None:
            note(f"line {read.line}: {_FORETOLD[outcome]}")

    await side_by_side(settings, operator, _read_rows(settings, rows, scheme), import_row)
    tally.end()


async def _read_rows(
    settings: Settings, rows: Iterator[CsvRow], scheme: Scheme | None
) -> AsyncGenerator[_ReadRow, None]:
    lines = _Lines()
    for row in rows:
        try:
            wanted: _Wanted | HooksealError = _checked(settings, lines, row, scheme)
        except HooksealError as error:
            wanted = error
        yield _ReadRow(line=row.line, wanted=wanted)


def _checked(settings: Settings, lines: _Lines, row: CsvRow, scheme: Scheme | None) -> _Wanted:
    if row.problem is not None:
        raise row.problem
    wanted = _wanted(settings, row.cells, scheme)
    lines.take(row.line, wanted.endpoint)
    return wanted


async def _import_row(settings: Settings, operator: Operator, read: _ReadRow, *, dry_run: bool) -> str:
    wanted = read.wanted
    if isinstance(wanted, HooksealError):
        raise wanted
    imported = await import_endpoint(
        operator,
        wanted.endpoint,
        wanted.secret,
        own_drain_seconds=settings.worker.drain_seconds,
        enabled=wanted.enabled,
        is_dry=dry_run,
    )
    return imported.what.value


def _wanted(settings: Settings, cells: Mapping[str, str], scheme: Scheme | None) -> _Wanted:
    """Return the endpoint of the row. Raises `Malformed` and `Refused`, with the column and never its value."""
    for column in sorted(_REQUIRED):
        if column not in cells:
            raise Malformed(f"{column} is empty", field=column)
    owner = _id(ids.tenant_id, cells["tenant_id"])
    numbers = {name: _number(cells, name) for name in _NUMBERS}
    event_types = cells["event_types"].replace(";", " ").split()
    if not event_types:
        raise Malformed("event_types has no event type", field="event_types")
    as_given = ("url", "name", "retry_schedule", "rotate_every_days", "concurrency", "rate")
    given = {name: cells.get(name) for name in as_given} | numbers | {"event_types": event_types}
    decided = values.checked(settings.egress, owner, options.parsed(given)) | _order(cells)
    own_id = cells.get("endpoint_id")
    return _Wanted(
        endpoint=NewEndpoint(
            tenant_id=owner,
            scheme=_scheme(cells, scheme),
            algorithm=_algorithm(cells),
            endpoint_id=None if own_id is None else _id(ids.endpoint_id, own_id.lower()),
            **decided,
        ),
        secret=SecretMaterial(cells["secret"].encode("utf-8", "surrogatepass")),
        enabled=_yes_or_no(cells, "enabled", otherwise="true"),
    )


def _id(check: Callable[[str], T], text: str) -> T:
    try:
        return check(text)
    except Malformed as error:
        error.field = option_named(error)
        raise


def _order(cells: Mapping[str, str]) -> dict[str, Any]:
    ordered, after = _yes_or_no(cells, "ordered", otherwise="false"), cells.get("on_dead_letter")
    found = {} if after is None else {"on_dead_letter": endpoint_rules.on_dead_letter(after)}
    endpoint_rules.require_order(ordered=ordered, on_dead_letter=after)
    return {"ordered": ordered} | found


def _tally(*, dry_run: bool) -> Tally:
    return Tally("rows", labels=_FORETOLD if dry_run else None, field=lambda error: error.field)  # mostly a column


def _duplicate(line: int, what: str, *, field: str) -> Conflict:
    return Conflict(f"line {line} has the same {what}: remove one of the two from the file", field=field)


def _scheme(cells: Mapping[str, str], otherwise: Scheme | None) -> Scheme:
    named = cells.get("scheme", otherwise)
    if named is None and cells["secret"].lstrip().startswith(_WHSEC):
        raise Malformed(
            "the secret is a whsec_, and neither its row nor --scheme names the scheme: give standard if the receiver "
            "verifies Standard Webhooks, x-webhook if it uses the whole text as the key",
            field="scheme",
        )
    try:
        return Scheme(Scheme.X_WEBHOOK if named is None else named)
    except ValueError:
        pass
    raise Malformed(f"scheme must be {' or '.join(Scheme)}", field="scheme")


def _algorithm(cells: Mapping[str, str]) -> Algorithm:
    try:
        return Algorithm(cells.get("algorithm", Algorithm.HMAC))
    except ValueError:
        pass
    raise Malformed(f"algorithm must be {' or '.join(Algorithm)}", field="algorithm")


def _number(cells: Mapping[str, str], column: str) -> int | None:
    text = cells.get(column)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise Malformed(f"{column} must be a number of at most {_MOST_DIGITS} digits", field=column)
    return int(text)


def _yes_or_no(cells: Mapping[str, str], column: str, *, otherwise: str) -> bool:
    text = cells.get(column, otherwise).lower()
    if text not in _YES_OR_NO:
        raise Malformed(f"{column} must be true or false", field=column)
    return _YES_OR_NO[text]
