"""The book: its parts without Sphinx, which only `make book` installs; the recorded sliders in a browser."""

import base64
import gzip
import io
import json
import re
import shutil
import sys
import tomllib
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image
from test_app import WAIT_MS, browser_path

from davae.config import BLOCKS
from davae.networks import DaVAE

REPOSITORY = Path(__file__).parents[1]
BOOK = REPOSITORY / "docs" / "book"
BONE_MM = 44.0
STEPS = {"pose": 3, "appearance": 2, "shape": 2}

sys.path.insert(0, str(BOOK))
import check  # noqa: E402
import docstrings  # noqa: E402
import record  # noqa: E402
import stage  # noqa: E402

# Notebooks


def notebook(*cells: dict, **metadata) -> dict:
    return {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def code(source: str = "x", outputs=(), tags=()) -> dict:
    return {
        "cell_type": "code",
        "id": "cell",
        "source": source,
        "outputs": list(outputs),
        "metadata": {"tags": list(tags)} if tags else {},
        "execution_count": 1,
    }


def display(**data) -> dict:
    return {"output_type": "display_data", "data": data, "metadata": {}}


def prepared(*cells: dict, **metadata) -> list[dict]:
    return stage.prepare_notebook(notebook(*cells, **metadata), str)["cells"]


@pytest.mark.parametrize(
    ("tag", "button"), [("solution", "Solution"), ("mistakes", "Mistakes the check catches")]
)
def test_solutions_and_mistakes_are_folded_and_the_notebook_is_not_changed(tag, button):
    cell = code("answer = 1", tags=[tag])
    before = json.dumps(cell)
    (shown,) = prepared(cell)
    assert shown["metadata"]["tags"] == sorted(["hide-cell", tag])
    assert shown["metadata"]["mystnb"]["code_prompt_show"] == button
    assert shown["source"] == "answer = 1"
    assert json.dumps(cell) == before


def test_other_cells_are_not_folded():
    cells = prepared(code("check_answer()", tags=["check"]), code("plain"))
    assert [cell["metadata"] for cell in cells] == [{"tags": ["check"]}, {}]


def test_progress_bars_go_and_what_is_printed_stays():
    outputs = [{"output_type": "stream", "name": name, "text": name} for name in ("stderr", "stdout")]
    (cell,) = prepared(code(outputs=outputs))
    assert [output["name"] for output in cell["outputs"]] == ["stdout"]


def test_no_page_names_the_folder_in_which_the_notebook_ran():
    outputs = [
        {
            "output_type": "stream",
            "name": "stdout",
            "text": ["in /some/where/outputs/runs\n", "/some/where"],
        },
        display(**{"text/plain": "'/some/where/data'"}),
    ]
    ran = {"papermill": {"parameters": {"home": "/some/where", "preset": "laptop"}}}
    cells = prepared(
        code("title"), code('a = 1\nhome = "/some/where"\nb = 2', outputs, [stage.INJECTED]), **ran
    )
    assert "/some/where" not in json.dumps(cells)
    assert cells[2]["source"] == "a = 1\nb = 2"
    assert cells[2]["outputs"][0]["text"] == ["in outputs/runs\n", "."]


@pytest.mark.parametrize(("preset", "says"), [("smoke", True), ("laptop", False)])
def test_a_page_says_at_which_preset_it_ran(preset, says):
    title, note, _ = prepared(
        code("title"), code("rest"), papermill={"parameters": {"preset": preset, "dataset": "stb"}}
    )
    assert title["source"] == "title"
    assert f"preset `{preset}` on dataset `stb`" in note["source"]
    assert ("nothing is learnt" in note["source"]) == says
    assert len(prepared(code("title"), code("rest"))) == 2


def test_a_plotly_figure_is_put_into_the_page():
    figure = {"data": [{"x": [1, 2], "text": "</script><b>"}], "layout": {"height": 300}, "config": {}}
    (cell,) = prepared(code(outputs=[display(**{stage.PLOTLY: figure, "text/plain": "a figure"})]))
    (text,) = cell["outputs"][0]["data"].values()
    (within,) = re.findall(r'<script type="application/json">(.*?)</script>', text)
    assert json.loads(within) == {"data": figure["data"], "layout": figure["layout"]}


def test_widgets_become_a_sentence_that_leads_to_the_recorded_ones():
    outputs = [display(**{stage.WIDGET: {"model_id": "1"}, "text/plain": "VBox()"})]
    found = stage.prepare_notebook(notebook(code(outputs=outputs), widgets={"state": {}}), str)
    assert found["cells"][0]["outputs"][0]["data"] == {"text/html": stage.NEEDS_KERNEL}
    assert "widgets" not in found["metadata"]


# Links


@pytest.fixture
def clone(tmp_path):
    """A small repository."""
    for name in (
        *("README.md", "LICENSE", "docs/a.md", "docs/pictures/a.png", "notebooks/01_one.ipynb"),
        *(
            "docs/book/recorded.md",
            "davae/losses.py",
            "davae/photo/__init__.py",
            "benchmarks/suite.py",
            "findings/README.md",
        ),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("a.md#part", "a.md#part"),
        ("../README.md", "../README.md"),
        ("../findings", "../findings/README.md"),
        ("../notebooks", "../notebooks/01_one.ipynb"),
        ("../notebooks/01_one.ipynb", "../notebooks/01_one.ipynb"),
        ("pictures/a.png", "pictures/a.png"),
        ("../davae/losses.py", "../reference/davae/losses/index.rst"),
        ("../davae/photo/__init__.py", "../reference/davae/photo/index.rst"),
        ("../benchmarks/suite.py", "../files/benchmarks/suite.py.txt"),
        ("../LICENSE", "../files/LICENSE.txt"),
        ("../benchmarks/", "README.md"),
        ("book/recorded.md", "../recorded.md"),
        ("https://example.org/a.py", "https://example.org/a.py"),
    ],
)
def test_links_lead_to_what_the_site_has(clone, target, expected):
    pages, linked = {"README.md", "docs/a.md", "findings/README.md", "notebooks/01_one.ipynb"}, set()
    found = stage.rewrite_links(f"see [it]({target}).", "docs/a.md", pages, linked, clone)
    assert found == f"see [it]({expected})."
    assert linked == {name for name in ("docs/pictures/a.png", "benchmarks/suite.py", "LICENSE")
                      if target.endswith(Path(name).name)}  # fmt: skip


