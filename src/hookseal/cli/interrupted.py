"""What a command that was interrupted leaves behind: by its words, since whoever is interrupted asks nobody."""

from collections.abc import Sequence
from typing import Final

NOT_BEGUN: Final = "interrupted before it began: nothing was changed"
LOOKED: Final = "interrupted: it changes nothing"
GOES_ON: Final = "interrupted: run it again, and it goes on where it was"
# A commit that was under way is not called back.
IN_DOUBT: Final = "interrupted: what it was to change may have been changed all the same, look before you run it again"

_SAID: Final = {
    LOOKED: (
        *("check", "verify", "audit list", "audit verify", "audit heads", "audit export", "db status", "delivery list"),
        *("delivery show", "endpoint list", "endpoint show", "endpoint public-key", "key status", "key versions"),
        *("producer list", "restore check", "secret versions"),
    ),
    GOES_ON: (
        *("db upgrade", "import-endpoints", "key compromise", "key rewrap", "migrate-secrets", "restore accept"),
        *("secret purge",),
    ),
}
KNOWN: Final = {tuple(words.split()): text for text, commands in _SAID.items() for words in commands}


def told(arguments: Sequence[str]) -> str:
    """Return what to tell whoever interrupted the command with these arguments."""
    words = tuple(word for word in arguments if not word.startswith("-"))
    return KNOWN.get(words[:1]) or KNOWN.get(words[:2]) or IN_DOUBT
