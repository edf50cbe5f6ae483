"""The command on an installation that has begun: migrated, with a master key, in a database of its own."""

from dataclasses import dataclass

from tests.cli.command import Ended, fed
from tests.doubles.stored import MASTER_KEY_TEXT, Installation


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """An installation, and the settings that reach it."""

    stored: Installation
    settings: dict[str, str]

    async def run(self, *arguments: str, **changes: str) -> Ended:
        """Run the command on it to its end; the master key is never shown."""
        return await self.fed(b"", *arguments, **changes)

    async def fed(self, standard_input: bytes, /, *arguments: str, **changes: str) -> Ended:
        """Run the command on it to its end, with this on its standard input."""
        ended = await fed(standard_input, *arguments, **(self.settings | changes))
        assert MASTER_KEY_TEXT not in ended.out + ended.err
        return ended
