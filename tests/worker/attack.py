"""An attack with write access to all tables: its SQL, and how the victim's delivery ends.

In the SQL, `{victim}` and `{sibling}` are two endpoints of `{tenant}`, `{other_tenant}` is one of the tenant `rival`,
`{signing}` and `{headers}` name the victim's secrets, and `{thief}` is a URL of the attacker. Each endpoint has two
versions of its secret, which both sign, and header values. `old_endpoints` and `old_secret_records` are copies of the
rows before the second version.
"""

from dataclasses import dataclass, replace
from string import Template
from typing import Final

ALTERED: Final = "its MAC does not match"
UNKNOWN_KEY: Final = "names an integrity key that is not known"
STALE: Final = "is stale: it has generation"
LOST: Final = "nobody deleted it through hookseal"

_ROW: Final = Template("UPDATE hookseal.endpoints SET $to WHERE id = '{victim}'")
_RECORD: Final = Template(
    "UPDATE hookseal.secret_records SET $to WHERE tenant_id = '{tenant}' AND name = '$name' AND version = $version"
)
_DELIVERY: Final = Template(
    "UPDATE hookseal.deliveries SET $to WHERE tenant_id = '{tenant}' AND endpoint_id = '{victim}'"
)
_COLUMNS: Final = (
    "secret_ref, previous_secret_ref, previous_secret_expires_at, previous_scheme, previous_algorithm,"
    " headers_ref, tls_ref, lead, scheme, algorithm, generation, mac, mac_key_id"
)
_WHOLE: Final = Template("($columns) = (SELECT $columns FROM $table WHERE id = '$whose')")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """An attack, and the state of the victim's delivery after it; `expected_error` is part of the reason there."""

    name: str
    sql: str
    expected_error: str
    state: str = "pending"
    waiting_for: str | None = "secret"


def row(name: str, to: str, expected_error: str = ALTERED) -> Attack:
    """Return an attack that changes the victim's row."""
    return Attack(name=name, sql=_ROW.substitute(to=to), expected_error=expected_error)


def whole_row(of: str, *, table: str = "hookseal.endpoints") -> str:
    """Return the SQL assignment of the whole pointer of another row."""
    return _WHOLE.substitute(columns=_COLUMNS, whose=of, table=table)


def record(name: str, to: str, expected_error: str, *, of: str = "{signing}", version: int = 2) -> Attack:
    """Return an attack that changes one of the victim's secret records."""
    return Attack(name=name, sql=_RECORD.substitute(to=to, name=of, version=version), expected_error=expected_error)


def delivery(name: str, to: str) -> Attack:
    """Return an attack on the victim's delivery that does not keep it from arriving."""
    return idle(Attack(name=name, sql=_DELIVERY.substitute(to=to), expected_error=""))


def ending(attack: Attack) -> Attack:
    """Return the same attack, after which the delivery is failed, because such a row cannot be sent."""
    return replace(attack, state="failed", waiting_for=None)


def idle(attack: Attack) -> Attack:
    """Return the same attack, after which the delivery arrives unchanged."""
    return replace(attack, expected_error="", state="delivered", waiting_for=None)
