"""Every statement carries the tenant, but for those that serve the installation as a whole."""

import re
from importlib.resources import files

import pytest

from hookseal.ground.sql import statements

FILES = [
    ("hookseal.dispatcher", "endpoints.sql"),
    ("hookseal.dispatcher", "history.sql"),
    ("hookseal.dispatcher", "ledger.sql"),
    ("hookseal.dispatcher", "publish.sql"),
    ("hookseal.secrets", "keys.sql"),
    ("hookseal.secrets", "pointer.sql"),
    ("hookseal.secrets.stores", "postgres.sql"),
]
# The sweep, the keys and an operator's look by a unique id belong to the installation, not to a tenant.
FOR_ALL = {
    "longest_timeout_ms", "seconds_ago", "show", "has_endpoint",
    "lock", "is_empty", "register", "counted", "registered", "needed",
}  # fmt: skip


@pytest.mark.req("SEC-08")
@pytest.mark.parametrize(("package", "file"), FILES)
def test_every_statement_names_the_tenant(package: str, file: str) -> None:
    """A statement that reads or writes what a tenant owns names its tenant column, or is listed with its reason."""
    for name, text in statements(package, file).items():
        calls_the_functions = package == "hookseal.dispatcher" and file == "publish.sql"
        assert "tenant_id" in text or calls_the_functions or name in FOR_ALL, f"{file}: {name}"


def test_no_statement_file_is_left_out() -> None:
    """Every file of statements is among those that are looked at."""
    for package in ("hookseal.dispatcher", "hookseal.secrets", "hookseal.secrets.stores"):
        found = {entry.name for entry in files(package).iterdir() if entry.name.endswith(".sql")}
        assert found == {file for owner, file in FILES if owner == package}


@pytest.mark.req("SEC-08")
def test_every_key_begins_with_the_tenant() -> None:
    """Every primary key of a table that tenants own begins with the tenant."""
    text = files("hookseal.schema").joinpath("versions", "0001_tables.sql").read_text(encoding="utf-8")
    tables = re.findall(r"CREATE TABLE hookseal\.(\w+) \((.*?)\n\);", text, re.DOTALL)
    owned = {name: body for name, body in tables if name != "secret_keys"}

    assert {"endpoints", "events", "deliveries", "attempts", "secret_records", "producers"} == set(owned)
    for name, body in owned.items():
        assert "PRIMARY KEY (tenant_id, " in body, name