def test_links_of_the_books_own_pages_hold_where_they_are_laid(clone):
    found = stage.rewrite_links(
        "[a](../a.md) [r](recorded.md)", "docs/book/recorded.md", {"docs/a.md"}, set(), clone
    )
    assert found == "[a](docs/a.md) [r](recorded.md)"


def test_a_link_to_nothing_is_an_error(clone):
    with pytest.raises(FileNotFoundError, match=r"docs/a\.md links to b\.md, which does not exist"):
        stage.rewrite_links("[b](b.md)", "docs/a.md", set(), set(), clone)


def test_names_of_notebooks_become_links_and_code_does_not(clone):
    text = "| `01_one` | `02_two` |\n```\n`01_one`\n```\n[`01_one`](x:)"
    found = stage.rewrite_links(text, "docs/a.md", {"notebooks/01_one.ipynb"}, set(), clone)
    assert found == text.replace("| `01_one`", "| [`01_one`](../notebooks/01_one.ipynb)", 1)


def test_pages_that_the_contents_do_not_name_are_listed_last():
    index = "```{toctree}\ndocs/a\nOverview <README>\n```\n"
    found = stage.list_others(index, {"docs/a.md", "README.md", "docs/new.md", "notebooks/01_one.ipynb"})
    assert re.findall(r"^[a-zA-Z/]+$", found, re.MULTILINE) == ["docs/new"]
    assert stage.list_others(index, {"docs/a.md"}) == ""


