"""Whether a row of an endpoint may sign: it is genuine, the newest, and names what is its own and can be used. Pure."""

import hmac
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple, NoReturn, assert_never

from hookseal.errors import (
    Defect,
    IntegrityKeyUnknown,
    Malformed,
    SecretDenied,
    SecretNotFound,
    SecretTampered,
    SecretUnusable,
    StaleRow,
)
from hookseal.ground.ids import EndpointId, TenantId
from hookseal.ground.pointer import Pointer
from hookseal.ground.wire import Algorithm, Scheme, framed, microseconds
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import (
    Provider,
    Purpose,
    SecretRef,
    endpoint_headers_name,
    endpoint_secret_name,
    endpoint_tls_name,
)

_LABEL: Final = b"hookseal.endpoint.pointer.v1"
_REPAIR: Final = "restore what it was, then run `hookseal secret cache-clear` (runbook, HooksealSecretRefused)"
_NONE: Final[Mapping[str, SecretMaterial]] = MappingProxyType({})
_MIGRATE: Final = (
    "if it holds the plaintext of an older system, run `hookseal migrate-secrets`, else delete the endpoint and add it "
    "again (runbook, HooksealPlaintextSecrets)"
)
MOST_VERIFIED: Final = 10_000
_ACCEPT: Final = "if it is lawful run `hookseal restore accept --head FILE` (runbook, HooksealStaleRow)"


