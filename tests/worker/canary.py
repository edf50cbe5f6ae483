"""Canaries: known secrets, every form in which one could leak, and the search for them."""

import base64
import html
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import starmap
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from hookseal.secrets.core import envelope
from hookseal.secrets.core.keyring import KeyRing
from hookseal.secrets.core.ref import SecretContext

_PIECE = 12
_LEAST = 12  # a shorter canary would be found by chance


@dataclass(frozen=True, slots=True)
class Canary:
    """A secret with a name, and each of the values that reveal it: its text, its key, or a part of it."""

    name: str
    values: tuple[bytes, ...] = field(repr=False)


def signing(name: str, text: bytes) -> Canary:
    """Return the canary of a `whsec_` or `whsk_` secret: the text after its prefix, and the decoded key.

    The second half of a `whsk_` is public and no secret.
    """
    spelled = text.partition(b"_")[2]
    key = base64.b64decode(spelled)
    half = len(key) // 2
    return Canary(name, (spelled[: half * 8 // 6], key[:half]) if text.startswith(b"whsk_") else (spelled, key))


def client_key(name: str, pem: bytes) -> Canary:
    """Return the canary of a private key: its secret numbers.

    The other contents of the file are also in the certificate, or the same in every key.
    """
    key = load_pem_private_key(pem, password=None)
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        return Canary(name, tuple(_as_bytes(each) for each in (numbers.p, numbers.q, numbers.d)))
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return Canary(name, (_as_bytes(key.private_numbers().private_value),))
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return Canary(name, (key.private_bytes_raw(),))


def _as_bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def data_key(name: str, keyring: KeyRing, sealed: bytes, context: SecretContext) -> Canary:
    bound, end = context.encode(), envelope._DATA_AT
    level = envelope._Level.read(sealed[envelope._WRAP_AT : end])
    wrapping = keyring.opening(envelope.key_id_of(sealed)).derive(
        envelope._DERIVED_BYTES, salt=level.salt, info=envelope._info(envelope._WRAP_LABEL, bound)
    )
    prefix = sealed[: envelope._WRAP_AT]
    associated = envelope._associated(prefix, level.salt, level.commit, bound)
    return Canary(name, (envelope._open_level(wrapping, level, associated),))


def forms(value: bytes) -> dict[str, bytes]:
    """Return every form in which a piece of a secret could leak, by its name."""
    text = value.decode("latin-1")
    utf16 = text.encode("utf-16-le")
    found = {
        "raw": value,
        "hex": value.hex().encode(),
        "upper hex": value.hex().upper().encode(),
        "json": json.dumps(text)[1:-1].encode(),
        "html": html.escape(text).encode("latin-1", "xmlcharrefreplace"),
        "percent": quote(value, safe="").encode(),
        "lower percent": quote(value, safe="").lower().encode(),
        "every byte percent": "".join(f"%{byte:02X}" for byte in value).encode(),
        "numbers": ", ".join(map(str, value)).encode(),
        "utf-8": text.encode(),
        "utf-16": utf16[:-1],  # without its last byte, it is found in both byte orders
        "reversed": value[::-1],
    }
    for quote_escape in ("'", "\\'"):  # which one Python writes depends on the rest of the value
        escaped = "".join(repr(bytes([byte]))[2:-1] for byte in value).replace("'", quote_escape)
        found |= {
            f"escaped with {quote_escape}": escaped.encode(),
            f"escaped twice with {quote_escape}": repr(escaped)[1:-1].encode(),
            f"escaped in json with {quote_escape}": json.dumps(escaped)[1:-1].encode(),
            f"escaped text with {quote_escape}": repr(text)[1:-1]
            .replace("\\'", "'")
            .replace("'", quote_escape)
            .encode(),
        }
    for offset in range(3):
        standard = base64.b64encode(b"\0" * offset + value)
        inner = standard[-(-offset * 8 // 6) : (offset + len(value)) * 8 // 6]  # no byte depends on neighbours
        found[f"base64 at {offset}"] = inner
        found[f"url-safe base64 at {offset}"] = inner.replace(b"+", b"-").replace(b"/", b"_")
    return found


def search(places: Mapping[str, bytes], canaries: Iterable[Canary]) -> list[str]:
    """Return every place and form in which a canary is found; its first or last bytes are enough."""
    needles: dict[bytes, str] = {}
    for canary in canaries:
        for value in canary.values:
            assert len(value) >= _LEAST, f"{canary.name} is too short to be distinguished from chance"
            for piece in {value[:_PIECE], value[-_PIECE:]}:
                needles |= {needle: f"{canary.name} as {form}" for form, needle in forms(piece).items()}

    def found_in(where: str, held: bytes) -> set[str]:
        return {f"{where}: {what}" for needle, what in needles.items() if needle in held}

    return sorted(set().union(*starmap(found_in, places.items())))