@pytest.fixture
def executed(tmp_path):
    """A folder of the repository's notebooks as if executed, and one of the recorded parts, empty files."""
    notebooks, parts = tmp_path / "executed", tmp_path / "parts"
    notebooks.mkdir()
    parts.mkdir()
    for source in (REPOSITORY / "notebooks").glob("*.ipynb"):
        copy = nbformat.read(source, as_version=4)
        for count, cell in enumerate([cell for cell in copy.cells if cell.cell_type == "code"], 1):
            cell.execution_count = count
        nbformat.write(copy, notebooks / source.name)
    for name in stage.PARTS:
        (parts / name).touch()
    return notebooks, parts


def test_the_whole_repository_can_be_laid_out(tmp_path, executed):
    out = tmp_path / "out"
    found = stage.stage(*executed, out)
    assert found["notebooks"] == len(list((REPOSITORY / "notebooks").glob("*.ipynb")))
    assert {"index.md", "README.md", "docs/paper.md", "davae/photo/weights/README.md", "reference.md"} <= {
        path.relative_to(out).as_posix() for path in out.rglob("*.md")
    }
    for path in (out / "notebooks").glob("*.ipynb"):
        nbformat.validate(nbformat.read(path, as_version=4))
    # The book's own pages link to pages that are there.
    for name in stage.OWN_PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", (out / name).read_text(encoding="utf-8")):
            assert (out / target).is_file(), f"{name}: {target}"
    stage.stage(*executed, out)  # a folder of its own is made anew


def test_answers_in_the_book_are_folded():
    text = "**Predict.** Which?\n\n**Answer.** This one."
    (shown,) = prepared({"cell_type": "markdown", "id": "cell", "source": text, "metadata": {}})
    assert shown["source"].startswith("**Predict.** Which?\n\n<details>")
    assert shown["source"].endswith("**Answer.** This one.\n\n</details>")


def test_a_folder_of_the_user_is_not_emptied(tmp_path, executed):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.txt").touch()
    with pytest.raises(FileExistsError, match=r"was not made by docs/book/stage\.py"):
        stage.stage(*executed, tmp_path / "mine")
    assert (tmp_path / "mine" / "mine.txt").exists()


def test_notebooks_that_were_not_executed_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no executed copy of 0\d_.*; run `make notebooks`"):
        stage.stage(tmp_path, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unexecuted_notebooks_and_missing_parts_are_named(tmp_path, executed):
    notebooks, parts = executed
    shutil.copy(REPOSITORY / "notebooks" / "02_training.ipynb", notebooks)
    with pytest.raises(ValueError, match=r"executed: 02_training\.ipynb was never executed; run `make"):
        stage.stage(notebooks, parts, tmp_path / "out")
    (notebooks / "02_training.ipynb").write_bytes((notebooks / "06_sota_tables.ipynb").read_bytes())
    (parts / "frames.js").unlink()
    with pytest.raises(FileNotFoundError, match=r"parts: no frames\.js; run docs/book/record\.py"):
        stage.stage(notebooks, parts, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Docstrings


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a `Rig` of |p - q|", r"a `Rig` of \|p - q\|"),
        ("`x = 1` and `StandIn`s", r"``x = 1`` and `StandIn`\ s"),
        ("*args and z_ here", r"\*args and z\_ here"),
        ("- one * two", r"- one \* two"),
        ("a_b stays", "a_b stays"),
        ("see `notebooks/02_x.ipynb`", "see :doc:`notebooks/02_x.ipynb </notebooks/02_x>`"),
    ],
)
def test_letters_of_a_docstring_mean_themselves(line, expected):
    assert docstrings.convert_line(line) == expected


def test_an_indented_block_stays_as_it_is_and_lists_and_sections_do_not_become_one():
    table = ["Groups:", "", "    pose   | a", "    shape  | b", "", "After."]
    assert docstrings.to_rst(table) == ["Groups:", "", "::", "", *table[2:]]
    section = ["Args:", "    x: a thing,", "        in two lines.", "", "Returns:", "    it"]
    assert docstrings.to_rst(section) == section
    points = ["- one", "", "  more of one", "- two"]
    assert docstrings.to_rst(points) == points


# The check of a site


def write_site(folder: Path, **pages: str) -> Path:
    for name, text in pages.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


