"""Becomes a server: drops root, asks the kernel to be ended with the parent, then executes the server's program.

Its source is passed to a bare interpreter (`python -I -S -c`), since root may start servers that cannot read this
file. A `preexec_fn` would do the same between fork and exec, where a process with threads can deadlock.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def launch(parent: int, death_signal: int, owner: str, command: list[str]) -> None:
    """Replace this process by the command, run as `owner` (`UID:GID`, or empty for the current user)."""
    if owner:
        uid, _, gid = owner.partition(":")
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    os.umask(0o077)
    if sys.platform == "linux":
        # After the change of user, which clears it. The kernel sends it when the thread that started this process ends.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    launch(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
