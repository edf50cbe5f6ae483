"""The search for canaries finds a leaked secret in every form; otherwise the absence of findings proves nothing."""

import base64
import gzip
import json
import os
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from hookseal.ground.wire import Algorithm
from hookseal.secrets.core import envelope
from hookseal.secrets.core.envelope import open_sealed, seal
from hookseal.secrets.core.keyring import derived
from hookseal.secrets.core.material import SecretMaterial
from hookseal.secrets.core.signing import generate_signing_secret, public_key_of
from tests.doubles.stored import keyring
from tests.secrets.samples import CONTEXT
from tests.worker import canary
from tests.worker.canary import Canary, search

SECRETS = {
    "text": b"kQ7 canary/4f1d+Zr2~\"'<&>\\end",
    "key": bytes.fromhex("00ff7fe1c2a34d5c27220a0d3c3e26257b7d89abcdef0123456789fedcba9876"),
    "one quote at each end": b"\x01'piece'begin" + b" and " + b'end"piece"\x02\x03\x04',
    "noise": os.urandom(32),
}
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "among other bytes": lambda value: b"\0\xff" + value + b"\n",
    "hex": lambda value: value.hex().encode(),
    "hex in capitals": lambda value: value.hex().upper().encode(),
    "bytea": lambda value: b"\\x" + value.hex().encode(),
    "base64": base64.b64encode,
    "base64 without padding": lambda value: base64.b64encode(value).rstrip(b"="),
    "url-safe base64": base64.urlsafe_b64encode,
    "base64 behind one byte": lambda value: base64.b64encode(b":" + value + b"."),
    "base64 behind two bytes": lambda value: base64.b64encode(b"a:" + value + b".."),
    "url-safe base64 behind two bytes": lambda value: base64.urlsafe_b64encode(b"a:" + value),
    "with its prefix": lambda value: b"whsec_" + value,
    "repr": lambda value: repr(value).encode(),
    "repr of a text": lambda value: repr(value.decode("latin-1")).encode(),
    "repr in a log line": lambda value: json.dumps({"event": repr({"secret": value})}).encode(),
    "json": lambda value: json.dumps(value.decode("latin-1")).encode(),
    "percent": lambda value: quote(value, safe="").encode(),
    "lower percent": lambda value: quote(value, safe="").lower().encode(),
    "form": lambda value: quote_plus(value).encode(),
    "every byte percent": lambda value: "".join(f"%{byte:02X}" for byte in value).encode(),
    "a list of numbers": lambda value: repr(list(value)).encode(),
    "utf-8": lambda value: value.decode("latin-1").encode(),
    "utf-16 little": lambda value: value.decode("latin-1").encode("utf-16-le"),
    "utf-16 big": lambda value: value.decode("latin-1").encode("utf-16-be"),
    "reversed": lambda value: value[::-1],
    "cut off behind 12 bytes": lambda value: value[:12] + b"...",
    "only its last 12 bytes": lambda value: b"..." + value[-12:],
}


@pytest.mark.req("SEC-15")
@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("form", ENCODINGS)
def test_every_form_is_found(form: str, secret: str) -> None:
    """A secret that was planted in that form is found in its place, and nowhere else."""
    value = SECRETS[secret]
    places = {"here": b"before " + ENCODINGS[form](value) + b" after", "elsewhere": os.urandom(4096)}
    found = search(places, [Canary("planted", (value,))])

    assert found
    assert {"here"} == {line.partition(":")[0] for line in found}


@pytest.mark.req("SEC-15")
def test_an_unleaked_secret_is_not_found() -> None:
    """A secret that was not leaked is found neither in noise nor beside another secret."""
    other = base64.b64encode(SECRETS["noise"]) + gzip.compress(SECRETS["text"])

    assert [] == search({"noise": os.urandom(1 << 20), "other": other}, [Canary("unplanted", (SECRETS["key"],))])


@pytest.mark.req("SEC-15")
def test_the_decoded_key_of_a_secret_is_found() -> None:
    text = generate_signing_secret().reveal()
    key = base64.b64decode(text.removeprefix(b"whsec_"))
    planted = canary.signing("planted", text)

    assert search({"text": text}, [planted])
    assert search({"key": key}, [planted])
    assert search({"key in hex": key.hex().encode()}, [planted])
    assert key.hex() not in repr(planted)


@pytest.mark.req("SEC-15")
def test_the_public_key_of_a_pair_is_not_found() -> None:
    """For a `whsk_` secret the seed is found, alone or in the whole text; the public key is not."""
    pair = generate_signing_secret(Algorithm.ED25519)
    planted = canary.signing("planted", pair.reveal())

    assert search({"text": pair.reveal()}, [planted])
    assert search({"seed": base64.b64decode(pair.reveal()[5:])[:32]}, [planted])
    assert [] == search({"public key": str(public_key_of(pair)).encode()}, [planted])


@pytest.mark.req("SEC-15")
def test_the_data_key_of_a_record_is_found() -> None:
    sealed = seal(keyring(), SecretMaterial(b"sealed"), CONTEXT)
    [key] = canary.data_key("planted", keyring(), sealed, CONTEXT).values
    level = envelope._Level.read(sealed[envelope._DATA_AT :])
    bound = CONTEXT.encode()
    info = envelope._info(envelope._DATA_LABEL, bound)
    opening = derived(key, envelope._DERIVED_BYTES, salt=level.salt, info=info)
    associated = envelope._associated(envelope._HEAD, level.salt, level.commit, bound)

    assert b"sealed" == envelope._open_level(opening, level, associated)
    assert b"sealed" == open_sealed(keyring(), sealed, CONTEXT).reveal()
