"""What PostgreSQL raises, translated once."""

import asyncpg
import pytest

from hookseal.secrets.database import outages_translated
from hookseal.secrets.errors import SecretDenied, SecretUnavailable

pytestmark = pytest.mark.req("SEC-07")

CANARY = "canary-4f1d"
OUTAGES = [
    OSError,
    TimeoutError,
    ConnectionRefusedError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.QueryCanceledError,
    asyncpg.TooManyConnectionsError,
    asyncpg.DiskFullError,
    asyncpg.PostgresIOError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedTableError,
]


@pytest.mark.parametrize("cause", OUTAGES)
def test_an_outage_is_transient_and_told_by_its_type_only(cause: type[Exception]) -> None:
    """Whatever says "not now" is `SecretUnavailable`, with the name of its type and nothing of its text."""
    with pytest.raises(SecretUnavailable) as caught, outages_translated():
        raise cause(CANARY)

    assert f"the secret store in PostgreSQL does not answer ({cause.__name__})" == str(caught.value)
    assert caught.value.__suppress_context__


def test_a_missing_right_is_definitive() -> None:
    """A role that may not is not told to wait."""
    with pytest.raises(SecretDenied), outages_translated():
        raise asyncpg.InsufficientPrivilegeError(CANARY)


@pytest.mark.parametrize("fault", [asyncpg.UndefinedColumnError, asyncpg.CheckViolationError, ZeroDivisionError])
def test_a_fault_of_ours_passes(fault: type[Exception]) -> None:
    """What waiting cannot mend and no right would is not dressed up as anything else."""
    with pytest.raises(fault), outages_translated():
        raise fault(CANARY)
