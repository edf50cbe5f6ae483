"""What an interrupted command says about its change: chosen by its name, because PostgreSQL is asked no more."""

from collections.abc import Sequence
from typing import Final

NOT_BEGUN: Final = "interrupted before the command began: nothing was changed"
READS_ONLY: Final = "interrupted: this command changes nothing"
CONTINUES: Final = "interrupted: run it again, and it continues where it stopped"
# A commit that was sent cannot be taken back.
IN_DOUBT: Final = "interrupted: the change may have been made all the same; check that before you run it again"

_COMMANDS: Final = {
    READS_ONLY: (
        *("check", "verify", "audit list", "audit verify", "audit heads", "audit export", "db status", "delivery list"),
        *("delivery show", "endpoint list", "endpoint show", "endpoint public-key", "key status", "key versions"),
        *("producer list", "restore check", "secret versions", "delivery why", "endpoint stats", "event list"),
        *("find", "listen", "replay list", "replay status", "status", "tenant list", "top", "doctor"),
        *("delivery attempts", "event-type list", "token list", "up env", "db roles"),
    ),
    CONTINUES: (
        *("db upgrade", "import-endpoints", "key compromise", "key rewrap", "migrate-secrets", "restore accept"),
        *("secret move", "secret purge", "endpoint retry"),
    ),
}
KNOWN: Final = {tuple(words.split()): text for text, commands in _COMMANDS.items() for words in commands}


def message(arguments: Sequence[str]) -> str:
    """Return what to print after the command with these arguments was interrupted."""
    words = tuple(word for word in arguments if not word.startswith("-"))
    return KNOWN.get(words[:1]) or KNOWN.get(words[:2]) or IN_DOUBT
