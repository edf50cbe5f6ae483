"""The share of one worker in a limit that all live workers keep together. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fleet:
    """The number of live workers, and the rank of this one among them, from 0."""

    rank: int = 0
    workers: int = 1

    def share(self, whole: int, endpoint_id: str) -> int:
        """Return this worker's part of a whole number. The parts of all workers together are the whole.

        Which workers get one more than others differs by endpoint; with fewer than one for each, some get none.
        """
        each, rest = divmod(whole, self.workers)
        turn = (self.rank + int(endpoint_id[-8:], 16)) % self.workers
        return each + (turn < rest)
