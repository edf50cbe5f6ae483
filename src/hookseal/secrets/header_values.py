"""The header values of an endpoint as one secret: how they are written before they are sealed, and read back."""

import json
from collections.abc import Mapping
from typing import Final

from hookseal.ground.errors import Malformed
from hookseal.ground.headers import require_headers
from hookseal.secrets.errors import SecretUnusable
from hookseal.secrets.material import SecretMaterial

_SPOILT: Final = "the sealed headers of the endpoint are not such as may be sent: set them anew"


def written(headers: Mapping[str, SecretMaterial]) -> SecretMaterial:
    """Return names and values as one material. Raises `Malformed`, naming a header and never its value."""
    values = {name: value.reveal().decode("latin-1") for name, value in headers.items()}
    require_headers(values)
    return SecretMaterial(json.dumps(values, separators=(",", ":"), sort_keys=True).encode("ascii"))


def read(material: SecretMaterial) -> dict[str, SecretMaterial]:
    """Return the values by name, each masked. Raises `SecretUnusable` if they are not such as may be sent."""
    try:
        values = json.loads(material.reveal())
        require_headers(values)
    except (ValueError, TypeError, AttributeError, RecursionError, Malformed):
        raise SecretUnusable(_SPOILT) from None
    return {name: SecretMaterial(value.encode("latin-1")) for name, value in values.items()}
