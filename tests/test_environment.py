"""What the first notebook says of a machine: each line "fine" or a remedy; and its cell for Colab."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import pytest

from davae.pipeline import environment, notebooks
from davae.pipeline.environment import (
    Finding,
    compare_versions,
    count_cores,
    format_findings,
    inspect_environment,
)

LOCK = '# made\nnumpy==2.4.6\nScikit_Image==0.26.0\nhere==1; sys_platform == "nowhere"\n'


def found(findings, what):
    (finding,) = [finding for finding in findings if finding.what == what]
    return finding


def test_this_environment_is_told_whole_and_nothing_is_made(tmp_path, require):
    findings = inspect_environment(tmp_path / "home")
    assert {f.what for f in findings} >= {
        "Python",
        "packages",
        "cores",
        "bf16 arithmetic",
        "free disk",
        "data",
    }
    assert str(tmp_path / "home" / "outputs") in found(findings, "outputs").found
    assert not (tmp_path / "home").exists()
    assert found(findings, "Python").remedy == ""
    table = format_findings(findings).splitlines()
    assert len(table) == len(findings) + 2 and all(line.count("|") == 4 for line in table)


@pytest.mark.parametrize(
    ("installed", "wanted", "names", "remedy"),
    [
        ({"numpy": "2.4.6", "scikit-image": "0.26.0"}, "numpy>=2,<3", ["packages"], ""),
        ({"numpy": "2.3.0", "scikit-image": "0.26.0"}, "numpy>=2,<3", ["packages"], "requirements.lock"),
        ({"numpy": "1.9"}, "numpy>=2,<3", ["packages", "numpy"], "davae needs"),
        ({"scikit-image": "0.26.0"}, "numpy>=2,<3", ["packages", "numpy"], "pip install 'numpy<3,>=2'"),
        ({}, "numpy>=2; extra == 'tests'", ["packages"], ""),
        ({}, "numpy>=2; sys_platform == 'nowhere'", ["packages"], ""),
    ],
)
def test_versions_are_compared_with_the_lock_and_the_ranges(installed, wanted, names, remedy):
    findings = compare_versions(LOCK, [wanted], installed)
    assert [finding.what for finding in findings] == names
    assert remedy in findings[-1].remedy and bool(remedy) == bool(findings[-1].remedy)
    same = sum(
        installed.get(name) == version for name, version in (("numpy", "2.4.6"), ("scikit-image", "0.26.0"))
    )
    assert findings[0].found.startswith(f"{same} of 2 versions")


@pytest.mark.parametrize(("quota", "expected"), [("50000 100000", 0.5), ("max 100000", None), ("", None)])
def test_a_container_may_use_less_than_the_machine_has(quota, expected, tmp_path, monkeypatch):
    machine = count_cores()
    (tmp_path / "cpu.max").write_text(quota)
    (tmp_path / "memory.max").write_text("3000000000")
    (tmp_path / "memory.current").write_text("2500000000")
    monkeypatch.setattr(environment, "CONTROL_GROUP", tmp_path)
    assert count_cores() == (machine if expected is None else expected)
    memory = found(inspect_environment(tmp_path), "free memory")
    assert memory.found == "0.5 GB" and "`smoke` wants" in memory.remedy and "jobs = 1" in memory.remedy


def test_a_full_disk_gets_a_remedy(tmp_path, monkeypatch):
    usage = SimpleNamespace(free=1e9)
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda _: usage)
    disk = found(inspect_environment(tmp_path), "free disk")
    assert disk == Finding(
        "free disk", "1.0 GB", "`laptop` wants 7 GB: name a folder on another disk with `home`"
    )


def colab_cell():
    path = notebooks.notebook_folder() / "00_start_here.ipynb"
    return next(c.source for c in nbformat.read(path, as_version=4).cells if "google.colab" in c.source)


def test_the_cell_for_colab_does_nothing_elsewhere(monkeypatch):
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("a command was run"))
    path = list(sys.path)
    exec(colab_cell(), {"repository": "https://github.com/OWNER/davae"})
    assert sys.path == path


def test_in_colab_a_copy_is_installed_once_its_address_is_known(tmp_path, monkeypatch):
    commands = []

    def run(command, check):
        commands.append(command)
        (tmp_path / "davae" / "notebooks").mkdir(parents=True, exist_ok=True)

    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="set `repository`"):
        exec(colab_cell(), {"repository": "https://github.com/OWNER/davae"})
    assert not commands
    exec(colab_cell(), {"repository": "https://example.org/davae"})
    assert [command[-2:] for command in commands] == [["https://example.org/davae", "davae"], ["-e", "davae"]]
    assert sys.path[0] == str(tmp_path / "davae")


# The audit of the locks; the advisories themselves are asked for by `make audit` alone


def judge(output: str, errors: str = "") -> tuple[int, str]:
    path = Path(__file__).parents[1] / ".ci" / "audit.py"
    spec = importlib.util.spec_from_file_location("audit", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.judge(output, errors)


@pytest.mark.parametrize(
    ("packages", "status", "words"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0, "1 packages audited, 0 advisories"),
        (
            [{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1", "2"]}]}],
            1,
            "a 1: PYSEC-1, mended in 1.1, 2\n1 packages audited, 1 advisories",
        ),
        (
            [
                {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": []}]},
                {"name": "b", "skip_reason": "unknown"},
            ],
            1,
            "a 1: PYSEC-1, mended in no version yet\nnot audited: b (unknown)\n1 packages audited",
        ),
        ([{"name": "b", "skip_reason": "unknown"}], 3, "not audited: b (unknown)"),
    ],
)
def test_an_audit_names_advisories_and_what_it_could_not_ask(packages, status, words):
    found = judge(json.dumps({"dependencies": packages, "fixes": []}))
    assert found[0] == status and words in found[1]


def test_an_audit_that_knows_no_package_says_so_in_a_line():
    reason = "Dependency not found on PyPI and could not be audited"
    packages = [{"name": f"p{n}", "skip_reason": f"{reason}: p{n} (1.{n})"} for n in range(7)]
    status, said = judge(json.dumps({"dependencies": packages}))
    assert (status, said) == (3, f"not audited: p0, p1, p2, p3, p4 and 2 others ({reason})")


@pytest.mark.parametrize("output", ["", "{", "[]", "null"])
def test_an_audit_without_an_answer_is_none(output):
    status, said = judge(output, "Traceback\nConnectionError: no route\n")
    assert status == 3 and said.startswith("not audited: ") and "ConnectionError: no route" in said
    assert judge(output)[0] == 3
