"""What the errors of the system say of this machine: that it has none left of something."""

import errno
from typing import Final

_OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def lack(error: BaseException) -> str | None:
    """Return what this machine lacks if that is what the error says (the name of its code), None if it is another."""
    code = error.errno if isinstance(error, OSError) else None
    return errno.errorcode[code] if code in _OURS else None
