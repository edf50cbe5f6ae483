"""Imports endpoints of an older system with the secrets that their receivers have. A repeat changes nothing."""

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn

from hookseal.dispatcher.store import endpoints
from hookseal.dispatcher.store.endpoints import NewEndpoint
from hookseal.errors import Conflict, HooksealError
from hookseal.ground.ids import EndpointId
from hookseal.operations.bulk import Further, OnProgress, Report, Tally, side_by_side
from hookseal.operations.endpoint.endpoints import add_endpoint, disable_endpoint
from hookseal.operations.operator import Operator
from hookseal.secrets.core import overlap
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import Purpose, SecretRef
from hookseal.secrets.core.signing import require_signing_secret
from hookseal.secrets.core.trust import require_own
from hookseal.secrets.endpoint import pointer

DISABLED: Final = "imported as disabled"
_DRY_RUN_LABELS: Final = {"added": "would be added", "present": "exists already"}


class Import(StrEnum):
    """The result of an import: the endpoint was added, or was present before."""

    ADDED = "added"
    PRESENT = "present"


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """An imported endpoint; for a dry run, the endpoint that would be imported."""

    what: Import
    endpoint_id: EndpointId


@dataclass(frozen=True, slots=True, kw_only=True)
class OlderEndpoint:
    """An endpoint of an older system, with its secret."""

    endpoint: NewEndpoint
    secret: SecretMaterial
    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRow:
    """The endpoint that the row on this line describes, or the error in the row."""

    line: int
    wanted: OlderEndpoint | HooksealError


class _DryRun(Exception):
    """Rolls the transaction of a dry run back, and carries its result."""

    def __init__(self, imported: Imported) -> None:
        super().__init__()
        self.imported = imported


async def import_rows(
    operator: Operator,
    further: Further,
    rows: Iterable[CheckedRow],
    *,
    own_drain_seconds: int,
    is_dry: bool,
    report: Report,
    on_progress: OnProgress | None = None,
) -> Tally:
    """Import the endpoint of each row, several at the same time, each in a transaction of its own.

    The result counts each `Import`, and the failures: the errors in the rows, and those of `import_endpoint`. Of two
    rows for one endpoint the first counts. Raises what `side_by_side` and `Tally.attempt` raise.
    """
    tally = Tally("row", report, labels=_DRY_RUN_LABELS if is_dry else None, on_progress=on_progress)

    async def work(operator: Operator, row: CheckedRow) -> str:
        if isinstance(row.wanted, HooksealError):
            raise row.wanted
        imported = await import_endpoint(
            operator,
            row.wanted.endpoint,
            row.wanted.secret,
            own_drain_seconds=own_drain_seconds,
            enabled=row.wanted.enabled,
            is_dry=is_dry,
        )
        return imported.what.value

    async def one(operator: Operator, row: CheckedRow) -> None:
        outcome = await tally.attempt(operator, {"line": row.line}, work(operator, row))
        if is_dry and outcome is not None:
            report(f"line {row.line}: {_DRY_RUN_LABELS[outcome]}")

    await side_by_side(operator, further, _without_duplicates(rows), one)
    tally.end()
    return tally


async def _without_duplicates(rows: Iterable[CheckedRow]) -> AsyncGenerator[CheckedRow, None]:
    """Yield the rows; one for an endpoint of an earlier row becomes an error, whichever is imported sooner."""
    lines = _Lines()
    for row in rows:
        duplicate = None if isinstance(row.wanted, HooksealError) else lines.take(row.line, row.wanted.endpoint)
        yield row if duplicate is None else CheckedRow(line=row.line, wanted=duplicate)


class _Lines:
    """The lines of the endpoints so far."""

    def __init__(self) -> None:
        self._of_url: dict[tuple[str, str], int] = {}
        self._of_id: dict[str, int] = {}
        self._of_uid: dict[tuple[str, str], int] = {}

    def take(self, line: int, endpoint: NewEndpoint) -> Conflict | None:
        """Remember the row, or return the error if one before it has its url or uid in that tenant, or its id."""
        before = self._of_url.setdefault((endpoint.tenant_id, endpoint.url), line)
        if before != line:
            return _duplicate(before, "tenant_id and url", field="url")
        if endpoint.endpoint_id is not None:
            before = self._of_id.setdefault(endpoint.endpoint_id, line)
            if before != line:
                return _duplicate(before, "endpoint_id", field="endpoint_id")
        if endpoint.uid is not None:
            before = self._of_uid.setdefault((endpoint.tenant_id, endpoint.uid), line)
            if before != line:
                return _duplicate(before, "tenant_id and uid", field="uid")
        return None


