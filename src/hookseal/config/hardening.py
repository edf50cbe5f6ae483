"""What a process asks of the system: that nobody dumps the memory of one that holds a key, and enough files."""

import ctypes
import resource
import sys
from contextlib import suppress
from typing import Final

from hookseal.ground.errors import Refused

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


def raised_descriptor_limit() -> int:
    """Raise how many files this process may have open as far as the system lets it, and return how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS takes no such limit as it gives
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def harden_process() -> None:
    """Make this process write no core file and, on Linux, let nobody but root read its memory.

    Linux then gives what is in `/proc/<pid>` to root, so that a process of the same user can neither attach
    nor read the start environment. A program that is executed later begins without it. Raises
    `Refused` if the system does not allow it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise Refused("the system does not let this process protect its memory (prctl PR_SET_DUMPABLE)")
