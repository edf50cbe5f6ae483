"""Whether a receiver would accept a request, and whether it is a replay, for the receiver of `hookseal up`."""

from collections.abc import Mapping
from typing import Final

from hookseal.demo.sink import Judge, delivery_of
from hookseal.errors import HooksealError
from hookseal.ground import ids
from hookseal.ground.clock import Clock
from hookseal.postgres.pool import Pool
from hookseal.postgres.statements import Statements
from hookseal.receiver import VerificationError, verify
from hookseal.secrets.boot import Unlocked
from hookseal.secrets.core.ref import Purpose, SecretRef
from hookseal.secrets.core.signing import public_key_of

_SQL: Final = Statements("hookseal.demo", "verdicts.sql", seconds=5)
_ACCEPTED: Final = 204
_UNAUTHORIZED: Final = 401


def verified_by_endpoint(pool: Pool, unlocked: Unlocked, clock: Clock) -> Judge:
    """Return a judge that answers 401 if no secret of the endpoints with the url verifies the request.

    It answers 204 if one does, if no endpoint has the url, and if a secret cannot be read. The report has `verified`
    (None if no endpoint has the url, or its secrets cannot be read), `message`, `body`, and `replay`: whether this is
    the first attempt of a replay.
    """

    async def judge(url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, object]]:
        try:
            secrets = await _secrets_at(url, pool, unlocked)
        except HooksealError as error:
            verified, message = None, f"the secret of the endpoint cannot be read: {error}"
        else:
            verified, message = _verdict(body, headers, secrets, clock)
        text = body.decode("utf-8", errors="replace")
        replay = await _is_replay(delivery_of(headers) or "", pool)
        status = _UNAUTHORIZED if verified is False else _ACCEPTED
        return status, {"verified": verified, "message": message, "body": text, "replay": replay}

    return judge


def _verdict(body: bytes, headers: Mapping[str, str], secrets: list[str], clock: Clock) -> tuple[bool | None, str]:
    if not secrets:
        return None, "no endpoint has this url"
    try:
        verify(body, headers, secrets, now=clock.now())
    except VerificationError as refusal:
        return False, str(refusal)
    return True, "with the secret of its endpoint"


async def _is_replay(delivery: str, pool: Pool) -> bool:
    """Return whether the delivery is replayed now; False if there is none with this id, or it cannot be read."""
    try:
        return await _SQL.value(pool, "is_replay", ids.delivery_id(delivery)) is True
    except HooksealError:
        return False


async def _secrets_at(url: str, pool: Pool, unlocked: Unlocked) -> list[str]:
    """Return the secrets of the endpoints with this url as their receivers get them. Raises `HooksealError`."""
    spellings = [url, url.removesuffix("/")]  # without a path both are the same
    found = []
    for row in await _SQL.rows(pool, "refs_at", spellings):
        secret = await unlocked.store.get(SecretRef.parse(row["ref"]), purpose=Purpose.WEBHOOK_SIGNING)
        found.append(public_key_of(secret) or secret.reveal().decode("utf-8", errors="replace"))
    return found
