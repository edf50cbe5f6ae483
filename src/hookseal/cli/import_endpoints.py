"""`hookseal import-endpoints`: add the endpoints of an older system, with their secrets, from a CSV file."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final

import msgspec
import typer
import uvloop

from hookseal.admin import Admin, FailedRow, ImportedEndpoints, ImportRow
from hookseal.cli.context import CHANGES, call, operator_name
from hookseal.cli.csv_rows import CsvRow, csv_rows
from hookseal.cli.endpoint import options
from hookseal.cli.shared.output import Json, emit
from hookseal.cli.shared.printing import option_of
from hookseal.cli.shared.progress import progress_of_rows
from hookseal.cli.shared.runtime import start
from hookseal.cli.shared.secret_files import private_file
from hookseal.dispatcher.core import endpoint_settings
from hookseal.dispatcher.core.endpoint_settings import SETTINGS
from hookseal.errors import Malformed
from hookseal.ground import ids, json_problem
from hookseal.ground.wire import Scheme
from hookseal.secrets.core.material import SecretMaterial

_REQUIRED: Final = frozenset({"tenant_id", "url", "event_types", "secret"})
_OTHERS: Final = {"endpoint_id", "scheme", "algorithm", "enabled"}
_KNOWN: Final = _REQUIRED | _OTHERS | SETTINGS.keys()
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


def import_endpoints(
    *,
    from_csv: Annotated[str, typer.Option(help="The CSV file, which must be private; - is stdin.")],
    scheme: Annotated[
        Scheme | None,
        typer.Option(
            help="The scheme of rows that name none: standard, svix or x-webhook. Default: x-webhook; required if a "
            "secret is a whsec_."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; print for each row what would be done.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Add the endpoints of an older system, with the secrets that their receivers have.

    The first line names the columns. Required are tenant_id, url, event_types (separated by spaces or ;) and secret.
    Optional are endpoint_id (a UUID, which is kept), channels (separated as event_types), name, uid, description,
    metadata (a JSON object whose values are text), scheme (default: --scheme), algorithm (default: hmac), timeout_ms,
    max_attempts, backoff_base_seconds, backoff_cap_seconds, retry_schedule, concurrency, rate (as in 50/s), ordered,
    on_dead_letter, rotate_every_days and enabled.
    Each row is one transaction. A row whose endpoint exists with the same secret changes nothing, so you may import a
    file again. Of two rows for one endpoint the first counts. Exit 1 if a row failed: each is reported with its line.

    Example: hookseal import-endpoints --from-csv endpoints.csv --dry-run
    """
    settings = start(CHANGES)
    with private_file(from_csv, field="from_csv") as file:
        rows = map(_read, csv_rows(file, required=_REQUIRED, known=_KNOWN))

        async def step(admin: Admin) -> ImportedEndpoints:
            with progress_of_rows("rows") as (report, on_progress):
                return await admin.endpoints.import_rows(
                    rows=rows,
                    scheme=scheme,
                    dry_run=dry_run,
                    actor=operator_name(),
                    report=report,
                    on_progress=on_progress,
                )

        imported = call(settings, step, loop_factory=uvloop.new_event_loop)
    failed = tuple(map(_with_option, imported.failed))
    emit(replace(imported, failed=failed), as_json=as_json, text=lambda: _text(imported))
    raise typer.Exit(1 if imported.failures else 0)


def _text(imported: ImportedEndpoints) -> str:
    added = f"{'would be ' * imported.dry_run}added  {imported.added}"
    return f"{added}\nexisting  {imported.present}\nfailed  {imported.failures}"


def _with_option(failed: FailedRow) -> FailedRow:
    """Return the failure with its column or, if an id or one event type in it has the wrong form, the usual option.

    A message about the column begins with its name.
    """
    is_of_column = failed.code != Malformed.code or failed.message.startswith(f"{failed.field} ")
    return failed if is_of_column else replace(failed, field=option_of(failed.field))


def _read(row: CsvRow) -> ImportRow:
    """Return the row with the arguments of `Admin` that its cells give, or with its problem."""
    if row.problem is not None:
        return ImportRow(line=row.line, values={}, problem=row.problem)
    try:
        return ImportRow(line=row.line, values=_values(row.cells))
    except Malformed as problem:
        return ImportRow(line=row.line, values={}, problem=problem)


def _values(cells: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the arguments that the cells give. Raises `Malformed`, with the column and never its value."""
    if not cells.keys() >= _REQUIRED:
        return cells  # `Admin` names what is missing
    ids.tenant_id(cells["tenant_id"])  # of several wrong cells the first in this order is named
    event_types = cells["event_types"].replace(";", " ").split()
    if not event_types:
        raise Malformed("event_types has no event type", field="event_types")
    given: dict[str, Any] = {name: cells[name] for name in ("tenant_id", "url", "scheme", "algorithm") if name in cells}
    given |= options.parsed({name: _cell(name, cells[name]) for name in SETTINGS if name in cells})
    if "enabled" in cells:
        given["enabled"] = _yes_or_no(cells["enabled"])
    if "endpoint_id" in cells:
        given["endpoint_id"] = cells["endpoint_id"].lower()
    secret = SecretMaterial(cells["secret"].encode("utf-8", "surrogatepass"))
    return given | {"event_types": event_types, "secret": secret}


def _cell(name: str, text: str) -> Any:
    """Return what a cell gives: the text itself if an option reads it, too. Raises `Malformed`."""
    kind, setting = endpoint_settings.kind(name), SETTINGS[name]
    if kind is bool:
        return _yes_or_no(text)
    if kind is Mapping:
        return _object(text)
    if kind is int and not setting.removable:
        if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
            raise Malformed(f"{name} must be a number of at most {_MOST_DIGITS} digits", field=name)
        return int(text)
    return text.replace(";", " ").split() if kind is Sequence and setting.read is None else text


def _object(text: str) -> dict[str, str]:
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise Malformed(
            f"metadata must be a JSON object whose values are text{json_problem.said(text)}", field="metadata"
        ) from None


def _yes_or_no(text: str) -> bool | str:
    """Return the flag, or the text, which `Admin` refuses."""
    return _YES_OR_NO.get(text.lower(), text)
