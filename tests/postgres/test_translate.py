"""Errors of PostgreSQL are translated in one place for every room."""

import asyncpg
import pytest

from hookseal.audit.log import FAILURES as OF_THE_LOG
from hookseal.errors import Cause, HooksealError, Malformed, Refused, SecretDenied, SecretUnavailable, Unavailable
from hookseal.postgres.translate import PLAIN, Failures, for_operator
from hookseal.secrets.statements import FAILURES as OF_SECRETS

pytestmark = pytest.mark.req("SEC-07")

CANARY = "canary-4f1d"
SILENT = "does not answer"
TRY_AGAIN = "cannot do it now: try again"
NO_TABLES = "lacks the tables of hookseal: restore them"
READ_ONLY = "accepts no writes, because it is a standby or is set to read only: wait for the failover"
OUTAGES = [
    (OSError, SILENT, Cause.SILENT),
    (TimeoutError, SILENT, Cause.SILENT),
    (ConnectionRefusedError, SILENT, Cause.SILENT),
    (asyncpg.InterfaceError, SILENT, Cause.SILENT),
    (asyncpg.InternalClientError, SILENT, Cause.SILENT),
    (asyncpg.ConnectionDoesNotExistError, SILENT, Cause.SILENT),
    (asyncpg.ProtocolViolationError, SILENT, Cause.SILENT),
    (asyncpg.CannotConnectNowError, "is starting up or recovering", Cause.FAILING),
    (asyncpg.AdminShutdownError, "is shutting down, or its administrator ended", Cause.FAILING),
    (asyncpg.CrashShutdownError, "has crashed and restarts", Cause.FAILING),
    (
        asyncpg.IdleSessionTimeoutError,
        "ended an idle connection (idle_session_timeout)",
        Cause.FAILING,
    ),
    (
        asyncpg.QueryCanceledError,
        "cancelled the statement, after statement_timeout",
        Cause.FAILING,
    ),
    (
        asyncpg.TooManyConnectionsError,
        "has no connection left for this login: its adm",
        Cause.THROTTLED,
    ),
    (asyncpg.ConfigurationLimitExceededError, "has reached one of its limits", Cause.THROTTLED),
    (asyncpg.DiskFullError, "has no room left on its disk: its administrator must make room", Cause.FAILING),
    (asyncpg.OutOfMemoryError, "is out of memory: its administrator must give it more", Cause.FAILING),
    (asyncpg.PostgresIOError, "cannot read or write its own files: its administrator must", Cause.FAILING),
    (asyncpg.SerializationError, TRY_AGAIN, Cause.FAILING),
    (asyncpg.DeadlockDetectedError, TRY_AGAIN, Cause.FAILING),
    (asyncpg.LockNotAvailableError, f"{TRY_AGAIN}; another transaction holds a lock", Cause.FAILING),
    (asyncpg.ReadOnlySQLTransactionError, READ_ONLY, Cause.FAILING),
    (asyncpg.InvalidPasswordError, "refuses the login of this process: correct user and password", Cause.FAILING),
    (asyncpg.InvalidCatalogNameError, NO_TABLES, Cause.FAILING),
    (asyncpg.InvalidSchemaNameError, NO_TABLES, Cause.FAILING),
    (asyncpg.UndefinedTableError, NO_TABLES, Cause.FAILING),
]
ROOMS = [
    (PLAIN, "PostgreSQL", Unavailable, None),
    (OF_THE_LOG, "the audit log in PostgreSQL", Unavailable, Refused),
    (OF_SECRETS, "the secret store in PostgreSQL", SecretUnavailable, SecretDenied),
]


@pytest.mark.parametrize(("error", "message", "cause"), OUTAGES)
@pytest.mark.parametrize(("failures", "place", "outage", "_denied"), ROOMS)
def test_an_outage_is_transient_and_says_what_is_short(
    failures: Failures,
    place: str,
    outage: type[Unavailable],
    _denied: object,
    error: type[Exception],
    message: str,
    cause: Cause,
) -> None:
    """An outage is the room's `Unavailable`; the message says who must act, and has none of the text of the error."""
    with pytest.raises(outage) as caught, failures.translated():
        raise error(CANARY)

    assert (outage, cause) == (type(caught.value), caught.value.cause)
    assert f"{place} {message}" == str(caught.value)[: len(f"{place} {message}")]
    assert str(caught.value).endswith(f"({error.__name__})")
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (asyncpg.CannotConnectNowError("the database system is shutting down"), "is shutting down"),
        (asyncpg.ProtocolViolationError("no more connections allowed (max_client_conn)"), "no connection left"),
        (asyncpg.ProtocolViolationError("query_wait_timeout"), "no connection left"),
    ],
)
def test_the_text_decides_where_the_code_does_not(error: Exception, said: str) -> None:
    """A server that shuts down has the code of one that starts, and PgBouncer has one code for all."""
    with pytest.raises(Unavailable, match=f"PostgreSQL .*{said}"), PLAIN.translated():
        raise error


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


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (asyncpg.InsufficientPrivilegeError("x"), Refused),
        (asyncpg.DiskFullError("x"), Unavailable),
        (asyncpg.DeadlockDetectedError("x"), Unavailable),
        (asyncpg.LockNotAvailableError("x"), Unavailable),
        (asyncpg.ReadOnlySQLTransactionError("x"), Unavailable),
        (asyncpg.InterfaceError("connection is closed"), Unavailable),
        (ConnectionResetError(), Unavailable),
        (TimeoutError(), Unavailable),
        (asyncpg.ClientConfigurationError("x"), None),
        (asyncpg.UniqueViolationError("x"), None),
        (FileNotFoundError(), None),
        (KeyError(), None),
        (Malformed(), None),
    ],
)
def test_each_error_is_translated_or_passed_on(error: Exception, expected: type[HooksealError] | None) -> None:
    """An unanswered request is an outage, a missing right is a refusal, and other errors are not translated."""
    known = for_operator(error)
    assert (expected is None and known is None) or (expected is type(known) and type(error).__name__ in str(known))
