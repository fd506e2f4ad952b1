"""The app: its pages without a browser, then served by Voila in a real browser."""

import base64
import dataclasses
import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_dilation
from test_photo import encoded, picture
from torch.testing import assert_close

from davae.config import BLOCKS
from davae.photo.app import server
from davae.photo.app.pages import OFFERED, Pages, cut_input
from davae.photo.app.photo_page import DOUBTFUL, PhotoPage, describe, link_files
from davae.photo.app.widgets import PhotoCanvas
from davae.photo.finding import SMALL_PX, Box
from davae.photo.hand import reference_bone_mm
from davae.photo.predict import HandPredictor
from synthhand.dataset.scene import hand_pixels
from synthhand.dataset.writer import render, sample_factors
from synthhand.formats.gltf import read_skinned_mesh
from synthhand.skeleton import BONES

KEEP_S = 6  # that a page without a connection is kept
WAIT_MS = 120_000  # for what a busy machine does late; a sound one is done in seconds
TABS = ("your photo", "latent space")


@pytest.fixture(scope="module")
def predictor(release):
    return HandPredictor.load(release)


@pytest.fixture
def page(predictor):
    return PhotoPage(predictor)


def photo_file(width: int = 160, height: int = 120) -> bytes:
    return encoded(picture(width, height))


def hidden(page: PhotoPage) -> bool:
    return page._found.layout.display == "none"


# The canvas


def test_a_file_comes_in_parts():
    got, refused = [], []
    canvas = PhotoCanvas(lambda *file: got.append(file), refused.append)
    for index, part in enumerate((b"abc", b"de", b"f")):
        assert not got
        canvas._receive(canvas, {"type": "part", "name": "x", "index": index, "count": 3}, [memoryview(part)])
    assert got == [(b"abcdef", "x")]


def test_a_file_that_is_begun_anew_leaves_nothing_of_the_old_one():
    got = []
    canvas = PhotoCanvas(lambda content, name: got.append(content), pytest.fail)
    canvas._receive(canvas, {"type": "part", "name": "old", "index": 0, "count": 2}, [b"old"])
    canvas._receive(canvas, {"type": "part", "name": "new", "index": 0, "count": 1}, [b"new"])
    assert got == [b"new"]


def test_a_file_that_no_browser_bounded_is_refused_here(monkeypatch):
    monkeypatch.setattr("davae.photo.app.widgets.LIMIT", 2**20)
    refused = []
    canvas = PhotoCanvas(pytest.fail, refused.append)
    for index in range(3):
        part = {"type": "part", "name": "x", "index": index, "count": 3}
        canvas._receive(canvas, part, [bytes(600_000)])
    assert refused == ["x: is larger than 1 MiB; send a smaller photo"] and canvas._received is None


def test_a_file_that_lost_a_part_is_refused():
    refused = []
    canvas = PhotoCanvas(pytest.fail, refused.append)
    for name, indices in (("x", (0, 2, 3)), ("y", (1, 2, 3))):  # a part in the middle, the first
        for index in indices:
            canvas._receive(canvas, {"type": "part", "name": name, "index": index, "count": 4}, [b"a"])
    assert refused == [f"{name}: a part of it was lost on its way; choose it again" for name in "xy"]


def test_the_browser_may_refuse_a_file():
    refused = []
    canvas = PhotoCanvas(pytest.fail, refused.append)
    canvas._receive(canvas, {"type": "refused", "reason": "too large"}, [])
    assert refused == ["too large"]


@pytest.mark.parametrize(("width", "height"), [(40, 30), (3000, 2000)])
def test_the_browser_gets_a_photo_no_larger_than_it_can_show(width, height):
    canvas = PhotoCanvas(pytest.fail, pytest.fail)
    canvas.joints, canvas.drawn = [[1, 2]], [1, 2, 3, 4]
    canvas.show(np.zeros((height, width, 3), np.uint8))
    with Image.open(io.BytesIO(canvas.picture)) as shown:
        assert shown.width == min(width, 1280) and shown.format == "JPEG"
    assert canvas.size == [width, height] and canvas.joints == [] == canvas.drawn
    assert [(a, b) for a, b, _ in canvas.bones] == [tuple(bone) for bone in BONES.tolist()]


