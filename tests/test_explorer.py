"""The explorer without a browser: effects of sliders on codes and views, and what is recomputed."""

import base64
import dataclasses
import io
from collections import Counter

import ipywidgets as widgets
import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nbclient import NotebookClient
from PIL import Image
from torch.testing import assert_close

from davae.config import BLOCKS
from davae.latent.codes import Change, encode, lerp
from davae.latent.walk import ALL, VIEWS, LatentWalk
from davae.networks import DaVAE
from davae.photo import explorer as module
from davae.photo.explorer import LatentExplorer, describe
from davae.photo.kernels import OwnKernel
from synthhand.model.procedural import procedural_rig
from synthhand.skeleton import ROOT

BONE_MM = 44.0
PX = 48


@pytest.fixture(scope="module")
def model(tiny_config):
    """Random weights, but around a hand: what codes decode to differs, and is seen in the views."""
    torch.manual_seed(2)
    model = DaVAE(tiny_config.model).eval()
    joints = torch.from_numpy(procedural_rig().joints_mm / BONE_MM).float()
    with torch.no_grad():
        model.pose_decoder[-1].bias.copy_((joints - joints[ROOT]).flatten())
        for layer in (model.pose_decoder[-1], model.cloud_decoder.second.out):
            spread = layer(torch.rand(64, layer.in_features)).std(0).mean()
            layer.weight *= 0.3 / spread
    return model


@pytest.fixture(scope="module")
def images():
    return torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def codes(model):
    generator = torch.Generator().manual_seed(1)
    return {b: torch.randn(6, z, generator=generator) for b, z in model.config.latent_sizes.items()}


@pytest.fixture(scope="module")
def reference(model):
    generator = torch.Generator().manual_seed(3)
    return {b: torch.randn(60, z, generator=generator) for b, z in model.config.latent_sizes.items()}


@pytest.fixture
def walk(model, codes, reference):
    return LatentWalk(model, codes, BONE_MM, reference=reference, px=PX)


@pytest.fixture
def explorer(model, images, codes, reference):
    return LatentExplorer(model, images, codes, bone_mm=BONE_MM, reference=reference, px=PX)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_a_small_hand_looks_like_a_large_one(model, codes):
    """All views are in bones: only what is measured in mm tells one from the other."""
    small, large = (LatentWalk(model, codes, bone_mm, px=PX) for bone_mm in (BONE_MM / 2, BONE_MM))
    for view in ("mesh", "cloud"):
        one, other = (pixels(walk.views()[view]).astype(int) for walk in (small, large))
        assert np.abs(one - other).mean() < 0.5 and other.std() > 10


def differing(before, after):
    return {view for view in VIEWS if before[view] != after[view]}


# The walk


def test_it_starts_at_the_reconstruction_of_the_start(model, codes, walk):
    whole = model.decode({block: code[:1] for block, code in codes.items()})
    found = walk.decoding()
    assert_close(found.joints_mm, BONE_MM * whole.pose[0])
    assert_close(found.image, whole.image[0])
    assert walk.change() == Change(0.0, 0.0, 0.0)


@pytest.mark.parametrize("block", [*BLOCKS, ALL])
def test_the_chosen_block_goes_to_the_end_and_the_others_stay(codes, walk, block):
    walk.block, walk.end = block, 3
    for share in (0.0, 0.25, 1.0):
        walk.share = share
        for other in BLOCKS:
            start, end = codes[other][0], codes[other][3]
            expected = lerp(start, end, share) if block in (other, ALL) else start
            assert torch.equal(walk.raw(other), expected)
    change = walk.change()
    assert (change.joints_mm > 0) == (block in ("pose", ALL))
    assert (change.cloud_mm > 0) == (block != "appearance")


def test_the_way_can_be_a_great_circle(codes, walk):
    walk.path, walk.share = "great circle", 0.5
    lengths = torch.linalg.vector_norm(codes["pose"][:2], dim=1)
    assert_close(torch.linalg.vector_norm(walk.raw("pose")), lengths.mean())


@settings(max_examples=30)
@given(st.data())
def test_principal_and_single_dimensions_agree(model, codes, reference, data):
    """Whatever is set by either is what both say, and both lead to the same code."""
    walk = LatentWalk(model, codes, BONE_MM, reference=reference, px=PX)
    other = LatentWalk(model, codes, BONE_MM, reference=reference, px=PX)
    for each in (walk, other):
        each.share = 0.3
    block = data.draw(st.sampled_from(BLOCKS))
    size = len(walk.raw(block))
    for _ in range(3):
        direction, value = data.draw(st.integers(0, size - 1)), data.draw(st.floats(-4, 4))
        before = walk.principal(block)
        walk.set_principal(block, direction, value)
        expected = before.index_fill(0, torch.tensor(direction), value)
        assert_close(walk.principal(block), expected, atol=1e-4, rtol=1e-4)
    for dimension, value in enumerate(walk.raw(block).tolist()):
        other.set_raw(block, dimension, value)
    assert_close(other.raw(block), walk.raw(block), atol=1e-5, rtol=1e-5)
    assert_close(other.principal(block), walk.principal(block), atol=1e-4, rtol=1e-4)
    for unmoved in set(BLOCKS) - {block}:
        assert not walk.principal(unmoved).any()


