"""The drill's short form: damaged files for every reader, and payloads that would leave a mark."""

import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from drill import hostile

CASES, SEED = 2000, 0
GUIDED = 900
TESTS = Path(__file__).parent
FUZZER = Path(sys.prefix) / "fuzz"  # where make installs it
HAS_WHEEL = (
    sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info[:2] in ((3, 11), (3, 12))
)
# Reads three letters one after the other: of drawn files, one in 16 million has them.
PLANTED = """
def read(path):
    content = path.read_bytes()
    if content[:1] == b"o" and content[1:2] == b"d" and content[2:3] == b"d":
        raise KeyError("odd")
    raise ValueError(path.name)
"""
FUZZ_PLANTED = """
import os
import sys
from pathlib import Path
import atheris
with atheris.instrument_imports(include=["planted"]):
    import planted
from drill import guided, hostile
home = Path(sys.argv[1])
path = home / "file"
reads = {"planted": planted.read, "ends": lambda path: os._exit(3)}
for name, read in reads.items():
    result = guided.fuzz(hostile.Reader(name, read, [path]), path, 50_000, 0, home / name)
    print(name, result.cases, result.named, path.read_bytes(), result.failures)
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the drill needs POSIX signals and limits")


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    watched = hostile.Watched(tmp_path_factory.mktemp("readers"))
    yield watched
    watched.stop()


def test_hostile_files_are_read_or_refused_by_name(watched):
    results = hostile.run_cases(watched, -(-CASES // len(watched.seeds)), SEED)
    print(hostile.format_table(results))
    assert [text for result in results.values() for text in result.failures] == []
    assert sum(result.cases for result in results.values()) >= CASES
    # Cases that are all valid, or all refused at the first byte, would show nothing.
    assert all(result.named and result.valid for result in results.values())


def test_payloads_leave_no_mark_and_are_refused_by_name(watched, tmp_path):
    assert hostile.plant(watched, tmp_path) == []


def test_the_watch_sees_a_process_that_ends_and_one_that_hangs(watched, monkeypatch):
    monkeypatch.setattr(hostile, "WAIT_S", 0.1)
    os.kill(watched.process.pid, signal.SIGSTOP)
    outcome, *_ = watched.read("PNG", watched.seeds["PNG"][0])
    assert outcome.startswith("hangs")
    monkeypatch.undo()
    watched.process.kill()
    watched.process.join()
    outcome, *_ = watched.read("PNG", watched.seeds["PNG"][0])
    assert outcome == "ends the process"


@pytest.fixture(scope="module")
def fuzz(require):
    """Run Python with the fuzzer; return what it printed and its exit code."""
    if not HAS_WHEEL:
        pytest.skip("there is no wheel of atheris for this platform")
    require(
        (FUZZER / "atheris").is_dir(), f"atheris is not in {FUZZER}: `make drill` and `make test` install it"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(FUZZER)])}

    def run(*words, **more):
        return subprocess.run(
            [sys.executable, *words], env=environment | more, capture_output=True, text=True, timeout=600
        )

    return run


def test_files_that_reach_further_are_read_or_refused_by_name(fuzz):
    done = fuzz("-m", "drill.guided", "--runs", str(GUIDED))
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = re.findall(r"^(\S.{21}) +(\d+) .* ([\d,]+) +([\d,]+)$", done.stdout, flags=re.M)
    numbers = [[int(number.replace(",", "")) for number in row[1:]] for row in rows]
    assert sum(cases for cases, *_ in numbers) >= GUIDED
    assert all(0 < first <= last for _, first, last in numbers)
    assert sum(first for _, first, _ in numbers) < sum(last for *_, last in numbers), (
        "no file reached new code"
    )


def test_the_fuzzer_finds_what_is_planted_behind_three_letters(fuzz, tmp_path):
    (tmp_path / "planted.py").write_text(PLANTED)
    (tmp_path / "file").write_bytes(b"whole")
    paths = os.pathsep.join([str(tmp_path), str(TESTS), str(FUZZER)])
    done = fuzz("-c", FUZZ_PLANTED, str(tmp_path), PYTHONPATH=paths)
    assert done.returncode == 0, done.stderr[-3000:]
    planted, ends = done.stdout.splitlines()
    cases, named = map(int, planted.split()[1:3])
    assert cases >= 50_000 > named > 0 and "b'whole'" in planted
    assert "file: KeyError: 'odd'" in planted
    assert ends.startswith("ends 0 0 b'whole' ['file: ends the process with 3: ")
