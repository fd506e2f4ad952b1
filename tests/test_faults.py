"""The drill's short form for faults while commands run: `make drill` tries every command and many moments."""

import os
import signal
import sys

import pytest
from drill import commands, faults
from drill.nursery import open_nursery

KILLS, SEED = 2, 0
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the drill needs Linux's signals and limits")
SHORT = [  # command, fault, cases; all others are `make drill`
    ("prepare", "kill", 1),
    ("prepare", "limit", 1),
    ("train-mask", "SIGTERM", 1),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return commands.make_world(tmp_path_factory.mktemp("dávae drill 手 "))


@pytest.fixture(scope="module")
def nursery(world):
    """Where the system has none, fresh processes do the same."""
    with open_nursery({**os.environ, **commands.ENVIRONMENT}) as nursery:
        yield nursery


@pytest.fixture(scope="module")
def references(world, nursery, tmp_path_factory):
    """Each command of the short form, and a run of it without a fault."""
    wanted = [
        command for command in commands.list_commands(world) if command.name in {name for name, _, _ in SHORT}
    ]
    folders = [tmp_path_factory.mktemp(command.name) for command in wanted]
    return {
        command.name: (command, faults.Reference.make(command, folder, nursery))
        for command, folder in zip(wanted, folders, strict=True)
    }


@pytest.mark.parametrize(("name", "fault", "count"), SHORT)
def test_a_fault_is_survived(world, references, nursery, tmp_path, name, fault, count):
    score = faults.Score()
    for number in range(count):
        folder = tmp_path / f"{fault} {number}"
        case = faults.Case(*references[name], world, folder, fault, number, count, SEED, nursery)
        faults.try_fault(case, score)
    print(faults.format_table({name: {fault: score}}))
    assert (score.tried, score.lost, score.skipped) == (count, [], "")


def test_a_nursery_starts_what_ends_as_a_process_of_its_own_does(tmp_path):
    with open_nursery({**os.environ, **commands.ENVIRONMENT}) as nursery:
        if nursery is None:
            pytest.skip("needs Linux 5.3 and the right to watch processes")

        def start(*words):
            return commands.Running.start(words, tmp_path / "log", nursery=nursery)

        assert start("--version").wait() == commands.Ended(0, (tmp_path / "log").read_text())
        assert start("nonsense").wait().code == 2
        assert "unknown command 'nonsense'" in (tmp_path / "log").read_text()
        running = start("unpack", "--out", str(tmp_path / "out"))
        assert os.getsid(running.process.pid) == running.process.pid
        assert running.send(signal.SIGKILL) and running.wait().code == -signal.SIGKILL
        assert not running.send(signal.SIGKILL)
        orphan = start("unpack", "--out", str(tmp_path / "other"))
        nursery.process.kill()
        for ask in (orphan.wait, lambda: start("--version")):
            with pytest.raises(ChildProcessError, match="the nursery has ended"):
                ask()


def test_the_drill_sees_what_is_lost(world, references, tmp_path):
    """A result that differs, a file that only looks whole, a stray file, and words that are none."""
    command, reference = references["prepare"]
    case = faults.Case(command, reference, world, tmp_path / "case", "kill", 0, 1, SEED)
    case.repeat()
    array = case.out / "train" / "joints.npy"
    content = array.read_bytes()
    array.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(faults.Lost, match=r"train/joints\.npy looks whole and is not"):
        case.check_partial()
    with pytest.raises(faults.Lost, match=r"^train/joints\.npy is another one$"):
        case.repeat()  # which finds the folder finished
    (case.out / ".stray.tmp").touch()
    array.unlink()
    found = commands.read_contents(case.out)
    assert faults.describe_difference(reference.contents, found) == (
        ".stray.tmp is too many, train/joints.npy is missing"
    )
    for ended in (
        commands.Ended(1, "Traceback (most recent call last):\ndavae: no room for out"),
        commands.Ended(0, "davae: no room for out"),
        commands.Ended(1, "davae: no room"),
        commands.Ended(1, "no room for out"),
    ):
        with pytest.raises(faults.Lost):
            faults.require_refusal(ended, "out")
    faults.require_refusal(commands.Ended(1, "davae: no room for out"), "out")
