"""Which versions of a secret must sign for a pointer, with every check that needs no key and no store. Pure."""

from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Final, NamedTuple

from hookseal.errors import Malformed, SecretNotFound, SecretTampered, SecretUnusable
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets.core.ref import Provider, SecretRef
from hookseal.secrets.endpoint.pointer import require_own
from hookseal.secrets.store.port import require_provider

_SCHEMES: Final = {scheme.value: scheme for scheme in Scheme}
_ALGORITHMS: Final = {algorithm.value: algorithm for algorithm in Algorithm}
_REFS_REMEMBERED: Final = 16_384  # every claim has refs as text, and parsing one costs ten times a look-up

_NO_EPOCHS: Final = (
    "hookseal.control lacks its row `cache` or `restore`, or an epoch there is below zero: put the row back, with an "
    "epoch above the one that it had (docs/threat-model.md)"
)


class Due(NamedTuple):
    """A version that must sign: its ref, as text and parsed, with its scheme and algorithm."""

    text: str
    ref: SecretRef
    scheme: Scheme
    algorithm: Algorithm


def require_secret(pointer: Pointer) -> None:
    """Raise `SecretNotFound` if the endpoint has neither a secret nor a MAC."""
    if pointer.secret_ref is None and pointer.mac is None:
        raise SecretNotFound("the endpoint has no secret yet")


def require_epochs(pointer: Pointer) -> None:
    """Raise `SecretTampered` if the database has lost one of its epochs."""
    if pointer.cache_epoch < 0 or pointer.restore_epoch < 0:
        raise SecretTampered(_NO_EPOCHS)


def versions_due(pointer: Pointer, providers: AbstractSet[Provider]) -> tuple[Due, ...]:
    """Return the current version, then the previous one while it is due. The MAC must have been verified before.

    Raises `SecretTampered`, `SecretDenied` (a ref of another tenant, endpoint or provider), `SecretUnusable` (an
    unknown scheme or algorithm) and `SecretNotFound`.
    """
    how = _usable(pointer.scheme, pointer.algorithm)
    current = _checked(pointer, pointer.secret_ref, providers)
    previous = _checked(pointer, pointer.previous_secret_ref, providers)
    if current is None or (pointer.previous_due and previous is None):
        raise SecretNotFound("the endpoint lacks a secret that is due")
    first = Due(*current, *how)
    if previous is None or not pointer.previous_due:
        return (first,)
    if pointer.previous_scheme is None or pointer.previous_algorithm is None:
        raise SecretTampered("the endpoint row lacks the scheme or the algorithm of its previous secret")
    how = _usable(pointer.previous_scheme, pointer.previous_algorithm)
    return first, Due(*previous, *how)


@lru_cache(maxsize=_REFS_REMEMBERED)
def parsed(text: str) -> SecretRef:
    """Return the ref. Raises `SecretTampered` if it is malformed."""
    try:
        return SecretRef.parse(text)
    except Malformed as error:
        raise SecretTampered(str(error)) from None


def _checked(pointer: Pointer, text: str | None, providers: AbstractSet[Provider]) -> tuple[str, SecretRef] | None:
    """Return the ref, as text and parsed. Raises `SecretDenied` if it is of another endpoint or store."""
    if text is None:
        return None
    ref = parsed(text)
    require_own(ref, tenant=pointer.tenant_id, endpoint_id=pointer.endpoint_id)
    require_provider(ref, *providers)
    return text, ref


def _usable(scheme: str, algorithm: str) -> tuple[Scheme, Algorithm]:
    """Return both as their enums. Raises `SecretUnusable` if one is unknown."""
    found = _SCHEMES.get(scheme), _ALGORITHMS.get(algorithm)
    if found[0] is None or found[1] is None:
        raise SecretUnusable
    return found[0], found[1]