# The photo page


def test_a_photo_yields_what_predict_yields(page, predictor):
    content = photo_file()
    page.open(content, "my hand.png")
    hand = predictor.predict(content, name="my hand.png", bone_mm=page.controls["bone_mm"].value)
    np.testing.assert_array_equal(page.canvas.joints, hand.joints_px)
    shown = Box.of_rectangle(*page.canvas.found)
    assert shown.centre == pytest.approx(hand.box.centre) and shown.half == pytest.approx(hand.box.half)
    assert not hidden(page) and not page.canvas.busy
    guessed = f"a {hand.side} hand (guessed, probability {hand.side_probability:.2f})"
    assert guessed in page.message.value and "Confidence" in page.message.value
    for view in (page.mesh, page.code):
        with Image.open(io.BytesIO(view.value)) as drawn:
            assert np.asarray(drawn.convert("L")).std() > 5


def test_files_are_those_of_the_hand(page, tmp_path):
    page.open(photo_file(), "my hand.v2.png")
    found = re.findall(r"<a download='([^']+)' href='data:([^;]+);base64,([^']+)'>", page.files.value)
    assert [name for name, _, _ in found] == [f"my hand.v2.{end}" for end in ("json", "ply", "glb")]
    contents = {media: base64.b64decode(data) for _, media, data in found}
    assert json.loads(contents["application/json"])["photo"] == "my hand.v2.png"
    assert contents["model/ply"].startswith(b"ply\n")
    (tmp_path / "hand.glb").write_bytes(contents["model/gltf-binary"])
    assert len(read_skinned_mesh(tmp_path / "hand.glb").vertices) > 4000


def test_names_cannot_break_out_of_the_page(page):
    page.open(photo_file(), "<img src=x onerror='alert(1)'>.png")
    assert "<img" not in page.message.value
    assert "<img" not in link_files({"json": b""}, "<img src='x'>") and "src='" not in link_files(
        {"json": b""}, "a' src='x"
    )


def test_a_box_that_is_drawn_is_the_one_looked_at(page):
    page.open(photo_file(), "p.png")
    page.canvas.drawn = [20, 30, 40, 50]
    assert page.canvas.found == pytest.approx([20 + 40 / 2 - 25, 30, 50, 50])  # as wide as it is high
    assert "Confidence" not in page.message.value
    page.controls["again"].click()
    assert page.canvas.drawn == [] and "Confidence" in page.message.value


def test_side_and_bone_are_looked_at_again(page):
    page.open(photo_file(), "p.png")
    page.controls["side"].value = "left"
    assert page.hand.side == "left" and "a left hand." in page.message.value
    at_first = page.hand.joints_mm
    page.controls["bone_mm"].value = 2 * page.hand.bone_mm if page.hand.bone_mm < 40 else 30.0
    np.testing.assert_allclose(
        page.hand.joints_mm, at_first * page.hand.bone_mm / reference_bone_mm(), rtol=0.01
    )


def test_the_mesh_turns(page):
    page.draw_mesh()  # nothing yet, and no error
    page.open(photo_file(), "p.png")
    seen_from = {}
    for turn in (0, 90):
        page.controls["turn_deg"].value = turn
        seen_from[turn] = page.mesh.value
    page.controls["tilt_deg"].value = 45
    assert len({*seen_from.values(), page.mesh.value}) == 3


@pytest.mark.parametrize("content", [b"", b"just text", photo_file()[:200]])
def test_what_is_no_photo_is_told_and_leaves_nothing_of_the_last_one(page, content):
    page.open(photo_file(), "good.png")
    page.open(content, "bad.png")
    assert "role='alert'" in page.message.value and "bad.png: " in page.message.value
    assert hidden(page) and page.hand is None and page.canvas.picture == b"" and page.canvas.joints == []
    page.controls["side"].value = "right"  # nothing to look at, and no error
    page.open(photo_file(), "good.png")
    assert not hidden(page) and "role='alert'" not in page.message.value


def fails(*_, **__):
    raise RuntimeError("no <such> memory")


