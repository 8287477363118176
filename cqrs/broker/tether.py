"""Ties a process to its parent: the kernel kills it when the parent dies.

As a program, `python tether.py PARENT_PID PROGRAM ARG …`, it becomes another program that is tied so: between fork and
exec of a process with threads (gRPC has some) no Python code is safe, so this is a small program of its own and no
`preexec_fn`. "Parent" is to the kernel the thread that started this one: it must be one that stays. It stands on the
standard library alone, to start quickly. Where there is no PR_SET_PDEATHSIG (not Linux) nothing is tied.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have this process killed (SIGKILL) when its parent, process `parent`, dies. If it has died already, exit."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != parent:
            sys.exit("the parent process has gone already")


def main() -> None:
    """Tie this process to its parent, then become the program."""
    parent, program, *arguments = sys.argv[1:]
    die_with_parent(int(parent))
    os.execv(program, [program, *arguments])  # noqa: S606 - no shell is what is wanted


if __name__ == "__main__":
    main()
