"""Visitors of the app, who speak to its server without a browser: what they get, and what they must not."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace

import psutil
import pytest
from drill import visitors
from jupyter_server._tz import utcnow
from jupyter_server.services.kernels.connection.base import (
    deserialize_msg_from_ws_v1,
    serialize_msg_to_ws_v1,
)
from test_app import free_port
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from tornado.web import HTTPError

from davae.photo.app import voila_server


@pytest.fixture(scope="module")
def photos():
    return [visitors.draw_photo(number) for number in range(2)]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The app with room for one visitor."""
    app = visitors.App(tmp_path_factory.mktemp("app") / "log.txt", free_port(), pages=1)
    try:
        app.wait()
        yield app
    finally:
        app.stop()


def fetch(app, path: str = "", **options):
    async def ask():
        return await AsyncHTTPClient(force_instance=True).fetch(
            app.address + path, raise_error=False, follow_redirects=False, **options
        )

    return asyncio.run(ask())


@pytest.mark.slow
def test_two_visitors_at_once_are_served_where_there_is_room_for_one(app, photos):
    """The second is told to wait, asks again as told, and gets the answer to its own photo."""
    score = asyncio.run(visitors.send_visitors(app, photos, at_once=2))
    assert score.failures == []
    first, second = sorted(score.visits, key=lambda visit: visit.waited)
    assert first.waited == 0 < second.waited
    assert first.joints != second.joints
    assert 0 < app.server_mib < app.all_mib and app.kernel_mib > 50


@pytest.mark.slow
def test_a_page_moves_widgets_and_runs_no_code(app, tmp_path):
    """Messages of a page that was tampered with; those after them are answered, so they had their time."""
    mark = tmp_path / "mark"
    code = f"open({str(mark)!r}, 'w').close()"

    async def tamper() -> list[str]:
        kinds = []
        async with visitors.page(app.address) as (kernel, _, _):
            for channel in ("shell", "control"):
                request = {"code": code, "silent": False, "store_history": False, "user_expressions": {}}
                await kernel.send("execute_request", request, channel=channel)
                await kernel.send("debug_request", {"command": "debugInfo"}, channel=channel)
                await kernel.send("complete_request", {"code": "op", "cursor_pos": 2}, channel=channel)
            asked = {await kernel.send("kernel_info_request", {}, channel=c) for c in ("shell", "control")}
            async with asyncio.timeout(visitors.WAIT_S):
                while asked:
                    message = await kernel.receive()
                    kinds.append(message["msg_type"])
                    if message["msg_type"] == "kernel_info_reply":
                        asked.discard(message["parent_header"]["msg_id"])
        return kinds

    kinds = asyncio.run(tamper())
    assert not {"execute_reply", "complete_reply", "debug_reply"} & set(kinds)
    assert not mark.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "attacker.example"},  # a name that was given the address 127.0.0.1
        {"Host": "attacker.example:80", "Origin": "http://attacker.example:80"},
        {"Origin": "http://attacker.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    ],
)
def test_requests_of_other_sites_reach_nothing(app, headers):
    kernel = "00000000-0000-0000-0000-000000000000"
    for path in ("", "voila/static/voila.js", f"api/kernels/{kernel}"):
        answer = fetch(app, path, headers=headers)
        assert answer.code == 403 and b"answers only its own pages" in answer.body
    with pytest.raises(HTTPClientError, match="403"):
        asyncio.run(visitors.Kernel.connect(app.address, kernel, **headers))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_pages_of_this_server_are_no_foreigners(app, name):
    """By both names of this machine, with what browsers send; a kernel that does not exist is a plain 404."""
    host = app.address.removeprefix("http://127.0.0.1:").rstrip("/")
    headers = {"Host": f"{name}:{host}", "Origin": f"http://{name}:{host}", "Sec-Fetch-Site": "same-origin"}
    assert fetch(app, "api/kernels/00000000-0000-0000-0000-000000000000", headers=headers).code == 404


