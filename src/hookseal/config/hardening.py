"""Hardens the process that holds a key: nobody dumps its memory."""

import ctypes
import resource
import sys
from typing import Final

from hookseal.ground.errors import Refused

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


def harden_process() -> None:
    """Make this process write no core file and, on Linux, let nobody but root read its memory.

    Linux then gives what is in `/proc/<pid>` to root, so that a process of the same user can neither attach
    nor read the start environment. A program that is executed later begins without it. Raises
    `Refused` if the system does not allow it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise Refused("the system does not let this process protect its memory (prctl PR_SET_DUMPABLE)")
