"""The statements of the secrets room, and the errors that it raises when PostgreSQL refuses one."""

from functools import partial
from typing import Final

from hookseal.errors import SecretDenied, SecretUnavailable
from hookseal.postgres.statements import Statements
from hookseal.postgres.translate import Failures

FAILURES: Final = Failures(
    place="the secret store in PostgreSQL",
    outage=SecretUnavailable,
    denied=partial(
        SecretDenied,
        "this SQL role has no right to do this in the table of secrets: grant it hookseal_worker (a worker), "
        "hookseal_operator (an operator), or hookseal_reveal beside hookseal_api (a server of the HTTP API)",
    ),
)


def statements(file: str, *, package: str = "hookseal.secrets", seconds: float | None = None) -> Statements:
    """Return the statements of a file of this room.

    Each ends within `seconds`; None means the time-out of the connection, as for most statements.
    """
    return Statements(package, file, failures=FAILURES, seconds=seconds)