def test_reset_random_and_swap(codes, walk):
    walk.start, walk.end, walk.block = 2, 4, "shape"
    origin = walk.decoding()
    walk.share = 0.6
    walk.set_principal("pose", 0, 2.0)
    walk.random(torch.Generator().manual_seed(0))
    assert torch.equal(walk.raw("appearance"), codes["appearance"][2])
    drawn = walk.directions["shape"].sample(1, torch.Generator().manual_seed(0))[0]
    assert_close(walk.raw("shape"), drawn)
    walk.reset()
    assert walk.share == 0 and all(torch.equal(walk.raw(b), codes[b][2]) for b in BLOCKS)
    assert torch.equal(walk.decoding().image, origin.image)
    walk.share = 1.0
    assert torch.equal(walk.raw("shape"), codes["shape"][4])
    walk.swap()
    assert (walk.start, walk.end, walk.share) == (4, 2, 0.0)
    assert all(torch.equal(walk.raw(b), codes[b][4]) for b in BLOCKS)
    assert walk.change() == Change(0.0, 0.0, 0.0)


def test_moving_appearance_leaves_joints_and_cloud_as_they_are(walk):
    before, views = walk.decoding(), walk.views()
    walk.set_principal("appearance", 0, 3.0)
    after = walk.decoding()
    assert torch.equal(before.joints_mm, after.joints_mm) and torch.equal(before.cloud_mm, after.cloud_mm)
    assert not torch.equal(before.image, after.image)
    assert differing(views, walk.views()) == {"image"}


def test_only_what_a_move_alters_is_computed(walk):
    walk.views()
    for move, decoded, drawn, solved in (
        (lambda: walk.set_principal("pose", 0, 2.0), {"pose", "cloud", "image"}, set(VIEWS), 1),
        (lambda: walk.set_principal("shape", 0, 2.0), {"cloud", "image"}, {"cloud", "image"}, 0),
        (lambda: walk.set_principal("appearance", 0, 2.0), {"image"}, {"image"}, 0),
        (lambda: setattr(walk, "turn_deg", 30.0), set(), {"mesh", "cloud"}, 0),
        (lambda: setattr(walk, "path", "great circle"), set(), set(), 0),  # at share 0 all ways are one
        (lambda: None, set(), set(), 0),
    ):
        calls, pictures, fits = Counter(walk.decoder.calls), Counter(walk.drawn), walk.solved
        move()
        walk.views()
        walk.change()
        assert set(Counter(walk.decoder.calls) - calls) == decoded
        assert set(Counter(walk.drawn) - pictures) == drawn
        assert walk.solved - fits == solved


def test_steps_leave_the_walk_where_it_was(walk):
    walk.share = 0.4
    before = walk.views()
    found = walk.steps(3)
    assert [step.share for step in found] == [0.0, 0.5, 1.0]
    assert found[0].change == Change(0.0, 0.0, 0.0)
    assert found[1].change.joints_mm > 0 and found[2].change.joints_mm > 0
    assert walk.share == 0.4 and walk.views() == before


# Widgets


def test_views_are_pictures_that_follow_the_pose(explorer):
    before = {view: explorer.views[view].value for view in VIEWS}
    for view, side in (("image", 64), ("mesh", PX), ("cloud", PX)):
        picture = pixels(before[view])
        assert picture.shape == (side, side, 3) and picture.std() > 1
    explorer.sliders["pose"][0].value = 3.0
    after = {view: explorer.views[view].value for view in VIEWS}
    assert differing(before, after) == set(VIEWS)
    assert "joints 0.0 mm" not in explorer.changed.value
    explorer.sliders["pose"][0].value = 0.0
    assert "joints 0.0 mm" in explorer.changed.value


def test_sliders_of_a_block_move_that_block(explorer, codes):
    for block in BLOCKS:
        explorer.controls["reset"].click()
        explorer.sliders[block][1].value = -1.5
        found = explorer.walk.directions[block]
        expected = codes[block][0] - 1.5 * found.deviations[1] * found.directions[1]
        assert_close(explorer.walk.raw(block), expected, atol=1e-5, rtol=1e-5)
        for other in set(BLOCKS) - {block}:
            assert torch.equal(explorer.walk.raw(other), codes[other][0])


