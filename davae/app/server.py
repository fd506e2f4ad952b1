"""Serve the app on this machine's loopback, through Voila."""

import os
import socket
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from davae.photo.release import unpack
from davae.predict import WEIGHTS

WEIGHTS_VARIABLE = "DAVAE_WEIGHTS"  # of the environment: which file the pages open
NOTEBOOK = Path(__file__).parent / "app.ipynb"


def serve(weights: Path | None = None, port: int = 8866, browser: bool = True) -> NoReturn:
    """Become the server: this process is Voila from here on, until it is stopped (Ctrl-C).

    Args:
        weights: file of `davae pack`; that which comes with davae where nothing is said.
        port: of 127.0.0.1; the next free one is taken where something else is there.
        browser: open it in the user's browser.

    Raises:
        ValueError: Voila or anywidget is not installed, or the weights are damaged.
        FileNotFoundError: there are no weights. All this is better said here than on the page.
        OSError: no port is free.
    """
    for name in ("voila", "anywidget"):
        if find_spec(name) is None:
            raise ValueError(f"{name} is not installed; `pip install -e .[app]` brings it")
    weights = Path(weights or WEIGHTS).resolve()
    unpack(weights)
    port = free_port(port)
    options = ["--Voila.ip=127.0.0.1", f"--port={port}", "--Voila.port_retries=0", "--theme=light"]
    options.append("--VoilaConfiguration.kernel_spec_manager_class=davae.kernels.OwnKernels")
    command = ["voila", str(NOTEBOOK), *options, *([] if browser else ["--no-browser"])]
    print(f"http://127.0.0.1:{port} serves the app until you stop it with Ctrl-C", flush=True)
    os.execve(sys.executable, [sys.executable, "-m", *command], os.environ | {WEIGHTS_VARIABLE: str(weights)})


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