def _duplicate(line: int, what: str, *, field: str) -> Conflict:
    return Conflict(f"line {line} has the same {what}: remove one of the two from the file", field=field)


async def import_endpoint(
    operator: Operator,
    endpoint: NewEndpoint,
    secret: SecretMaterial,
    *,
    own_drain_seconds: int,
    enabled: bool = True,
    is_dry: bool = False,
) -> Imported:
    """Add the endpoint, unless the tenant has one at its url with the same secret, which then stays as it is.

    It is one transaction, which a dry run (`is_dry`) rolls back. Raises as `add_endpoint`, `Conflict` if the endpoint
    at that url has another secret, scheme, algorithm or id, or a plaintext that is not migrated, the errors of opening
    its secret, and `Unavailable`.
    """
    overlap.require_signable(endpoint.scheme, endpoint.algorithm)
    require_signing_secret(secret, endpoint.scheme, endpoint.algorithm, is_older=True)
    try:
        async with operator.changing():
            imported = await _import(operator, endpoint, secret, own_drain_seconds=own_drain_seconds, enabled=enabled)
            return _end_dry_run(imported) if is_dry else imported
    except _DryRun as dry_run:
        return dry_run.imported


def _end_dry_run(imported: Imported) -> NoReturn:
    raise _DryRun(imported)


async def _import(
    operator: Operator, endpoint: NewEndpoint, secret: SecretMaterial, *, own_drain_seconds: int, enabled: bool
) -> Imported:
    connection = operator.connection
    there = await endpoints.at_url(connection, endpoint.tenant_id, endpoint.url, preferred=endpoint.endpoint_id)
    if there is None:
        added = await _add(operator, endpoint, secret, own_drain_seconds=own_drain_seconds, enabled=enabled)
        if added is not None:
            return Imported(what=Import.ADDED, endpoint_id=added)
        there = await endpoints.at_url(connection, endpoint.tenant_id, endpoint.url, preferred=endpoint.endpoint_id)
    if there is None:
        raise Conflict("the endpoint at this url was deleted at this moment: import it again", field="url")
    await _require_same(operator, endpoint, there, secret)
    return Imported(what=Import.PRESENT, endpoint_id=there)


async def _add(
    operator: Operator, endpoint: NewEndpoint, secret: SecretMaterial, *, own_drain_seconds: int, enabled: bool
) -> EndpointId | None:
    """Return the id of the endpoint that was added, None if another process added one at its url meanwhile."""
    try:
        added = await add_endpoint(operator, endpoint, secret, own_drain_seconds=own_drain_seconds, is_older=True)
    except Conflict as error:
        if error.field == "url":
            return None
        if error.field == "name":  # the name of the secret, which contains the id
            raise Conflict(
                "an endpoint with this id was there before: leave the id out, or take another", field="endpoint_id"
            ) from None
        raise
    if not enabled:
        await disable_endpoint(operator, endpoint.tenant_id, added.pointer.endpoint_id, reason=DISABLED)
    return added.pointer.endpoint_id


async def _require_same(operator: Operator, endpoint: NewEndpoint, there: EndpointId, secret: SecretMaterial) -> None:
    found = await pointer.lock(operator.connection, tenant=endpoint.tenant_id, endpoint_id=there)
    if endpoint.endpoint_id not in {None, there}:
        raise Conflict("the endpoint at this url has another id", field="endpoint_id")
    if (await endpoints.locked(operator.connection, endpoint.tenant_id, there))["ordered"] != endpoint.ordered:
        raise Conflict(
            f"the endpoint at this url is {'not ordered' if endpoint.ordered else 'ordered'}, which cannot be changed",
            field="ordered",
        )
    if found.secret_ref is None:
        raise Conflict(
            "the endpoint at this url has no sealed secret",
            advice="if it has plaintext, run `hookseal migrate-secrets`",
            field="url",
        )
    operator.unlocked.integrity.verify(found)
    ref = SecretRef.parse(found.secret_ref)
    require_own(ref, tenant=found.tenant_id, endpoint_id=found.endpoint_id)
    store = operator.unlocked.store_on(operator.connection)
    if await store.get(ref, purpose=Purpose.WEBHOOK_SIGNING) != secret:
        raise Conflict(
            "the endpoint at this url has another secret",
            advice="to sign with this one use `hookseal endpoint rotate --secret-file FILE`",
            field="secret",
        )
    if (found.scheme, found.algorithm) != (endpoint.scheme.value, endpoint.algorithm.value):
        raise Conflict(
            f"the endpoint at this url has this secret and signs as {found.scheme} with {found.algorithm}",
            field="scheme",
        )
