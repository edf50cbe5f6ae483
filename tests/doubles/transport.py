"""A transport that answers from a script."""

from collections.abc import Callable

from hookseal.dispatcher.core.model import Answer, NotBegun, Request
from hookseal.dispatcher.http.observation import Observed
from hookseal.errors import Defect, Malformed
from hookseal.ground.clock import Clock
from hookseal.ground.wire import require_headers
from tests.doubles.clock import FakeClock


class ScriptedTransport:
    """Answers each request with the next answer; `during` runs before the answer, so that a test can act then.

    `own` contains, for each request, the values of the endpoint's own headers at that time.
    """

    def __init__(
        self, *answers: Answer, during: Callable[[], object] | None = None, clock: Clock | None = None
    ) -> None:
        self._answers = list(answers)
        self._clock = clock or FakeClock()
        self._during = during
        self.sent: list[Request] = []
        self.own: list[dict[str, bytes]] = []

    async def send(self, request: Request) -> Answer:
        if self._clock.monotonic() >= request.start_by:
            return NotBegun()
        own = {name: value.reveal() for name, value in request.sealed_headers.items()}
        try:
            require_headers({name: value.decode("latin-1") for name, value in own.items()})
        except Malformed:
            raise Defect("the headers may not be sent") from None
        self.sent.append(request)
        self.own.append(own)
        if self._during is not None:
            result = self._during()
            if hasattr(result, "__await__"):
                await result
        return self._answers.pop(0)

    async def observed(self, request: Request) -> tuple[Answer, Observed]:
        return await self.send(request), Observed(addresses=(), error=None, dialled=None, tls=None)
