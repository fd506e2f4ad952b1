"""What of this machine and this environment matters to davae, and what to do where something is missing."""

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LEAST_GB = {
    "disk": {"smoke": 0.2, "laptop": 7.0},  # data and outputs of `reproduce`, as measured
    "memory": {
        "smoke": 2.0,
        "laptop": 3.0,
    },  # two processes with torch, 0.8 GB each or a little more; and room
}
CONTROL_GROUP = Path("/sys/fs/cgroup")  # where Linux tells what a container may use
GB = 1e9


class Finding(NamedTuple):
    """One line of `inspect_environment`."""

    what: str
    found: str
    remedy: str = ""  # what to do; empty if all is well


def inspect_environment(home: Path | str = "") -> list[Finding]:
    """Look at packages, processor, memory and disk; nothing is changed or created.

    Args:
        home: folder that holds data and outputs; empty: the clone.

    Raises:
        FileNotFoundError: `home` is empty and there is no clone.
    """
    from davae.pipeline.folders import project_folder

    home = Path(home).resolve() if home else project_folder()
    return [
        _check_python(),
        *_check_packages(),
        _check_cores(),
        _check_accelerator(),
        _check_arithmetic(),
        _check_compiler(),
        _check_memory(),
        _check_disk(home),
        *(_check_folder(home / name) for name in ("data", "outputs")),
    ]


def format_findings(findings: list[Finding]) -> str:
    """Return a Markdown table: what, what was found, and "fine" or what to do."""
    rows = [f"| {f.what} | {f.found} | {f.remedy or 'fine'} |" for f in findings]
    return "\n".join(["| what | found | what to do |", "|---|---|---|", *rows])


def compare_versions(lock: str, wanted: Sequence[str], installed: Mapping[Any, str]) -> list[Finding]:
    """Compare installed packages with a lock and with the ranges that the project allows.

    Args:
        lock: the text of requirements.lock.
        wanted: requirements of the project, as its metadata has them; those of extras are left out.
        installed: normalised name -> version, without a build tag.

    Returns:
        One line for all that agree with the lock, and one for each package that the project needs and that
        is missing or outside of its range.
    """
    pins = {}
    for line in lock.splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                pins[canonicalize_name(requirement.name)] = next(iter(requirement.specifier)).version
    same = [name for name, version in pins.items() if installed.get(name) == version]
    other = sorted(pins.keys() & installed.keys() - {*same})
    found = f"{len(same)} of {len(pins)} versions are those of requirements.lock"
    if other:
        found += "; others: " + ", ".join(f"{name} {installed[name]} (lock: {pins[name]})" for name in other)
    findings = [Finding("packages", found, _advise_on(other))]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if name not in installed:
            findings.append(Finding(name, "not installed", f"`pip install '{_without_marker(requirement)}'`"))
        elif not requirement.specifier.contains(installed[name], prereleases=True):
            remedy = f"davae needs {requirement.specifier}: `pip install '{_without_marker(requirement)}'`"
            findings.append(Finding(name, installed[name], remedy))
    return findings


def _advise_on(other: Sequence[str]) -> str:
    if not other:
        return ""
    return "if something fails, take the tested versions: `pip install -r requirements.lock`"


def _without_marker(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _check_python() -> Finding:
    wanted = _requires_python()
    found = f"{sys.version.split()[0]}, {sys.executable}"
    if default_environment()["python_version"] in Requirement(f"python{wanted}").specifier:
        return Finding("Python", found)
    return Finding("Python", found, f"davae needs {wanted}: make a new environment (docs/install.md)")


def _requires_python() -> str:
    try:
        return metadata.metadata("davae")["Requires-Python"] or ""
    except metadata.PackageNotFoundError:
        return ""


def _check_packages() -> list[Finding]:
    from davae.pipeline.folders import project_folder

    try:
        wanted = metadata.requires("davae") or []
    except metadata.PackageNotFoundError:
        return [Finding("packages", "davae is not installed", "`pip install -e .` in the clone's folder")]
    try:
        lock = (project_folder() / "requirements.lock").read_text(encoding="utf-8")
    except FileNotFoundError:  # installed without a clone
        lock = ""
    installed = {
        canonicalize_name(distribution.name): distribution.version.split("+")[0]
        for distribution in metadata.distributions()
    }
    return compare_versions(lock, wanted, installed)


def _check_cores() -> Finding:
    cores, threads = count_cores(), os.environ.get("OMP_NUM_THREADS")
    found = f"{cores:g} usable" + (f", OMP_NUM_THREADS is {threads}" if threads else "")
    if threads and threads.isdigit() and int(threads) < cores:
        return Finding(
            "cores",
            found,
            "unset OMP_NUM_THREADS to use all, unless runs must repeat bit for bit",
        )
    if cores < 2:
        return Finding("cores", found, "enough for `smoke`; at `laptop`, expect twice the stated times")
    return Finding("cores", found)


def count_cores() -> float:
    """Return how many cores this process may use, which in a container can be a fraction."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read(CONTROL_GROUP / "cpu.max").partition(" ")
    return min(cores, round(int(quota) / int(period), 1)) if quota.isdigit() else cores


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _check_accelerator() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("accelerator", f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    return Finding("accelerator", f"none, torch {torch.__version__}; `paper` alone needs one")


def _check_arithmetic() -> Finding:
    from davae.training.device import has_bf16, pick_device

    if has_bf16(pick_device("auto")):
        return Finding("bf16 arithmetic", "in hardware")
    return Finding("bf16 arithmetic", "not in hardware", "nothing, but training takes up to twice as long")


def _check_compiler() -> Finding:
    from davae.networks.native import explain_missing

    missing = explain_missing()
    if missing is None:
        return Finding("C kernels", "compiled and loaded")
    short = re.sub(r"\s+", " ", missing)[:160].replace("|", "/")
    return Finding("C kernels", short, "training takes half as long again; `apt-get install gcc libc6-dev`")


def _check_memory() -> Finding:
    import psutil  # Jupyter's kernel brings it

    free = psutil.virtual_memory().available / GB
    limit, used = (_read(CONTROL_GROUP / name) for name in ("memory.max", "memory.current"))
    if limit.isdigit() and used.isdigit():
        free = min(free, (int(limit) - int(used)) / GB)
    return _weigh(
        "free memory", free, LEAST_GB["memory"], "close other programs; in 03, 04, 07 set `jobs = 1`"
    )


def _check_disk(home: Path) -> Finding:
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(there).free / GB
    return _weigh("free disk", free, LEAST_GB["disk"], "name a folder on another disk with `home`")


def _weigh(what: str, free_gb: float, least: dict[str, float], remedy: str) -> Finding:
    short = [f"`{preset}` wants {gb:g} GB" for preset, gb in least.items() if free_gb < gb]
    return Finding(what, f"{free_gb:.1f} GB", f"{', '.join(short)}: {remedy}" if short else "")


def _check_folder(folder: Path) -> Finding:
    if not folder.exists():
        parent = next(above for above in folder.parents if above.exists())
        remedy = "" if os.access(parent, os.W_OK) else "not writable: name another folder with `home`"
        return Finding(folder.name, f"{folder}, made when first needed", remedy)
    remedy = "" if os.access(folder, os.W_OK) else "not writable: name another folder with `home`"
    kept = sum(1 for _ in folder.iterdir())
    return Finding(folder.name, f"{folder}, {kept} {'entry' if kept == 1 else 'entries'}", remedy)
