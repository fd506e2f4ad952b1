"""Visitors of the app: `make visitors`. Does each get an answer, after how long, and what do they cost?

A visitor speaks as the page does: it loads the page, connects to its kernel, sends a photo in parts and waits
for the joints, over HTTP and a websocket. No browser takes part, so all that is measured is the server's.

    PYTHONPATH=tests python -m drill.visitors --in-turn 20 --at-once 5
"""

import argparse
import asyncio
import io
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.session import Session
from jupyter_server.services.kernels.connection.base import (
    deserialize_msg_from_ws_v1,
    serialize_msg_to_ws_v1,
)
from PIL import Image
from tornado.httpclient import AsyncHTTPClient, HTTPError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, WebSocketError, websocket_connect

from synthhand.dataset.writer import render, sample_factors

WAIT_S = 120.0  # for anything: a visitor who waits longer has failed
PART = 2**20  # bytes of a message
PARTS = ("header", "parent_header", "metadata", "content")  # of a message
PROTOCOL = "v1.kernel.websocket.jupyter.org"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


class NoAnswerError(AssertionError):
    """A visitor did not get what a visitor should."""


@dataclass
class Visit:
    """What a visitor saw.

    Attributes:
        joints: 21 x (u, v), pixels of the photo.
        size: (width, height) of the photo.
        page_s: until the page was there.
        answer_s: from sending the photo until its joints came.
        waited: how often the server had no room yet.
    """

    joints: list[list[float]]
    size: list[int]
    page_s: float
    answer_s: float
    waited: int


