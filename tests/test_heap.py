"""davae.training.heap: freed memory is kept between training steps."""

import platform
import resource
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from davae.training.heap import keep_freed_memory

MIB = 2**20
BLOCK_MIB = 40  # glibc may by itself learn to keep blocks of up to 32
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


def faults_of(rounds: int) -> int:
    """Pages that the kernel hands out while blocks like a step's activations come and go."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        blocks = [torch.ones(BLOCK_MIB * MIB // 4) for _ in range(4)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def observe() -> None:
    """Print page faults without and with kept memory, and MiB held before, during and after it."""
    process = psutil.Process()
    plain = faults_of(20)
    held = [process.memory_info().rss]
    with keep_freed_memory() as kept:
        faults_of(1)
        inside = faults_of(20)
        held.append(process.memory_info().rss)
    held.append(process.memory_info().rss)
    print(int(kept), plain, inside, *[size // MIB for size in held])


@glibc
def test_freed_memory_serves_again_and_is_given_back_at_the_end():
    # In a process of its own: this one's heap holds whatever other tests left.
    command = [sys.executable, "-c", "import test_heap; test_heap.observe()"]
    output = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    kept, plain, inside, before, during, after = map(int, output.stdout.split())
    assert kept
    assert plain >= 20 * 4 * BLOCK_MIB * MIB / resource.getpagesize() / 600  # even if pages were of 2 MiB
    assert inside <= plain / 10
    assert during - before >= 3 * BLOCK_MIB
    assert after - before <= 20


def test_without_glibc_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    with keep_freed_memory() as kept:
        assert not kept


@glibc
def test_an_error_inside_comes_out_unchanged():
    with pytest.raises(ZeroDivisionError), keep_freed_memory():
        1 / 0  # noqa: B018
