"""Output that a terminal, a log file or a pipe cannot take must not end a command."""

import os
import select
import sys


def escape_unprintable() -> None:
    r"""Print characters that the output's encoding lacks as escapes, such as \u03b2; child processes too.

    By default Python does so on stderr only. On stdout it raises under a Latin-1 or ASCII locale and, for a
    file name that is not valid text, under any locale. Closed streams, and streams that a notebook or a test
    has put in place, are left unchanged.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    encoding = os.environ.get("PYTHONIOENCODING", "").partition(":")[0]
    os.environ["PYTHONIOENCODING"] = f"{encoding}:backslashreplace"


def discard_unread_output() -> bool:
    """Return whether the reader of stdout has ended, as `head` does early; then drop all further output."""
    poll = select.poll()
    poll.register(sys.stdout, 0)  # errors are reported without being asked for
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True