@pytest.mark.parametrize("step", [
    "app.photo_page.read_photo", "predict.HandPredictor.predict", "app.photo_page.draw_mesh",
    "app.photo_page.link_files", "app.widgets.PhotoCanvas.show",
])  # fmt: skip
def test_a_fault_of_our_own_is_told_and_leaves_nothing_of_the_last_photo(page, monkeypatch, logged, step):
    page.open(photo_file(), "good.png")
    monkeypatch.setattr(f"davae.photo.{step}", fails)
    page.open(photo_file(), "p.png")
    assert "davae failed on p.png (RuntimeError: no &lt;such&gt; memory)" in page.message.value
    assert "role='alert'" in page.message.value and "Traceback" in logged()
    assert hidden(page) and page.hand is None and page.canvas.picture == b"" and not page.canvas.busy


@pytest.mark.parametrize("act", [
    lambda page: page.canvas._handle_custom_msg({"type": "part"}, []),
    lambda page: setattr(page.canvas, "drawn", [20, 30, 40, 50]),
    lambda page: page.controls["side"].set_trait("value", "left"),
    lambda page: page.controls["bone_mm"].set_trait("value", 30.0),
    lambda page: page.controls["again"].click(),
    lambda page: page.controls["walk"].click(),
    lambda page: page.controls["turn_deg"].set_trait("value", 90.0),
    lambda page: setattr(page.mesh, "tilt_deg", 45.0),
])  # fmt: skip
def test_every_callback_of_the_photo_page_tells_what_failed(page, monkeypatch, logged, act):
    page.open(photo_file(), "p.png")
    page._walk = fails
    monkeypatch.setattr(page.predictor, "predict", fails)
    monkeypatch.setattr("davae.photo.app.photo_page.draw_mesh", fails)
    act(page)
    assert "davae failed" in page.message.value and "Traceback" in logged()


def test_a_photo_that_was_reduced_is_shown_and_told_in_its_own_pixels(page, monkeypatch):
    monkeypatch.setattr("davae.photo.reading.WHOLE_PIXELS", 160 * 120)
    page.open(photo_file(320, 240), "large.png")
    assert page.canvas.size == [320, 240] and page.hand.photo_px == (320, 240)
    np.testing.assert_array_equal(page.canvas.joints, page.hand.joints_px)
    page.canvas.drawn = [200, 100, 90, 90]
    assert page.hand.box.centre == pytest.approx((244.5, 144.5)) and page.hand.box.half == 45
    assert cut_input(page.hand, page._photo, page.predictor.px).shape[1] == 3


def test_the_side_of_one_photo_is_not_that_of_the_next(page, monkeypatch):
    page.open(encoded(picture()), "a.png")
    page.controls["side"].value = "left"
    asked = []
    real = page.predictor.predict
    monkeypatch.setattr(
        page.predictor,
        "predict",
        lambda *args, **options: asked.append(options["side"]) or real(*args, **options),
    )
    page.open(encoded(picture()), "b.png")
    assert asked == [None] and page.hand.name == "b.png"


def test_low_confidence_is_called_so(page):
    page.open(photo_file(), "p.png")
    hand = page.hand
    object.__setattr__(hand.box, "confidence", DOUBTFUL / 2)
    assert "That is low" in describe(hand, guessed=True)
    object.__setattr__(hand.box, "confidence", 2 * DOUBTFUL)
    assert "Confidence" in describe(hand, guessed=False) and "That is low" not in describe(
        hand, guessed=False
    )
    object.__setattr__(hand.box, "confidence", None)  # a hand in a box that somebody drew
    assert "onfidence" not in describe(hand, guessed=True) and "That is low" not in describe(
        hand, guessed=True
    )


def test_a_small_box_is_called_so(page):
    page.open(photo_file(), "p.png")
    for side, told in ((SMALL_PX / 2, True), (SMALL_PX, False)):
        hand = dataclasses.replace(page.hand, box=Box((50.0, 50.0), side / 2))
        assert ("too few to see much of a hand" in describe(hand, guessed=True)) == told


# Both pages


