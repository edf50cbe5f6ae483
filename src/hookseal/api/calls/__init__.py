"""The calls of the API, by subject: what each needs and takes, and how it is answered by one method of an `Admin`."""

from typing import Final

from hookseal.api.call import Call
from hookseal.api.calls import health, messages

# The paths are compared in this order, so what is called most stands first.
CALLS: Final[tuple[Call, ...]] = (*messages.CALLS, *health.CALLS)
