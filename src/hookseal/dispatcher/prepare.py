"""Steps 2 to 5 of a delivery: from claims of one endpoint to attempts that are ready to be sent.

What signs is had once for all of them, and let go before anything is sent.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from hookseal.dispatcher.compose import compose
from hookseal.dispatcher.model import Claim, Request, Target
from hookseal.dispatcher.policy import End, Wait, admit, await_secret
from hookseal.dispatcher.ports import Parts, dialled_with
from hookseal.ground.errors import CannotSign, Defect, Unavailable

START_WITHIN_SECONDS: Final = 2.0  # no request starts later than this after its claim (design, law 4)
SIGNED_AT_ONCE: Final = 64  # what signs is held for no longer than it takes to compose so many


@dataclass(frozen=True, slots=True)
class Signed:
    """An attempt that is ready to be sent, and the refs of what signed it, current first."""

    claim: Claim
    target: Target
    request: Request
    refs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A delivery that must not be sent now, or not at all."""

    claim: Claim
    verdict: Wait | End


@dataclass(frozen=True, slots=True)
class Faulty:
    """A delivery that a fault of ours kept from being prepared."""

    claim: Claim
    error: Exception


Prepared = Signed | Held | Faulty


async def prepared(claims: Sequence[Claim], asked_at: float, parts: Parts) -> list[Prepared]:
    """Return each of these claims of one endpoint, which one statement read, as it is to be finished.

    `asked_at` is the monotonic time just before that statement.
    """
    found: list[Prepared] = []
    admitted: list[tuple[Claim, Target]] = []
    for each in claims:
        target = admit(each, allow_http=parts.allow_http, jitter=parts.jitter())  # 2
        if isinstance(target, Target):
            admitted.append((each, target))
        else:
            found.append(Held(each, target))
    for start in range(0, len(admitted), SIGNED_AT_ONCE):
        some = admitted[start : start + SIGNED_AT_ONCE]
        try:
            found += await _sign(some, asked_at, parts)  # 3, 4, 5
        except CannotSign as error:
            found += [Held(each, unsigned(error, parts)) for each, _ in some]
        except Exception as error:  # noqa: BLE001 -- a fault of ours: it is raised for each of them
            found += [Faulty(each, error) for each, _ in some]
    return found


def unsigned(error: CannotSign, parts: Parts) -> Wait:
    """Return the wait of a delivery that could not be signed."""
    return await_secret(str(error), parts.jitter(), is_transient=isinstance(error, Unavailable))


async def _sign(admitted: Sequence[tuple[Claim, Target]], asked_at: float, parts: Parts) -> list[Signed]:
    async with parts.signers.signers(admitted[0][1].pointer) as signers:
        if not signers:
            raise Defect("a request would have left unsigned")
        refs = tuple(signer.ref for signer in signers)
        composed = partial(
            compose,
            signers=signers,
            user_agent=parts.user_agent,
            longest_seconds=parts.longest_seconds,
            start_by=asked_at + START_WITHIN_SECONDS,
        )
        return [Signed(each, target, composed(each, target), refs) for each, target in admitted]


async def with_own(signed: Signed, parts: Parts) -> tuple[Signed, AsyncExitStack]:
    """Return the attempt with the endpoint's own headers and TLS identity, and the block at whose end they are gone."""
    pointer = signed.target.pointer
    async with AsyncExitStack() as block:
        values = await block.enter_async_context(parts.signers.headers(pointer))
        tls = await block.enter_async_context(parts.signers.tls(pointer))
        request = replace(signed.request, sealed_headers=values, tls=dialled_with(tls))
        return replace(signed, request=request), block.pop_all()
