"""`hookseal listen`: a receiver on this machine that verifies and prints each request."""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from hookseal.cli.shared.output import JsonLines, emit, plain, printable_body
from hookseal.cli.shared.runtime import run
from hookseal.cli.shared.secret_files import private_bytes
from hookseal.cli.shared.verification import verdict
from hookseal.demo.sink import LOOPBACK, Judge, accept_everything, readable, run_sink
from hookseal.errors import Malformed
from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.ids import plural
from hookseal.receiver import TOLERANCE_SECONDS

_MAX_BYTES: Final = 65_536
_MAX_SECRETS: Final = 16
_OURS: Final = (
    "webhook-",
    "svix-",
    "x-webhook-",
    "x-hookseal-",
    "x-tenant-id",
    "x-correlation-id",
    "traceparent",
    "tracestate",
    "content-type",
)
_REFUSED: Final = 401


def listen(
    *,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port to listen on; 0 takes a free one.")] = 0,
    host: Annotated[
        str, typer.Option(help="The address to listen on. If it is not a loopback address, others can reach it.")
    ] = LOOPBACK,
    secret_file: Annotated[
        str | None, typer.Option(help="A private file with secrets or public keys, one a line; - is stdin.")
    ] = None,
    as_json: JsonLines = False,
) -> None:
    """Receive webhooks on this machine, verify and print each: answer 204 if it verifies, else 401 with the reason.

    Without --secret-file it accepts every request and verifies none. It prints up to 1,000 characters of the body. With
    --json it prints the whole body, the headers of hookseal, and of all other headers the names. Press Ctrl-C to end
    it.

    Example: hookseal listen --port 8400 --secret-file acme.secret
    """
    secrets = None if secret_file is None else _secrets(secret_file)
    run(_listen(port, host, secrets, as_json=as_json))


def _secrets(source: str) -> list[str]:
    """Return the lines of the file that are not empty. Raises `Refused` if others may read it, `Malformed`."""
    raw = private_bytes(source, _MAX_BYTES, field="secret_file")
    try:
        lines = [line.removesuffix("\r") for line in raw.decode("utf-8").split("\n")]
    except UnicodeDecodeError:
        raise Malformed("the secrets must be text in UTF-8", field="secret_file") from None
    filled = [line for line in lines if line.strip()]
    if not 1 <= len(filled) <= _MAX_SECRETS:
        raise Malformed(f"the file must contain 1 to {_MAX_SECRETS} secrets, one a line", field="secret_file")
    return filled


async def _listen(port: int, host: str, secrets: Sequence[str] | None, *, as_json: bool) -> None:
    stop, at_once = asyncio.Event(), asyncio.Event()

    def handle() -> None:
        if stop.is_set():
            at_once.set()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, handle)
    say = _say_json if as_json else _say_text
    judge = accept_everything if secrets is None else verifying(secrets, SystemClock())
    async with run_sink(say, port, host=host, judge=_with_content(judge), at_once=at_once) as url:
        say({"event": "listen.ready", "url": url, "secrets": len(secrets or ())})
        await stop.wait()


def verifying(secrets: Sequence[str], clock: Clock) -> Judge:
    """Return a function that verifies a request as a receiver with these secrets does."""

    async def judge(_url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, object]]:
        now = clock.now().timestamp()
        answer, message = verdict(body, headers, secrets, now=now, tolerance=TOLERANCE_SECONDS)
        facts = {name: value for name, value in answer.items() if name != "delivery_id"}
        return 204 if answer["verified"] else _REFUSED, facts | {"message": message}

    return judge


def _with_content(judge: Judge) -> Judge:
    """Add headers and body to the report. Of headers that an endpoint adds, often secrets, it has only the names."""

    async def report(url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, object]]:
        status, judged = await judge(url, body, headers)
        ours: dict[str, str] = {}
        for name, value in headers.items():
            if name.lower().startswith(_OURS):
                ours.setdefault(name.lower(), readable(value))  # of several the first, as in `webhook_id`
        others = sorted({name.lower() for name in headers} - ours.keys())
        text = body.decode("utf-8", errors="replace")
        return status, judged | {"status": status, "headers": ours, "other_headers": others, "body": text}

    return report


def _say_json(event: dict[str, Any]) -> None:
    emit(event, as_json=True, text="")


def _say_text(event: dict[str, Any]) -> None:
    if event["event"] == "listen.ready":
        secrets = plural(event["secrets"], "secret", "secrets")
        how = f"verified with {secrets}" if event["secrets"] else "accepted, and not verified"
        emit(event, as_json=False, text=f"listening  {event['url']}  requests are {how}; Ctrl-C ends it")
        return
    facts = {name: plain(str(event.get(name))) for name in ("path", "webhook_id", "attempt", "message")}
    verified = event.get("verified")
    how = "not verified" if verified is None else f"{'verified' if verified else 'REFUSED'}, {facts['message']}"
    again = f"  attempt {facts['attempt']}" if event["retry"] else ""
    emit(event, as_json=False, text=f"{event['status']}  {facts['path']}  {facts['webhook_id']}{again}  {how}")
    if event["event"] == "request.received":
        emit(event, as_json=False, text=f"     {printable_body(event['body'])}")