def test_single_dimensions_are_folded_away_and_agree_when_unfolded(explorer):
    explorer.sliders["shape"][0].value = 2.0
    fold = explorer.folds["shape"]
    assert fold.selected_index is None
    fold.selected_index = 0
    shown = torch.tensor([slider.value for slider in explorer.raw["shape"]])
    assert_close(shown, explorer.walk.raw("shape"))
    explorer.raw["shape"][3].value += 0.4
    assert explorer.walk.raw("shape")[3] == pytest.approx(explorer.raw["shape"][3].value, abs=1e-6)
    expected = explorer.walk.principal("shape")
    assert [s.value for s in explorer.sliders["shape"]] == pytest.approx(expected[:3].tolist())
    explorer.sliders["shape"][0].value = 0.0
    assert_close(torch.tensor([slider.value for slider in explorer.raw["shape"]]), explorer.walk.raw("shape"))


def test_buttons_and_menus(explorer):
    controls = explorer.controls
    controls["end"].value, controls["block"].value, controls["share"].value = 5, "appearance", 0.5
    assert (explorer.walk.end, explorer.walk.block, explorer.walk.share) == (5, "appearance", 0.5)
    middle = explorer.views["image"].value
    controls["reset"].click()
    assert controls["share"].value == 0 and explorer.views["image"].value != middle
    controls["random"].click()
    drawn = explorer.walk.principal("appearance")
    shown = [slider.value for slider in explorer.sliders["appearance"]]
    assert shown == pytest.approx(drawn[:3].clamp(-4, 4).tolist()) and any(shown)
    controls["swap"].click()
    assert (controls["start"].value, controls["end"].value) == (5, 0)
    assert pixels(explorer.references["start"].value).shape == (64, 64, 3)
    assert np.array_equal(pixels(explorer.references["start"].value), explorer.images[5].numpy())
    mesh = explorer.views["mesh"].value
    controls["turn_deg"].value = 90
    assert explorer.views["mesh"].value != mesh


def test_one_move_refreshes_once(explorer, monkeypatch):
    count = Counter()
    views = explorer.walk.views
    monkeypatch.setattr(explorer.walk, "views", lambda: count.update(["views"]) or views())
    for fold in explorer.folds.values():
        fold.selected_index = 0
    count.clear()
    explorer.sliders["pose"][2].value = 1.0  # which moves every slider of single dimensions too
    assert count["views"] == 1
    explorer.controls["swap"].click()
    assert count["views"] == 2


def test_what_a_browser_rounds_to_steps_is_no_wish_of_the_user(explorer):
    """Browsers put handles on steps, and report that; a fold that is shut has no handles to report of."""
    explorer.controls["block"].value = ALL
    explorer.controls["random"].click()
    fold = explorer.folds["pose"]
    assert not fold.children[0].children
    fold.selected_index = 0
    assert list(fold.children[0].children) == explorer.raw["pose"]
    code, drawn = explorer.walk.code(), dict(explorer.walk.drawn)
    for slider in [*explorer.raw["pose"], *(s for sliders in explorer.sliders.values() for s in sliders)]:
        steps = round((slider.value - slider.min) / slider.step)
        slider.value = min(slider.min + steps * slider.step, slider.max)
    assert_close(explorer.walk.code(), code, rtol=0, atol=0)
    assert explorer.walk.drawn == drawn
    explorer.refresh()  # which leaves the handles where the browser has put them
    slider = explorer.sliders["pose"][0]
    assert (slider.value - slider.min) / slider.step == pytest.approx(
        round((slider.value - slider.min) / slider.step)
    )
    slider.value += slider.step
    assert explorer.walk.principal("pose")[0] == pytest.approx(slider.value, abs=1e-4)
    fold.selected_index = None
    assert not fold.children[0].children


