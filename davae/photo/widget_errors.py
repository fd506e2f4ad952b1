"""Errors in a widget's callback, reported on the page and in the log.

ipywidgets catches what a callback raises, and a page without output areas, such as Voila's, shows nothing.
"""

import html
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from traitlets.log import get_logger


@contextmanager
def report_errors(
    show: Callable[[str], object], *expected: type[Exception], about: str = ""
) -> Iterator[None]:
    """Catch an exception and show a sentence about it; a block, or a decorator of a callback.

    Args:
        show: called with the sentence, plain text.
        expected: errors that have a sentence of their own. Any other is a fault of davae: its traceback is
            logged, in a kernel to the console of its server.
        about: what was being worked on.
    """
    try:
        yield
    except expected as error:
        show(str(error))
    except Exception as error:
        get_logger().error("davae: a callback failed", exc_info=True)
        show(f"davae failed{about and f' on {about}'} ({type(error).__name__}: {error}); please report it")


def format_alert(reason: str) -> str:
    """Return the HTML of an alert; `reason` is plain text."""
    return f"<p role='alert' style='color:#b2182b'>{html.escape(reason)}</p>"