def test_the_explorer_is_made_when_it_is_looked_at(predictor):
    pages = Pages(predictor, rendered=3)
    assert pages.explorer is None
    pages.panel.selected_index = 1
    explorer = pages.explorer
    assert len(explorer.walk) == 3 < OFFERED and len(explorer.walk.directions["pose"]) == 2
    assert pages.panel.children[1].children == (explorer.panel,)
    pages.panel.selected_index = 0
    pages.panel.selected_index = 1
    assert pages.explorer is explorer


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_walk_from_a_photo_starts_at_its_hand(predictor, side):
    pages = Pages(predictor, rendered=2)
    pages.photo.open(photo_file(), "p.png")
    pages.photo.controls["side"].value = side
    hand = pages.photo.hand
    pages.photo.controls["walk"].click()
    label = {"right": "p.png", "left": "p.png, mirrored"}[side]
    assert pages.panel.selected_index == 1 and pages.explorer.controls["start"].label == label
    for block in BLOCKS:
        assert_close(pages.explorer.walk.raw(block), torch.from_numpy(hand.means[block]))
    image = cut_input(hand, pages.photo._photo, predictor.px)
    again = predictor.model.encode(image).means  # what it is said to have seen leads to the same code
    for block in BLOCKS:
        assert_close(again[block][0], torch.from_numpy(hand.means[block]), rtol=1e-3, atol=1e-3)


def test_the_pages_open_the_weights_that_the_environment_names(release, monkeypatch, tmp_path):
    monkeypatch.setenv(server.WEIGHTS_VARIABLE, str(release))
    assert Pages.open().predictor.px == 64
    monkeypatch.setenv(server.WEIGHTS_VARIABLE, str(tmp_path / "none.safetensors"))
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors: missing"):
        Pages.open()


def test_a_second_walk_leaves_nothing_of_the_first(predictor):
    pages = Pages(predictor, rendered=2)
    pages.photo.open(photo_file(), "p.png")
    pages.photo.controls["walk"].click()
    first = pages.explorer.panel
    pages.photo.controls["walk"].click()
    assert pages.explorer.panel is not first
    assert first.comm is None and all(child.comm is None for child in first.children)


@pytest.mark.parametrize("step", ["davae.latent.blend.render_frame", "davae.photo.app.pages.encode",
                                  "davae.photo.app.pages.LatentExplorer"])  # fmt: skip
def test_an_explorer_that_cannot_be_made_is_told(predictor, monkeypatch, logged, step):
    pages = Pages(predictor, rendered=2)
    with monkeypatch.context() as planted:
        planted.setattr(step, fails)
        pages.panel.selected_index = 1
    (said,) = pages.panel.children[1].children
    assert "RuntimeError: no &lt;such&gt; memory" in said.value and "Traceback" in logged()
    pages.panel.selected_index = 0
    pages.panel.selected_index = 1  # and may be tried again
    assert pages.panel.children[1].children == (pages.explorer.panel,)


def test_a_mesh_is_turned_by_dragging_it_or_by_its_sliders(predictor):
    pages = Pages(predictor, rendered=2)
    pages.panel.selected_index = 1
    controls, views = pages.explorer.controls, pages.explorer.views
    before = views["mesh"].value
    views["cloud"].turn_deg, views["mesh"].tilt_deg = 90, -45
    assert (controls["turn_deg"].value, controls["tilt_deg"].value) == (90, -45)
    assert views["mesh"].value != before and views["mesh"].turn_deg == 90
    controls["turn_deg"].value = 0
    assert views["mesh"].turn_deg == views["cloud"].turn_deg == 0


# The server


def test_the_next_free_port_is_taken():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        assert taken < server.find_free_port(taken) < taken + 100
    with pytest.raises(OSError, match="name another with --port"):
        server.find_free_port(65536)


def test_what_is_missing_is_told_before_anything_is_served(tmp_path, release, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"x.safetensors: missing; .*davae pack"):
        server.serve(tmp_path / "x.safetensors")
    for name in ("keep_s", "pages", "forgotten_s"):
        with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} 0: expected"):
            server.serve(release, **{name: 0})
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"voila is not installed; `pip install -e .\[app\]`"):
        server.serve(release)