def test_only_whole_messages_are_passed_on():
    parts = [b"{}"] * 4 + [b"picture"]
    whole = serialize_msg_to_ws_v1(parts, "shell")
    assert voila_server.is_whole(whole) and deserialize_msg_from_ws_v1(whole) == ("shell", parts)

    def counted(count):
        return count.to_bytes(8, "little") + whole[8:]

    claimed = len(whole) // 8
    for broken in (
        "text",
        b"",
        whole[:7],
        whole[:60],
        whole[:-1],
        counted(5),
        counted(claimed),
        counted(2**60),
    ):
        assert not voila_server.is_whole(broken), broken
    back = bytearray(whole)
    back[16:24] = (0).to_bytes(8, "little")  # its header would begin before its channel
    assert not voila_server.is_whole(bytes(back))


@pytest.mark.slow
def test_a_connection_ends_with_a_broken_message_and_the_server_goes_on(app):
    async def send_broken() -> bytes | str | None:
        async with visitors.page(app.address) as (kernel, _, _):
            await kernel.connection.write_message(serialize_msg_to_ws_v1([b"{}"] * 2, "shell"), binary=True)
            async with asyncio.timeout(visitors.WAIT_S):
                while (message := await kernel.connection.read_message()) is not None:
                    pass
                return message

    assert asyncio.run(send_broken()) is None
    assert fetch(app, "api/kernels/00000000-0000-0000-0000-000000000000").code == 404


@pytest.mark.slow
@pytest.mark.parametrize("offered", [None, "v0.kernel.websocket.jupyter.org"])
def test_a_connection_of_another_protocol_is_refused(app, offered):
    """Only the request to connect is sent."""
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
               "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}  # fmt: skip
    headers |= {} if offered is None else {"Sec-WebSocket-Protocol": offered}
    path = "api/kernels/00000000-0000-0000-0000-000000000000/channels"
    assert fetch(app, path, headers=headers).code == 403


@pytest.mark.slow
def test_a_link_to_the_page_may_be_followed(app):
    """It is not foreign: it gets the page, or here, where the only place is taken, the page that waits."""
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}

    async def follow() -> str:
        async with visitors.page(app.address):  # the only place
            answer = await AsyncHTTPClient(force_instance=True).fetch(
                app.address, headers=headers, raise_error=False
            )
        assert answer.code == 503
        return answer.body.decode()

    page = asyncio.run(follow())
    assert "As many pages are open as this server has room for" in page
    assert f'http-equiv="refresh" content="{voila_server.WAIT_S}"' in page


@pytest.mark.slow
def test_a_page_that_is_loaded_again_keeps_its_place(app):
    """The old page's kernel is ended and another asked for at once, where there is room for one."""

    async def reload() -> int:
        kernel_id, waited = await visitors.open_page(app.address)
        closing = asyncio.create_task(visitors.close_page(app.address, kernel_id))
        await asyncio.sleep(0)
        other, again = await visitors.open_page(app.address)
        await closing
        await visitors.close_page(app.address, other)
        assert other != kernel_id and waited == 0
        return again

    assert asyncio.run(reload()) == 0


@pytest.mark.slow
def test_a_page_that_is_fetched_in_advance_takes_no_place(app):
    answer = fetch(app, headers={"Sec-Purpose": "prefetch;prerender"})
    assert answer.code == 503 and len(psutil.Process(app.process.pid).children()) == 0


@pytest.mark.slow
@pytest.mark.parametrize("path", [
    "api/kernels", "api/contents", "api/sessions", "api/terminals", "voila/api/contents", "voila/tree",
    "tree",
    "voila/files/app.ipynb", "voila/files/server.py", "voila/files/page.css", "voila/render/app.ipynb",
    "files/", "metrics", "login", "logout", "voila/templates/../static/app.ipynb",
    "voila/files/../../../../etc/passwd", "voila/static/../../../../../../../../etc/passwd", "app.ipynb",
    "voila/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "voila/templates/lab/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "voila/labextensions/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "voila/api/themes/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
])  # fmt: skip
def test_no_file_and_no_list_is_served(app, path):
    answer = fetch(app, path)
    assert answer.code in (403, 404, 405, 500), f"{answer.code}: {answer.body[:200]}"
    assert b"root:" not in answer.body and b"import " not in answer.body and b"Traceback" not in answer.body


