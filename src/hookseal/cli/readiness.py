"""Asks a running worker whether it is ready. It loads little, so that a probe may run it often."""

import http.client
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from hookseal.cli.shared.printing import emit, plain, printable
from hookseal.errors import ConfigError, Malformed, Unavailable

ANSWER_SECONDS: Final = 3.0
DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = "8080"
_LOOPBACK_FOR: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- the address of a worker; nothing is bound here
_PORT: Final = re.compile(r"[0-9]{1,5}")
_MOST_BYTES: Final = 65_536
_MAX_PORT: Final = 65_535
_READY: Final = 200
_NOT_SAID: Final = {"outcomes": "?", "since": "?", "reason": "?"}


def ask_and_print(url: str | None, environ: Mapping[str, str], *, as_json: bool) -> int:
    """Print the answer of the worker at the url, by default of the one with this environment; return the exit code.

    Raises `Malformed`, `ConfigError` and `Unavailable`.
    """
    status, answer = _ask(url or own_url(environ))
    emit(answer, as_json=as_json, text=lambda: _text(answer))
    return 0 if status == _READY else Unavailable.exit_code


def own_url(environ: Mapping[str, str]) -> str:
    """Return the URL of a worker with this environment. Raises `ConfigError` if the environment names no worker."""
    if url := environ.get("HOOKSEAL_HEALTH_URL"):
        try:
            _parsed(url)
        except Malformed:
            raise ConfigError(
                "HOOKSEAL_HEALTH_URL must be http://HOST:PORT, as the worker prints it in health_url",
                field="HOOKSEAL_HEALTH_URL",
            ) from None
        return url
    host = environ.get("HOOKSEAL_HEALTH_HOST", DEFAULT_HOST)
    port = environ.get("HOOKSEAL_HEALTH_PORT", DEFAULT_PORT)
    if not _PORT.fullmatch(port) or not 0 < int(port) <= _MAX_PORT:
        raise ConfigError(
            "HOOKSEAL_HEALTH_PORT does not name a port (0: the worker took a free one): give with --url the "
            "health_url that the worker printed when it was ready",
            field="HOOKSEAL_HEALTH_PORT",
        )
    host = _LOOPBACK_FOR.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _ask(url: str) -> tuple[int, dict[str, Any]]:
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
            f"no worker answers at {printable(url)} ({type(error).__name__}): "
            "start the worker, or give its health_url with --url"
        ) from None
    finally:
        connection.close()
    if "status" not in answer:
        raise _no_worker(url, f"status {response.status}")
    return response.status, answer


def _no_worker(url: str, reason: str) -> Unavailable:
    return Unavailable(
        f"the program at {printable(url)} is no hookseal worker ({reason}): give the worker's health_url with --url"
    )


def _parsed(url: str) -> tuple[str, int, str]:
    malformed = Malformed("--url must be http://HOST:PORT, as the worker prints it in health_url", field="url")
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
    lines = [plain(str(answer.get("status")))]
    if isinstance(checks, dict):
        lines += [f"{plain(name)}: {plain(str(state))}" for name, state in checks.items()]
    unrecorded = answer.get("unrecorded")
    if isinstance(unrecorded, dict):
        facts = {name: plain(str(fact)) for name, fact in {**_NOT_SAID, **unrecorded}.items()}
        lines += ["unrecorded: {outcomes} since {since}: {reason}".format_map(facts)]
    unaudited = answer.get("unaudited")
    if isinstance(unaudited, list):
        lines += [
            f"UNAUDITED: endpoint {plain(str(each.get('endpoint_id')))} of {plain(str(each.get('tenant_id')))}: its "
            "row was changed without an audit row, and its deliveries wait (docs/runbook.md, HooksealStaleRow)"
            for each in unaudited
            if isinstance(each, dict)
        ]
    processes = answer.get("processes")
    if isinstance(processes, dict):
        lines += [f"process {plain(number)}: {plain(str(state))}" for number, state in processes.items()]
    return "\n".join(lines)
