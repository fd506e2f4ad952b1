"""How many threads torch computes with, so that other work on the machine costs no more than its share.

Threads of one operation wait for each other at its end, some hundred times in a training step. Where another
program keeps a core busy, one of them is not running: each of those waits then lasts as long as the system's
turns do, some milliseconds, whether the others spin or sleep meanwhile. Measured on two cores with one more
program: training at preset smoke 57 times slower on two threads and a tenth slower on one
(docs/benchmarks.md). So what gains little by threads takes one (`single_threaded`), and a training takes as
many as pay at the time (`ThreadChoice`).
"""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from statistics import median
from typing import TypeVar

import torch

SAMPLES = 3  # pieces by whose median a number of threads is judged
HOPELESS = 3.0  # times as long as the present choice: a trial ends at the first such piece
WARM_UP_S = 1.0  # more that the first piece may take on a number of threads never used before
GAIN = 1.1  # times as fast another number must be to be taken, since times are noisy
SLOWER = 1.5  # times as long as when it was chosen: a choice is reconsidered at once
WAIT_S, LONGEST_WAIT_S, WAIT_PIECES = 10.0, 60.0, 50  # from one trial to the next; so many pieces at least

Result = TypeVar("Result")
Course = Generator[int, float, Result]


@contextmanager
def single_threaded() -> Iterator[None]:
    """Let torch compute in one thread while this lasts; also a decorator.

    For inference, which two threads speed up by less than a third here and one busy neighbour slows down
    three times and more. Its bits do not depend on the machine's number of cores then, either.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def stated_threads() -> int | None:
    """Return the number of threads that the user's environment asks for, None where it does not."""
    return torch.get_num_threads() if os.environ.get("OMP_NUM_THREADS") else None


class ThreadChoice:
    """Choose torch's number of threads for a long row of like pieces of work, by the time that they take.

    It begins with one thread, and doubles as long as that pays. Later it tries the other numbers again: at
    once where pieces have become slower, else now and then. A trial ends at the first piece that takes far
    longer than on the present number.

    Args:
        threads: keep to this number; None to choose among the powers of two up to what torch has.
        clock: seconds.

    Attributes:
        ladder: the numbers among which it chooses.
        threads: of the next piece.
    """

    def __init__(self, threads: int | None = None, clock: Callable[[], float] = time.perf_counter):
        most = torch.get_num_threads()
        # Powers of two alone: on 3, 6 and 12 threads the gradient of torch 2.13's fp32 convolutions writes
        # beyond its memory (seen with the images' channels outermost, on a processor with AMX). Trainings,
        # whose channels are innermost, ran on these numbers, too, so a stated one is kept.
        powers = [2**power for power in range(most.bit_length())]
        self.ladder = powers if threads is None else [threads]
        self._clock, self._used = clock, set[int]()
        self._course = self._decide()
        self.threads = next(self._course)

    @contextmanager
    def piece(self) -> Iterator[None]:
        """Do and time one piece of work."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        began = self._clock()
        try:
            yield
        finally:
            torch.set_num_threads(before)
        self.threads = self._course.send(self._clock() - began)

    def _decide(self) -> Course[None]:
        """Say for each piece how many threads it takes; be sent the seconds that it took."""
        choice, wait_s = self.ladder[0], WAIT_S
        pace_s = yield from self._try(choice, float("inf"))
        while True:
            before = choice
            for other in self.ladder:
                if other == before:
                    continue
                other_s = yield from self._try(other, pace_s)
                if other_s * GAIN < pace_s:
                    choice, pace_s = other, other_s
                elif other > choice:  # still more would wait for each other still longer
                    break
            wait_s = WAIT_S if choice != before else min(2 * wait_s, LONGEST_WAIT_S)
            pace_s = yield from self._keep_to(choice, pace_s, wait_s)

    def _try(self, threads: int, pace_s: float) -> Course[float]:
        """Return how long a piece takes on so many threads, where it takes `pace_s` on the present choice."""
        seconds: list[float] = []
        new = threads not in self._used
        self._used.add(threads)
        while len(seconds) < SAMPLES + new:
            seconds.append((yield threads))
            if seconds[-1] > HOPELESS * pace_s + (WARM_UP_S if new and len(seconds) == 1 else 0):
                return seconds[-1]
        return median(seconds[new:])  # the first one made what all later ones use

    def _keep_to(self, threads: int, pace_s: float, wait_s: float) -> Course[float]:
        """Keep to a number until it is time for a trial, or pieces are slower; return how long they take."""
        recent: deque[float] = deque(maxlen=SAMPLES)
        until, pieces = self._clock() + wait_s, 0
        while True:
            recent.append((yield threads))
            pieces += 1
            slower = len(recent) == SAMPLES and median(recent) > SLOWER * pace_s
            if slower or (pieces >= WAIT_PIECES and self._clock() >= until):
                return median(recent)
