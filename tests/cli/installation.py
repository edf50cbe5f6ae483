"""The command on an installation that has begun: migrated, with a master key, in its own database."""

from dataclasses import dataclass

from tests.cli.command import Ended, fed
from tests.cli.in_turn import InTurn
from tests.doubles.stored import MASTER_KEY_TEXT, Installation


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """An installation and the settings that reach it."""

    stored: Installation
    settings: dict[str, str]
    in_turn: InTurn

    async def run(self, *arguments: str, **changes: str) -> Ended:
        """Run the command on the installation to its end; the output never has the master key."""
        return await self.fed(b"", *arguments, **changes)

    async def fed(self, standard_input: bytes, /, *arguments: str, **changes: str) -> Ended:
        """Run the command on the installation to its end, with this standard input."""
        settings = self.settings | changes
        if self.in_turn.can_run(arguments, settings):
            ended = await self.in_turn.run(arguments, settings, standard_input)
        else:
            ended = await fed(standard_input, *arguments, **settings)
        assert MASTER_KEY_TEXT not in ended.out + ended.err
        return ended


def options_of(endpoint: str, tenant: str = "acme") -> tuple[str, ...]:
    """Return the options that name an endpoint."""
    return ("--tenant", tenant, "--endpoint", endpoint)
