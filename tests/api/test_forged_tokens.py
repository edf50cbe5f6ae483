"""SQL without the key makes no token and changes none: two running servers refuse it, of which one has no key."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import httpx
import pytest

from hookseal import Admin, Publisher
from hookseal.admin import PortalAccess, Scope
from hookseal.api import app
from hookseal.dispatcher.store import tokens
from hookseal.errors import NotFound
from hookseal.operations.key.keys import rotate_integrity_key
from hookseal.postgres.pool import Pool
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.token_seal import TokenSeal, public_key
from hookseal.secrets.core.trust import IntegrityKey
from tests.doubles.applications import served
from tests.doubles.logins import login
from tests.doubles.stored import Installation

pytestmark = [pytest.mark.req("API-13")]
BY: Final = "the tests"
FORGED: Final = "whst_" + "F" * 43
_COLUMNS: Final = (
    "tenant_id, id, name, digest, scopes, created_at, expires_at, portal, user_name, session_id, refresh_url,"
    " code_digest, made_of, generation, signature, signature_key_id"
)
# What is inserted beside a genuine token with what it has, but another id, name and text: by a login of the API.
MADE: Final = {
    "for every tenant": "'*', '{read,publish,manage,operate,reveal}'::text[], false, NULL::timestamptz",
    "to reveal": "'acme', '{reveal}'::text[], false, NULL::timestamptz",
    "a portal": "'acme', '{read,reveal}'::text[], true, now() + interval '7 days'",
}
_MAKE: Final = """
INSERT INTO hookseal.api_tokens
    (tenant_id, id, name, digest, scopes, portal, expires_at, generation, signature, signature_key_id)
SELECT m.tenant, hookseal.uuid7(), 'forged', $2, m.scopes, m.portal, m.ends, t.generation, t.signature,
       t.signature_key_id
FROM hookseal.api_tokens AS t, (SELECT {made}) AS m (tenant, scopes, portal, ends)
WHERE t.id = $1::text::uuid
"""
# What is set of a genuine token, and whether a login of the API may. Else a login that may write any row does it.
CHANGED: Final = {
    "scopes = '{read,publish,manage,operate,reveal}'": False,
    "tenant_id = '*'": False,
    "tenant_id = 'globex'": False,
    "name = 'another'": False,
    "digest = sha256('another')": False,
    "id = hookseal.uuid7()": False,
    "created_at = created_at + interval '1 minute'": False,
    "user_name = 'root'": False,
    "session_id = 'another'": False,
    "refresh_url = 'https://evil.example'": False,
    "code_digest = sha256('a code of the attacker')": False,
    "made_of = hookseal.uuid7()": False,
    "expires_at = expires_at + interval '1 minute'": True,
    "code_spent_at = now()": True,
    "generation = generation + 1": True,
    "signature = decode(repeat('00', 64), 'hex')": True,
    "signature_key_id = '2'": True,
}
_SIGNED_BY: Final = """
UPDATE hookseal.api_tokens SET scopes = $2, signature = $3, signature_key_id = '9' WHERE id = $1::text::uuid
"""
# Whoever may append to the audit log gives it a generation, too.
_LOGGED: Final = """
INSERT INTO hookseal.audit_log (tenant_id, sequence, at, actor, action, subject, after, previous_mac, mac, mac_key_id)
SELECT t.id, 1000, now(), session_user || '/x', 'token.added', 'token:forged', '{"generation":1}', '', '', '1'
FROM unnest(ARRAY['acme', '_system']) AS t (id)
"""
_OLD: Final = "SELECT row_to_json(t)::text FROM hookseal.api_tokens AS t WHERE t.id = $1::text::uuid"
_BACK: Final = """
UPDATE hookseal.api_tokens AS t
SET expires_at = o.expires_at, revoked_at = o.revoked_at, code_spent_at = o.code_spent_at, generation = o.generation,
    signature = o.signature, signature_key_id = o.signature_key_id