class Kernel:
    """A connection to a page's kernel, by messages as the page's JavaScript sends them."""

    def __init__(self, connection: WebSocketClientConnection):
        self.connection, self.session = connection, Session(key=b"not needed here")
        self.states: dict[str, dict[str, Any]] = {}  # widget -> its state

    @classmethod
    async def connect(cls, address: str, kernel_id: str, **headers: str) -> "Kernel":
        """Open the websocket of a kernel."""
        url = f"{address}api/kernels/{kernel_id}/channels".replace("http://", "ws://")
        asked = HTTPRequest(url, headers=headers)
        return cls(await websocket_connect(asked, subprotocols=[PROTOCOL], max_message_size=2**26))

    async def close(self) -> None:
        """Close the websocket, and wait until the server has: else its socket may outlive the event loop."""
        protocol = self.connection.protocol
        self.connection.close()
        async with asyncio.timeout(WAIT_S):
            while protocol is not None and not protocol.stream.closed():
                await asyncio.sleep(0.01)

    async def send(
        self, kind: str, content: dict[str, Any], buffers: tuple[bytes, ...] = (), channel: str = "shell"
    ) -> str:
        """Send a message; return its number."""
        message = self.session.msg(kind, content)
        if kind == "comm_open":
            message["metadata"] = {"version": "1.0.0"}  # of the control of widgets
        parts = [*(self.session.pack(message[name]) for name in PARTS), *buffers]
        await self.connection.write_message(serialize_msg_to_ws_v1(parts, channel), binary=True)
        return message["header"]["msg_id"]

    async def receive(self) -> dict[str, Any]:
        """Return the next message; widgets' states are kept up to date by it.

        Raises:
            NoAnswerError: the server closed the connection.
        """
        raw = await self.connection.read_message()
        if raw is None:
            raise NoAnswerError("the server closed the connection")
        _, parts = deserialize_msg_from_ws_v1(raw)
        message = {name: json.loads(part) for name, part in zip(PARTS, parts, strict=False)}
        message["msg_type"] = message["header"]["msg_type"]
        data = message["content"].get("data", {})
        if message["msg_type"] == "comm_close":
            raise NoAnswerError("the kernel knows no widgets")
        if message["msg_type"] == "comm_msg" and data.get("method") == "update":
            self.states.setdefault(message["content"]["comm_id"], {}).update(data["state"])
        return message

    async def ask_states(self) -> None:
        """Ask for the state of every widget, as a page does when it is loaded."""
        comm = uuid.uuid4().hex
        await self.send("comm_open", {"comm_id": comm, "target_name": "jupyter.widget.control", "data": {}})
        await self.send("comm_msg", {"comm_id": comm, "data": {"method": "request_states"}})
        while True:
            message = await self.receive()
            data = message["content"].get("data", {})
            if message["content"].get("comm_id") == comm and data.get("method") == "update_states":
                self.states = {name: dict(model["state"]) for name, model in data["states"].items()}
                return

    def find(self, *names: str) -> str:
        """Return the widget whose state has these names."""
        (found,) = [widget for widget, state in self.states.items() if set(names) <= state.keys()]
        return found

    def alerts(self) -> list[str]:
        """Return what the page says went wrong."""
        texts = [state.get("value") for state in self.states.values()]
        return [text for text in texts if isinstance(text, str) and "role='alert'" in text]

    async def send_photo(self, name: str, content: bytes) -> None:
        """Send a photo to the page's canvas, in parts."""
        canvas, count = self.find("joints", "drawn"), -(-len(content) // PART)
        for index in range(count):
            part = {"type": "part", "name": name, "index": index, "count": count}
            data = {"method": "custom", "content": part}
            piece = content[index * PART : (index + 1) * PART]
            await self.send("comm_msg", {"comm_id": canvas, "data": data}, (piece,))

    async def wait_for(self, done: Callable[[], bool]) -> None:
        """Receive messages until something is true of the widgets' states.

        Raises:
            TimeoutError: it has not become true after `WAIT_S`.
        """
        async with asyncio.timeout(WAIT_S):
            while not done():
                await self.receive()


async def open_page(address: str) -> tuple[str, int]:
    """Load the page until there is room for it; return its kernel, and how often there was none.

    Raises:
        NoAnswerError: something else than a page came, or none in `WAIT_S`.
    """
    client, waited = AsyncHTTPClient(force_instance=True), 0
    until = time.monotonic() + WAIT_S
    try:
        while time.monotonic() < until:
            answer = await client.fetch(address, raise_error=False, request_timeout=WAIT_S)
            text = answer.body.decode() if answer.body else ""
            if answer.code == 200:
                found = re.search(r'"kernelId": ?"([\w-]+)"', text)
                if found is None:
                    raise NoAnswerError(f"a page without a kernel: {text[:300]!r}")
                return found[1], waited
            if answer.code != 503 or "asks again" not in text:
                raise NoAnswerError(f"status {answer.code}: {answer.error}")
            waited += 1
            await asyncio.sleep(float(answer.headers["Retry-After"]))
    finally:
        client.close()
    raise NoAnswerError(f"there was no room for {WAIT_S:.0f} s")


async def close_page(address: str, kernel_id: str) -> None:
    """End a page as a browser does that leaves it."""
    client = AsyncHTTPClient(force_instance=True)
    try:
        url = f"{address}voila/api/shutdown/{kernel_id}"
        same = "0f" * 16  # a page sends its cookie's token back in the form
        headers = {"Cookie": f"_xsrf={same}"}
        answer = await client.fetch(
            url, method="POST", headers=headers, body=f"_xsrf={same}", raise_error=False
        )
        if answer.code not in (204, 404):  # 404: the server has ended it already
            raise NoAnswerError(f"a page cannot be closed: {answer.code} {answer.error}")
    finally:
        client.close()


@asynccontextmanager
async def page(address: str):
    """Open a page and yield (its kernel, seconds until it was there, how often there was no room)."""
    began = time.monotonic()
    kernel_id, waited = await open_page(address)
    try:
        kernel = await Kernel.connect(address, kernel_id)
        try:
            async with asyncio.timeout(WAIT_S):
                await kernel.ask_states()
            yield kernel, time.monotonic() - began, waited
        finally:
            await kernel.close()
    finally:
        await close_page(address, kernel_id)


async def visit(address: str, name: str, photo: bytes) -> Visit:
    """Open the page, send a photo, wait for its joints, leave.

    Raises:
        NoAnswerError: the page said that something is wrong, or the joints are not those of a hand.
    """
    async with page(address) as (kernel, page_s, waited):
        canvas = kernel.find("joints", "drawn")
        if kernel.states[canvas]["joints"] or kernel.states[canvas]["size"] != [1, 1]:
            raise NoAnswerError("the page already shows a photo, of somebody else")
        began = time.monotonic()
        await kernel.send_photo(name, photo)
        await kernel.wait_for(lambda: bool(kernel.states[canvas]["joints"] or kernel.alerts()))
        taken = time.monotonic() - began
        if kernel.alerts():
            raise NoAnswerError(f"the page says {kernel.alerts()[0]}")
        state = kernel.states[canvas]
        if len(state["joints"]) != 21:
            raise NoAnswerError(f"{len(state['joints'])} joints came, not 21")
        return Visit(state["joints"], state["size"], page_s, taken, waited)


def draw_photo(number: int) -> bytes:
    """Return a rendered hand as PNG; each number gives another."""
    file = io.BytesIO()
    Image.fromarray(render(sample_factors(11, "test", number)).image).save(file, "PNG")
    return file.getvalue()


class App:
    """`davae app` as a process of its own, on `address`; the memory of it and its kernels is watched.

    Attributes:
        server_mib, kernel_mib, all_mib: peak private memory (RssAnon) of the server, of a kernel, of all.
    """

    def __init__(self, log: Path, port: int, **options: Any):
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        command = [sys.executable, "-m", "davae", "app", "--port", str(port), "--no-browser", *words]
        self.address, self.log = f"http://127.0.0.1:{port}/", log
        self.server_mib = self.kernel_mib = self.all_mib = 0.0
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | ONE_THREAD)

    def wait(self) -> None:
        """Wait until it serves; raise `NoAnswerError` if it does not."""
        until = time.monotonic() + WAIT_S
        while (said := re.search(r"^(http://\S+) serves the app", self.log.read_text(), re.M)) is None:
            if self.process.poll() is not None or time.monotonic() > until:
                raise NoAnswerError(f"the app does not answer: {self.log.read_text()}")
            time.sleep(0.2)
        self.address = f"{said[1]}/"  # another port if the asked one was taken

    def measure(self) -> None:
        """Look at its memory once."""
        with suppress(psutil.NoSuchProcess):
            server = psutil.Process(self.process.pid)
            own = read_private_mib(server.pid)
            kernels = [read_private_mib(kernel.pid) for kernel in server.children()]
            self.server_mib, self.all_mib = max(self.server_mib, own), max(self.all_mib, own + sum(kernels))
            self.kernel_mib = max(self.kernel_mib, *kernels, 0.0)

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()


