"""Do the same with many things in a few threads, and get the results in order."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

AHEAD = 2  # results for each thread that may wait for the first; each holds a photo

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order, while threads work on the next ones.

    No more than `AHEAD * workers` items are being worked on or wait to be yielded. An error is raised in its
    item's place, and nothing more is begun. A single item needs no thread.
    """
    if min(workers, len(items)) <= 1:
        yield from map(function, items)
        return
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                while pending and (len(pending) == AHEAD * workers or pending[0].done()):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