FROM json_populate_record(NULL::hookseal.api_tokens, $1::text::json) AS o
WHERE t.id = o.id
"""
_AGAIN: Final = f"""
INSERT INTO hookseal.api_tokens ({_COLUMNS})
SELECT {_COLUMNS} FROM json_populate_record(NULL::hookseal.api_tokens, $1::text::json)
"""  # noqa: S608 -- of this file


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Two servers, with a login each: one that manages and reveals, one without a key; and who attacks."""

    admin: Admin
    writer: Pool
    thief: "asyncpg.Connection[asyncpg.Record]"
    servers: tuple[httpx.AsyncClient, httpx.AsyncClient]

    async def answers(self, text: str) -> list[int]:
        """Return how each server answers a request with this token."""
        headers = {"authorization": f"Bearer {text}"}
        return [(await server.get("/api/v1/app/acme/endpoint", headers=headers)).status_code for server in self.servers]

    async def portal(self) -> PortalAccess:
        return await self.admin.portal.add(tenant_id="acme", user="jane", session_id="s", actor=BY)

    async def old(self, token_id: str) -> str:
        row: str = await self.writer.fetchval(_OLD, token_id)
        return row


@pytest.fixture
async def scene(installation: Installation, admin: Admin, environ: dict[str, str]) -> AsyncIterator[Scene]:
    """Yield the servers and the attacker, whose login is that of the server that manages, without its key."""
    pool, owner = installation.pool, environ["DATABASE_URL"]
    plain = {name: value for name, value in environ.items() if not name.startswith("SECRETS_")}
    async with (
        login(pool, owner, "hookseal_api", "hookseal_reveal") as (_, managing),
        login(pool, owner, "hookseal_api_publisher") as (_, publishing),
        Admin.connect(managing, environ=environ) as manager,
        Admin.connect(publishing, environ=plain) as reader,
        Publisher.connect(owner, "") as publisher,
        served(app(manager, publisher)) as of_manager,
        served(app(reader, publisher)) as of_reader,
        httpx.AsyncClient(base_url=of_manager) as one,
        httpx.AsyncClient(base_url=of_reader) as two,
    ):
        thief = await asyncpg.connect(managing)
        try:
            yield Scene(admin=admin, writer=pool, thief=thief, servers=(one, two))
        finally:
            await thief.close()


def text_of(made: Any) -> str:
    text: str = made.token.reveal().decode()
    return text


async def test_nobody_makes_a_token_without_the_key(scene: Scene) -> None:
    """A login of the API inserts one with whatever it likes, and the signature of a genuine one."""
    genuine = await scene.admin.tokens.add(name="small", tenant_id="acme", scopes=["read"], actor=BY)
    assert [200, 200] == await scene.answers(text_of(genuine))
    await scene.thief.execute(_LOGGED)
    for made in MADE.values():
        digest = tokens.digest(FORGED.encode())
        assert "INSERT 0 1" == await scene.thief.execute(_MAKE.format(made=made), genuine.token_id, digest)
        assert [401, 401] == await scene.answers(FORGED), made
        assert "DELETE 1" == await scene.writer.execute("DELETE FROM hookseal.api_tokens WHERE name = 'forged'")
    assert [200, 200] == await scene.answers(text_of(genuine))


