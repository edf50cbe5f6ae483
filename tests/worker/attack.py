"""An attack of somebody who may write every row: as SQL, with what becomes of its victim's delivery.

In the SQL, `{victim}` and `{sibling}` are two endpoints of `{tenant}`, `{stranger}` is one of the tenant `rival`,
`{signing}` and `{headers}` name the victim's secrets, and `{thief}` is a url of the attacker. Each endpoint has two
versions of its secret, which both sign, and header values. `old_endpoints` and `old_secret_records` hold the rows as
they were before the second version.
"""

from dataclasses import dataclass, replace
from string import Template
from typing import Final

ALTERED: Final = "its MAC does not match"
UNKNOWN_KEY: Final = "names an integrity key that is not known"
PUT_BACK: Final = "was put back to generation"
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
    """One attack, and how it leaves the victim's delivery; `says` is part of the reason that is given there."""

    name: str
    spoil: str
    says: str
    state: str = "pending"
    waiting_for: str | None = "secret"


def row(name: str, to: str, says: str = ALTERED) -> Attack:
    """Return a change of the victim's row."""
    return Attack(name=name, spoil=_ROW.substitute(to=to), says=says)


def whole_row(of: str, *, table: str = "hookseal.endpoints") -> str:
    """Return the assignment of all that a row of that table points at."""
    return _WHOLE.substitute(columns=_COLUMNS, whose=of, table=table)


def record(name: str, to: str, says: str, *, of: str = "{signing}", version: int = 2) -> Attack:
    """Return a change of one of the victim's secret records."""
    return Attack(name=name, spoil=_RECORD.substitute(to=to, name=of, version=version), says=says)


def delivery(name: str, to: str) -> Attack:
    """Return a change of the victim's delivery that keeps it from nothing."""
    return idle(Attack(name=name, spoil=_DELIVERY.substitute(to=to), says=""))


def ending(attack: Attack) -> Attack:
    """Return the same attack, as one after which the delivery is failed: such a row cannot be sent."""
    return replace(attack, state="failed", waiting_for=None)


def idle(attack: Attack) -> Attack:
    """Return the same attack, as one that keeps nothing from arriving, genuine."""
    return replace(attack, says="", state="delivered", waiting_for=None)
