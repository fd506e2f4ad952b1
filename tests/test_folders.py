"""synthhand.storage: after a killed writer, orphaned workers or a full disk, files are complete or absent."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from rhd_fixture import write_dataset

from davae.config import DataConfig
from davae.data.prepared import prepare
from synthhand.dataset import writer
from synthhand.storage import allocate, exclusive, temporary_path, worker_pool, write_atomically

resource = pytest.importorskip(
    "resource", reason="needs limits on the size of files, as Linux and macOS have"
)
CONFIG = DataConfig(image_px=32, cloud_points=64)
KILLS = 10


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def state(folder: Path) -> dict[Path, int]:
    """When each file was written. Files may vanish while we look."""
    found = {}
    for parent, _, files in os.walk(folder):  # which, unlike rglob, takes it well when a folder vanishes
        for path in (Path(parent, name) for name in files):
            try:
                found[path] = path.stat().st_mtime_ns
            except FileNotFoundError:
                continue
    return found


def wait_until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def is_free(folder: Path) -> bool:
    """Whether nobody may write to the folder any more."""
    try:
        with exclusive(folder):
            return True
    except BlockingIOError:
        return False


# -- kill -9 ----------------------------------------------------------------------------------------------


def run_and_kill(command: list[str], folder: Path, delay_s: float) -> bool:
    """Start a command and kill it `delay_s` after it first writes; whether it had not finished before."""
    before = state(folder)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: process.poll() is not None or state(folder) != before)
    time.sleep(delay_s)
    if process.poll() is None:
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    if process.wait() != -signal.SIGKILL:
        assert process.returncode == 0
        return False
    assert not psutil.wait_procs(workers, timeout=20)[1], "a worker outlived the process that started it"
    wait_until(lambda: is_free(folder), 20)  # a worker that started meanwhile ends, too
    return True


def survives_kills(command: list[str], folder: Path, expected: dict[str, bytes], two_workers_at) -> None:
    """Kill a command ten times, mostly in the same folder, and let it finish: the files are as expected."""
    rng = np.random.default_rng(0)
    kills = 0
    while kills < KILLS:
        workers = "2" if kills in two_workers_at else "1"
        if run_and_kill([*command, "--workers", workers], folder, rng.uniform(0, 0.8)):
            kills += 1
            there = contents(folder)
            for name in there.keys() & expected.keys():
                assert there[name] == expected[name], f"{name} looks whole and is not"
        else:
            assert contents(folder) == expected
            shutil.rmtree(folder)
    subprocess.run([*command, "--workers", "1"], check=True, capture_output=True)
    assert contents(folder) == expected


@pytest.mark.slow
def test_rendering_killed_ten_times_gives_the_same_bytes(tmp_path):
    counts = {"train": 28, "val": 2, "test": 2}
    whole = writer.write_dataset(tmp_path / "whole", **counts, seed=1, size=24, progress=False)
    command = [sys.executable, "-m", "davae", "render", "--out", str(tmp_path / "set"), "--seed", "1"]
    command += [word for name, count in counts.items() for word in (f"--{name}", str(count))]
    # With two workers Open3D is imported three times, which takes longer than all else.
    survives_kills([*command, "--size", "24"], tmp_path / "set", contents(whole), two_workers_at=[5])


@pytest.mark.slow
def test_preparing_killed_ten_times_gives_the_same_bytes(tmp_path):
    root = write_dataset(tmp_path / "data", 36, 2, 2)
    whole = prepare("synthhand", root, tmp_path / "whole", CONFIG, progress=False)
    command = [sys.executable, "-m", "davae", "prepare", "--dataset", "synthhand", "--root", str(root)]
    command += ["--out", str(tmp_path / "out"), "--size", str(CONFIG.image_px)]
    survives_kills(command, tmp_path / "out", contents(whole), two_workers_at=range(0, KILLS, 2))


PARENT = """
import os, sys, time
from pathlib import Path
from synthhand.storage import exclusive, worker_pool

def work(folder):
    (folder / f"{os.getpid()}.pid").touch()
    time.sleep(600)

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with exclusive(folder) as lock, worker_pool(2, lock) as pool:
        [future.result() for future in [pool.submit(work, folder) for _ in range(2)]]
