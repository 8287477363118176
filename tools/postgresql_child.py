"""Becomes another program as another user, killed by the kernel when its parent dies.

    python postgresql_child.py PARENT_PID UID GID PROGRAM ARGUMENT …

PostgreSQL refuses to run as root, and the Python that starts it may lie where no other user can read it: so the user is
changed here, after Python has started. The order matters: the kernel forgets the wish for a signal when the user
changes. See cqrs/broker/tether.py, which does the rest of this for nats-server.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become that program."""
    parent, uid, gid, program, *arguments = sys.argv[1:]
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != int(parent):
            sys.exit("the parent process has gone already")
    os.execv(program, [program, *arguments])  # noqa: S606 - no shell is what is wanted


if __name__ == "__main__":
    main()
