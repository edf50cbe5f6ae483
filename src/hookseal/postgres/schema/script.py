"""Runs the `.sql` files of a migration, each with many statements, in Alembic's transaction."""

from importlib.resources import files
from typing import Any

from alembic import op
from sqlalchemy.util import await_only


def run_sql(*names: str) -> None:
    """Execute these files of `versions/` in order, in the transaction of the running migration."""
    connection = op.get_bind()
    connection.exec_driver_sql("SELECT 1")  # the adapter opens its transaction with the first statement
    driver: Any = connection.connection.driver_connection
    for name in names:
        await_only(
            driver.execute(files("hookseal.postgres.schema").joinpath("versions", name).read_text(encoding="utf-8"))
        )