@pytest.mark.slow
def test_a_request_with_a_large_body_is_refused(app):
    body = bytes(2 * voila_server.BODY_BYTES)
    answer = fetch(app, "voila/api/shutdown/x", method="POST", body=body)
    assert answer.code in (400, 413, 599)
    assert fetch(app, "api/kernels/00000000-0000-0000-0000-000000000000").code == 404  # it goes on


@pytest.fixture
def kernels(monkeypatch):
    """The kernel manager; its kernels start in no time and are not there."""

    async def start(self, *, kernel_id, **_):
        await asyncio.sleep(0)
        self._kernels[kernel_id] = SimpleNamespace()
        await asyncio.sleep(0)
        return kernel_id

    monkeypatch.setattr(voila_server.AsyncMappingKernelManager, "start_kernel", start)
    return voila_server.PageKernels(most=3)


def test_kernels_that_are_starting_take_a_place(kernels):
    async def start(count: int) -> list:
        return await asyncio.gather(*(kernels.start_kernel() for _ in range(count)), return_exceptions=True)

    outcomes = asyncio.run(start(5))
    refused = [outcome for outcome in outcomes if isinstance(outcome, HTTPError)]
    assert len(refused) == 2 and {error.status_code for error in refused} == {503}
    assert len(kernels) == 3 and not kernels._starting


def test_the_request_of_a_page_may_overtake_the_one_that_ends_its_predecessor(kernels, monkeypatch):
    """A page that is loaded again sends both; there is room for one page, and ending one takes a while."""
    monkeypatch.setattr(voila_server, "LEAVING_S", 0.5)
    kernels.most = 1

    async def end(self, kernel_id, **_):
        await asyncio.sleep(1)
        del self._kernels[kernel_id]

    monkeypatch.setattr(voila_server.AsyncMappingKernelManager, "shutdown_kernel", end)

    async def reload() -> bool:
        kernel_id = await kernels.start_kernel()
        asked = asyncio.create_task(kernels.wait_for_room())
        await asyncio.sleep(0.1)
        assert not asked.done()
        await kernels.shutdown_kernel(kernel_id)
        return await asked

    assert asyncio.run(reload())


def test_a_page_is_told_to_wait_where_no_place_becomes_free(kernels, monkeypatch):
    monkeypatch.setattr(voila_server, "LEAVING_S", 0.1)
    kernels.most = 1

    async def ask() -> bool:
        await kernels.start_kernel()
        return await kernels.wait_for_room()

    assert not asyncio.run(ask())


@pytest.mark.parametrize(
    ("idle_s", "connections", "state", "ends"),
    [
        (50, [1], "idle", False),
        (3700, [1], "idle", True),  # forgotten
        (100, [1, -1], "idle", False),  # its connection was lost, and may come back
        (130, [1, -1], "idle", True),
        (50, [], "idle", False),  # the browser still loads the page
        (70, [], "idle", True),  # closed before it had loaded
        (70, [], "busy", False),  # it is still being made
    ],
)
def test_pages_end_when_they_are_left_or_forgotten(kernels, monkeypatch, idle_s, connections, state, ends):
    kernels.cull_idle_timeout, ended = 120, []

    async def shut_down(kernel_id):
        ended.append(kernel_id)
        del kernels._kernels[kernel_id]

    monkeypatch.setattr(kernels, "shutdown_kernel", shut_down)
    spec = SimpleNamespace(metadata={})
    kernels._kernels["a"] = SimpleNamespace(
        last_activity=utcnow(), execution_state=state, kernel_spec=spec, kernel_name="python3"
    )
    kernels._kernel_connections["a"] = 0
    for step in connections:
        (kernels.notify_connect if step > 0 else kernels.notify_disconnect)("a")
    kernels.get_kernel("a").last_activity = utcnow() - timedelta(seconds=idle_s)
    asyncio.run(kernels.cull_kernel_if_idle("a"))
    assert ended == (["a"] if ends else [])
