"""Voila as the app needs it: it reports when it answers, ends abandoned kernels, and asks no other host.

Voila lets a page move its widgets and end its kernel, but run no code. It trusts whoever reaches it, though,
another site's page included that finds the server under a name of its own. Here requests of other sites are
refused, no file is served but those of the page itself, and the number of kernels is bounded.

`davae.photo.app.server` starts it as a process without torch, so that only a visitor's kernel takes memory.
"""

import asyncio
import logging
import signal
import struct
import sys
import time
from contextlib import suppress
from functools import partial
from itertools import pairwise
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
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler

from davae.photo.kernels import OwnKernels, block_stops

CHECKS = 12  # for abandoned kernels, in the time for which one is kept
PING_MS = 30_000
WAIT_S = 5  # after which a visitor who found every kernel taken asks again, by itself
UNSEEN_S = 60  # for which a kernel waits for its page, which may have been closed before it had loaded
LEAVING_S = 1.0  # for which a page without room waits for another to be left
ENDING_S = 5.0  # for which it waits at most, where a kernel is ending
LOOPBACK = "127.0.0.1"
NAMES = (LOOPBACK, "localhost")  # by which this machine's browsers know the server
PROTOCOL = "v1.kernel.websocket.jupyter.org"  # of messages between page and kernel
WORD, PARTS = 8, 4  # bytes of a number in it; parts of a message: header, parent, metadata, content
BODY_BYTES = 2**16  # of a request; photos come as messages of a kernel, of 10 MiB at most each
# A browser loads only what this server sends, which enforces the page's promise that nothing leaves.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'"
)


class PageKernels(AsyncMappingKernelManager):
    """Kernels of pages; they idle from when their connection was lost, not from the last click.

    A closed page and a lost connection look the same here. A page tries to reconnect for about two minutes.
    A kernel to which no page ever connected is kept for a shorter time.

    Attributes:
        most: kernels at once.
        forgotten_s: seconds without use after which a kernel ends although its page is open.
    """

    most = Int(8, config=True)
    forgotten_s = Int(3600, config=True)

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._starting: set[str] = set()
        self._ending: set[str] = set()

    def has_room(self) -> bool:
        """Return whether one more kernel may be started."""
        return len({*self.list_kernel_ids(), *self._starting}) < self.most

    async def wait_for_room(self) -> bool:
        """Return whether there is room; wait up to `LEAVING_S` for a kernel to be ended, then for its end.

        A page that is loaded again ends its kernel and asks for another over two connections: either request
        may arrive first.
        """
        began = time.monotonic()
        while not self.has_room():
            if time.monotonic() > began + (ENDING_S if self._ending else LEAVING_S):
                return False
            await asyncio.sleep(0.05)
        return True

    async def start_kernel(self, **options) -> str:  # type: ignore[override]  # async above, too
        """Start a kernel that logs errors only, since it logs to this server's console.

        Raises:
            HTTPError: 503; there are as many kernels as there may be.
        """
        if not self.has_room():
            raise HTTPError(503)
        own = self.new_kernel_id()
        self._starting.add(own)  # it is listed only once it has started
        try:
            return await super().start_kernel(kernel_id=own, extra_arguments=["--log-level=ERROR"], **options)
        finally:
            self._starting.remove(own)

    async def shutdown_kernel(  # type: ignore[override]  # async above, too
        self, kernel_id: str, now: bool = False, restart: bool = False
    ) -> None:
        """Kill a kernel: it holds nothing that a page could ask for again, and its place is wanted."""
        self._ending.add(kernel_id)
        try:
            await super().shutdown_kernel(kernel_id, now=True, restart=restart)
        finally:
            self._ending.discard(kernel_id)

    async def cull_kernel_if_idle(self, kernel_id: str) -> None:
        """End a kernel whose page is gone, forgotten or never came: others may be waiting for its place."""
        if kernel_id in self:  # else it has ended while others were looked at
            await super().cull_kernel_if_idle(kernel_id)
        if kernel_id in self:
            kernel = self.get_kernel(kernel_id)
            last = getattr(kernel, "last_activity", None)
            idle = getattr(kernel, "execution_state", "") == "idle"
            kept_s = UNSEEN_S if idle and not getattr(kernel, "seen", False) else self.forgotten_s
            if last is not None and (utcnow() - last).total_seconds() > min(kept_s, self.forgotten_s):
                await self.shutdown_kernel(kernel_id)

    def notify_connect(self, kernel_id: str) -> None:
        """Remember that the page has come."""
        super().notify_connect(kernel_id)
        if kernel_id in self:
            kernel: Any = self.get_kernel(kernel_id)
            kernel.seen = True

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
        if "prefetch" in self.request.headers.get("Sec-Purpose", ""):  # a kernel that perhaps nobody will see
            raise HTTPError(503)
        if not await self.kernel_manager.wait_for_room():
            raise HTTPError(503)
        await super().get()

    def write_error(self, status_code: int, **_: Any) -> None:
        """Say in words what is wrong; who must wait asks again by itself."""
        title, said, again_s = "No page", "", None
        if status_code == 404:
            said = "There is nothing at this address."
        elif status_code == 503:
            title, again_s = "All places are taken", WAIT_S
            said = f"As many pages are open as this server has room for. This one asks again every {WAIT_S} "
            said += "seconds and opens once a place is free."
            self.set_header("Retry-After", str(WAIT_S))
        else:
            said = "The page could not be opened; the server's console says why. Load it again."
        template = self.settings["voila_jinja2_env"].get_template("notice.html.j2")
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(template.render(title=title, sentence=said, again_s=again_s))


