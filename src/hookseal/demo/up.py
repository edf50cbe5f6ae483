"""The stack of `hookseal up`: both servers, a worker, the HTTP API, and a receiver that verifies every request."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from hookseal.admin import Scope
from hookseal.admin.admin import Admin
from hookseal.api.access import ALL
from hookseal.config.api import PORTAL_URL
from hookseal.demo import state
from hookseal.demo.installation import WHO, Installation, install, not_used
from hookseal.demo.process import STOP_SECONDS, api_process, worker_process
from hookseal.demo.sink import Judge, delivery_of, run_sink
from hookseal.embedded.server import HOST
from hookseal.embedded.stack import stack
from hookseal.errors import HooksealError, NotFound, Unavailable, with_advice
from hookseal.ground import ids
from hookseal.ground.clock import Clock, SystemClock
from hookseal.ground.wire import Scheme
from hookseal.pages.serving import PATH
from hookseal.postgres.connect import connection_pool
from hookseal.postgres.pool import Pool
from hookseal.postgres.statements import Statements
from hookseal.receiver import VerificationError, verify
from hookseal.secrets.boot import Unlocked, unlock
from hookseal.secrets.core.ref import Provider, Purpose, SecretRef
from hookseal.secrets.core.signing import public_key_of

_CONNECTIONS: Final = 4  # of the receiver, to read secrets
_NAME: Final = "up"  # of the token
_SCOPES: Final = tuple(sorted(ALL))  # of the token
_CUSTOMER: Final = "acme"  # whose pages the link opens: that of the commands which `up` prints
_LINK_SECONDS: Final = 604_800
# Whom the links let in: the tenant of each, and the scopes.
_VISITORS: Final = {
    "portal_link": (_CUSTOMER, tuple(sorted(ALL - {Scope.PUBLISH}))),
    "operator_link": (ids.EVERY_TENANT, (Scope.READ, Scope.OPERATE)),
}
_OTHER_PORT: Final = (
    "free the port, or delete .hookseal/receiver.port: the receiver then gets another one, and the endpoints that send "
    "to it need its new URL"
)
_ENDING: Final = (
    "ending ... the worker and the API finish their requests in flight, for at most "
    f"{STOP_SECONDS:.0f} s (Ctrl-C again ends it now)"
)


async def stay_up(
    folder: Path,
    say: Callable[[dict[str, object]], None],
    *,
    report: Callable[[str], None],
    scheme: Scheme = Scheme.STANDARD,
) -> None:
    """Run the stack until SIGINT, SIGTERM or SIGHUP. Published events stay in the folder for the next run.

    `report` is called with where the data is, if that is not the folder, with the settings of the environment that it
    does not use, and at the first signal with what it waits for then; a second one kills worker and API. The folder
    must be an absolute path, since other processes use it. `say` is called once when everything is up, and then for
    each request to the receiver. New endpoints of the HTTP API sign in `scheme`. Raises `Unavailable` if a part does
    not start or ends, `Refused` if another `up` is running in the folder.
    """
    stop, at_once = asyncio.Event(), asyncio.Event()

    def handle() -> None:
        if stop.is_set():
            at_once.set()
            return
        stop.set()
        report(_ENDING)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, handle)
    # The receiver's pool logs a traceback for each attempt to reach a PostgreSQL that died, which `up` itself reports.
    logging.getLogger("asyncpg.pool").disabled = True
    with state.lock_folder(folder):
        state.keep_logs(folder)
        await _hold(folder, say, report, stop, at_once, scheme)


@asynccontextmanager
async def _receiver(
    installation: Installation, port: int, say: Callable[[dict[str, object]], None], at_once: asyncio.Event
) -> AsyncIterator[str]:
    """Run the receiver on this port for the length of the block, and yield its url."""
    async with connection_pool(installation.database_url, size=_CONNECTIONS) as pool:
        unlocked = await unlock(pool, Provider.DB, installation.keyring)
        judge = verified_by_endpoint(pool, unlocked, SystemClock())
        async with run_sink(say, port, judge=judge, advice=_OTHER_PORT, at_once=at_once) as url:
            yield url


async def _hold(
    folder: Path,
    say: Callable[[dict[str, object]], None],
    report: Callable[[str], None],
    stop: asyncio.Event,
    at_once: asyncio.Event,
    scheme: Scheme,
) -> None:
    async with stack(folder) as both:
        if (elsewhere := state.elsewhere(folder, (both.postgres.folder, both.valkey.folder))) is not None:
            report(elsewhere)
        installation = await install(both, folder)
        token = await _token(installation, folder)
        environment, api_port = installation.environment(os.environ), state.api_port(folder)
        pages_url = f"http://{HOST}:{api_port}{PATH}"
        of_api = environment | {
            "HOOKSEAL_API_PORT": str(api_port),
            "HOOKSEAL_API_SCHEME": scheme.value,
            PORTAL_URL: pages_url,
        }
        async with (
            _receiver(installation, state.receiver_port(folder), say, at_once) as receiver_url,
            worker_process(environment, folder / "worker.log", at_once=at_once) as worker,
            api_process(of_api, folder / "api.log", at_once=at_once) as api,
        ):
            health_url = worker.ready["health_url"]
            published = installation.settings | {"HOOKSEAL_HEALTH_URL": health_url, PORTAL_URL: pages_url}
            if names := not_used(os.environ, published):
                report(f"not used, since `hookseal up` has settings of its own: {' '.join(names)}")
            links = await _links(published)
            with state.publish_settings(folder, published):
                say(
                    {
                        "event": "up.ready",
                        "receiver_url": receiver_url,
                        "health_url": health_url,
                        "worker_log": str(worker.log),
                        "api_url": api.ready["url"],
                        "api_health_url": api.ready["health_url"],
                        "api_log": str(api.log),
                        "token": token,
                        **links,
                    }
                )
                try:
                    await watch((both.postgres, both.valkey), (worker, api), stop)
                    worker.stop()  # it drains while the API does
                except Unavailable:
                    at_once.set()  # without a server the worker could wait for it until the end of its drain
                    raise


async def _token(installation: Installation, folder: Path) -> str:
    """Return the token of this folder, for every tenant.

    It is made again if it was revoked, if its file is gone, or if it may do less than one that is made now.
    """
    async with Admin.connect(environ=installation.settings) as admin:
        kept = state.kept_token(folder)
        found = None if kept is None else await admin.tokens.find(kept)
        if kept is not None and found is not None and set(_SCOPES) <= set(found.scopes):
            return kept
        with suppress(NotFound):
            await admin.tokens.revoke(name=_NAME, actor=WHO)
        added = await admin.tokens.add(name=_NAME, tenant_id=ids.EVERY_TENANT, scopes=_SCOPES, actor=WHO)
    text = added.token.reveal().decode("ascii")
    state.keep_token(folder, text)
    return text


async def _links(settings: Mapping[str, str]) -> dict[str, str]:
    """Return links that let a customer, and an operator, into the pages, once, and for as long as a portal may."""
    links = {}
    async with Admin.connect(environ=settings) as admin:
        for name, (tenant, scopes) in _VISITORS.items():
            access = await admin.portal.add(
                tenant_id=tenant, scopes=scopes, user=_NAME, expiry_seconds=_LINK_SECONDS, actor=WHO
            )
            links[name] = "" if access.url is None else access.url.reveal().decode("ascii")
    return links


_LOOK_EVERY_SECONDS: Final = 0.2


class Watched(Protocol):
    """A process that should run until `up` ends it."""

    @property
    def name(self) -> str:
        """The name in messages."""
        ...

    @property
    def log(self) -> Path:
        """The file with its log."""
        ...

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        ...


async def watch(servers: Sequence[Watched], processes: Sequence[Watched], stop: asyncio.Event) -> None:
    """Return once `stop` is set. Raises `Unavailable`, with what to do, if a process ends before.

    If a server and one of our processes end at the same moment, the error names the server.
    """
    while not stop.is_set():
        # Before the pause, so that a server that dies with a process has ended when the servers are looked at.
        ended = [process for process in processes if process.exit_code is not None]
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _LOOK_EVERY_SECONDS)
        if stop.is_set():
            return
        for part in (*servers, *ended):
            if part.exit_code is not None:
                others = [other.name for other in (*processes, *servers) if other is not part]
                raise Unavailable(_message(part, part.exit_code, others))


def how_ended(exit_code: int) -> str:
    """Return how a process with this exit code ended, as the end of a sentence."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:  # most real-time signals have no name
        return f"was killed by signal {-exit_code}"


