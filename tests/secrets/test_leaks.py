"""No error of this room contains a secret value: canaries in every refusal that handles one."""

import base64
import pickle
import traceback
from collections.abc import Callable

import pytest

from hookseal.ground.wire import Algorithm, Scheme
from hookseal.secrets.core.envelope import open_sealed, seal
from hookseal.secrets.core.keyring import MasterKey
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.ref import SecretRef
from hookseal.secrets.core.signing import Signer, parse_signing_secret
from tests.secrets.samples import CONTEXT, OTHER_TENANT, RING

CANARY = "CanaryCanary4f1dCanary"
ENCODED = base64.b64encode(CANARY.encode() * 2).decode()
READABLE_KEY = base64.b64encode((CANARY + "0123456789").encode()).decode()


def _elsewhere() -> object:
    context = type(CONTEXT)(tenant=OTHER_TENANT, name=CONTEXT.name, version=1, purpose=CONTEXT.purpose)
    return open_sealed(RING, seal(RING, SecretMaterial(CANARY.encode()), CONTEXT), context)


def _tampered() -> object:
    return open_sealed(RING, seal(RING, SecretMaterial(CANARY.encode()), CONTEXT) + b"\x00", CONTEXT)


REFUSALS: dict[str, Callable[[], object]] = {
    "secret without prefix": lambda: parse_signing_secret(CANARY, Scheme.STANDARD),
    "secret with bad base64": lambda: parse_signing_secret(f"whsec_{CANARY}%", Scheme.STANDARD),
    "secret too short": lambda: parse_signing_secret(
        "whsec_" + base64.b64encode(CANARY.encode()).decode(), Scheme.STANDARD
    ),
    "secret not ASCII": lambda: parse_signing_secret(f"whsec_{ENCODED}\u00e4", Scheme.STANDARD),
    "stored secret of another form": lambda: Signer(
        "ref", SecretMaterial(CANARY.encode()), Scheme.STANDARD, Algorithm.HMAC
    ),
    "stored secret not UTF-8": lambda: Signer(
        "ref", SecretMaterial(b"whsec_\xff" + CANARY.encode()), Scheme.STANDARD, Algorithm.HMAC
    ),
    "signer that forgot": lambda: _forgotten().sign(CANARY.encode()),
    "secret too long": lambda: seal(RING, SecretMaterial(CANARY.encode() * 3000), CONTEXT),
    "secret not bytes": lambda: SecretMaterial(CANARY),  # type: ignore[arg-type]
    "material pickled": lambda: pickle.dumps(SecretMaterial(CANARY.encode())),
    "record elsewhere": _elsewhere,
    "record tampered with": _tampered,
    "record that is plaintext": lambda: open_sealed(RING, CANARY.encode() * 20, CONTEXT),
    "key with bad base64": lambda: MasterKey.parse(f"{CANARY}%", variable="V"),
    "key with bad padding": lambda: MasterKey.parse(f"{CANARY}abc", variable="V"),
    "key too short": lambda: MasterKey.parse(ENCODED[:24], variable="V"),
    "key that is text": lambda: MasterKey.parse(READABLE_KEY, variable="V"),
    "master key pickled": lambda: pickle.dumps(MasterKey(SecretMaterial((CANARY + "0123456789").encode()))),
    "secret in the place of a ref": lambda: SecretRef.parse(f"whsec_{CANARY}"),
    "secret in a part of a ref": lambda: SecretRef.parse(f"db:acme:{CANARY}/+:1"),
    "secret as a version": lambda: SecretRef.parse(f"db:acme:name:{CANARY}"),
}


def _forgotten() -> Signer:
    signer = Signer("ref", parse_signing_secret(f"whsec_{ENCODED}", Scheme.STANDARD), Scheme.STANDARD, Algorithm.HMAC)
    signer.forget()
    return signer


def _chain(error: BaseException | None) -> list[BaseException]:
    return [] if error is None else [error, *_chain(error.__cause__), *_chain(error.__context__)]


@pytest.mark.req("SEC-15", part="secrets")
@pytest.mark.parametrize("refuse", REFUSALS.values(), ids=REFUSALS.keys())
def test_no_error_has_the_value(refuse: Callable[[], object]) -> None:
    """Neither the error, nor its causes, nor its traceback contains the value, in plaintext or base64."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- its content is tested, not its class
        refuse()

    texts = [f"{error!s} {error!r} {vars(error)}" for error in _chain(caught.value)]
    shown = "".join([*texts, *traceback.format_exception_only(caught.value)])
    for value in (CANARY, ENCODED[:20], READABLE_KEY[:20], CANARY.encode().hex()):
        assert value not in shown