def browser_path() -> str | None:
    """A Chromium or Chrome of this machine."""
    named = map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))
    mac = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
    return next((path for path in named if path), str(mac) if mac.exists() else None)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def console(tmp_path_factory):
    """File of what the server writes."""
    return tmp_path_factory.mktemp("app") / "log.txt"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no such signals")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_the_server_is_imported_is_answered_without_a_traceback(tmp_path, stop):
    """It is answered in words once that is done."""
    words = ["-m", "davae", "app", "--port", str(free_port()), "--no-browser"]
    with (tmp_path / "said").open("w+") as said:
        process = subprocess.Popen(
            [sys.executable, *words], stdout=said, stderr=said, env=os.environ | {"PYTHONUNBUFFERED": "1"}
        )
        try:
            for _ in range(600):
                if "starting the server" in (tmp_path / "said").read_text():
                    break
                time.sleep(0.1)
            else:
                pytest.fail("the server was not started")
            time.sleep(0.2)  # the new program has begun
            process.send_signal(stop)
            code = process.wait(60)
        finally:
            process.kill()
    text = (tmp_path / "said").read_text()
    assert code == 0 and "Traceback" not in text and text.endswith("davae: the app has ended\n")


@pytest.fixture(scope="module")
def server_process(console, foreign_kernel):
    """`davae app` with the weights that come with it, on (process, port); it ends as Ctrl-C ends it.

    Its pages must run in davae's own Python, although the Jupyter path has another that is called python3.
    """
    port, log = free_port(), console
    words = ["-m", "davae", "app", "--port", port, "--no-browser", "--keep-s", KEEP_S]
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdout=file,
            stderr=file,
            env=os.environ | {"OMP_NUM_THREADS": "1", "JUPYTER_PATH": str(foreign_kernel)},
        )
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            if f"http://127.0.0.1:{port} serves the app" in log.read_text():
                break
            time.sleep(0.2)
        else:
            pytest.fail(f"the app does not answer: {log.read_text()}")
        assert answers(port)  # whoever reads the address finds the app there
        yield process, port
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0 and "davae: the app has ended" in log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def address(server_process):
    """Where it serves."""
    return f"http://127.0.0.1:{server_process[1]}/"


def answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def browser(require):
    path = browser_path()
    require(path, "needs Chromium or Chrome (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@pytest.fixture
def tab(browser, address):
    """A fresh window on the app, once its first page is there; it asks nothing of any other server."""
    context = browser.new_context(viewport={"width": 1300, "height": 1100}, permissions=["camera"])
    context.set_default_timeout(WAIT_MS)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.get_by_text("Choose a photo of one hand").wait_for()
    yield page
    context.close()
    assert address in asked
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


def choose(tab, name: str, content: bytes) -> None:
    tab.locator("input[type=file]").set_input_files({"name": name, "mimeType": "", "buffer": content})


@pytest.mark.slow
def test_a_photo_uploaded_yields_an_overlay(tab):
    """Bones and joints are drawn over the hand, which is where the weights that come with davae see it."""
    seen = render(sample_factors(11, "test", 0))
    choose(tab, "hand.png", encoded(Image.fromarray(seen.image)))
    tab.locator("canvas.davae-photo[data-joints='21']").wait_for()
    tab.get_by_text("hand.png: a").wait_for()
    with tab.expect_download() as download:
        tab.get_by_role("link", name="GLB").click()
    assert download.value.suggested_filename == "hand.glb"
    assert Path(download.value.path()).read_bytes()[:4] == b"glTF"
    drawn = tab.evaluate(
        "() => { const c = document.querySelector('canvas.davae-photo');"
        " return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data] }"
    )
    drawn = np.reshape(drawn, (*seen.image.shape[:2], 4))[..., :3]
    differs = np.abs(drawn - seen.image.astype(int)).max(2) > 60
    hand = binary_dilation(hand_pixels(seen.part_mask, seen.side), iterations=4)
    assert differs[hand].mean() > 5 * differs[~hand].mean() > 0  # beside the hand there is but the box


@pytest.mark.slow
def test_a_box_is_drawn_by_the_mouse(tab):
    choose(tab, "hand.png", photo_file(400, 300))
    tab.get_by_text("Confidence").wait_for()
    view = tab.locator("canvas.davae-photo").bounding_box()
    tab.mouse.move(view["x"] + view["width"] * 0.25, view["y"] + view["height"] * 0.25)
    tab.mouse.down()
    tab.mouse.move(view["x"] + view["width"] * 0.75, view["y"] + view["height"] * 0.5, steps=5)
    tab.mouse.up()
    tab.get_by_text("Confidence").wait_for(state="detached")
    tab.get_by_role("button", name="search the whole photo").click()
    tab.get_by_text("Confidence").wait_for()


@pytest.mark.slow
def test_text_uploaded_yields_a_sentence_and_no_traceback(tab):
    choose(tab, "notes.jpg", b"no photo at all")
    alert = tab.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text().startswith("notes.jpg: is not a picture (text); expected a photo of a hand")
    assert "Traceback" not in tab.content()
    choose(tab, "hand.png", photo_file(400, 300))  # and the page goes on
    tab.locator("canvas.davae-photo[data-joints='21']").wait_for()


@pytest.mark.slow
def test_the_camera_takes_a_photo(tab):
    tab.get_by_role("button", name="use the camera").click()
    tab.wait_for_function("document.querySelector('video')?.videoWidth > 0")
    tab.get_by_role("button", name="take the picture").click()
    tab.get_by_text("camera.jpg: a").wait_for()
    assert tab.locator("video").count() == 0


@pytest.mark.slow
def test_a_slider_moved_by_keyboard_changes_the_picture(tab):
    tab.get_by_role("tab", name=TABS[1]).click()
    sliders = tab.locator(".widget-slider", has_text="direction")
    handle = sliders.first.locator(".noUi-handle")
    handle.wait_for()
    views = tab.locator("img.widget-image:visible")
    before = [view.get_attribute("src") for view in views.all()]
    handle.focus()
    for _ in range(10):
        tab.keyboard.press("ArrowRight")
    tab.wait_for_function(
        "old => [...document.querySelectorAll('img.widget-image')].filter(i => i.offsetParent)"
        ".filter((i, n) => i.src !== old[n]).length >= 2",
        arg=before,
    )
    tab.get_by_role("button", name="swap").wait_for()
    # The handle stays where the keys have put it, and no other slider moves along.
    shown = [text.split()[-1].replace("\u2212", "-") for text in sliders.all_inner_texts()]
    assert [float(text) for text in shown] == [pytest.approx(0.5)] + [0.0] * (len(shown) - 1)


@pytest.mark.slow
def test_the_app_is_served_on_loopback_alone(address):
    with urlopen(address, timeout=WAIT_MS / 1000) as answer:
        assert answer.status == 200
    own = socket.gethostbyname(socket.gethostname())
    if not own.startswith("127."):
        with socket.socket() as asking:
            asking.settimeout(5)
            assert asking.connect_ex((own, int(address.rsplit(":", 1)[1].strip("/")))) != 0


@pytest.mark.slow
def test_nothing_overflows_a_narrow_window_and_sliders_have_a_width(tab):
    tab.set_viewport_size({"width": 390, "height": 800})
    choose(tab, "hand.png", photo_file(400, 300))
    tab.get_by_role("link", name="GLB").wait_for()
    for count, show in ((2, lambda: None), (12, lambda: tab.get_by_role("tab", name=TABS[1]).click())):
        show()
        tab.wait_for_function(
            "n => [...document.querySelectorAll('.noUi-target')].filter(e => e.offsetParent).length == n",
            arg=count,
        )
        widths = tab.evaluate(
            "[...document.querySelectorAll('.noUi-target')].filter(e => e.offsetParent)"
            ".map(e => e.clientWidth)"
        )
        assert min(widths) >= 100, widths
        beyond = "[...document.querySelectorAll('#rendered_cells *')].filter(e => e.offsetParent)"
        assert tab.evaluate(f"{beyond}.filter(e => e.getBoundingClientRect().right > 390.5).length") == 0


@pytest.mark.slow
def test_the_mesh_is_dragged_round(tab):
    choose(tab, "hand.png", photo_file(400, 300))
    view = tab.locator("img.davae-turning:visible")
    view.wait_for()
    before, place = view.get_attribute("src"), view.bounding_box()
    tab.mouse.move(place["x"] + 100, place["y"] + 100)
    tab.mouse.down()
    tab.mouse.move(place["x"] + 100 + place["width"] / 4, place["y"] + 100 - place["width"] / 6, steps=4)
    tab.mouse.up()
    turned = tab.locator(".widget-slider:visible")
    turned.filter(has_text="turn").get_by_text("45").wait_for()
    turned.filter(has_text="tilt").get_by_text("30").wait_for()
    assert view.get_attribute("src") != before


@pytest.mark.slow
def test_a_failure_in_a_callback_is_on_the_page_and_on_the_console(tab, console):
    """A message that the page never sends: the kernel's handler of it raises."""
    tab.evaluate(PLANT)
    choose(tab, "hand.png", photo_file(400, 300))
    tab.get_by_role("alert").filter(has_text="davae failed (KeyError: 'count'); please report it").wait_for()
    assert "Traceback" not in tab.content()
    assert "davae: a callback failed" in console.read_text() and "KeyError: 'count'" in console.read_text()


# The upload's message loses a field on its way.
PLANT = """() => { const send = WebSocket.prototype.send;
    WebSocket.prototype.send = function (data) {
        if (data instanceof ArrayBuffer || ArrayBuffer.isView(data)) {
            const bytes = new Uint8Array(data.buffer ?? data);
            const wanted = new TextEncoder().encode('"count"');
            for (let at = 0; at + wanted.length < bytes.length; at++)
                if (wanted.every((byte, n) => bytes[at + n] === byte)) { bytes[at + 1] = 67; break; }
        }
        return send.call(this, data);
    }; }"""


@pytest.mark.slow
def test_kernels_of_pages_closed_abruptly_end(browser, address, server_process):
    """Nothing is said to the server, as when a browser is killed: a new one is, with its pages."""
    process, _ = server_process
    kernels = lambda: [child for child in psutil.Process(process.pid).children() if child.is_running()]  # noqa: E731
    before = {child.pid for child in kernels()}
    doomed = browser.browser_type.launch(executable_path=browser_path(), args=["--no-sandbox"])
    page = doomed.new_page()
    page.goto(address)
    page.get_by_text("Choose a photo of one hand").wait_for(timeout=WAIT_MS)
    (own,) = [child for child in kernels() if child.pid not in before]
    page.route("**/voila/api/shutdown/**", lambda route: route.abort())
    doomed.close()
    assert own.is_running()
    own.wait(WAIT_MS / 1000)


@pytest.mark.slow
def test_a_page_whose_process_ended_says_so(tab, server_process):
    newest = max(psutil.Process(server_process[0].pid).children(), key=lambda child: child.create_time())
    newest.kill()
    tab.get_by_role("alert").filter(has_text="This page has ended").wait_for()


def test_no_configuration_file_moves_the_server_off_loopback(tmp_path, monkeypatch):
    """Jupyter's files come before what a program says, unless it has none read."""
    from davae.photo.app import voila_server

    began = []
    other = {"multi_kernel_manager_class": "someone.else.Kernels"}
    said = {"Voila": {"ip": "0.0.0.0", "log_level": "DEBUG"}, "VoilaConfiguration": other}
    (tmp_path / "voila.json").write_text(json.dumps(said))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr(voila_server.Server, "start", lambda self: began.append(self))
    monkeypatch.setattr(
        sys, "argv", ["voila_server", str(server.NOTEBOOK), str(free_port()), "False", "9", "2", "60"]
    )
    try:
        voila_server.main()
        (voila,) = began
        assert voila.ip == "127.0.0.1" and voila.log_level == logging.ERROR
        kernels = voila.config.VoilaConfiguration.multi_kernel_manager_class
        assert kernels is voila_server.PageKernels
        bounds = voila_server.PageKernels(config=voila.config)
        assert (bounds.most, bounds.forgotten_s, bounds.cull_idle_timeout) == (2, 60, 9)
        served = voila.voila_configuration
        assert served.file_allowlist == [] and served.allow_template_override == "NO"
        assert served.allow_theme_override == "NO"
    finally:
        voila_server.Server.clear_instance()
