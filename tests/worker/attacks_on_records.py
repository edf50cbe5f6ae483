"""Attacks on sealed records and on the audit log that they are compared with."""

from string import Template
from typing import Final

from tests.worker.attack import STALE, Attack, idle, record, row, whole_row

MISPLACED: Final = "made for another tenant, name, version or purpose"
DAMAGED: Final = "was altered after it was made"
GONE: Final = "no such secret"
OLD: Final = ", so it is stale"
RETIRED: Final = "is retired and its endpoint has it as active" + OLD

_SEALED: Final = Template(
    "sealed = (SELECT sealed FROM hookseal.secret_records"
    " WHERE tenant_id = '$tenant' AND name = '$name' AND version = $version)"
)


def sealed_of(tenant: str, name: str, version: int) -> str:
    """Return the SQL assignment of the sealed value of another record."""
    return _SEALED.substitute(tenant=tenant, name=name, version=version)


_RECORDS: Final = (
    record("sealed is the older version's", sealed_of("{tenant}", "{signing}", 1), MISPLACED),
    record("sealed is the sibling's", sealed_of("{tenant}", "webhook-endpoint-{sibling}", 2), MISPLACED),
    record("sealed is another tenant's", sealed_of("rival", "webhook-endpoint-{other_tenant}", 2), MISPLACED),
    record("sealed is the header values", sealed_of("{tenant}", "{headers}", 1), MISPLACED),
    record("sealed is the integrity key", sealed_of("_system", "integrity", 1), MISPLACED),
    record(
        "sealed of the previous is the current",
        sealed_of("{tenant}", "{signing}", 2),
        MISPLACED,
        version=1,
    ),
    record(
        "header values are a signing secret",
        sealed_of("{tenant}", "{signing}", 2),
        MISPLACED,
        of="{headers}",
        version=1,
    ),
    record(
        "header values are another tenant's",
        sealed_of("rival", "endpoint-headers-{other_tenant}", 1),
        MISPLACED,
        of="{headers}",
        version=1,
    ),
    Attack(
        name="versions swapped",
        sql="UPDATE hookseal.secret_records AS r SET sealed = o.sealed FROM hookseal.secret_records AS o"
        " WHERE r.tenant_id = '{tenant}' AND r.name = '{signing}' AND o.tenant_id = r.tenant_id AND o.name = r.name"
        " AND o.version = 3 - r.version",
        expected_error=MISPLACED,
    ),
    Attack(
        name="header values and secret swapped",
        sql="UPDATE hookseal.secret_records AS r SET sealed = o.sealed FROM hookseal.secret_records AS o"
        " WHERE r.tenant_id = '{tenant}' AND o.tenant_id = r.tenant_id"
        " AND ((r.name = '{signing}' AND r.version = 2 AND o.name = '{headers}')"
        "  OR (r.name = '{headers}' AND o.name = '{signing}' AND o.version = 2))",
        expected_error=MISPLACED,
    ),
    record("sealed is empty", "sealed = ''", "too short or too long"),
    record("sealed is cut", "sealed = substring(sealed FROM 1 FOR length(sealed) - 1)", DAMAGED),
    record("sealed is longer", "sealed = sealed || '\\x00'::bytea", DAMAGED),
    record(
        "a bit of the wrap",
        "sealed = set_bit(sealed, 1000, 1 - get_bit(sealed, 1000))",
        DAMAGED,
    ),
    record(
        "a bit of the secret",
        "sealed = set_bit(sealed, 1700, 1 - get_bit(sealed, 1700))",
        DAMAGED,
    ),
    record(
        "a bit of the key id",
        "sealed = set_bit(sealed, 17, 1 - get_bit(sealed, 17))",
        "not among the keys of this process",
    ),
    record("another suite", "sealed = set_byte(sealed, 1, 2)", "of a version or suite"),
    record("another purpose", "purpose = 'endpoint-headers'", "purpose"),
    record("a purpose of nobody", "purpose = ''", "purpose"),
    record("purpose of header values", "purpose = 'webhook-signing'", "purpose", of="{headers}", version=1),
    record("another provider", "provider = 'aws', sealed = NULL, share = 'x'", GONE),
    record("material gone", "state = 'destroyed', sealed = NULL", "was destroyed"),
    record("current as previous", "state = 'previous'", "is previous and its endpoint has it as active" + OLD),
    record("current retired", "state = 'retired'", RETIRED),
    record("previous retired", "state = 'retired'", "is retired and its endpoint has it as previous" + OLD, version=1),
    record("header values retired", "state = 'retired'", RETIRED, of="{headers}", version=1),
    record("under another number", "version = 9223372036854775807", GONE),
    record("under another tenant", "tenant_id = 'rival'", GONE),
    record("under another name", "name = name || '.'", GONE),
    Attack(
        name="records of before",
        sql="UPDATE hookseal.secret_records SET state = 'retired'"
        " WHERE tenant_id = '{tenant}' AND name = '{signing}' AND version = 2;"
        "UPDATE hookseal.secret_records AS r SET state = o.state, sealed = o.sealed"
        " FROM old_secret_records AS o"
        " WHERE r.tenant_id = '{tenant}' AND r.name = '{signing}' AND o.tenant_id = r.tenant_id AND o.name = r.name"
        " AND o.version = r.version",
        expected_error=RETIRED,
    ),
    Attack(
        name="every record deleted",
        sql="DELETE FROM hookseal.secret_records WHERE tenant_id = '{tenant}' AND name = '{signing}'",
        expected_error=GONE,
    ),
    Attack(
        name="header values deleted",
        sql="DELETE FROM hookseal.secret_records WHERE tenant_id = '{tenant}' AND name = '{headers}'",
        expected_error=GONE,
    ),
)

_IDLE: Final = tuple(
    idle(record(name, to, ""))
    for name, to in (
        ("keys that never sealed it", "wrapped_by = ARRAY['ffffffffffffffff']"),
        ("scheme beside the record", "scheme = 'x-webhook'"),
        ("times of the record", "created_at = 'infinity', changed_at = '-infinity'"),
    )
)

_OLD_ROW: Final = row("", whole_row("{victim}", table="old_endpoints"))
BROKEN_LOG: Final = Attack(
    name="an old row and a head that is wrong",
    sql=f"{_OLD_ROW.sql}; UPDATE hookseal.audit_heads SET sequence = 0 WHERE tenant_id = '{{tenant}}'",  # noqa: S608
    expected_error=STALE,
)

_AUDIT: Final = (
    Attack(
        name="a generation that never was",
        sql="INSERT INTO hookseal.audit_log"
        " (tenant_id, sequence, at, actor, action, subject, after, previous_mac, mac, mac_key_id)"
        " VALUES ('{tenant}', 1000000, now(), 'x', 'secret.rotated', 'endpoint:{victim}',"
        " '{{\"generation\": 9223372036854775807}}', '', '', '1')",
        expected_error=STALE,
    ),
    Attack(
        name="a master key that never sealed it",
        sql="INSERT INTO hookseal.audit_log"
        " (tenant_id, sequence, at, actor, action, subject, after, previous_mac, mac, mac_key_id)"
        " VALUES ('{tenant}', 1000000, now(), 'x', 'secret.rotated', 'endpoint:{victim}',"
        " json_build_object('secret_ref', 'db:{tenant}:{signing}:2', 'key_id', 'ffffffffffffffff'), '', '', '1')",
        expected_error="another master key than the audit log knows" + OLD,
    ),
    BROKEN_LOG,
)

ON_RECORDS: Final = (*_RECORDS, *_IDLE, *_AUDIT)
