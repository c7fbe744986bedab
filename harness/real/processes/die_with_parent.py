"""Ties a process's life to its parent's, by Linux's ``PR_SET_PDEATHSIG``: no run leaves orphans.

Two uses: `die_with_parent` in a forked process, and this file as a wrapper that ties itself and then
becomes another program (`python die_with_parent.py PARENT_PID PROGRAM ARGUMENT…`; the pid stays the same).
A wrapper and not `preexec_fn`: Python code between fork and exec may deadlock in a threaded parent.

Imports the standard library only: the wrapper runs without site packages, in about 20 ms.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["die_with_parent"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(parent_pid: int | None = None) -> None:
    """Have the kernel send this process SIGKILL when its parent ends, however that ends.

    The kernel watches the *thread* that forked: fork from one that lives as long as the parent.
    A fork clears the setting, an exec keeps it. Does nothing on systems other than Linux.

    Args:
        parent_pid: the parent's pid as it knew it before the fork. A parent that has died meanwhile
            is then noticed; without it, only one that dies during this call is.
    """
    if sys.platform != "linux":
        return
    expected = os.getppid() if parent_pid is None else parent_pid
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != expected:  # it died before the setting took effect: nobody will tell us
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and exec would hand that on
        signal.signal(number, signal.SIG_DFL)
    os.execvp(sys.argv[2], sys.argv[2:])
