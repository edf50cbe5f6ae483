"""The requests that one worker has begun and that have not ended. Pure."""

from hookseal.dispatcher.lanes.rotation import Key
from hookseal.dispatcher.lanes.tenants import Tenants
from hookseal.dispatcher.lanes.unanswered import Unanswered


class Begun:
    """For each delivery its endpoint, and when its request began. `tenants` and `unanswered` count them as well."""

    def __init__(self, tenants: Tenants, unanswered: Unanswered) -> None:
        self._requests: dict[str, tuple[Key, float]] = {}
        self._tenants = tenants
        self._unanswered = unanswered

    def __contains__(self, delivery_id: str) -> bool:
        return delivery_id in self._requests

    def begin(self, delivery_id: str, key: Key, now: float, *, answers: bool) -> None:
        """Count a request to an endpoint that answered last, or did not."""
        self._requests[delivery_id] = (key, now)
        self._tenants.begin(key[0])
        if not answers:
            self._unanswered.begin(delivery_id, key[0])

    def end(self, delivery_id: str) -> tuple[Key, float] | None:
        """Count it no longer; return its endpoint and when it began, None if it was not counted."""
        request = self._requests.pop(delivery_id, None)
        if request is not None:
            self._tenants.end(request[0][0])
            self._unanswered.end(delivery_id)
        return request
