"""Compare the locks with published advisories on weaknesses: `make audit`.

It runs pip-audit, which asks PyPI, from an environment of its own. It ends with

    0  no advisory is known
    1  there is one; each is printed
    3  not audited, because the service did not answer

The tests never run it: they do without a network, and an advisory is no fault of the change under test.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

CLEAN, KNOWN, NOT_AUDITED = 0, 1, 3
TIMEOUT_S = 15  # of one request
SHOWN = 5  # names of packages for one reason


def main(locks: Sequence[str]) -> int:
    """Audit lock files, each by itself since they may pin other versions, and print what was found."""
    options = ["--no-deps", "--disable-pip", "--progress-spinner=off", f"--timeout={TIMEOUT_S}"]
    found = set()
    for lock in locks:
        command = [sys.executable, "-m", "pip_audit", *options, "--format=json", "--requirement", lock]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        status, said = judge(done.stdout, done.stderr)
        print(f"{lock}\n{said}", flush=True)
        found.add(status)
    return KNOWN if KNOWN in found else max(found)


def judge(output: str, errors: str) -> tuple[int, str]:
    """Return the exit status, and a report, from what pip-audit wrote to its two streams."""
    try:
        packages: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = errors.strip().splitlines() or ["pip-audit said nothing"]
        return NOT_AUDITED, f"not audited: the advisory service did not answer ({lines[-1][:300]})"
    lines, skipped = [], [package for package in packages if "skip_reason" in package]
    for package in packages:
        for known in package.get("vulns", []):
            mended = ", ".join(known["fix_versions"]) or "no version yet"
            lines.append(f"{package['name']} {package['version']}: {known['id']}, mended in {mended}")
    audited = len(packages) - len(skipped)
    if skipped:
        lines.append(f"not audited: {_list(skipped)}")
    if not audited:
        return NOT_AUDITED, "\n".join(lines or ["not audited: no package was named"])
    known_count = len(lines) - bool(skipped)
    lines.append(f"{audited} packages audited, {known_count} advisories")
    return KNOWN if known_count else CLEAN, "\n".join(lines)


def _list(skipped: Sequence[dict[str, Any]]) -> str:
    """Return the names of packages that were skipped, a few for each reason."""
    by_reason: dict[str, list[str]] = {}
    for package in skipped:
        reason = package["skip_reason"].split(f": {package['name']}")[0]
        by_reason.setdefault(reason, []).append(package["name"])
    said = []
    for reason, names in by_reason.items():
        more = f" and {len(names) - SHOWN} others" if len(names) > SHOWN else ""
        said.append(f"{', '.join(names[:SHOWN])}{more} ({reason})")
    return "; ".join(said)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
