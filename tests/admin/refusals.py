"""How a malformed call is refused."""

from collections.abc import Awaitable

from hookseal.errors import Malformed


async def refused_field(call: Awaitable[object]) -> str | None:
    """Return the name of the field that the refusal of a malformed call names."""
    try:
        await call
    except Malformed as error:
        return error.field
    return "nothing, for it was not refused"