class Channel(VoilaKernelWebsocketHandler):
    """A page's connection to its kernel, by `PROTOCOL` alone and in whole messages.

    Voila 0.5 and Jupyter Server 2 read a message by that protocol's layout without a look at its length: a
    connection that spoke another made the server's memory grow without end.
    """

    async def get(self, kernel_id: str) -> None:
        """Open the connection, or refuse it with 403."""
        offered = self.request.headers.get("Sec-WebSocket-Protocol", "").split(",")
        if PROTOCOL not in [name.strip() for name in offered]:
            raise HTTPError(403)
        await super().get(kernel_id)

    def on_message(self, message: str | bytes) -> None:
        """Pass a message on, or end the connection."""
        if is_whole(message):
            super().on_message(message)
        else:
            self.close(1003, "not a message of a page")


def is_whole(message: str | bytes) -> bool:
    """Return whether a message has the layout of `PROTOCOL`: offsets of a channel and of its parts."""
    if not isinstance(message, bytes) or len(message) < WORD:
        return False
    count = int.from_bytes(message[:WORD], "little")
    if not PARTS + 2 <= count <= len(message) // WORD - 1:
        return False
    offsets = struct.unpack_from(f"<{count}Q", message, WORD)
    whole = (WORD * (1 + count), *offsets, len(message))
    return all(first <= second for first, second in pairwise(whole))


class Foreign(Matcher):
    """Matches requests that another site's page has made, or that reach the server under a foreign name.

    A site may give its own name the address 127.0.0.1; its pages then count as of this server's origin. Every
    request that changes something, and every websocket, has an Origin. Others can be told apart by Sec-Fetch
    headers, which all browsers send since 2023.
    """

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """Return {} for a foreign request, None for any other."""
        host, _ = split_host_and_port(request.host.lower())
        origin, fetched = (request.headers.get(name) for name in ("Origin", "Sec-Fetch-Site"))
        if host not in NAMES:
            return {}
        if origin is not None:
            return None if origin == f"http://{request.host}" else {}
        opened = [request.headers.get(f"Sec-Fetch-{name}") for name in ("Mode", "Dest")]
        followed = opened == ["navigate", "document"]  # a link to the page may be followed
        return {} if fetched in ("cross-site", "same-site") and not followed else None


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
        """Return Voila's handlers; those of kernels' connections and of the page, the last, are ours."""
        *others, (address, _, options) = super().init_handlers()
        others = [
            (path, Channel if handler is VoilaKernelWebsocketHandler else handler, *rest)
            for path, handler, *rest in others
        ]
        return [*others, (address, Page, options)]

    def listen(self) -> None:
        """Serve until stopped, and print the address once it answers."""
        self.app.default_router.rules.insert(0, Rule(Foreign(), Refusal))  # before every other rule
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
    }
    config.VoilaConfiguration.theme = "light"
    config.VoilaConfiguration.allow_template_override = "NO"  # by an address
    config.VoilaConfiguration.allow_theme_override = "NO"
    config.VoilaConfiguration.file_allowlist = []  # else pictures beside the notebook are served
    config.VoilaConfiguration.kernel_spec_manager_class = OwnKernels
    config.VoilaConfiguration.multi_kernel_manager_class = PageKernels
    config.PageKernels.cull_idle_timeout = int(keep_s)
    config.PageKernels.cull_interval = max(1, min(int(keep_s), int(forgotten_s), UNSEEN_S) // CHECKS)
    config.PageKernels.most, config.PageKernels.forgotten_s = int(pages), int(forgotten_s)
    # A kernel that died is not started again: a new one would know nothing of its page, which says so.
    config.KernelRestarter.restart_limit = 0
    # Pages that wait, and those whose kernel is gone, ask again and again; each refusal would be a line.
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    logging.getLogger("tornado.general").setLevel(logging.ERROR)
    with suppress(KeyboardInterrupt):
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # until Voila handles both
        block_stops("SIG_UNBLOCK")  # before a kernel inherits that
        Server.launch_instance(argv=[notebook], config=config)
    print("davae: the app has ended", file=sys.stderr)


if __name__ == "__main__":
    main()
