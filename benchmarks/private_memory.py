"""Peak private memory of a command and the processes it starts (Linux).

    python benchmarks/private_memory.py COMMAND [ARGUMENT ...]

Private means anonymous memory (RssAnon of /proc): what the program holds for itself. Pages of mapped files,
which the kernel can drop at any time, do not count; that is the point of mapping the prepared arrays. The
peak is that of the sum over all processes of the tree, sampled twenty times a second.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple


def private_mib(pid: int) -> float:
    """RssAnon of a process and all its descendants, MiB; a process that has just ended counts as nothing."""
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
    """How a command went."""

    status: int
    peak_mib: float
    seconds: float


def watch(command: list[str], **options: Any) -> Watched:
    """Run a command to its end; `options` are those of `subprocess.Popen`."""
    began, peak = time.perf_counter(), 0.0
    child = subprocess.Popen(command, **options)
    while child.poll() is None:
        peak = max(peak, private_mib(child.pid))
        time.sleep(0.05)
    return Watched(child.returncode, peak, time.perf_counter() - began)


def main(command: list[str]) -> int:
    """Run the command, print its peak, return its exit status."""
    if not command:
        sys.exit(__doc__)
    found = watch(command)
    print(f"peak private memory: {found.peak_mib:.0f} MiB")
    return found.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