async def test_nobody_changes_a_token_without_the_key(scene: Scene) -> None:
    """Each column that decides something: widened, moved to another tenant, lengthened, or given another text."""
    wrong, refused = {}, []
    for change, may_the_login in CHANGED.items():
        made = await scene.portal()
        assert [200, 200] == await scene.answers(text_of(made))
        statement = f"UPDATE hookseal.api_tokens SET {change} WHERE id = $1::text::uuid"  # noqa: S608 -- of this file
        if may_the_login:
            await scene.thief.execute(statement, made.token_id)
        else:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await scene.thief.execute(statement, made.token_id)
            try:
                await scene.writer.execute(statement, made.token_id)
            except asyncpg.CheckViolationError:
                refused.append(change)
                continue
        text = "another" if "digest = sha256('another')" in change else text_of(made)
        answers = await scene.answers(text)
        if answers != [401, 401]:
            wrong[change] = answers
        refresh = await scene.admin.portal.refresh_url(code=made.code.reveal().decode())
        if refresh is not None:
            wrong[change] = [0, 0]
        with pytest.raises(NotFound):
            await scene.admin.portal.exchange(code=made.code.reveal().decode())
    assert {} == wrong
    assert ["tenant_id = '*'"] == refused  # PostgreSQL itself has no such portal


async def test_a_token_that_ended_does_not_come_back(scene: Scene) -> None:
    """It was revoked alone, with its session, with others or with its tenant; an older row is put back, or inserted."""
    admin = scene.admin
    for end in ("revoke", "session", "all"):
        made = await scene.portal()
        session = await admin.portal.exchange(code=made.code.reveal().decode())
        held = made if end == "revoke" else session
        old = await scene.old(held.token_id)
        assert [200, 200] == await scene.answers(text_of(held))
        match end:
            case "all":
                await admin.portal.expire_all(tenant_id="acme", actor=BY)
            case _:
                await admin.tokens.revoke(name=made.name, actor=BY)
        assert [401, 401] == await scene.answers(text_of(held))
        assert "UPDATE 1" == await scene.thief.execute(_BACK, old)
        assert [401, 401] == await scene.answers(text_of(held)), end
        await scene.writer.execute("DELETE FROM hookseal.api_tokens WHERE id = $1::text::uuid", held.token_id)
        assert "INSERT 0 1" == await scene.thief.execute(_AGAIN, old)
        assert [401, 401] == await scene.answers(text_of(held)), end


async def test_a_name_that_was_used_before_brings_no_token_back(scene: Scene) -> None:
    first = await scene.admin.tokens.add(name="product", tenant_id="acme", actor=BY)
    old = await scene.old(first.token_id)
    await scene.admin.tokens.revoke(name="product", actor=BY)
    second = await scene.admin.tokens.add(name="product", tenant_id="acme", actor=BY)
    assert [200, 200] == await scene.answers(text_of(second))
    await scene.thief.execute("UPDATE hookseal.api_tokens SET revoked_at = now() WHERE name = 'product'")
    assert "UPDATE 1" == await scene.thief.execute(_BACK, old)
    assert [401, 401] == await scene.answers(text_of(first))


async def test_an_earlier_end_stays(scene: Scene) -> None:
    """The end is authentic, too; the row as it was before is refused."""
    made = await scene.portal()
    old = await scene.old(made.token_id)
    await scene.admin.portal.expire_all(tenant_id="acme", after_seconds=600, actor=BY)
    assert [200, 200] == await scene.answers(text_of(made))
    assert "UPDATE 1" == await scene.thief.execute(_BACK, old)
    assert [401, 401] == await scene.answers(text_of(made))


async def test_a_forged_portal_ends_with_the_others_and_is_not_signed(scene: Scene) -> None:
    made = await scene.portal()
    await scene.thief.execute(
        "UPDATE hookseal.api_tokens SET expires_at = created_at + interval '7 days' WHERE id = $1::text::uuid",
        made.token_id,
    )
    await scene.admin.portal.expire_all(tenant_id="acme", after_seconds=3_600, actor=BY)
    assert [401, 401] == await scene.answers(text_of(made))
    assert "revoked" == (await scene.admin.tokens.get(token_id=made.token_id)).state


