"""`hookseal listen`: a receiver on this machine that verifies, and prints what it gets and why it refuses."""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
import typer

from hookseal.cli.output import JsonLines, printable
from hookseal.cli.runtime import run
from hookseal.cli.secret_files import private_bytes
from hookseal.cli.verification import answered
from hookseal.demo.sink import LOOPBACK, Judge, sinking, takes_everything
from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.counted import counted
from hookseal.ground.errors import Malformed
from hookseal.receiver import TOLERANCE_SECONDS

_MAX_BYTES: Final = 65_536
_MAX_SECRETS: Final = 16
_OURS: Final = (
    "webhook-",
    "x-webhook-",
    "x-hookseal-",
    "x-tenant-id",
    "x-correlation-id",
    "traceparent",
    "content-type",
)
_REFUSED: Final = 401


def listen(
    *,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Where to listen; 0 takes a free one.")] = 0,
    host: Annotated[
        str, typer.Option(help="On which address. Others reach one that is not of the loopback.")
    ] = LOOPBACK,
    secret_file: Annotated[
        str | None, typer.Option(help="A private file with secrets or public keys, one a line; - is stdin.")
    ] = None,
    as_json: JsonLines = False,
) -> None:
    """Receive webhooks on this machine, verify them, and print each: 204 if it verifies, 401 with the reason if not.

    Without --secret-file all are taken, and none is verified. Of headers that are not hookseal's only the names are
    printed. Ends with Ctrl-C.

    Example: hookseal listen --port 8400 --secret-file acme.secret
    """
    secrets = None if secret_file is None else _secrets(secret_file)
    run(_listen(port, host, secrets, as_json=as_json))


def _secrets(source: str) -> list[str]:
    """Return the lines of the file that hold anything. Raises `Refused` if others may read it, `Malformed`."""
    raw = private_bytes(source, _MAX_BYTES, field="secret_file")
    try:
        lines = [line.removesuffix("\r") for line in raw.decode("utf-8").split("\n")]
    except UnicodeDecodeError:
        raise Malformed("the secrets must be text in UTF-8", field="secret_file") from None
    held = [line for line in lines if line.strip()]
    if not 1 <= len(held) <= _MAX_SECRETS:
        raise Malformed(f"the file must hold 1 to {_MAX_SECRETS} secrets, one a line", field="secret_file")
    return held


async def _listen(port: int, host: str, secrets: Sequence[str] | None, *, as_json: bool) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    say = _say_json if as_json else _say_text
    judge = takes_everything if secrets is None else verifying(secrets, SystemClock())
    async with sinking(say, port, host=host, judge=_telling_all(judge)) as url:
        say({"event": "listen.ready", "url": url, "secrets": len(secrets or ())})
        await stop.wait()


def verifying(secrets: Sequence[str], clock: Clock) -> Judge:
    """Return what judges a request as a receiver with these secrets does; any one of them may have signed it."""

    def judge(body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, object]]:
        now = clock.now().timestamp()
        answer, message = answered(body, headers, secrets, now=now, tolerance=TOLERANCE_SECONDS)
        told = {name: value for name, value in answer.items() if name != "delivery_id"}
        return 204 if answer["verified"] else _REFUSED, told | {"message": message}

    return judge


def _telling_all(judge: Judge) -> Judge:
    """Have headers and body told as well. What an endpoint adds to its requests is often a secret."""

    def telling(body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, object]]:
        status, told = judge(body, headers)
        shown = {name.lower(): value for name, value in headers.items() if name.lower().startswith(_OURS)}
        others = sorted({name.lower() for name in headers} - shown.keys())
        text = body.decode("utf-8", errors="replace")
        return status, told | {"status": status, "headers": shown, "other_headers": others, "body": text}

    return telling


def _say_json(told: dict[str, Any]) -> None:
    print(msgspec.json.encode(told).decode(), flush=True)


def _say_text(told: dict[str, Any]) -> None:
    if told["event"] == "listen.ready":
        secrets = counted(told["secrets"], "secret", "secrets")
        how = f"verified with {secrets}" if told["secrets"] else "taken, and not verified"
        print(f"listening  {told['url']}  requests are {how}; Ctrl-C ends it", flush=True)
        return
    verified = told.get("verified")
    how = "not verified" if verified is None else f"{'verified' if verified else 'REFUSED'}, {told['message']}"
    again = f"  attempt {told['attempt']}" if told["retry"] else ""
    print(f"{told['status']}  {printable(told['path'])}  {printable(str(told['webhook_id']))}{again}  {printable(how)}")
    print(f"     {printable(told['body'])}", flush=True)