def test_a_sound_site_has_no_faults(tmp_path):
    site = write_site(
        tmp_path,
        index__html='<h1 id="top"></h1><a href="b.html#part">b</a> <a href="#top">up</a>'
        '<a href="https://example.org">far</a><link rel="canonical" href="https://example.org">'
        '<link rel="stylesheet" href="a.css?v=1"><img src="data:image/png;base64,AA==">',
        b__html='<p id="part"></p><a href="./">home</a>',
        a__css="a { background: url(data:image/png;base64,AA==) }",
    )
    report = check.check_site(site)
    assert (report.pages, report.broken, report.external) == (2, [], [])
    assert report.size == sum(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        '<a href="none.html">x</a>',
        '<a href="#none">x</a>',
        '<a href="index.html#none">x</a>',
        '<a href="/index.html">x</a>',
        '<a href="../index.html">x</a>',
        '<img src="none.png">',
        '<div style="background: url(none.png)"></div>',
    ],
)
def test_broken_links_are_found(tmp_path, text):
    (tmp_path / "site").mkdir()
    report = check.check_site(write_site(tmp_path / "site", index__html=text))
    assert len(report.broken) == 1 and not report.external


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<script src="//cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="https://cdn.example/x.css">',
        '<link rel="preconnect" href="https://fonts.example">',
        '<img srcset="https://cdn.example/x.png 2x">',
        '<iframe src="https://example.org"></iframe>',
        "<style>@import 'https://cdn.example/x.css';</style>",
        '<p style="background: url(https://cdn.example/x.png)"></p>',
    ],
)
def test_what_is_loaded_from_another_host_is_found(tmp_path, text):
    report = check.check_site(write_site(tmp_path, index__html=text))
    assert len(report.external) == 1 and not report.broken
    style = write_site(
        tmp_path, index__html="", a__css="@font-face { src: url('https://cdn.example/f.woff') }"
    )
    assert len(check.check_site(style).external) == 1


# What makes the site


def test_the_lock_of_the_book_pins_what_pyproject_asks_for():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (BOOK / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = [Requirement(line) for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"==[\w.]+", str(one.specifier)) for one in locked)
    pins = {canonicalize_name(one.name): next(iter(one.specifier)).version for one in locked}
    for line in project["optional-dependencies"]["book"]:
        wanted = Requirement(line)
        assert pins.get(wanted.name) in wanted.specifier, f"{line}: run `make lockbook`"


# The recorded sliders


@pytest.fixture(scope="module")
def recording(tiny_config):
    torch.manual_seed(1)
    model = DaVAE(tiny_config.model).eval()
    codes = {block: 3 * torch.randn(2, size) for block, size in model.config.latent_sizes.items()}
    found = record.record(model, codes, BONE_MM, STEPS)
    # The clouds of untrained weights lie far outside the view.
    return found._replace(clouds_mm=found.clouds_mm / np.abs(found.clouds_mm).max() * found.half_mm)


