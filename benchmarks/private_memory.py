"""Measure the peak private memory of a command and the processes it starts (Linux).

    python benchmarks/private_memory.py COMMAND [ARGUMENT ...]

Private memory is anonymous memory (RssAnon in /proc). Pages of mapped files do not count, because the kernel
can drop them at any time; the prepared arrays are mapped for that reason. The sum over all processes of the
tree is sampled twenty times a second; the peak is its maximum.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple


def read_private_mib(pid: int) -> float:
    """Return RssAnon of a process and all its descendants, MiB; a process that has ended counts as 0."""
    total, waiting = 0.0, [pid]
    while waiting:
        process = Path("/proc") / str(waiting.pop())
        try:
            status = dict(
                line.split(":", 1) for line in (process / "status").read_text(encoding="utf-8").splitlines()
            )
            for task in (process / "task").iterdir():
                waiting += (int(child) for child in (task / "children").read_text(encoding="utf-8").split())
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += int(status.get("RssAnon", "0 kB").split()[0]) / 1024
    return total


class Watched(NamedTuple):
    """Exit status, peak private memory and duration of a command."""

    status: int
    peak_mib: float
    seconds: float


def watch(command: list[str], **options: Any) -> Watched:
    """Run a command and measure it; `options` are passed to `subprocess.Popen`."""
    began, peak = time.perf_counter(), 0.0
    child = subprocess.Popen(command, **options)
    while child.poll() is None:
        peak = max(peak, read_private_mib(child.pid))
        time.sleep(0.05)
    return Watched(child.returncode, peak, time.perf_counter() - began)


def main(command: list[str]) -> int:
    """Run the command, print its peak memory, and return its exit status."""
    if not command:
        sys.exit(__doc__)
    found = watch(command)
    print(f"peak private memory: {found.peak_mib:.0f} MiB")
    return found.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