"""


def test_orphaned_workers_end_and_keep_the_lock_until_they_have(tmp_path):
    script, folder = tmp_path / "parent.py", tmp_path / "folder"
    script.write_text(PARENT)
    folder.mkdir()
    parent = subprocess.Popen([sys.executable, script, folder], stderr=subprocess.DEVNULL)
    wait_until(lambda: len(list(folder.iterdir())) == 2)
    first, second = (psutil.Process(int(path.stem)) for path in folder.iterdir())
    first.suspend()  # so that it cannot notice
    wait_until(lambda: first.status() == psutil.STATUS_STOPPED)  # on a busy machine not at once
    parent.kill()
    parent.wait()
    assert not psutil.wait_procs([second], timeout=20)[1]
    assert not is_free(folder), "a worker that may still write must keep others out"
    first.resume()
    assert not psutil.wait_procs([first], timeout=20)[1]
    assert is_free(folder)


def test_a_worker_that_is_killed_is_told_in_words(tmp_path):
    with (
        pytest.raises(ChildProcessError, match=r"memory ran out.*goes on where it stopped"),
        exclusive(tmp_path / "folder") as lock,
        worker_pool(1, lock) as pool,
    ):
        pool.submit(os._exit, 1).result()
    assert is_free(tmp_path / "folder")


def test_a_folder_has_one_writer(tmp_path):
    with (
        exclusive(tmp_path / "folder"),
        pytest.raises(BlockingIOError, match="folder: another process is writing here"),
        exclusive(tmp_path / "folder"),
    ):
        pass
    assert is_free(tmp_path / "folder")


# -- full disks -------------------------------------------------------------------------------------------


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes: what is written past that fails half way, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file.bin"
    write_atomically(path, lambda temporary: temporary.write_bytes(b"old"))
    with (
        largest_file(1000),
        pytest.raises(OSError, match=r"make room, then repeat the command: '.*file\.bin'"),
    ):
        write_atomically(path, lambda temporary: temporary.write_bytes(bytes(3000)))
    assert contents(tmp_path) == {"file.bin": b"old"}


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path):
    def interrupted(temporary: Path) -> None:
        temporary.write_bytes(b"ne")
        raise KeyboardInterrupt

    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupted)
    assert contents(tmp_path) == {"file.bin": b"old"}


def test_two_writers_of_one_file_wait_for_each_other(tmp_path):
    """Both write to the same temporary name: without a lock the first would rename what the second writes."""
    path, meeting = tmp_path / "file.bin", threading.Barrier(2)

    def write(content: bytes) -> None:
        meeting.wait()
        for _ in range(50):
            write_atomically(path, lambda temporary: write_slowly(temporary, content))
            assert path.read_bytes() in (b"a" * 1000, b"b" * 1000)

    def write_slowly(temporary: Path, content: bytes) -> None:
        with temporary.open("wb", buffering=0) as file:
            for _ in range(10):
                file.write(content)

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(write, letter * 100) for letter in (b"a", b"b")]:
            future.result()
    assert list(contents(tmp_path)) == ["file.bin"]


def test_a_folder_named_by_a_dot_can_be_reserved(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    with exclusive(Path(".")), pytest.raises(BlockingIOError), exclusive(tmp_path / "run"):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's ever full device")
def test_a_full_disk_is_named(tmp_path):
    path = tmp_path / "file.bin"
    temporary_path(path).symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device; make room.*'.*file\.bin'"):
        write_atomically(path, lambda temporary: temporary.write_bytes(b"new"))
    assert not list(tmp_path.iterdir())


def test_other_errors_are_not_called_a_full_disk(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(tmp_path / "no" / "file", lambda temporary: temporary.write_bytes(b""))
    assert "room" not in str(caught.value)


def test_allocation_takes_the_room_that_a_mapped_array_will_need(tmp_path):
    path = tmp_path / "array.bin"
    with path.open("wb") as file:
        file.seek(10**6 - 1)
        file.write(b"\0")
    allocate(path)
    assert path.stat().st_size == 10**6
    if hasattr(os, "posix_fallocate"):
        assert path.stat().st_blocks * 512 >= 10**6


def test_a_rendering_that_ran_out_of_room_goes_on_to_the_same_bytes(tmp_path):
    def write(out: Path) -> Path:
        return writer.write_dataset(out, train=2, val=1, test=1, seed=5, size=32, progress=False)

    expected = contents(write(tmp_path / "whole"))
    stopped_at = set()
    for limit in (20, 500, 1500, 2500, 3500, 6000):
        with largest_file(limit):
            try:
                write(tmp_path / "set")
            except OSError as error:
                assert "make room, then repeat" in str(error)
                stopped_at.add(Path(error.filename).name)
        there = contents(tmp_path / "set")
        assert {name for name in there if not name.startswith(".partial")} <= expected.keys()
        assert all(there[name] == expected[name] for name in there.keys() & expected.keys())
    assert "synthhand.json" in stopped_at and len(stopped_at) >= 3, stopped_at
    assert contents(write(tmp_path / "set")) == expected


def test_a_preparation_that_ran_out_of_room_goes_on_to_the_same_bytes(tmp_path):
    root = write_dataset(tmp_path / "data", 3, 1, 2)
    expected = contents(prepare("synthhand", root, tmp_path / "whole", CONFIG, progress=False))
    sizes = sorted({len(data) for data in expected.values()})
    stopped_at = set()
    for limit in (50, *(size - 1 for size in sizes[2:])):
        with largest_file(limit):
            try:
                prepare("synthhand", root, tmp_path / "out", CONFIG, progress=False)
            except OSError as error:
                assert "make room, then repeat" in str(error)
                stopped_at.add(Path(error.filename).name)
        there = contents(tmp_path / "out")
        assert all(there[name] == expected[name] for name in there.keys() & expected.keys())
        assert "manifest.json" not in there
    assert {"images.npy", "clouds.npy"} <= stopped_at, stopped_at
    assert contents(prepare("synthhand", root, tmp_path / "out", CONFIG, progress=False)) == expected
