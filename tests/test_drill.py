"""The drill's short form: damaged files for every reader, and payloads that would leave a mark."""

import os
import signal
import sys

import pytest
from drill import hostile

CASES, SEED = 2000, 0
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
