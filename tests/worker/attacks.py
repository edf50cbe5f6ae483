"""An attack with write access to all tables: its SQL, and how the victim's delivery ends."""

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


# Attacks on the row of an endpoint: where its requests go, and which secrets sign them.


_RE_POINTED: Final = (
    row("url of the attacker", "url = '{thief}'"),
    row("url of another tenant", "url = (SELECT url FROM hookseal.endpoints WHERE id = '{other_tenant}')"),
    row("url in other spelling", "url = url || '?'"),
    row("current is none", "secret_ref = NULL"),
    row("current is the older version", "secret_ref = 'db:{tenant}:{signing}:1'"),
    row("current is a version to come", "secret_ref = 'db:{tenant}:{signing}:3'"),
    row("current is the sibling's", "secret_ref = 'db:{tenant}:webhook-endpoint-{sibling}:2'"),
    row("current is another tenant's", "secret_ref = 'db:rival:webhook-endpoint-{other_tenant}:2'"),
    row("current is the header values", "secret_ref = headers_ref"),
    row("current is the integrity key", "secret_ref = 'db:_system:integrity:1'"),
    row("current is at another provider", "secret_ref = 'dev:{tenant}:{signing}:2'"),
    row("current is no ref", "secret_ref = ''"),
    row("current is endless", "secret_ref = repeat('x', 100000)"),
    row("current and previous swapped", "secret_ref = previous_secret_ref, previous_secret_ref = secret_ref"),
    row("previous is none", "previous_secret_ref = NULL"),
    row("previous is nothing at all", "previous_secret_ref = NULL, previous_secret_expires_at = NULL"),
    row("previous is another tenant's", "previous_secret_ref = 'db:rival:webhook-endpoint-{other_tenant}:1'"),
    row("previous is the current", "previous_secret_ref = secret_ref"),
    row("previous signs for ever", "previous_secret_expires_at = '8999-12-31Z'"),
    row("previous signs no more", "previous_secret_expires_at = '2000-01-01Z'"),
    row("previous never began", "previous_secret_expires_at = NULL"),
    row("previous in another scheme", "previous_scheme = 'x-webhook'"),
    row("previous in no scheme", "previous_scheme = NULL"),
    row("previous by another algorithm", "previous_algorithm = 'ed25519'"),
    row("previous by no algorithm", "previous_algorithm = NULL"),
    row("scheme", "scheme = 'x-webhook'"),
    row("scheme of nobody", "scheme = 'none'"),
    row("algorithm", "algorithm = 'ed25519'"),
    row("algorithm of nobody", "algorithm = 'none'"),
    row("lead", "lead = 'current'"),
    row("headers are none", "headers_ref = NULL"),
    row("headers are the sibling's", "headers_ref = 'db:{tenant}:endpoint-headers-{sibling}:1'"),
    row("headers are another tenant's", "headers_ref = 'db:rival:endpoint-headers-{other_tenant}:1'"),
    row("headers are the signing secret", "headers_ref = secret_ref"),
    row("headers are no ref", "headers_ref = 'x'"),
    row("TLS identity is none", "tls_ref = NULL"),
    row("TLS identity is the sibling's", "tls_ref = 'db:{tenant}:endpoint-tls-{sibling}:1'"),
    row("TLS identity is another tenant's", "tls_ref = 'db:rival:endpoint-tls-{other_tenant}:1'"),
    row("TLS identity is the header values", "tls_ref = headers_ref"),
    row("TLS identity in the place of the header values", "headers_ref = tls_ref, tls_ref = NULL"),
    row("TLS identity is no ref", "tls_ref = 'x'"),
    row("generation lower", "generation = generation - 1"),
    row("generation higher", "generation = generation + 1"),
    row("generation lowest", "generation = -9223372036854775808"),
    row("generation highest", "generation = 9223372036854775807"),
    row("MAC is none", "mac = NULL", "has no MAC"),
    row("MAC and secret are none", "mac = NULL, secret_ref = NULL", "has no secret yet"),
    row("MAC is empty", "mac = ''"),
    row("MAC with a bit flipped", "mac = set_bit(mac, 7, 1 - get_bit(mac, 7))"),
    row("MAC cut", "mac = substring(mac FROM 1 FOR 31)"),
    row("MAC of the sibling", "mac = (SELECT mac FROM hookseal.endpoints WHERE id = '{sibling}')"),
    row("MAC of another tenant", "mac = (SELECT mac FROM hookseal.endpoints WHERE id = '{other_tenant}')"),
    row("MAC under no key", "mac_key_id = NULL", UNKNOWN_KEY),
    row("MAC under a key to come", "mac_key_id = '2'", UNKNOWN_KEY),
    row("MAC under a key that is no number", "mac_key_id = ''", UNKNOWN_KEY),
    row("all of the sibling's", whole_row("{sibling}")),
    row("all of another tenant's", whole_row("{other_tenant}")),
    row("all of before", whole_row("{victim}", table="old_endpoints"), STALE),
    row("plaintext in its place", "secret = 'whsec_' || repeat('A', 32), secret_ref = NULL"),
)

_MOVED: Final = (
    Attack(name="row deleted", sql="DELETE FROM hookseal.endpoints WHERE id = '{victim}'", expected_error=LOST),
    row("row under another id", "id = hookseal.uuid7()", LOST),
    row("row moved to another tenant", "tenant_id = 'rival'", LOST),
    Attack(
        name="row replaced by a copy of the sibling's",
        sql="DELETE FROM hookseal.endpoints WHERE id = '{victim}';"
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret_ref, generation, mac, mac_key_id)"
        " SELECT tenant_id, '{victim}', '{thief}', event_types, secret_ref, generation, mac, mac_key_id"
        " FROM hookseal.endpoints WHERE id = '{sibling}'",
        expected_error=ALTERED,
    ),
    Attack(
        name="secret of its own for a copy of the row",
        sql="DELETE FROM hookseal.endpoints WHERE id = '{victim}';"
        "INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret)"
        " VALUES ('{tenant}', '{victim}', '{thief}', '{{*}}', 'whsec_' || repeat('A', 32))",
        expected_error="has no secret yet",
    ),
)

