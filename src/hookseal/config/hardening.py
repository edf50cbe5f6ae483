"""What a process requests of the operating system: no memory dumps of keys, and enough open files."""

import ctypes
import resource
import sys
from contextlib import suppress
from typing import Final

from hookseal.ground.errors import Refused

_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


def raise_descriptor_limit() -> int:
    """Raise this process's limit of open files as far as the system permits, and return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS reports a limit that it then refuses to set
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def harden_process() -> None:
    """Stop this process from writing core files and, on Linux, stop other users than root from reading its memory.

    Linux then gives the files in `/proc/<pid>` to root: a process of the same user can neither attach to this one nor
    read its initial environment. A program that this process executes later starts without the protection. Raises
    `Refused` if the system does not permit it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise Refused("the system does not let this process protect its memory (prctl PR_SET_DUMPABLE)")
