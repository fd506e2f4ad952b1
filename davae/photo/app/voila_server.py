"""Voila as the app needs it: it says when it answers, ends kernels nobody looks at, and asks no other host.

`davae.photo.app.server` starts it as a process of its own, without torch: a visitor's memory is that of a
kernel.
"""

import sys
from pathlib import Path

from jupyter_core.utils import run_sync
from jupyter_server._tz import utcnow
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.ioloop import IOLoop
from traitlets.config import Config
from voila.app import Voila

from davae.photo.kernels import OwnKernels

LOOKS = 12  # for kernels to end, in the time that one is kept
PING_MS = 30_000
LOOPBACK = "127.0.0.1"
# What a browser may load for the page: only what this server sends, so that a promise is no matter of trust.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'"
)


class PageKernels(AsyncMappingKernelManager):
    """Kernels of pages; time without a connection counts from when it was lost, not from the last click.

    A closed page and a dropped connection look alike here. The page tries again for about two minutes.
    """

    async def start_kernel(self, **options) -> str:
        """Start one that speaks of errors alone, since its log is on this server's console."""
        return await super().start_kernel(extra_arguments=["--log-level=ERROR"], **options)

    def notify_disconnect(self, kernel_id: str) -> None:
        """Start the time that a page has for coming back."""
        super().notify_disconnect(kernel_id)
        if kernel_id in self:
            self.get_kernel(kernel_id).last_activity = utcnow()


class Server(Voila):
    """The app's server."""

    def setup_template_dirs(self) -> None:
        """Let our page come before Voila's."""
        super().setup_template_dirs()
        self.template_paths.insert(0, str(Path(__file__).parent))

    def listen(self) -> None:
        """Serve until told to stop, and say so once it is so."""
        said = f"http://{self.ip}:{self.port} serves the app until you stop it with Ctrl-C"
        IOLoop.current().add_callback(print, said, flush=True)  # the first that the loop does
        super().listen()

    def stop(self) -> None:
        """Kill kernels: one that is only interrupted, perhaps amid an import, prints its traceback."""
        run_sync(self.kernel_manager.shutdown_all)(now=True)
        super().stop()


def main() -> None:
    """Serve `notebook port browser keep_s` of the command line."""
    notebook, port, browser, keep_s = sys.argv[1:]
    config = Config()
    config.Voila.config_file_paths = []  # files, such as a voila.json, would overrule this
    config.Voila.ip, config.Voila.port, config.Voila.port_retries = LOOPBACK, int(port), 0
    config.Voila.open_browser = browser == "True"
    config.Voila.log_level = "ERROR"  # else its start fills the console
    config.Voila.tornado_settings = {
        "headers": {"Content-Security-Policy": POLICY},
        "ws_ping_timeout": PING_MS,  # no longer than its interval, of which Jupyter's own default complains
    }
    config.VoilaConfiguration.theme = "light"
    config.VoilaConfiguration.kernel_spec_manager_class = OwnKernels
    config.VoilaConfiguration.multi_kernel_manager_class = PageKernels
    config.PageKernels.cull_idle_timeout = int(keep_s)
    config.PageKernels.cull_interval = max(1, int(keep_s) // LOOKS)
    Server.launch_instance(argv=[notebook], config=config)


if __name__ == "__main__":
    main()
