"""Reads the SQLSTATE from the errors of drivers, and of the frameworks that wrap them. It imports none of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerError:
    """What PostgreSQL said; `sqlstate` is None if the error is not from PostgreSQL."""

    sqlstate: str | None = None
    message: str = ""
    column: str | None = None


def described(error: BaseException) -> ServerError:
    """Return what PostgreSQL said, from an error of psycopg, asyncpg, pg8000, or one that wraps it."""
    return next((said for each in _chain(error) if (said := _read(each)) is not None), ServerError())


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and those that it wraps, from the innermost, which knows most, to the outermost."""
    inner = getattr(error, "orig", None) or error.__cause__
    if isinstance(inner, BaseException) and inner is not error:
        yield from _chain(inner)
    yield error


def _read(error: Any) -> ServerError | None:
    diagnosis = getattr(error, "diag", None)
    if diagnosis is not None:  # psycopg and psycopg2
        return ServerError(
            sqlstate=diagnosis.sqlstate, message=diagnosis.message_primary or "", column=diagnosis.column_name
        )
    detail = error.args[0] if error.args else None
    if isinstance(detail, dict) and "C" in detail:  # pg8000: the fields of the protocol
        return ServerError(sqlstate=detail["C"], message=detail.get("M", ""), column=detail.get("c"))
    if hasattr(error, "sqlstate") and hasattr(error, "column_name"):  # asyncpg
        return ServerError(sqlstate=error.sqlstate, message=str(detail), column=error.column_name)
    return None
