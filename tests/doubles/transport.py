"""A transport that answers from a script."""

from collections.abc import Callable

from hookseal.dispatcher.model import Answer, NotBegun, Request


class ScriptedTransport:
    """Answers each request with the next answer; what may be called runs first, for the test to act in mid-send."""

    def __init__(self, *answers: Answer, during: Callable[[], object] | None = None) -> None:
        self._answers = list(answers)
        self._during = during
        self.sent: list[Request] = []

    async def send(self, request: Request) -> Answer:
        """Return the next answer of the script."""
        if request.start_within_seconds <= 0:
            return NotBegun()
        self.sent.append(request)
        if self._during is not None:
            result = self._during()
            if hasattr(result, "__await__"):
                await result
        return self._answers.pop(0)