async def test_a_code_is_spent_once_whatever_is_put_back(scene: Scene) -> None:
    made = await scene.portal()
    code, old = made.code.reveal().decode(), await scene.old(made.token_id)
    session = await scene.admin.portal.exchange(code=code)
    await scene.thief.execute(
        "UPDATE hookseal.api_tokens SET code_spent_at = NULL WHERE id = $1::text::uuid", made.token_id
    )
    with pytest.raises(NotFound):
        await scene.admin.portal.exchange(code=code)
    assert "UPDATE 1" == await scene.thief.execute(_BACK, old)
    await scene.writer.execute("DELETE FROM hookseal.api_tokens WHERE id = $1::text::uuid", session.token_id)
    with pytest.raises(NotFound):
        await scene.admin.portal.exchange(code=code)


async def test_a_signature_of_another_key_is_refused(scene: Scene) -> None:
    """A login of the API publishes no key. One that writes any row does: only a server with the key refuses then."""
    genuine = await scene.admin.tokens.add(name="small", tenant_id="acme", scopes=["read"], actor=BY)
    own = IntegrityKey(key_id="9", material=SecretMaterial(bytes(32)))
    row = json.loads(await scene.old(genuine.token_id)) | {"scopes": [*map(str, Scope)], "generation": 1}
    signed = TokenSeal(own).signed(
        {
            **dict.fromkeys(
                ("user", "expires_at", "session_id", "refresh_url", "code_digest", "code_spent_at", "made_of")
            ),
            **{name: row[name] for name in ("tenant_id", "name", "scopes", "generation", "portal")},
            "token_id": genuine.token_id,
            "created_at": genuine.created_at,
            "digest": tokens.digest(text_of(genuine).encode()),
        }
    )
    await scene.writer.execute(_SIGNED_BY, genuine.token_id, signed["scopes"], signed["signature"])
    assert [401, 401] == await scene.answers(text_of(genuine))
    publish = "INSERT INTO hookseal.token_keys (key_id, public_key) VALUES ('9', $1)"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await scene.thief.execute(publish, public_key(own, "9"))
    await scene.writer.execute(publish, public_key(own, "9"))
    assert [401, 200] == await scene.answers(text_of(genuine))


async def test_tokens_stay_when_the_integrity_key_is_rotated(scene: Scene, installation: Installation) -> None:
    """The older version verifies what it signed, and the next one signs new tokens; both servers follow."""
    before = await scene.admin.tokens.add(name="before", tenant_id="acme", actor=BY)
    assert [200, 200] == await scene.answers(text_of(before))
    await installation.act(rotate_integrity_key, lambda size: b"n" * size)
    after = await scene.admin.tokens.add(name="after", tenant_id="acme", actor=BY)
    assert [[200, 200]] * 2 == [await scene.answers(text_of(each)) for each in (after, before)]
    used_under = await scene.writer.fetch("SELECT signature_key_id FROM hookseal.api_tokens ORDER BY id")
    assert ["1", "2"] == [row[0] for row in used_under]


async def test_the_role_of_a_publisher_writes_no_token(
    installation: Installation, scene: Scene, environ: dict[str, str]
) -> None:
    """It records that a token was used, by a function that does nothing else."""
    made = await scene.admin.tokens.add(name="small", tenant_id="acme", scopes=["read"], actor=BY)
    async with login(installation.pool, environ["DATABASE_URL"], "hookseal_api_publisher") as (_, url):
        connection = await asyncpg.connect(url)
        try:
            for statement in (
                "INSERT INTO hookseal.api_tokens (tenant_id) VALUES ('*')",
                "DELETE FROM hookseal.api_tokens",
                *(f"UPDATE hookseal.api_tokens SET {each} = {each}" for each in _COLUMNS.split(", ")),  # noqa: S608
                "UPDATE hookseal.api_tokens SET revoked_at = NULL",
                "UPDATE hookseal.api_tokens SET last_used_on = NULL",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
            await connection.execute("SELECT hookseal.use_tokens(ARRAY[$1::text::uuid])", made.token_id)
        finally:
            await connection.close()
    assert (await scene.admin.tokens.get(token_id=made.token_id)).last_used_on is not None