class IntegrityKey:
    """The integrity key in all its versions: the newest one makes MACs, older ones only verify them.

    The id of a version is its number, as text: `1` for the first. The object is shared, so a version that is adopted
    later is known wherever the key is used.

    Of the endpoints whose rows were verified last, at most `MOST_VERIFIED`, it remembers what the MAC of the row
    covers, and the MAC. If a row is equal to that, its MAC is not computed again: for a claim of many endpoints that
    would take longer than to decrypt their secrets. When a version is adopted, all is forgotten: it may replace one.
    """

    __slots__ = ("_newest", "_verified", "_versions")

    def __init__(self, *, key_id: str, material: SecretMaterial, older: Mapping[str, SecretMaterial] = _NONE) -> None:
        self._versions = {**older, key_id: material}
        self._newest = key_id
        self._verified: OrderedDict[tuple[TenantId, EndpointId], tuple[object, ...]] = OrderedDict()

    @property
    def key_id(self) -> str:
        """The id of the version that makes MACs."""
        return self._newest

    def adopt(self, key_id: str, material: SecretMaterial) -> None:
        """Add that version. It makes MACs from now on if it is the newest."""
        self._versions[key_id] = material
        self._newest = max(self._versions, key=int)
        self._verified.clear()

    def make_under(self, key_id: str) -> None:
        """Make MACs under that version from now on: it is the newest one in the store, and must be known."""
        if not self.knows(key_id):
            raise Defect("an integrity key makes MACs under a version that it knows")
        self._newest = key_id

    def keep_only(self, key_ids: Collection[str]) -> None:
        """Forget all other versions, and with them the MACs that they made. One of these must be known."""
        remaining = {key_id: material for key_id, material in self._versions.items() if key_id in key_ids}
        self._newest = max(remaining, key=int)
        self._versions = remaining

    def knows(self, key_id: str) -> bool:
        """Return whether a MAC that names this id can be verified."""
        return key_id in self._versions

    def authenticate(self, message: bytes, *, under: str | None = None) -> bytes:
        """Return the HMAC-SHA256 of the message, which must be framed and begin with the label of its kind.

        It is made under the newest version; with `under` it is made under that version, which must be known, to compare
        it with an older one.
        """
        return self._digest(under or self._newest, message)

    def is_authentic(self, message: bytes, mac: bytes, key_id: str) -> bool:
        """Return whether this is the MAC of the message under that version; False if it is not known."""
        return self.knows(key_id) and hmac.compare_digest(self._digest(key_id, message), mac)

    def mac(self, pointer: Pointer) -> bytes:
        """Return the HMAC-SHA256 over every field of the pointer that it covers (`Pointer` says which)."""
        return self.authenticate(_written(_covered(pointer)))

    def verify(self, pointer: Pointer) -> None:
        """Raise `SecretTampered` unless the MAC matches, and the audit log has exactly this generation as the newest.

        It is an `IntegrityKeyUnknown` if the MAC names a version that is not known, and a `StaleRow` if the row was
        replaced by an older copy, or changed without an audit row.
        """
        self.require_authentic(pointer)
        if pointer.audited_generation is None or pointer.generation > pointer.audited_generation:
            raise unaudited_row(pointer)
        if pointer.generation < pointer.audited_generation:
            raise stale_row(pointer.generation, pointer.audited_generation, "the audit log")

    def require_authentic(self, pointer: Pointer) -> None:
        """Raise as `verify` unless the MAC matches the pointer, whatever the audit log knows of it."""
        if pointer.mac is None:
            raise SecretTampered("the endpoint row has no MAC, so hookseal did not write it", advice=_MIGRATE)
        if pointer.mac_key_id is None or not self.knows(pointer.mac_key_id):
            raise IntegrityKeyUnknown(
                "the MAC of the endpoint row names an integrity key that is not known", advice=_REPAIR
            )
        self._require_authentic(pointer, pointer.mac, pointer.mac_key_id)

    def __repr__(self) -> str:
        return f"IntegrityKey({self._newest})"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("an integrity key is neither copied nor pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("an integrity key is neither copied nor pickled")

    def _require_authentic(self, pointer: Pointer, mac: bytes, key_id: str) -> None:
        endpoint, covered = (pointer.tenant_id, pointer.endpoint_id), _covered(pointer)
        row = (mac, key_id, *covered)
        if self._verified.get(endpoint) != row:
            if not self.is_authentic(_written(covered), mac, key_id):
                raise SecretTampered("the endpoint row was altered, its MAC does not match", advice=_REPAIR)
            self._verified[endpoint] = row
        self._verified.move_to_end(endpoint)
        if len(self._verified) > MOST_VERIFIED:
            self._verified.popitem(last=False)

    def _digest(self, key_id: str, message: bytes) -> bytes:
        return hmac.digest(self._versions[key_id].reveal(), message, "sha256")


def stale_row(generation: int, newer: int, who: str) -> StaleRow:
    """Return the error for a row of this generation, where `who` knows the generation `newer`."""
    return StaleRow(
        f"the endpoint row is stale: it has generation {generation}, {who} knows {newer}",
        advice=f"find out who put it there, and {_ACCEPT}",
        joint="; ",
    )


def unaudited_row(pointer: Pointer) -> StaleRow:
    """Return the error for a row whose generation is in no audit row: every lawful move of a pointer writes one."""
    known = "nothing" if pointer.audited_generation is None else f"{pointer.audited_generation}"
    return StaleRow(
        f"the endpoint row was changed without an audit row: it has generation {pointer.generation}, the audit log "
        f"knows {known}",
        advice=f"find out who changed it, and {_ACCEPT}",
        joint="; ",
    )


_Value = str | int | datetime | None


def _covered(pointer: Pointer) -> tuple[_Value, ...]:
    """Return what the MAC covers, in its order."""
    return (
        pointer.tenant_id,
        pointer.endpoint_id,
        pointer.url,
        pointer.scheme,
        pointer.algorithm,
        pointer.secret_ref,
        pointer.previous_secret_ref,
        pointer.previous_secret_expires_at,
        pointer.lead,
        pointer.generation,
        pointer.previous_scheme,
        pointer.previous_algorithm,
        pointer.headers_ref,
        pointer.tls_ref,
    )


def _written(covered: Iterable[_Value]) -> bytes:
    return framed(_LABEL, *map(_bytes, covered))


def _bytes(value: _Value) -> bytes | None:
    match value:
        case None:
            return None
        case str():
            return value.encode()
        case datetime():
            return b"%d" % microseconds(value)
        case int():
            return b"%d" % value
        case _:
            assert_never(value)


MOST_ENDPOINTS: Final = 100_000
# Two claims at the same time may read in either order. If they are this far apart, the later one reads the newer row.
APART: Final = timedelta(seconds=2)


def require_fresh_record(
    *, state: str, pointed: str | None, key_id: str, audited_key_id: str | None, key_is_drained: bool
) -> None:
    """Raise `StaleRow` if a record contradicts its endpoint or the audit log.

    `pointed` is the state that its endpoint's row implies, None if no endpoint names the record. `key_id` is the master
    key that sealed it, `audited_key_id` the key in its last audit row, None without one. `key_is_drained`: a re-wrap
    left no record under its key.
    """
    if pointed is not None and state != pointed:
        raise _stale(f"is {state} and its endpoint has it as {pointed}")
    if audited_key_id is not None and key_id != audited_key_id:
        raise _stale("is sealed under another master key than the audit log knows")
    if key_is_drained:
        raise _stale("is sealed under a master key that a re-wrap left no record of")


def _stale(how: str) -> StaleRow:
    return StaleRow(f"the secret record {how}, so it is stale", advice=f"find out who put it there, and {_ACCEPT}")


@dataclass(slots=True)
class _Highest:
    generation: int
    read_at: datetime  # when it was first read


class GenerationsSeen:
    """Remembers the highest generation of the endpoints seen last. Only pass pointers with a verified MAC."""

    def __init__(self, most: int = MOST_ENDPOINTS) -> None:
        self._most = most
        self._epoch = -1
        self._epoch_read_at = datetime.min.replace(tzinfo=UTC)  # when it was first read
        self._highest: OrderedDict[tuple[TenantId, EndpointId], _Highest] = OrderedDict()

    def require_newest(self, pointer: Pointer) -> None:
        """Remember the generation; raise `StaleRow` if a higher one was read two seconds or more before.

        An accepted restore begins a new epoch, and generations from before it no longer count. A pointer with an older
        epoch than one that was read two seconds or more before comes from a stale database: that is a `StaleRow`, too.
        """
        if pointer.restore_epoch < self._epoch:
            if pointer.read_at - self._epoch_read_at >= APART:
                raise StaleRow(
                    "the database is stale: it is from before a restore that this process knows was accepted",
                    advice=f"find out who restored it, and {_ACCEPT}",
                    joint="; ",
                )
            return
        if pointer.restore_epoch > self._epoch:
            self._epoch, self._epoch_read_at = pointer.restore_epoch, pointer.read_at
            self._highest.clear()
        key = (pointer.tenant_id, pointer.endpoint_id)
        highest = self._highest.setdefault(key, _Highest(pointer.generation, pointer.read_at))
        if pointer.generation > highest.generation:
            highest.generation, highest.read_at = pointer.generation, pointer.read_at
        elif pointer.generation < highest.generation and pointer.read_at - highest.read_at >= APART:
            raise stale_row(pointer.generation, highest.generation, "this process")
        self._highest.move_to_end(key)
        if len(self._highest) > self._most:
            self._highest.popitem(last=False)


_UNKNOWN_SCHEME: Final = "this version does not sign in the scheme, or with the algorithm, of the endpoint"
_NEWER: Final = (
    "a worker of the version that set it sends what waits; else rotate the secret with `--overlap 0`, and give a "
    "`--scheme` and an `--algorithm` of this one"
)
_SCHEMES: Final = {scheme.value: scheme for scheme in Scheme}
_ALGORITHMS: Final = {algorithm.value: algorithm for algorithm in Algorithm}
_REFS_REMEMBERED: Final = 16_384  # every claim has refs as text, and parsing one costs ten times a look-up

_NO_EPOCHS: Final = (
    "hookseal.control lacks its row `cache` or `restore`, or an epoch there is below zero: put the row back, with an "
    "epoch above the one that it had (docs/threat-model.md)"
)


class _Own(NamedTuple):
    """For one purpose: the name of an endpoint's secret, and the messages if a ref names another's secret."""

    name_of: Callable[[EndpointId], str]
    of_another_tenant: str
    of_another_endpoint: str


_OWN: Final = {
    Purpose.WEBHOOK_SIGNING: _Own(
        endpoint_secret_name,
        "the secret belongs to another tenant than the endpoint",
        "the secret is not the signing secret of this endpoint",
    ),
    Purpose.ENDPOINT_HEADERS: _Own(
        endpoint_headers_name,
        "the header values belong to another tenant than the endpoint",
        "the secret does not hold the header values of this endpoint",
    ),
    Purpose.ENDPOINT_TLS: _Own(
        endpoint_tls_name,
        "the TLS identity belongs to another tenant than the endpoint",
        "the secret does not hold the TLS identity of this endpoint",
    ),
}


class Due(NamedTuple):
    """A version that must sign: its ref, as text and parsed, with its scheme and algorithm."""

    text: str
    ref: SecretRef
    scheme: Scheme
    algorithm: Algorithm


def require_trusted(
    pointer: Pointer, *, key: IntegrityKey, seen: GenerationsSeen, providers: AbstractSet[Provider]
) -> tuple[Due, ...]:
    """Return the versions that must sign for this row: the current one, then the previous one while it is due.

    Else the error says why none may, in this order: `SecretTampered` (the database has lost an epoch; no MAC, or not
    ours; a newer generation is known); of the current version, then of the previous one, `SecretTampered` (a malformed
    ref) and `SecretDenied` (a ref of another tenant, endpoint or provider); `SecretNotFound`. An unknown scheme or
    algorithm is `SecretUnusable`: of the current version before its ref, of the previous one last. Of these an
    `IntegrityKeyUnknown` names a version of the key that the caller may not have read yet.
    """
    _require_genuine(pointer, key, seen)
    return _versions_due(pointer, providers)


def require_trusted_extra(
    pointer: Pointer,
    ref: str,
    purpose: Purpose,
    *,
    key: IntegrityKey,
    seen: GenerationsSeen,
    providers: AbstractSet[Provider],
) -> SecretRef:
    """Return the `ref` of the row to its header values or TLS identity, or raise as `require_trusted` why not."""
    _require_genuine(pointer, key, seen)
    return _own_ref(pointer, ref, purpose, providers)


def _require_genuine(pointer: Pointer, key: IntegrityKey, seen: GenerationsSeen) -> None:
    require_epochs(pointer)
    key.verify(pointer)
    seen.require_newest(pointer)


def require_secret(pointer: Pointer) -> None:
    """Raise `SecretNotFound` if the endpoint has neither a secret nor a MAC."""
    if pointer.secret_ref is None and pointer.mac is None:
        raise SecretNotFound("the endpoint has no secret yet")


def require_epochs(pointer: Pointer) -> None:
    """Raise `SecretTampered` if the database has lost one of its epochs."""
    if pointer.cache_epoch < 0 or pointer.restore_epoch < 0:
        raise SecretTampered(_NO_EPOCHS)


def _versions_due(pointer: Pointer, providers: AbstractSet[Provider]) -> tuple[Due, ...]:
    how = require_known(pointer.scheme, pointer.algorithm)
    current, previous = [
        None if text is None else (text, _own_ref(pointer, text, Purpose.WEBHOOK_SIGNING, providers))
        for text in (pointer.secret_ref, pointer.previous_secret_ref)
    ]
    if current is None or (pointer.previous_due and previous is None):
        raise SecretNotFound("the endpoint lacks a secret that is due")
    first = Due(*current, *how)
    if previous is None or not pointer.previous_due:
        return (first,)
    if pointer.previous_scheme is None or pointer.previous_algorithm is None:
        raise SecretTampered("the endpoint row lacks the scheme or the algorithm of its previous secret")
    how = require_known(pointer.previous_scheme, pointer.previous_algorithm)
    return first, Due(*previous, *how)


def _own_ref(pointer: Pointer, text: str, purpose: Purpose, providers: AbstractSet[Provider]) -> SecretRef:
    ref = _parsed(text)
    require_own(ref, tenant=pointer.tenant_id, endpoint_id=pointer.endpoint_id, purpose=purpose)
    require_provider(ref, *providers)
    return ref


def require_own(
    ref: SecretRef, *, tenant: TenantId, endpoint_id: EndpointId, purpose: Purpose = Purpose.WEBHOOK_SIGNING
) -> None:
    """Raise `SecretDenied` unless the ref names the secret of that tenant's endpoint for that purpose."""
    own = _OWN[purpose]
    if ref.tenant != tenant:
        raise SecretDenied(own.of_another_tenant)
    if ref.name != own.name_of(endpoint_id):
        raise SecretDenied(own.of_another_endpoint)


def require_provider(ref: SecretRef, *providers: Provider) -> None:
    """Raise `SecretDenied` unless the provider of the reference is one of these."""
    if ref.provider not in providers:
        uses = " and ".join(sorted(providers))
        raise SecretDenied(
            f"the secret is kept by provider {ref.provider}, this process uses {uses}",
            advice=f"give it the settings of {ref.provider}, or run `hookseal secret move --to` one that it uses",
        )


@lru_cache(maxsize=_REFS_REMEMBERED)
def _parsed(text: str) -> SecretRef:
    """Return the ref. Raises `SecretTampered` if it is malformed."""
    try:
        return SecretRef.parse(text)
    except Malformed as error:
        raise SecretTampered(str(error)) from None


def require_known(scheme: str, algorithm: str) -> tuple[Scheme, Algorithm]:
    """Return both as their enums. Raises `SecretUnusable` if this version does not know one: a later one set it."""
    known_scheme, known_algorithm = _SCHEMES.get(scheme), _ALGORITHMS.get(algorithm)
    if known_scheme is None or known_algorithm is None:
        raise SecretUnusable(_UNKNOWN_SCHEME, advice=_NEWER)
    return known_scheme, known_algorithm
