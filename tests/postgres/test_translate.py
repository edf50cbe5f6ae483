"""Errors of PostgreSQL are translated in one place for every room."""

import asyncpg
import pytest

from hookseal.audit.log import FAILURES as OF_THE_LOG
from hookseal.ground.errors import Refused, Unavailable
from hookseal.postgres.translate import PLAIN, Failures
from hookseal.secrets.errors import SecretDenied, SecretUnavailable
from hookseal.secrets.statements import FAILURES as OF_SECRETS

pytestmark = pytest.mark.req("SEC-07")

CANARY = "canary-4f1d"
SILENT = "does not answer"
TRY_AGAIN = "cannot do it now: try again"
NO_TABLES = "lacks the tables of hookseal: restore them"
OUTAGES = [
    (OSError, SILENT),
    (TimeoutError, SILENT),
    (ConnectionRefusedError, SILENT),
    (asyncpg.InterfaceError, SILENT),
    (asyncpg.InternalClientError, SILENT),
    (asyncpg.ConnectionDoesNotExistError, SILENT),
    (asyncpg.CannotConnectNowError, SILENT),
    (asyncpg.AdminShutdownError, SILENT),
    (asyncpg.QueryCanceledError, SILENT),
    (asyncpg.TooManyConnectionsError, SILENT),
    (asyncpg.DiskFullError, SILENT),
    (asyncpg.PostgresIOError, SILENT),
    (asyncpg.SerializationError, TRY_AGAIN),
    (asyncpg.DeadlockDetectedError, TRY_AGAIN),
    (asyncpg.LockNotAvailableError, TRY_AGAIN),
    (asyncpg.ReadOnlySQLTransactionError, SILENT),
    (asyncpg.InvalidPasswordError, SILENT),
    (asyncpg.InvalidCatalogNameError, NO_TABLES),
    (asyncpg.InvalidSchemaNameError, NO_TABLES),
    (asyncpg.UndefinedTableError, NO_TABLES),
]
ROOMS = [
    (PLAIN, "PostgreSQL", Unavailable, None),
    (OF_THE_LOG, "the audit log in PostgreSQL", Unavailable, Refused),
    (OF_SECRETS, "the secret store in PostgreSQL", SecretUnavailable, SecretDenied),
]


@pytest.mark.parametrize(("cause", "message"), OUTAGES)
@pytest.mark.parametrize(("failures", "place", "outage", "_denied"), ROOMS)
def test_an_outage_is_transient_and_named_by_its_type_only(
    failures: Failures,
    place: str,
    outage: type[Unavailable],
    _denied: object,
    cause: type[Exception],
    message: str,
) -> None:
    """An outage is the room's `Unavailable`; the message has the type of the cause and none of its text."""
    with pytest.raises(outage) as caught, failures.translated():
        raise cause(CANARY)

    assert outage is type(caught.value)
    assert f"{place} {message} ({cause.__name__})" == str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(("failures", "_place", "_outage", "denied"), ROOMS)
def test_a_missing_right_is_definitive(
    failures: Failures,
    _place: object,
    _outage: object,
    denied: type[Exception] | None,
) -> None:
    """A missing right is the room's definitive error; a room without one passes the original on."""
    with pytest.raises(denied or asyncpg.InsufficientPrivilegeError) as caught, failures.translated():
        raise asyncpg.InsufficientPrivilegeError(CANARY)

    assert denied is None or CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "fault",
    [
        *(asyncpg.UndefinedColumnError, asyncpg.CheckViolationError, ZeroDivisionError),
        asyncpg.DataError,  # asyncpg reports a wrong argument of ours; it is an `InterfaceError`, too
    ],
)
@pytest.mark.parametrize("failures", [PLAIN, OF_THE_LOG, OF_SECRETS])
def test_another_error_is_passed_on_unchanged(failures: Failures, fault: type[Exception]) -> None:
    """An error that neither waiting nor a right can solve is passed on unchanged."""
    with pytest.raises(fault), failures.translated():
        raise fault(CANARY)
