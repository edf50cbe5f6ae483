"""`hookseal secret`: the versions of an endpoint's secret, their end, and the caches that workers keep of them."""

from typing import Final

import typer

from hookseal.cli.operating import NEEDS, operating
from hookseal.cli.output import Json, emit
from hookseal.cli.runtime import run, start
from hookseal.cli.secret_purge import purge
from hookseal.cli.secret_reveal import reveal
from hookseal.cli.secret_versions import versions
from hookseal.config.settings import Settings
from hookseal.operations.caches import Cleared, clear_caches

app: Final = typer.Typer(
    help="See, reveal and purge the versions of a secret, and clear what workers cached.", no_args_is_help=True
)


app.command()(versions)
app.command()(reveal)
app.command()(purge)


@app.command()
def cache_clear(*, as_json: Json = False) -> None:
    """Have every worker forget the secrets that it cached, at its next claim; what waits for a secret is tried.

    Example: hookseal secret cache-clear
    """
    cleared = run(_clear(start(NEEDS)))
    emit(
        {"epoch": cleared.epoch, "woken": cleared.woken},
        as_json=as_json,
        text=f"what was cached before epoch {cleared.epoch} is not used again; "
        f"deliveries that wait for a secret: {cleared.woken}; one of each endpoint is tried now, "
        "and once it was signed the others go out",
    )


async def _clear(settings: Settings) -> Cleared:
    async with operating(settings) as operator:
        return await clear_caches(operator)
