"""Voila as the app needs it: it reports when it answers, ends abandoned kernels, and asks no other host.

Voila lets a page move its widgets and end its kernel, but run no code. It trusts whoever reaches it, though,
another site's page included that finds the server under a name of its own. Here requests of other sites are
refused, no file is served but those of the page itself, and the number of kernels is bounded.

`davae.photo.app.server` starts it as a process without torch, so that only a visitor's kernel takes memory.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

from jupyter_core.utils import run_sync
from jupyter_server._tz import utcnow
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado.httputil import HTTPServerRequest, split_host_and_port
from tornado.ioloop import IOLoop
from tornado.routing import Matcher, Rule
from tornado.web import HTTPError, RequestHandler
from traitlets import Int
from traitlets.config import Config
from voila.app import Voila
from voila.tornado.handler import TornadoVoilaHandler

from davae.photo.kernels import OwnKernels

CHECKS = 12  # for abandoned kernels, in the time for which one is kept
PING_MS = 30_000
WAIT_S = 5  # after which a visitor who found every kernel taken asks again, by itself
LOOPBACK = "127.0.0.1"
NAMES = (LOOPBACK, "localhost")  # by which this machine's browsers know the server
PROTOCOL = "v1.kernel.websocket.jupyter.org"  # of messages between page and kernel
BODY_BYTES = 2**16  # of a request; photos come as messages of a kernel, of 10 MiB at most each
# A browser loads only what this server sends, which enforces the page's promise that nothing leaves.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'"
)


class PageKernels(AsyncMappingKernelManager):
    """Kernels of pages; they idle from when their connection was lost, not from the last click.

    A closed page and a lost connection look the same here. A page tries to reconnect for about two minutes.

    Attributes:
        most: kernels at once.
        forgotten_s: seconds without use after which a kernel ends although its page is open.
    """

    most = Int(8, config=True)
    forgotten_s = Int(3600, config=True)

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._starting: set[str] = set()

    async def start_kernel(self, **options) -> str:  # type: ignore[override]  # async above, too
        """Start a kernel that logs errors only, since it logs to this server's console.

        Raises:
            HTTPError: 503; there are as many kernels as there may be.
        """
        if len({*self.list_kernel_ids(), *self._starting}) >= self.most:
            raise HTTPError(503)
        own = self.new_kernel_id()
        self._starting.add(own)  # it is listed only once it has started
        try:
            return await super().start_kernel(kernel_id=own, extra_arguments=["--log-level=ERROR"], **options)
        finally:
            self._starting.remove(own)

    async def cull_kernel_if_idle(self, kernel_id: str) -> None:
        """End a kernel whose page is gone, or was forgotten: others may be waiting for its place."""
        await super().cull_kernel_if_idle(kernel_id)
        if kernel_id in self:
            last = getattr(self.get_kernel(kernel_id), "last_activity", None)
            if last is not None and (utcnow() - last).total_seconds() > self.forgotten_s:
                await self.shutdown_kernel(kernel_id, now=True)

    def notify_disconnect(self, kernel_id: str) -> None:
        """Start the time that a page has to reconnect."""
        super().notify_disconnect(kernel_id)
        if kernel_id in self:
            kernel: Any = self.get_kernel(kernel_id)  # Jupyter Server adds this attribute to kernels
            kernel.last_activity = utcnow()


class Page(TornadoVoilaHandler):
    """The page, or a sentence that says why there is none."""

    async def get(self, path: str | None = None) -> None:
        """Start a kernel and send its page; every other address is unknown."""
        if path:
            raise HTTPError(404)
        await super().get()

    def write_error(self, status_code: int, **_: Any) -> None:
        """Say in words what is wrong; who must wait asks again by itself."""
        said = {
            404: "There is nothing at this address.",
            503: f"As many pages are open as this server has room for. This one asks again every {WAIT_S} "
            "seconds and opens as soon as another page is closed.",
        }
        template = self.settings["voila_jinja2_env"].get_template("notice.html.j2")
        other = "The page could not be opened; the server's console says why. Load it again."
        self.set_header("Content-Type", "text/html; charset=utf-8")
        if status_code == 503:
            self.set_header("Retry-After", str(WAIT_S))
        self.finish(
            template.render(
                title="All places are taken" if status_code == 503 else "No page",
                sentence=said.get(status_code, other),
                again_s=WAIT_S if status_code == 503 else None,
            )
        )


class Foreign(Matcher):
    """Matches requests that another site's page has made, or that reach the server under a foreign name.

    A site may give its own name the address 127.0.0.1; its pages then count as of this server's origin.
    """

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """Return {} for a foreign request, None for any other."""
        host, _ = split_host_and_port(request.host.lower())
        origin = request.headers.get("Origin")
        foreign = host not in NAMES or origin not in (None, f"http://{request.host}")
        if request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
            opened = [request.headers.get(f"Sec-Fetch-{name}") for name in ("Mode", "Dest")]
            foreign |= opened != ["navigate", "document"]  # a link to the page may be followed
        return {} if foreign else None


class OldProtocol(Matcher):
    """Matches websockets to a kernel that do not speak `PROTOCOL`, as every page here does.

    Voila 0.5 reads each message by that protocol's layout, whatever the connection speaks; with another, the
    server's memory was seen to grow without end.
    """

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """Return {} for such a request, None for any other."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return None
        offered = request.headers.get("Sec-WebSocket-Protocol", "").split(",")
        return None if PROTOCOL in [name.strip() for name in offered] else {}