@pytest.fixture(scope="module")
def parts(recording, tmp_path_factory):
    """The folder that a page of recorded sliders needs."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "frames.webp").write_bytes(record.make_sheet(recording.images))
    ends = recording.images[[0, -1], [0, -1], [0, -1]]
    (folder / "frames.js").write_text(record.make_script(recording, ends), encoding="utf-8")
    for name in ("recorded.js", "book.css"):
        (folder / name).write_bytes((BOOK / "static" / name).read_bytes())
    return folder


def test_each_block_moves_what_reads_it(recording):
    assert recording.images.shape[:3] == tuple(STEPS[block] for block in ("pose", "appearance", "shape"))
    joints, cloud, _ = np.moveaxis(recording.changes, -1, 0)
    assert (recording.changes[0, 0, 0] == 0).all()
    assert (joints[1:] > 0).all() and (joints[0] == 0).all()
    assert (joints == joints[:, :1, :1]).all()  # neither appearance nor shape moves joints
    assert (cloud == cloud[:, :1]).all() and (cloud[0, 0, 1:] > 0).all()
    for axis in range(3):
        first, second = (recording.images.take(place, axis) for place in (0, 1))
        assert (first != second).any()


def test_the_page_gets_what_was_recorded(recording, parts):
    script = (parts / "frames.js").read_text(encoding="utf-8")
    data = json.loads(script.removeprefix("window.davaeFrames = ").rstrip().removesuffix(";"))

    def unpack(name: str, kind: str) -> np.ndarray:
        return np.frombuffer(gzip.decompress(base64.b64decode(data[name])), kind)

    vertices = unpack("vertices", "<i2").reshape(recording.vertices_mm.shape).cumsum(0) * data["units_mm"]
    assert np.abs(vertices - recording.vertices_mm).max() <= data["units_mm"] / 2 + 1e-4
    clouds = unpack("clouds", "i1").reshape(recording.clouds_mm.shape) * data["cloud_mm"]
    assert np.abs(clouds - recording.clouds_mm).max() <= data["cloud_mm"] / 2 + 1e-4
    assert (unpack("faces", "<u2").reshape(-1, 3) == recording.faces).all()
    assert np.allclose(data["changes"], recording.changes, atol=0.051)
    assert data["hues"].keys() == set(BLOCKS)


def test_a_frame_lies_where_the_page_looks_for_it(recording):
    """recorded.js: column = pose, row = appearance * steps of shape + shape."""
    images = np.zeros((3, 2, 2, 32, 32, 3), np.uint8)
    for p, a, s in np.ndindex(3, 2, 2):
        images[p, a, s] = (80 * p, 120 * a, 120 * s)
    sheet = np.asarray(Image.open(io.BytesIO(record.make_sheet(images))).convert("RGB"))
    for p, a, s in np.ndindex(3, 2, 2):
        row = 2 * a + s
        tile = sheet[32 * row + 8 : 32 * row + 24, 32 * p + 8 : 32 * p + 24].reshape(-1, 3).mean(0)
        assert np.abs(tile - (80 * p, 120 * a, 120 * s)).max() < 12


@pytest.fixture(scope="module")
def chromium(require):
    path = browser_path()
    require(path, "needs Chromium or Chrome (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def test_the_recorded_sliders_work_from_a_folder_by_keyboard_and_mouse(chromium, parts):
    (element,) = re.findall(r"<div class=.*</div>", (BOOK / "recorded.md").read_text(encoding="utf-8"))
    page_file = parts / "recorded.html"
    page_file.write_text(
        f'<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="book.css"><body>{element}'
        '<script defer src="frames.js"></script><script defer src="recorded.js"></script>',
        encoding="utf-8",
    )
    page, faults = chromium.new_page(viewport={"width": 900, "height": 900}), []
    page.set_default_timeout(WAIT_MS)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda request: faults.append(request.url))
    page.goto(page_file.as_uri())
    page.get_by_role("button", name="reset").wait_for()

    def state() -> dict:
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return json.loads(page.locator(".davae-recorded").get_attribute("data-state"))

    def shot(name: str) -> bytes:
        return page.locator(f".davae-{name}").screenshot()

    begin = dict.fromkeys([*BLOCKS, "turn", "tilt"], 0)
    assert state() == begin
    first = {name: shot(name) for name in ("image", "mesh", "cloud")}
    for block, moved in {"pose": "image mesh cloud", "appearance": "image", "shape": "image cloud"}.items():
        page.get_by_role("slider", name=block).focus()
        page.keyboard.press("ArrowRight")
        assert state() == begin | {block: 1}
        assert {name for name in first if shot(name) != first[name]} == set(moved.split())
        page.keyboard.press("ArrowLeft")
        assert state() == begin
    view = page.locator(".davae-mesh")
    view.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    assert state() == begin | {"turn": 10, "tilt": 5}
    box = view.bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 50 + box["width"] / 2, box["y"] + 50)  # a quarter turn
    page.mouse.up()
    assert state()["turn"] == pytest.approx(100, abs=5)
    assert shot("mesh") != first["mesh"] and shot("image") == first["image"]
    page.get_by_role("slider", name="pose").fill("2")
    assert state()["pose"] == 2
    assert "joints 0.0" not in page.get_by_role("status").inner_text()
    page.get_by_role("button", name="reset").click()
    assert state() == begin
    assert {name: shot(name) for name in first} == first
    assert not faults
