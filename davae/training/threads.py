"""How many threads torch uses, so that another program on the machine costs training only its share.

The threads of one operation wait for each other at its end, some hundred times in a training step. If another
program occupies a core, one of the threads is not running, and each wait lasts as long as the system's time
slices, some milliseconds, whether the other threads spin or sleep meanwhile. Measured on two cores with one
other program: training at preset smoke is 57 times slower with two threads, and a tenth slower with one
(docs/benchmarks.md). So work that gains little by threads uses one (`single_threaded`), and training uses as
many as are fastest at the time (`ThreadChoice`).
"""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from statistics import median
from typing import TypeVar

import torch

SAMPLES = 3  # pieces of work; their median time is that of a number of threads
HOPELESS = 3.0  # times the current number's time: a trial ends at the first piece that takes longer
WARM_UP_S = 1.0  # extra time allowed for the first piece on a number of threads not used before
GAIN = 1.1  # another number must be this many times faster to be chosen, since times vary
SLOWER = 1.5  # a choice is reconsidered at once if pieces take this many times longer than when it was made
WAIT_S, LONGEST_WAIT_S, WAIT_PIECES = 10.0, 60.0, 50  # between trials: seconds, and the least pieces

Result = TypeVar("Result")
Course = Generator[int, float, Result]


@contextmanager
def single_threaded() -> Iterator[None]:
    """Let torch use one thread within this context; also a decorator.

    For inference: two threads make it less than a third faster here, and with two threads one other program
    makes it three times slower or more. Its bits are then the same on any number of cores, too.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def get_requested_threads() -> int | None:
    """Return the number of threads that OMP_NUM_THREADS asks for, or None if it is not set."""
    return torch.get_num_threads() if os.environ.get("OMP_NUM_THREADS") else None


class ThreadChoice:
    """Choose torch's number of threads for a long series of similar pieces of work, by their times.

    It starts with one thread, and doubles the number as long as that is faster. Later it tries the other
    numbers again: at once if pieces have become slower, else now and then. A trial ends at the first piece
    that takes far longer than on the current number.

    Args:
        threads: use this number only; None chooses among the powers of two up to torch's current number.
        clock: returns the time in seconds.

    Attributes:
        candidates: the numbers to choose from.
        threads: the number for the next piece.
    """

    def __init__(self, threads: int | None = None, clock: Callable[[], float] = time.perf_counter):
        most = torch.get_num_threads()
        # Only powers of two: on 3, 6 and 12 threads the gradient of torch 2.13's fp32 convolutions writes
        # beyond its memory (seen with contiguous images, not channels-last ones, on a processor with AMX).
        # Training uses channels-last and has run on these numbers, so a requested number is kept.
        powers = [2**power for power in range(most.bit_length())]
        self.candidates = powers if threads is None else [threads]
        self._clock, self._used = clock, set[int]()
        self._course = self._decide()
        self.threads = next(self._course)

    @contextmanager
    def piece(self) -> Iterator[None]:
        """Run the code within this context as one piece of work, and time it."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        began = self._clock()
        try:
            yield
        finally:
            torch.set_num_threads(before)
        self.threads = self._course.send(self._clock() - began)

    def _decide(self) -> Course[None]:
        """Yield the number of threads for each piece; receive the seconds that the piece took."""
        choice, wait_s = self.candidates[0], WAIT_S
        pace_s = yield from self._try(choice, float("inf"))
        while True:
            before = choice
            for other in self.candidates:
                if other == before:
                    continue
                other_s = yield from self._try(other, pace_s)
                if other_s * GAIN < pace_s:
                    choice, pace_s = other, other_s
                elif other > choice:  # even more threads would wait even longer for each other
                    break
            wait_s = WAIT_S if choice != before else min(2 * wait_s, LONGEST_WAIT_S)
            pace_s = yield from self._keep(choice, pace_s, wait_s)

    def _try(self, threads: int, pace_s: float) -> Course[float]:
        """Return the time of a piece on this number of threads; `pace_s` is that on the current number."""
        seconds: list[float] = []
        new = threads not in self._used
        self._used.add(threads)
        while len(seconds) < SAMPLES + new:
            seconds.append((yield threads))
            if seconds[-1] > HOPELESS * pace_s + (WARM_UP_S if new and len(seconds) == 1 else 0):
                return seconds[-1]
        return median(seconds[new:])  # the first piece on a new number also built what later ones reuse

    def _keep(self, threads: int, pace_s: float, wait_s: float) -> Course[float]:
        """Keep a number until the next trial is due or pieces are slower; return the time of a piece then."""
        recent: deque[float] = deque(maxlen=SAMPLES)
        until, pieces = self._clock() + wait_s, 0
        while True:
            recent.append((yield threads))
            pieces += 1
            slower = len(recent) == SAMPLES and median(recent) > SLOWER * pace_s
            if slower or (pieces >= WAIT_PIECES and self._clock() >= until):
                return median(recent)
