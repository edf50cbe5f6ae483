"""How a command uses an `Admin`: one connection, the operator's name, and interrupts that end one step."""

import asyncio
import getpass
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import wraps
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hookseal.admin.admin import Admin, for_command
from hookseal.admin.results.base import Page
from hookseal.cli.shared.printing import note, printable
from hookseal.cli.shared.runtime import run, translated
from hookseal.config.load import load
from hookseal.config.settings import Part, Settings
from hookseal.dispatcher.core import endpoint_rules
from hookseal.errors import HooksealError, Malformed, NotFound
from hookseal.ground.ids import EVERY_TENANT, RESERVED_TENANTS, owner_id
from hookseal.ground.ids import endpoint_id as id_of

if TYPE_CHECKING:
    from hookseal.secrets.core.keyring import KeyRing

T = TypeVar("T")

READS: Final = frozenset({Part.DATABASE})
CHANGES: Final = frozenset({Part.DATABASE, Part.SECRETS})
_MAX_NAME: Final = 128
_NO_CUSTOMERS: Final = RESERVED_TENANTS | {EVERY_TENANT}


def call(
    settings: Settings,
    step: Callable[[Admin], Awaitable[T]],
    *,
    keyring: "KeyRing | None" = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Return the result of the only step of a command. Raises as `for_command` does, and what the step raises."""

    async def once() -> T:
        async with for_command(settings, keyring) as admin:
            return await step(admin)

    return run(once(), loop_factory=loop_factory)


def endpoint_id(tenant: str | None, text: str) -> str:
    """Return the id of the endpoint that `--endpoint` names: an id stays as it is, and a uid is looked up.

    What has the form of an id is one, as in the HTTP API. Raises `Malformed` if the text is neither, or if a uid has no
    tenant, and `NotFound`.
    """
    with suppress(Malformed):
        return id_of(text)
    try:
        uid = endpoint_rules.endpoint_uid(text)
    except Malformed as error:
        raise Malformed(
            f"endpoint must be an id, a UUID in lower case, or a uid: {error}", field="endpoint_id"
        ) from None
    if tenant is None or tenant == EVERY_TENANT:
        raise Malformed("a uid is of one tenant: name the tenant of the endpoint, too", field="tenant_id")
    owner = owner_id(tenant)
    settings = load(dict(os.environ), needs=READS)  # a copy, since the command reads its own, with keys, afterwards
    return call(settings, lambda admin: admin.endpoints.find(tenant_id=owner, uid=uid)).endpoint_id


def with_endpoint(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command, whose `--endpoint` may also be a uid of its `--tenant`."""

    @wraps(command)
    def called(**values: Any) -> None:
        if values["endpoint"] is not None:
            values["endpoint"] = endpoint_id(values["tenant"], values["endpoint"])
        command(**values)

    return called


def listed(settings: Settings, step: Callable[[Admin], Awaitable[Page[T]]], *, tenant: str | None) -> Page[T]:
    """Return the page that a command lists. If it is empty, and no such tenant is known, say so on standard error."""

    async def step_and_look(admin: Admin) -> tuple[Page[T], bool]:
        page = await step(admin)
        is_empty = not page.items and page.next_cursor is None
        if not is_empty or tenant is None or tenant in _NO_CUSTOMERS:
            return page, True
        return page, await _is_known(admin, tenant)

    page, is_known = call(settings, step_and_look)
    if not is_known:
        say_unknown(str(tenant))
    return page


async def _is_known(admin: Admin, tenant: str) -> bool:
    try:
        await admin.tenants.get(tenant_id=tenant)
    except NotFound:
        return False
    except HooksealError:  # a role that may not read tenants; the page itself was read
        return True
    return True


def say_unknown(tenant: str) -> None:
    """Say on standard error that no such tenant is known."""
    text = f"no tenant {tenant} is known: it was not added and has no endpoint, so look whether its name is right"
    note(text, prefix="")


class AdminSession:
    """An Admin for several steps; a step that fails or is interrupted does not end the others.

    The session connects and unlocks for the first step, and again only if that connection was lost. After the first
    step an interrupt between two steps ends the next one: the command must still print what it has changed. After an
    interrupted step it starts again, because a second interrupt may have cut off anything.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._runner = asyncio.Runner()
        self._may_be_interrupted = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        self._is_interrupted = False
        self._resources = AsyncExitStack()
        self._admin: Admin | None = None

    def run(self, step: Callable[[Admin], Awaitable[T]]) -> T:
        """Return the result of the step. Raises as `call` does; an interrupt ends this step only."""
        if self._is_interrupted:
            self._is_interrupted = False
            raise KeyboardInterrupt
        try:
            self._handle_interrupt(signal.default_int_handler)
            with translated():
                return self._runner.run(self._run(step))
        except KeyboardInterrupt:
            self._handle_interrupt(self._note)
            self._start_again()
            raise
        finally:
            self._handle_interrupt(self._note)

    def close(self) -> None:
        """Close the connection. An interrupt meanwhile is ignored, because the command has given its answer."""
        with suppress(KeyboardInterrupt), self._runner:
            self._runner.run(self._resources.aclose())
        self._handle_interrupt(signal.default_int_handler)

    def _start_again(self) -> None:
        before, self._runner = self._runner, asyncio.Runner()
        self._resources, self._admin = AsyncExitStack(), None
        with suppress(RuntimeError):  # it may still count as running
            before.close()  # which also ends the connection

    def _handle_interrupt(self, handler: Callable[[int, FrameType | None], object]) -> None:
        if self._may_be_interrupted:
            signal.signal(signal.SIGINT, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._is_interrupted = True

    async def _run(self, step: Callable[[Admin], Awaitable[T]]) -> T:
        if self._admin is None:
            self._admin = await self._resources.enter_async_context(for_command(self._settings))
        return await step(self._admin)


@contextmanager
def admin_session(settings: Settings) -> Iterator[AdminSession]:
    """Give a session, which is closed at the end of the block."""
    session = AdminSession(settings)
    try:
        yield session
    finally:
        session.close()


def operator_name() -> str:
    """Return the user and the machine that run this command, for the audit log: `user@machine`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's numeric user has no name
        user = "unknown"
    return printable(f"{user}@{socket.gethostname()}".encode("utf-8", "backslashreplace").decode())[:_MAX_NAME]
