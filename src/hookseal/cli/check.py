"""`hookseal check`: ask a running worker whether it is ready. Quick, so that a probe may run it again and again."""

import http.client
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
import typer

from hookseal.cli.output import Json, emit, printable
from hookseal.ground.errors import ConfigError, Malformed, Unavailable

ANSWER_SECONDS: Final = 3.0
DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = "8080"
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- where a worker listens, not where we do
_PORT: Final = re.compile(r"[0-9]{1,5}")
_MOST_BYTES: Final = 65_536
_READY: Final = 200


def check(
    *,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The worker's health_url, or one of its probes such as .../livez."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask a running worker whether it is ready: exit 0 if so, 69 if not or if it does not answer in 3 seconds.

    Without --url it is the one at HOOKSEAL_HEALTH_HOST and HOOKSEAL_HEALTH_PORT. What depends on what
    is in its answer, which --json prints.

    Example: hookseal check --url http://127.0.0.1:8080
    """
    status, answer = _asked(url or _own_url(os.environ))
    emit(answer, as_json=as_json, text=lambda: _text(answer))
    raise typer.Exit(0 if status == _READY else Unavailable.exit_code)


def _own_url(environ: Mapping[str, str]) -> str:
    """Return where a worker with this environment answers. Raises `ConfigError` if that cannot be known."""
    host = environ.get("HOOKSEAL_HEALTH_HOST", DEFAULT_HOST)
    port = environ.get("HOOKSEAL_HEALTH_PORT", DEFAULT_PORT)
    if not _PORT.fullmatch(port) or int(port) == 0:
        raise ConfigError(
            "HOOKSEAL_HEALTH_PORT names no port: give the worker's health_url with --url", field="HOOKSEAL_HEALTH_PORT"
        )
    host = _EVERYWHERE.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _asked(url: str) -> tuple[int, dict[str, Any]]:
    """Return the status and the answer of a probe. Raises `Malformed` and `Unavailable`."""
    host, port, path = _parsed(url)
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        answer = msgspec.json.decode(response.read(_MOST_BYTES), type=dict[str, Any])
    except (ValueError, http.client.HTTPException) as error:
        raise _no_worker(url, type(error).__name__) from None
    except OSError as error:
        raise Unavailable(
            f"no worker answers at {printable(url)} ({type(error).__name__}): start it, or name another with --url"
        ) from None
    finally:
        connection.close()
    if "status" not in answer:
        raise _no_worker(url, f"status {response.status}")
    return response.status, answer


def _no_worker(url: str, said: str) -> Unavailable:
    return Unavailable(
        f"what answers at {printable(url)} is no probe of a hookseal worker ({said}): "
        "give the worker's health_url with --url"
    )


def _parsed(url: str) -> tuple[str, int, str]:
    malformed = Malformed("--url must be http://HOST:PORT, as the worker says it in health_url", field="url")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise malformed from None
    if parts.scheme != "http" or host is None or port is None or "@" in parts.netloc or not url.isprintable():
        raise malformed
    return host, port, parts.path.rstrip("/") or "/readyz"


def _text(answer: Mapping[str, Any]) -> str:
    checks = answer.get("checks")
    lines = [printable(str(answer.get("status")))]
    if isinstance(checks, dict):
        lines += [printable(f"{name}: {state}") for name, state in checks.items()]
    return "\n".join(lines)