_ENDED: Final = tuple(
    ending(row(name, to, expected_error))
    for name, to, expected_error in (
        ("url of no protocol of ours", "url = 'file:///etc/passwd'", "must be https://"),
        ("url with a password", "url = 'http://a:b@' || substring(url FROM 8)", "the endpoint's url"),
    )
)

# No MAC covers these columns: they decide whether, when and how often something is sent, not what signs it.
_IDLE: Final = tuple(
    idle(row(name, to))
    for name, to in (
        ("name", "name = E'\\n' || repeat('x', 10000)"),
        ("event types", "event_types = '{{}}'"),
        ("channels", "channels = '{{x}}'"),
        ("time-out", "timeout_ms = 20000"),
        ("attempts allowed", "retry_schedule = NULL, max_attempts = 1"),
        ("back-off", "retry_schedule = NULL, backoff_base_seconds = 86400, backoff_cap_seconds = 1"),
        ("schedule", "retry_schedule = '{{604800}}'"),
        ("reason for being disabled", "disabled_reason = 'x', disabled_at = 'infinity'"),
        ("last reason for being disabled", "last_disabled_reason = 'x', last_disabled_at = 'infinity'"),
        ("failing", "first_failure_at = '2001-01-01Z', last_failure_at = '2001-01-01Z'"),
        ("limits", "concurrency = 1, rate = 1"),
        ("order", "ordered = NOT ordered, on_dead_letter = 'skip'"),
        ("what is shown of TLS", "tls_shown = '{{}}'"),
        ("names of headers", "header_names = '{{x-other,authorization}}'"),
        ("rotation by schedule, due", "rotate_every_days = 1, secret_updated_at = '2001-01-01Z'"),
        ("rotation by schedule, long overdue", "rotate_every_days = 1, secret_updated_at = '-infinity'"),
        ("rotation by schedule, never", "rotate_every_days = 30, secret_updated_at = 'infinity'"),
        ("provider of the secret", "secret_provider = 'aws'"),
        ("plaintext beside", "secret = 'whsec_' || repeat('A', 32)"),
        ("made at no time", "created_at = '-infinity'"),
        ("url since no time", "url_since = 'infinity'"),
        ("changed at no time", "updated_at = 'infinity'"),
        ("one url for several", "shares_url = true"),
        ("what the product keeps", "uid = 'x', description = repeat('x', 1024), metadata = '{{\"a\": \"b\"}}'"),
    )
)
_DISABLED: Final = Attack(
    name="disabled",
    sql="UPDATE hookseal.endpoints SET enabled = false WHERE id = '{victim}'",
    expected_error="is disabled",
    waiting_for="endpoint_disabled",
)

ON_ROWS: Final = (*_RE_POINTED, *_MOVED, *_ENDED, *_IDLE, _DISABLED)


# Attacks on sealed records and on the audit log that they are compared with.


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

_IDLE_RECORDS: Final = tuple(
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

ON_RECORDS: Final = (*_RECORDS, *_IDLE_RECORDS, *_AUDIT)


# Attacks on deliveries, events and attempts, and all attacks together.


# A writer of deliveries and events may cause requests, but only to endpoints as configured, with their own signatures.
ON_DELIVERIES: Final = (
    delivery("delivery sent to the sibling", "endpoint_id = '{sibling}', replay_of = id"),
    Attack(
        name="delivery sent to another tenant",
        sql='INSERT INTO hookseal.events SELECT (jsonb_populate_record(e, \'{{"tenant_id": "rival"}}\')).*'
        " FROM hookseal.events AS e WHERE tenant_id = '{tenant}';"
        "UPDATE hookseal.deliveries SET tenant_id = 'rival', endpoint_id = '{other_tenant}'"
        " WHERE tenant_id = '{tenant}' AND endpoint_id = '{victim}'",
        expected_error="",
        state="delivered",
        waiting_for=None,
    ),
    Attack(
        name="delivery of a tenant sent to another's endpoint",
        sql="UPDATE hookseal.deliveries SET endpoint_id = '{other_tenant}'"
        " WHERE tenant_id = '{tenant}' AND endpoint_id = '{victim}'",
        expected_error="the endpoint is gone",
        state="cancelled",
        waiting_for=None,
    ),
    delivery("as many attempts as there are numbers", "attempts = 2147483647"),
    delivery("fewer attempts than none", "attempts = -2147483648"),
    delivery("as much spent as there are numbers", "budget_spent = 2147483647"),
    delivery("the last place of a line that is not there", "position = 9223372036854775807"),
    idle(
        Attack(
            name="an attempt that was not made",
            sql="INSERT INTO hookseal.attempts"
            " (tenant_id, delivery_id, number, started_at, outcome, signed_by, worker)"
            " SELECT tenant_id, id, 1, now(), 'delivered', '{{db:rival:webhook-endpoint-x:1}}', 'x'"
            " FROM hookseal.deliveries WHERE tenant_id = '{tenant}' AND endpoint_id = '{victim}'",
            expected_error="",
        )
    ),
)

ATTACKS: Final = (*ON_ROWS, *ON_RECORDS, *ON_DELIVERIES)
