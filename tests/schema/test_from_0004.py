"""From revision 0004, with what an installation holds: nothing is lost, and every row keeps its MAC."""

import asyncpg
import pytest

from hookseal.schema.upgrade import upgrade
from hookseal.secrets import pointer
from tests.schema.older import upgraded_to

_ROWS = """
INSERT INTO hookseal.endpoints (tenant_id, id, url, event_types, secret_ref, headers_ref, generation, mac, mac_key_id)
VALUES ('acme', '0197c1f0-5e6a-7c3b-9d2e-4f5061728394', 'https://a.example/', '{*}', 'db:acme:s:1', 'db:acme:h:1',
        2, 'm', '1')
"""


@pytest.mark.req("OPS-09", part="from-the-previous")
@pytest.mark.req("DEL-13", part="client-keys")
async def test_from_0004(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation of 0004 keeps its rows: none has a TLS identity, so that every MAC stays what it was."""
    await upgraded_to("0004", empty_database_url, monkeypatch)
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.execute(_ROWS)
        [before] = await connection.fetch("SELECT * FROM hookseal.endpoints")

        await upgrade(empty_database_url)

        [after] = await connection.fetch("SELECT * FROM hookseal.endpoints")
        assert dict(before) | {"tls_ref": None, "tls_shown": None} == dict(after)
        [found] = [each async for each in pointer.every(connection)]
        assert ("db:acme:h:1", None) == (found.headers_ref, found.tls_ref)
    finally:
        await connection.close()
