"""Serve the app on this machine's loopback, through Voila."""

import os
import socket
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from davae.photo.predict import WEIGHTS
from davae.photo.release import unpack

WEIGHTS_VARIABLE = "DAVAE_WEIGHTS"  # of the environment: which file the pages open
KEEP_S = 120  # about as long as a page tries to connect again
NOTEBOOK = Path(__file__).parent / "app.ipynb"


def serve(
    weights: Path | None = None, port: int = 8866, browser: bool = True, keep_s: int = KEEP_S
) -> NoReturn:
    """Become the server: this process is Voila from here on, until it is stopped (Ctrl-C).

    Args:
        weights: file of `davae pack`; that which comes with davae where nothing is said.
        port: of 127.0.0.1; the next free one is taken where something else is there.
        browser: open it in the user's browser.
        keep_s: seconds that a page which lost its connection, or was closed, keeps its kernel.

    Raises:
        ValueError: Voila or anywidget is not installed, the weights are damaged, or `keep_s` is none.
        FileNotFoundError: there are no weights. All this is better said here than on the page.
        OSError: no port is free.
    """
    for name in ("voila", "anywidget"):
        if find_spec(name) is None:
            raise ValueError(f"{name} is not installed; `pip install -e .[app]` brings it")
    if keep_s < 1:
        raise ValueError(f"--keep-s {keep_s}: expected seconds, 1 or more, for which a lost page is kept")
    weights = Path(weights or WEIGHTS).resolve()
    print(f"checking {weights.name} ...", flush=True)
    unpack(weights)
    port = free_port(port)
    print("starting the server; its address follows when it answers ...", flush=True)
    words = ["-m", "davae.photo.app.voila_server", str(NOTEBOOK), str(port), str(browser), str(keep_s)]
    os.execve(sys.executable, [sys.executable, *words], os.environ | {WEIGHTS_VARIABLE: str(weights)})


def free_port(first: int) -> int:
    """The first port of 127.0.0.1 from `first` on at which nothing listens.

    Raises:
        OSError: none of a hundred is free.
    """
    for port in range(first, min(first + 100, 65536)):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"no port of 127.0.0.1 from {first} on is free; name another with --port")
