"""The app: its pages without a browser, then served by Voila and used by a real one."""

import base64
import dataclasses
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_dilation
from test_photo import encoded, picture
from torch.testing import assert_close

from davae.app import photo_page, server
from davae.app.canvas import PhotoCanvas
from davae.app.pages import OFFERED, Pages, seen
from davae.app.photo_page import DOUBTFUL, PhotoPage, describe, links
from davae.config import BLOCKS
from davae.data.synthhand import render, sample_factors
from davae.data.synthhand_view import hand_pixels
from davae.hand.gltf import read_skinned_mesh
from davae.photo.finding import SMALL_PX, Box
from davae.predict import HandPredictor, reference_bone_mm
from davae.skeleton import BONES

WAIT_MS = 120_000  # for what a busy machine does late; a sound one is done in seconds
TABS = ("your photo", "latent space")


@pytest.fixture(scope="module")
def predictor(release):
    return HandPredictor.load(release, bf16=False)


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
    assert f"a {hand.side} hand (guessed)" in page.message.value and "Confidence" in page.message.value
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
    assert "<img" not in links({"json": b""}, "<img src='x'>") and "src='" not in links(
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


def test_a_fault_of_our_own_is_told_too(page, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no memory")

    monkeypatch.setattr(page.predictor, "predict", fails)
    with pytest.raises(RuntimeError, match="no memory"):
        page.open(photo_file(), "p.png")
    assert "davae failed on p.png (RuntimeError: no memory)" in page.message.value
    assert not page.canvas.busy


@pytest.mark.parametrize("stage", ["read", "show"])
def test_what_nobody_foresaw_leaves_no_old_hand(page, monkeypatch, stage):
    page.open(photo_file(), "good.png")
    if stage == "read":
        monkeypatch.setattr(photo_page, "read_photo", lambda *_: 1 / 0)
    else:
        monkeypatch.setattr(PhotoCanvas, "show", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        page.open(photo_file(), "bad.png")
    assert "bad.png: davae failed on it (ZeroDivisionError" in page.message.value
    assert hidden(page) and page.hand is None and page.canvas.picture == b""


def test_a_photo_that_was_reduced_is_shown_and_told_in_its_own_pixels(page, monkeypatch):
    monkeypatch.setattr("davae.photo.reading.WHOLE_PIXELS", 160 * 120)
    page.open(photo_file(320, 240), "large.png")
    assert page.canvas.size == [320, 240] and page.hand.photo_px == (320, 240)
    np.testing.assert_array_equal(page.canvas.joints, page.hand.joints_px)
    page.canvas.drawn = [200, 100, 90, 90]
    assert page.hand.box.centre == pytest.approx((244.5, 144.5)) and page.hand.box.half == 45
    assert seen(page.hand, page._photo, page.predictor.px).shape[1] == 3


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


def test_little_confidence_is_called_so(page):
    page.open(photo_file(), "p.png")
    hand = page.hand
    object.__setattr__(hand.box, "confidence", DOUBTFUL / 2)
    assert "That is little" in describe(hand, guessed=True, searched=True)
    assert "That is little" not in describe(hand, guessed=True, searched=False)
    object.__setattr__(hand.box, "confidence", 2 * DOUBTFUL)
    assert "That is little" not in describe(hand, guessed=False, searched=True)


def test_a_small_box_is_called_so(page):
    page.open(photo_file(), "p.png")
    for side, told in ((SMALL_PX / 2, True), (SMALL_PX, False)):
        hand = dataclasses.replace(page.hand, box=Box((50.0, 50.0), side / 2))
        assert ("little of a hand is seen" in describe(hand, guessed=True, searched=False)) == told


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
    image = seen(hand, pages.photo._photo, predictor.px)
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


def test_hands_that_cannot_be_rendered_are_told(predictor, monkeypatch):
    pages = Pages(predictor, rendered=2)

    def broken(*_):
        raise RuntimeError("no <such> luck")

    monkeypatch.setattr(pages, "_render", broken)
    with pytest.raises(RuntimeError):
        pages.panel.selected_index = 1
    (said,) = pages.panel.children[1].children
    assert "RuntimeError: no &lt;such&gt; luck" in said.value


# The server


def test_the_next_free_port_is_taken():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        assert taken < server.free_port(taken) < taken + 100
    with pytest.raises(OSError, match="name another with --port"):
        server.free_port(65536)


def test_what_is_missing_is_told_before_anything_is_served(tmp_path, release, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"x.safetensors: missing; .*davae pack"):
        server.serve(tmp_path / "x.safetensors")
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
def address(tmp_path_factory, foreign_kernel):
    """Where `davae app` serves the weights that come with it; it ends as Ctrl-C would end it.

    Its pages must run in davae's own Python, although the Jupyter path has another that is called python3.
    """
    port, log = free_port(), tmp_path_factory.mktemp("app") / "log.txt"
    words = ["-m", "davae", "app", "--port", port, "--no-browser"]
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
            if answers(port):
                break
            time.sleep(0.2)
        else:
            pytest.fail(f"the app does not answer: {log.read_text()}")
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(30)


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
    """A fresh window on the app, once its first page is there."""
    context = browser.new_context(viewport={"width": 1300, "height": 1100}, permissions=["camera"])
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.goto(address)
    page.get_by_text("Choose a photo of one hand").wait_for()
    yield page
    context.close()


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
    tab.get_by_role("button", name="look all over the photo").click()
    tab.get_by_text("Confidence").wait_for()


@pytest.mark.slow
def test_text_uploaded_yields_a_sentence_and_no_traceback(tab):
    choose(tab, "notes.jpg", b"no photo at all")
    alert = tab.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text().startswith("notes.jpg: is no picture (text); expected a photo of a hand")
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
