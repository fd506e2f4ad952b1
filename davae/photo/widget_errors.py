"""A failure in a widget's callback, told on the page and on the console.

ipywidgets catches what a callback raises, and a page without output areas, such as Voila's, shows nothing.
"""

import html
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from traitlets.log import get_logger


@contextmanager
def report_errors(
    tell: Callable[[str], object], *expected: type[Exception], about: str = ""
) -> Iterator[None]:
    """Tell an exception in a sentence, and end it; as a block, or as a decorator of a callback.

    Args:
        tell: called with the sentence, plain text.
        expected: what has a sentence of its own; anything else is a fault of davae, and its traceback is
            logged (to a kernel's own log, which is on the console of its server).
        about: what was worked on.
    """
    try:
        yield
    except expected as error:
        tell(str(error))
    except Exception as error:
        get_logger().error("davae: a callback failed", exc_info=True)
        tell(f"davae failed{about and f' on {about}'} ({type(error).__name__}: {error}); please report it")


def alert(reason: str) -> str:
    """HTML of a sentence that nobody shall overlook, plain text as `reason`."""
    return f"<p role='alert' style='color:#b2182b'>{html.escape(reason)}</p>"
