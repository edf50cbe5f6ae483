"""The tree of commands."""

from typing import Annotated, Final

import typer

from hookseal.cli import audit, db, delivery, endpoint, key, producer, restore, secret, up
from hookseal.cli.check import check
from hookseal.cli.demo import demo
from hookseal.cli.help_texts import join_lines
from hookseal.cli.import_endpoints import import_endpoints
from hookseal.cli.listen import listen
from hookseal.cli.migrate_secrets import migrate_secrets
from hookseal.cli.output import HELP_OPTIONS, emit
from hookseal.cli.publish import publish
from hookseal.cli.verify import verify
from hookseal.cli.worker import worker
from hookseal.ground.errors import Malformed
from hookseal.ground.version import VERSION

_EPILOG: Final = """\
First steps, with the settings of docs/settings.md in the environment:

1. hookseal db upgrade

2. hookseal key init

3. hookseal endpoint add --tenant acme --url URL --event-type '*'

4. hookseal worker

5. hookseal publish --tenant acme --event-type invoice.paid --data '{"id": 1}'

Every command knows --help, and --json, which prints exactly one JSON object.

Exit codes: 0 done, 1 the answer is no, 2 usage, 3 not found, 4 conflict,

5 refused, 69 something does not answer, 70 internal error, 78 settings,

130 interrupted.
"""

app: Final = typer.Typer(
    name="hookseal",
    help="Deliver webhooks, signed with secrets that are sealed, rotated and never in the clear.",
    epilog=_EPILOG,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=HELP_OPTIONS,
)

# One line for each group or command, in the order in which a newcomer needs them.
app.command()(demo)
app.add_typer(up.app, name="up")
app.add_typer(db.app, name="db")
app.add_typer(key.app, name="key")
app.add_typer(endpoint.app, name="endpoint")
app.command()(worker)
app.command()(check)
app.command()(publish)
app.add_typer(delivery.app, name="delivery")
app.command()(verify)
app.command()(listen)
app.add_typer(secret.app, name="secret")
app.command()(migrate_secrets)
app.command()(import_endpoints)
app.add_typer(producer.app, name="producer")
app.add_typer(audit.app, name="audit")
app.add_typer(restore.app, name="restore")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", metavar="", help="Print the version.")] = False,
    as_json: Annotated[bool, typer.Option("--json", metavar="", hidden=True)] = False,
) -> None:
    if version:
        emit({"version": VERSION}, as_json=as_json, text=f"hookseal {VERSION}")
        raise typer.Exit
    if as_json:
        raise Malformed("put --json behind a command: `hookseal --help` lists them")
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)  # the rich help is printed by itself, and nothing is returned


join_lines(app)
