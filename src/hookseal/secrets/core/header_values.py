"""The header values of an endpoint, which are one secret: their changes, and their encoding as secret material."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hookseal.errors import Malformed, NotFound, SecretUnusable
from hookseal.ground.wire import require_headers
from hookseal.secrets.core.material import SecretMaterial

_UNUSABLE: Final = "the sealed headers of the endpoint must not be sent: set them again"

Headers = Mapping[str, SecretMaterial]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderChange:
    """A change of headers: adds or replaces those that are `given`, and removes those in `removed`.

    If it `replaces_all`, the endpoint has exactly the given headers afterwards.
    """

    given: Headers
    removed: frozenset[str] = frozenset()
    replaces_all: bool = False

    def applied(self, before: Headers) -> Headers:
        """Return all headers after the change. Raises `NotFound` if a header to remove is not there."""
        if self.replaces_all:
            return self.initial()
        for name in sorted(self.removed - before.keys()):
            raise NotFound(f"the endpoint has no header {name}", field="headers")
        return {name: value for name, value in before.items() if name not in self.removed} | dict(self.given)

    def initial(self) -> Headers:
        """Return the given headers: the result for an endpoint without headers."""
        return dict(self.given)


def to_material(headers: Headers) -> SecretMaterial:
    """Return names and values as one material. Raises `Malformed`, which names a header and never its value."""
    values = {name: value.reveal().decode("latin-1") for name, value in headers.items()}
    require_headers(values)
    return SecretMaterial(json.dumps(values, separators=(",", ":"), sort_keys=True).encode("ascii"))


def read(material: SecretMaterial) -> dict[str, SecretMaterial]:
    """Return the masked values by name. Raises `SecretUnusable` if they must not be sent."""
    try:
        values = json.loads(material.reveal())
        require_headers(values)
    except (ValueError, TypeError, AttributeError, RecursionError, Malformed):
        raise SecretUnusable(_UNUSABLE) from None
    return {name: SecretMaterial(value.encode("latin-1")) for name, value in values.items()}
