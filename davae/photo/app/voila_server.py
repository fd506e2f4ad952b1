"""Voila as the app needs it: it reports when it answers, ends abandoned kernels, and asks no other host.

`davae.photo.app.server` starts it as a process without torch, so that only a visitor's kernel takes memory.
"""

import sys
from pathlib import Path
from typing import Any

from jupyter_core.utils import run_sync
from jupyter_server._tz import utcnow
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.ioloop import IOLoop
from traitlets.config import Config
from voila.app import Voila

from davae.photo.kernels import OwnKernels

CHECKS = 12  # for abandoned kernels, in the time for which one is kept
PING_MS = 30_000
LOOPBACK = "127.0.0.1"
# A browser loads only what this server sends, which enforces the page's promise that nothing leaves.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'"
)


class PageKernels(AsyncMappingKernelManager):
    """Kernels of pages; they idle from when their connection was lost, not from the last click.

    A closed page and a lost connection look the same here. A page tries to reconnect for about two minutes.
    """

    async def start_kernel(self, **options) -> str:  # type: ignore[override]  # async above, too
        """Start a kernel that logs errors only, since it logs to this server's console."""
        return await super().start_kernel(extra_arguments=["--log-level=ERROR"], **options)

    def notify_disconnect(self, kernel_id: str) -> None:
        """Start the time that a page has to reconnect."""
        super().notify_disconnect(kernel_id)
        if kernel_id in self:
            kernel: Any = self.get_kernel(kernel_id)  # Jupyter Server adds this attribute to kernels
            kernel.last_activity = utcnow()


class Server(Voila):
    """Voila with our page template; it prints its address once it answers, and ends quietly."""

    def setup_template_dirs(self) -> None:
        """Put our page template before Voila's."""
        super().setup_template_dirs()
        self.template_paths.insert(0, str(Path(__file__).parent))

    def listen(self) -> None:
        """Serve until stopped, and print the address once it answers."""
        said = f"http://{self.ip}:{self.port} serves the app until you stop it with Ctrl-C"
        IOLoop.current().add_callback(print, said, flush=True)  # the loop's first task
        super().listen()

    def stop(self) -> None:
        """Kill kernels; an interrupted one would print a traceback."""
        run_sync(self.kernel_manager.shutdown_all)(now=True)
        super().stop()


def main() -> None:
    """Serve with the arguments `notebook port browser keep_s` of the command line."""
    notebook, port, browser, keep_s = sys.argv[1:]
    config = Config()
    config.Voila.config_file_paths = []  # else a voila.json would overrule this
    config.Voila.ip, config.Voila.port, config.Voila.port_retries = LOOPBACK, int(port), 0
    config.Voila.open_browser = browser == "True"
    config.Voila.log_level = "ERROR"  # else starting it fills the console
    config.Voila.tornado_settings = {
        "headers": {"Content-Security-Policy": POLICY},
        "ws_ping_timeout": PING_MS,  # at most the interval; Jupyter warns of its own default
    }
    config.VoilaConfiguration.theme = "light"
    config.VoilaConfiguration.kernel_spec_manager_class = OwnKernels
    config.VoilaConfiguration.multi_kernel_manager_class = PageKernels
    config.PageKernels.cull_idle_timeout = int(keep_s)
    config.PageKernels.cull_interval = max(1, int(keep_s) // CHECKS)
    Server.launch_instance(argv=[notebook], config=config)


if __name__ == "__main__":
    main()
