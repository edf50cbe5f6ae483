"""`hookseal secret`: list, reveal, move and destroy versions of secrets, and clear the caches of workers."""

from typing import Final

import typer

from hookseal.cli.secret.move import move
from hookseal.cli.secret.purge import purge
from hookseal.cli.secret.reveal import reveal
from hookseal.cli.secret.versions import versions
from hookseal.cli.shared.operating import NEEDS, operate
from hookseal.cli.shared.output import Json, emit
from hookseal.cli.shared.runtime import start
from hookseal.operations.secret import clear_caches

app: Final = typer.Typer(
    help="List, reveal and move secrets, destroy old versions, and clear the caches of workers.", no_args_is_help=True
)


app.command()(versions)
app.command()(reveal)
app.command()(purge)
app.command()(move)


@app.command()
def cache_clear(*, as_json: Json = False) -> None:
    """Make every worker discard its cached secrets at its next claim, and try held deliveries again.

    The oldest delivery of every held endpoint is tried now.

    Example: hookseal secret cache-clear
    """
    cleared = operate(start(NEEDS), clear_caches)
    emit(
        {"epoch": cleared.epoch, "woken": cleared.woken},
        as_json=as_json,
        text=f"secrets cached before epoch {cleared.epoch} are not used again; "
        f"deliveries held for a secret: {cleared.woken}; the oldest of each endpoint is tried now, "
        "and the others are released once it is signed",
    )
