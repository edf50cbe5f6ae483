"""The secret of an endpoint: what signs until when, and the forms that show, rotate, ask, end and roll back."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from hookseal.admin import Scope
from hookseal.api import problems
from hookseal.errors import Conflict, Malformed, Refused
from hookseal.pages import words
from hookseal.pages.page import Asked, Moved, Shown, act, read
from hookseal.pages.views.endpoints import ONE

OVERLAPS: Final = {
    86_400: "a day",
    0: "not at all: the old secret leaked",
    3_600: "an hour",
    259_200: "three days",
    604_800: "a week",
}
_ONE: Final = ONE + "/secret"


async def show(asked: Asked) -> Shown:
    """Show which secrets sign, and until when."""
    return await _shown(asked)


async def _shown(
    asked: Asked, *, secret: dict[str, str | None] | None = None, problem: str | None = None, status: int = 200
) -> Shown:
    of: dict[str, Any] = {"tenant_id": asked.tenant, "endpoint_id": asked.path["endpoint_id"]}
    endpoint = await asked.admin.endpoints.find(**of)
    state = await asked.admin.secrets.status(**of)
    values = {
        "endpoint": endpoint,
        "status": state,
        "current": version_of(state.secret_ref),
        "previous": version_of(state.previous_secret_ref) if state.overlapping else None,
        "overlaps": {0: OVERLAPS[0]} if state.overlapping else OVERLAPS,
        "rotation_id": asked.draw(),
        "secret": secret,
        "problem": problem,
    }
    return Shown(template="secret.html", values=values, status=status)


def version_of(ref: str | None) -> str | None:
    """Return the number of the version that a reference of a secret ends with."""
    return None if ref is None else ref.rpartition(":")[2]


async def reveal(asked: Asked) -> Shown:
    """Show the secret, which the audit log records."""
    revealed = await asked.admin.secrets.reveal(
        tenant_id=asked.tenant, endpoint_id=asked.path["endpoint_id"], actor=asked.access.actor
    )
    text = revealed.public_key or "" if revealed.secret is None else revealed.secret.reveal().decode()
    # With its own number: another one may have replaced it meanwhile.
    secret = {"text": text, "number": version_of(revealed.secret_ref), "algorithm": revealed.algorithm}
    return await _shown(asked, secret=secret)


async def rotate(asked: Asked) -> Shown | Moved:
    """Give the endpoint a new secret; the same form rotates once."""
    overlap = asked.form.number("overlap")
    if overlap not in OVERLAPS:
        return await _shown(asked, problem="Choose how long both secrets are to sign.", status=422)
    change = partial(asked.admin.secrets.rotate, overlap_seconds=overlap, rotation_id=asked.form.text("rotation_id"))
    try:
        return await _changed(
            asked, change, "rotated", "Two secrets sign already. End the old one first, or wait for its end."
        )
    except Malformed as error:
        if error.field != "rotation_id":
            raise
        raise problems.Problem(400, "bad_form", "the form is not complete") from None


async def ask(asked: Asked) -> Moved:
    """Ask the receiver whether it has switched to the current secret."""
    try:
        await asked.admin.secrets.check_switch(
            tenant_id=asked.tenant, endpoint_id=asked.path["endpoint_id"], actor=asked.access.actor
        )
    except Refused:
        raise problems.conflict("the endpoint is disabled: enable it first") from None
    return _moved(asked, "asked")


async def end(asked: Asked) -> Shown | Moved:
    """Let only the current secret sign from now on."""
    return await _changed(asked, asked.admin.secrets.end_overlap, "ended", "There is no old secret any more.")


async def roll_back(asked: Asked) -> Shown | Moved:
    """Make the previous secret current again, while both sign."""
    gone = "There is no old secret any more, so none can be brought back."
    return await _changed(asked, asked.admin.secrets.roll_back, "rolled-back", gone)


async def _changed(asked: Asked, change: Callable[..., Awaitable[Any]], done: str, otherwise: str) -> Shown | Moved:
    """Change which secrets sign; if somebody did so before, or it cannot be done, show how they are now, and why."""
    try:
        await change(
            tenant_id=asked.tenant,
            endpoint_id=asked.path["endpoint_id"],
            expect_generation=asked.form.number("generation"),
            wait=None,
            actor=asked.access.actor,
        )
    except Conflict as error:
        problem = words.OVERTAKEN if error.field == "expect_generation" else otherwise
        return await _shown(asked, problem=problem, status=409)
    return _moved(asked, done)


def _moved(asked: Asked, done: str) -> Moved:
    return Moved(to=asked.link("secret", {"done": done}, endpoint_id=asked.path["endpoint_id"]))


PAGES: Final = (
    read("secret", _ONE, show),
    act("secret.reveal", _ONE + "/reveal", reveal, Scope.READ, Scope.REVEAL),
    act("secret.rotate", _ONE + "/rotate", rotate, Scope.READ, Scope.MANAGE),
    act("secret.ask", _ONE + "/ask", ask, Scope.READ, Scope.OPERATE),
    act("secret.end", _ONE + "/end", end, Scope.READ, Scope.MANAGE),
    act("secret.roll_back", _ONE + "/roll-back", roll_back, Scope.READ, Scope.MANAGE),
)