def read_private_mib(pid: int) -> float:
    """Return RssAnon of a process, MiB; 0 of one that has ended. Elsewhere than on Linux, all its memory."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        with suppress(psutil.Error):
            return psutil.Process(pid).memory_info().rss / 2**20 if sys.platform != "linux" else 0.0
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


@dataclass
class Score:
    """What became of visitors."""

    visits: list[Visit] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def describe(self, title: str) -> str:
        """Return a row of the table."""
        pages, answers = [v.page_s for v in self.visits], [v.answer_s for v in self.visits]
        cells = [title, str(len(self.visits) + len(self.failures)), str(len(self.failures))]
        for values in (pages, answers):
            cells += [f"{statistics.median(values):.1f}", f"{max(values):.1f}"] if values else ["-", "-"]
        return "| " + " | ".join([*cells, str(sum(v.waited > 0 for v in self.visits))]) + " |"


async def send_visitors(app: App, photos: list[bytes], at_once: int) -> Score:
    """Let visitors come, so many at a time; return what became of them."""
    score, room, gone = Score(), asyncio.Semaphore(at_once), asyncio.Event()

    async def come(number: int, photo: bytes) -> None:
        async with room:
            try:
                score.visits.append(await visit(app.address, f"visitor {number}.png", photo))
            except (NoAnswerError, OSError, ValueError, KeyError, HTTPError, WebSocketError) as error:
                score.failures.append(f"visitor {number}: {type(error).__name__}: {error}")

    async def watch() -> None:
        while not gone.is_set():
            app.measure()
            await asyncio.sleep(0.5)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(come(number, photo) for number, photo in enumerate(photos)))
    gone.set()
    await watching
    return score


def main() -> int:
    """Run the drill; return 1 if a visitor failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--in-turn", type=int, default=20)
    parser.add_argument("--at-once", type=int, default=5)
    parser.add_argument(
        "--crowd", type=int, default=4, help="visitors at once of a server that has room for two"
    )
    parser.add_argument("--port", type=int, default=8970)
    chosen = parser.parse_args()
    photos = [draw_photo(number) for number in range(max(chosen.in_turn, chosen.at_once, chosen.crowd))]
    rows, failures, memory = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for title, count, at_once, pages in (
            ("in turn", chosen.in_turn, 1, 8),
            ("at once", chosen.at_once, chosen.at_once, 8),
            ("at once, room for two", chosen.crowd, chosen.crowd, 2),
        ):
            app = App(Path(folder) / "log.txt", chosen.port, pages=pages)
            try:
                app.wait()
                score = asyncio.run(send_visitors(app, photos[:count], at_once))
            finally:
                app.stop()
            rows.append(score.describe(title))
            failures += score.failures
            memory.append(
                f"{title}: peak private memory {app.server_mib:.0f} MiB the server, "
                f"{app.kernel_mib:.0f} MiB a kernel, {app.all_mib:.0f} MiB together"
            )
    print(
        "| visitors | number | failed | page, s: median | worst | joints, s: median | worst | had to wait |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|", *rows, "", *memory, *failures, sep="\n")
    print(f"failures: {len(failures)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
