"""Attacks on deliveries, events and attempts, and all attacks together."""

from typing import Final

from tests.worker.attack import Attack, delivery, idle
from tests.worker.attacks_on_records import ON_RECORDS
from tests.worker.attacks_on_rows import ON_ROWS

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
