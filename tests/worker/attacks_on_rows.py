"""Attacks on the row of an endpoint: where its requests go, and which secrets sign them."""

from typing import Final

from tests.worker.attack import ALTERED, LOST, STALE, UNKNOWN_KEY, Attack, ending, idle, row, whole_row

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
    row("algorithm", "algorithm = 'ed25519'"),
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
        ("scheme of nobody", "scheme = 'none'", "does not sign with the endpoint's scheme"),
        ("algorithm of nobody", "algorithm = 'none'", "does not sign with the endpoint's scheme"),
    )
)

# No MAC covers these columns: they decide whether, when and how often something is sent, not what signs it.
_IDLE: Final = tuple(
    idle(row(name, to))
    for name, to in (
        ("name", "name = E'\\n' || repeat('x', 10000)"),
        ("event types", "event_types = '{{}}'"),
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
    )
)
_DISABLED: Final = Attack(
    name="disabled",
    sql="UPDATE hookseal.endpoints SET enabled = false WHERE id = '{victim}'",
    expected_error="is disabled",
    waiting_for="endpoint_disabled",
)

ON_ROWS: Final = (*_RE_POINTED, *_MOVED, *_ENDED, *_IDLE, _DISABLED)
