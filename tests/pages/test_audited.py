"""Each act of a visitor is in the audit log under their name, and each page is there for the login of the API."""

from typing import Final

import httpx
import pytest

from hookseal import Admin
from hookseal.pages import app
from tests import rows
from tests.doubles.applications import served
from tests.doubles.logbook import audited
from tests.doubles.logins import login
from tests.doubles.stored import Installation
from tests.pages.conftest import ACCESSES, VISITOR, signed_in
from tests.pages.everything import ACTS, READ, everything, sent, token

# Each act, in an order in which each can be done, with the last row that it leaves.
RECORDED: Final = {
    "endpoint.add": "endpoint.added",
    "endpoint.save": "endpoint.updated",
    "endpoint.test": "delivery.example_sent",
    "secret.reveal": "secret.revealed",
    "secret.roll_back": "secret.rolled_back",
    "secret.ask": "endpoint.probed",
    "secret.end": "secret.overlap_ended",
    "secret.rotate": "secret.rotated",
    "delivery.body": "event.payload_read",
    "recovery.cancel": "replay.cancelled",
    "recover.start": "replay.started",
    "delivery.resend": "delivery.replayed",
    "endpoint.disable": "endpoint.disabled",
    "endpoint.enable": "endpoint.enabled",
    "endpoint.delete": "endpoint.deleted",
}


@pytest.mark.req("UI-01")
@pytest.mark.parametrize("role", [None, "hookseal_api"])
async def test_each_act_is_on_record(
    role: str | None, installation: Installation, admin: Admin, database_url: str, environ: dict[str, str]
) -> None:
    """With all rights, and with those of the login that is made for the API, which may reveal in addition."""
    theirs = await everything(installation, admin)
    pages = {page.name: page for page in ACTS}
    assert pages.keys() == RECORDED.keys()
    async with login(installation.pool, database_url, role or "hookseal_operator") as (name, of_role):
        await installation.pool.execute(f'GRANT hookseal_reveal TO "{name}"')
        async with (
            Admin.connect(environ=environ | {"DATABASE_URL": of_role}) as of_pages,
            served(app(of_pages, who=signed_in)) as url,
            httpx.AsyncClient(base_url=url, cookies={VISITOR: "jane"}, timeout=30) as client,
        ):
            mine = await token(client)
            for page in READ:
                assert 200 == (await client.get(theirs.path(page))).status_code, page.name
            for act, action in RECORDED.items():
                before = len(await audited(installation.pool))
                response = await sent(client, theirs.path(pages[act]), theirs.form(pages[act]) | {"form_token": mine})
                assert response.status_code in {200, 303}, (act, response.text)
                made = (await audited(installation.pool))[before:]
                assert (action, {ACCESSES["jane"].actor}) == (made[-1]["action"], {row["who"] for row in made}), act
                await rows.set_state(installation.pool, "dead_letter", where="state <> 'dead_letter'")
