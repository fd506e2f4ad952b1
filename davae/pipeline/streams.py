"""What a terminal or a log file cannot show must not cost a result."""

import os
import sys


def escape_unprintable() -> None:
    r"""Let this process and those it starts print what an encoding lacks as an escape, \u03b2 for a beta.

    Python's stderr does so by itself; its stdout ends the program instead, under a Latin-1 or ASCII locale
    and, with a file's name that is no valid text, under any. A stream that is closed, or that a notebook or
    a test put in place of Python's own, is left alone.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    encoding = os.environ.get("PYTHONIOENCODING", "").partition(":")[0]
    os.environ["PYTHONIOENCODING"] = f"{encoding}:backslashreplace"