def _message(part: Watched, exit_code: int, others: Sequence[str]) -> str:
    stopped = f"{', '.join(others[:-1])} and {others[-1]}"
    return (
        f"{part.name} {how_ended(exit_code)}; its log is {part.log}. {stopped[0].upper()}{stopped[1:]} are stopped "
        "too, and the data is kept: start `hookseal up` again, then repeat the eval in the second terminal, since the "
        "ports are new"
    )


_SQL: Final = Statements("hookseal.demo", "up.sql", seconds=5)
_ACCEPTED: Final = 204
_UNAUTHORIZED: Final = 401


def verified_by_endpoint(pool: Pool, unlocked: Unlocked, clock: Clock) -> Judge:
    """Return a judge that answers 401 if no secret of the endpoints with the url verifies the request.

    It answers 204 if one does, if no endpoint has the url, and if a secret cannot be read. The report has `verified`
    (None if no endpoint has the url, or its secrets cannot be read), `message`, `body`, and `replay`: whether this is
    the first attempt of a replay.
    """

    async def judge(url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, object]]:
        try:
            secrets = await _secrets_at(url, pool, unlocked)
        except HooksealError as error:
            verified, message = None, f"the secret of the endpoint cannot be read: {with_advice(error)}"
        else:
            verified, message = _verdict(body, headers, secrets, clock)
        text = body.decode("utf-8", errors="replace")
        replay = await _is_replay(delivery_of(headers) or "", pool)
        status = _UNAUTHORIZED if verified is False else _ACCEPTED
        return status, {"verified": verified, "message": message, "body": text, "replay": replay}

    return judge


def _verdict(body: bytes, headers: Mapping[str, str], secrets: list[str], clock: Clock) -> tuple[bool | None, str]:
    if not secrets:
        return None, "no endpoint has this url"
    try:
        verify(body, headers, secrets, now=clock.now())
    except VerificationError as refusal:
        return False, str(refusal)
    return True, "with the secret of its endpoint"


async def _is_replay(delivery: str, pool: Pool) -> bool:
    """Return whether the delivery is replayed now; False if there is none with this id, or it cannot be read."""
    try:
        return await _SQL.value(pool, "is_replay", ids.delivery_id(delivery)) is True
    except HooksealError:
        return False


async def _secrets_at(url: str, pool: Pool, unlocked: Unlocked) -> list[str]:
    """Return the secrets of the endpoints with this url as their receivers get them. Raises `HooksealError`."""
    spellings = [url, url.removesuffix("/")]  # without a path both are the same
    secrets = []
    for row in await _SQL.rows(pool, "refs_at", spellings):
        secret = await unlocked.store.get(SecretRef.parse(row["ref"]), purpose=Purpose.WEBHOOK_SIGNING)
        secrets.append(public_key_of(secret) or secret.reveal().decode("utf-8", errors="replace"))
    return secrets