def test_it_is_shown_as_a_figure_first_and_without_output_widgets(explorer, monkeypatch):
    shown = []
    monkeypatch.setattr(module, "display", shown.append)
    explorer.walk.end = len(explorer.walk) - 1  # by hand, as a notebook may: the controls follow
    explorer._ipython_display_()
    assert explorer.controls["end"].value == explorer.walk.end
    picture, panel = shown
    assert panel is explorer.panel
    assert pixels(picture.data).std() > 1
    figure = explorer.figure()
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == ["start", "0.00", "0.25", "0.50", "0.75", "1.00", "end"]
    assert figure.axes[-2].get_xlabel().startswith("joints ")

    def inside(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from inside(child)

    for fold in explorer.folds.values():
        fold.selected_index = 0
    found = list(inside(explorer.panel))
    assert not any(isinstance(widget, widgets.Output) for widget in found)
    wanted = [*explorer.controls.values(), *explorer.views.values(), *explorer.references.values()]
    for group in (explorer.sliders, explorer.raw):
        wanted += [slider for sliders in group.values() for slider in sliders]
    assert {id(widget) for widget in [*wanted, explorer.changed]} <= {id(widget) for widget in found}


@pytest.mark.parametrize("act", [
    lambda explorer: explorer.controls["random"].click(),
    lambda explorer: explorer.controls["share"].set_trait("value", 0.5),
    lambda explorer: explorer.sliders["pose"][0].set_trait("value", 1.0),
    lambda explorer: explorer.raw["shape"][0].set_trait("value", 0.3),
    lambda explorer: explorer.folds["shape"].set_trait("selected_index", 0),
])  # fmt: skip
def test_every_callback_tells_what_failed(explorer, monkeypatch, logged, act):
    def fails(*_):
        raise RuntimeError("no <such> luck")

    with monkeypatch.context() as planted:
        planted.setattr(explorer.walk, "views", fails)
        act(explorer)
    assert explorer.alert in explorer.panel.children and "role='alert'" in explorer.alert.value
    assert "RuntimeError: no &lt;such&gt; luck" in explorer.alert.value and "Traceback" in logged()
    explorer.controls["reset"].click()
    assert not explorer.alert.value


def test_codes_are_made_from_the_images_where_none_are_given(model, images):
    explorer = LatentExplorer(model, images[:2], bone_mm=BONE_MM, labels=["a", "b"], px=PX)
    for block, code in encode(model, images[:2]).items():
        assert_close(explorer.walk.codes[block], code)
    assert explorer.controls["start"].label == "a" and explorer.controls["end"].label == "b"


def test_one_image_has_single_dimensions_but_no_direction(model, images):
    explorer = LatentExplorer(model, images[:1], bone_mm=BONE_MM, px=PX)
    assert not any(explorer.sliders.values()) and explorer.controls["end"].value == 0
    before = explorer.views["mesh"].value
    explorer.controls["random"].click()
    explorer.controls["share"].value = 1.0
    assert explorer.views["mesh"].value == before
    explorer.raw["pose"][0].value += 0.5
    assert explorer.walk.raw("pose")[0] == pytest.approx(explorer.raw["pose"][0].value, abs=1e-6)
    explorer.figure()


def test_a_block_of_one_dimension_has_one_direction(tiny_config, images):
    config = dataclasses.replace(tiny_config.model, latent_shape=1)
    explorer = LatentExplorer(DaVAE(config).eval(), images, bone_mm=BONE_MM, px=PX)
    assert len(explorer.sliders["shape"]) == len(explorer.raw["shape"]) == 1
    explorer.sliders["shape"][0].value = 1.0
    assert explorer.walk.decoder.calls["pose"] == 1


def test_what_does_not_fit_is_refused(model, images, codes):
    with pytest.raises(ValueError, match="at least one"):
        LatentExplorer(model, images[:0], bone_mm=BONE_MM)
    with pytest.raises(ValueError, match="5 images, 6 codes and 5 labels"):
        LatentExplorer(model, images[:5], codes, bone_mm=BONE_MM)
    with pytest.raises(ValueError, match=r"pose \(n, 24\)"):
        LatentWalk(model, {"pose": codes["shape"]}, BONE_MM)
    with pytest.raises(ValueError, match="one n > 0"):
        LatentWalk(model, codes | {"pose": codes["pose"][:2]}, BONE_MM)


def test_changes_are_described_with_their_units():
    assert describe(Change(1.234, 0.5, 12.0)) == "joints 1.2 mm, cloud 0.5 mm, colour 12.0/255"
    assert describe(Change(0, 0, float("nan")), "\n").endswith("\nno hand to see")


SHOW = """
import torch
from davae.config import preset
from davae.photo.explorer import LatentExplorer
from davae.networks import DaVAE
explorer = LatentExplorer(DaVAE(preset("smoke").model).eval(), torch.rand(3, 3, 64, 64), bone_mm=44.0)
explorer
"""


@pytest.mark.slow
def test_a_notebook_without_a_browser_shows_the_figure_then_the_controls():
    move = nbformat.v4.new_code_cell("explorer.sliders['pose'][0].value = 2.0\nprint(explorer.changed.value)")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SHOW), move])
    NotebookClient(notebook, timeout=300, kernel_name="python3", kernel_manager_class=OwnKernel).execute()
    shown = [out.data for out in notebook.cells[0].outputs if out.output_type == "display_data"]
    assert "image/png" in shown[0] and "application/vnd.jupyter.widget-view+json" in shown[1]
    assert pixels(base64.b64decode(shown[0]["image/png"])).std() > 1
    said = "".join(out.text for out in notebook.cells[1].outputs if out.get("name") == "stdout")
    assert said.startswith("joints ") and not said.startswith("joints 0.0")
    models = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"].values()
    kinds = Counter(model["model_name"] for model in models)
    assert kinds["ImageModel"] == 5 and kinds["OutputModel"] == 0
