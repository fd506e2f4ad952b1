"""Start the app's server on this machine's loopback, after what can fail has been checked."""

import os
import socket
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from davae.photo.predict import WEIGHTS, HandPredictor

WEIGHTS_VARIABLE = "DAVAE_WEIGHTS"  # of the environment: which file the pages open
KEEP_S = 120  # about as long as a page tries to reconnect
PAGES = 8  # open at once: up to half a gigabyte each
FORGOTTEN_S = 3600
NOTEBOOK = Path(__file__).parent / "app.ipynb"


def serve(
    weights: Path | None = None,
    port: int = 8866,
    browser: bool = True,
    keep_s: int = KEEP_S,
    pages: int = PAGES,
    forgotten_s: int = FORGOTTEN_S,
) -> NoReturn:
    """Replace this process by the server (`davae.photo.app.voila_server`), until it is stopped (Ctrl-C).

    Args:
        weights: file of `davae pack`; the default is the one that comes with davae.
        port: of 127.0.0.1; if it is taken, the next free one is used.
        browser: open the app in the user's browser.
        keep_s: seconds for which a page that was closed, or lost its connection, keeps its kernel.
        pages: that may be open at once; further visitors are told to wait.
        forgotten_s: seconds without use after which an open page loses its kernel.

    Raises:
        ValueError: Voila or anywidget is not installed, the weights are damaged, or a number is below 1.
        FileNotFoundError: the weights do not exist.
        OSError: no port is free.
    """
    for name in ("voila", "anywidget"):
        if find_spec(name) is None:
            raise ValueError(f"{name} is not installed; `pip install -e .[app]` brings it")
    if keep_s < 1:
        raise ValueError(f"--keep-s {keep_s}: expected seconds, 1 or more, for which a lost page is kept")
    if pages < 1:
        raise ValueError(f"--pages {pages}: expected 1 or more pages, which may be open at once")
    if forgotten_s < 1:
        raise ValueError(
            f"--forgotten-s {forgotten_s}: expected seconds, 1 or more, for which an unused page is kept"
        )
    weights = Path(weights or WEIGHTS).resolve()
    print(f"checking {weights.name} ...", flush=True)
    HandPredictor.load(weights)
    port = find_free_port(port)
    from davae.photo.kernels import block_stops

    words = [str(word) for word in (NOTEBOOK, port, browser, keep_s, pages, forgotten_s)]
    command = [sys.executable, "-m", "davae.photo.app.voila_server", *words]
    block_stops()  # the new program would answer them by a traceback while it is imported
    try:
        print("starting the server; its address follows once it answers ...", flush=True)
        os.execve(sys.executable, command, os.environ | {WEIGHTS_VARIABLE: str(weights)})
    finally:  # it did not start
        block_stops("SIG_UNBLOCK")


def find_free_port(first: int) -> int:
    """Return the first port of 127.0.0.1, from `first` on, at which nothing listens.

    Raises:
        OSError: none of a hundred ports is free.
    """
    for port in range(first, min(first + 100, 65536)):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"no port of 127.0.0.1 from {first} on is free; name another with --port")