class Refusal(RequestHandler):
    """The answer to foreign requests, of every method."""

    def prepare(self) -> None:
        """Refuse."""
        self.set_status(403)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish("This server answers only its own pages, at the address that `davae app` printed.\n")


class Server(Voila):
    """Voila with our page template; it prints its address once it answers, and ends quietly."""

    def setup_template_dirs(self) -> None:
        """Put our page template before Voila's."""
        super().setup_template_dirs()
        self.template_paths.insert(0, str(Path(__file__).parent))

    def init_handlers(self) -> list:
        """Return Voila's handlers, the page's, which is the last, replaced by ours."""
        *others, (address, _, options) = super().init_handlers()
        return [*others, (address, Page, options)]

    def listen(self) -> None:
        """Serve until stopped, and print the address once it answers."""
        refused = [Rule(matcher, Refusal) for matcher in (Foreign(), OldProtocol())]
        self.app.default_router.rules[:0] = refused  # before every other rule
        self.app.listen = partial(self.app.listen, max_body_size=BODY_BYTES)
        said = f"http://{self.ip}:{self.port} serves the app until you stop it with Ctrl-C"
        IOLoop.current().add_callback(print, said, flush=True)  # the loop's first task
        super().listen()

    def stop(self) -> None:
        """Kill kernels; an interrupted one would print a traceback."""
        run_sync(self.kernel_manager.shutdown_all)(now=True)
        super().stop()


def main() -> None:
    """Serve with the arguments `notebook port browser keep_s pages forgotten_s` of the command line."""
    notebook, port, browser, keep_s, pages, forgotten_s = sys.argv[1:]
    config = Config()
    config.Voila.config_file_paths = []  # else a voila.json would overrule this
    config.Voila.ip, config.Voila.port, config.Voila.port_retries = LOOPBACK, int(port), 0
    config.Voila.open_browser = browser == "True"
    config.Voila.log_level = "ERROR"  # else starting it fills the console
    config.Voila.tornado_settings = {
        "headers": {"Content-Security-Policy": POLICY},
        "ws_ping_timeout": PING_MS,  # at most the interval; Jupyter warns of its own default
        "allow_remote_access": False,
    }
    config.VoilaConfiguration.theme = "light"
    config.VoilaConfiguration.allow_template_override = "NO"  # by an address
    config.VoilaConfiguration.allow_theme_override = "NO"
    config.VoilaConfiguration.file_allowlist = []  # else pictures beside the notebook are served
    config.VoilaConfiguration.kernel_spec_manager_class = OwnKernels
    config.VoilaConfiguration.multi_kernel_manager_class = PageKernels
    config.PageKernels.cull_idle_timeout = int(keep_s)
    config.PageKernels.cull_interval = max(1, int(keep_s) // CHECKS)
    config.PageKernels.most, config.PageKernels.forgotten_s = int(pages), int(forgotten_s)
    config.KernelRestarter.restart_limit = 0  # a new kernel would know nothing of the page, which says so
    Server.launch_instance(argv=[notebook], config=config)


if __name__ == "__main__":
    main()
