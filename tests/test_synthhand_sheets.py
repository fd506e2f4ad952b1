"""Contact sheets: only the named factor changes from tile to tile."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from synthhand.dataset import render
from synthhand.dataset import sheets as module
from synthhand.dataset.factors import GROUPS, Factors
from synthhand.dataset.sheets import BUILT, COLUMNS, SHEETS, VIEWED, Sheet, Tile, draw_sheet
from synthhand.model.pose import GESTURE_NAMES, gesture_angles
from synthhand.render.view import view_from

SIDE, SIZE = 24, 48


@pytest.fixture(scope="module")
def sheets() -> dict[str, Sheet]:
    return {name: make(0) for name, make in SHEETS.items()}


def same(a, b) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))


def changed(a: Factors, b: Factors) -> set[str]:
    """The groups in which two samples differ."""
    return {group for group in GROUPS if not same(getattr(a, group), getattr(b, group))}


@pytest.mark.parametrize("name", sorted(SHEETS.keys() - {"sheet"}))
def test_a_sheet_is_eight_by_eight_with_a_label_for_each_row_it_labels(sheets, name):
    sheet = sheets[name]
    assert len(sheet.tiles) == COLUMNS**2
    assert len(sheet.row_labels) in (0, COLUMNS) and len(sheet.column_labels) in (0, COLUMNS)


def test_gestures_are_all_there_on_several_hands_from_several_sides(sheets):
    tiles = sheets["gestures"].tiles
    for gesture in GESTURE_NAMES:
        own = [t.factors for t in tiles if t.label == gesture.replace("_", " ")]
        assert len(own) >= COLUMNS**2 // len(GESTURE_NAMES)
        for first, second in pairwise(own):
            np.testing.assert_array_equal(first.pose.articulation, gesture_angles(gesture))
            assert not np.allclose(first.pose.orientation, second.pose.orientation)
            assert first.appearance.melanin != second.appearance.melanin


def test_tones_by_shapes_are_a_product(sheets):
    grid = np.array([t.factors for t in sheets["skins"].tiles], object).reshape(COLUMNS, COLUMNS)
    for row in grid:
        assert all(changed(row[0], factors) == {"appearance"} for factors in row[1:])
        assert (np.diff([factors.appearance.melanin for factors in row]) > 0).all()
    for column in grid.T:
        assert all(changed(column[0], factors) == {"shape"} for factors in column[1:])
        assert (np.diff([factors.shape.coefficients[0] for factors in column]) > 0).all()


def test_views_turn_a_pose_and_change_nothing_else(sheets):
    grid = np.array([t.factors for t in sheets["views"].tiles], object).reshape(-1, 2 * COLUMNS)
    assert len(grid) == len(VIEWED)
    for views in grid:
        turned = [dataclasses.replace(f.pose, orientation=np.eye(3)) for f in views]
        assert all(same(turned[0], pose) for pose in turned)
        assert all(changed(views[0], factors) == {"pose"} for factors in views[1:])
        between = np.array(
            [np.trace(a.pose.orientation.T @ b.pose.orientation) for a in views for b in views]
        )
        degrees = np.degrees(np.arccos(((between - 1) / 2).clip(-1, 1))).reshape(len(views), -1)
        assert degrees[~np.eye(len(views), dtype=bool)].min() > 30


def test_flesh_grows_from_thin_to_stout_in_each_gesture_and_then_flesh_or_bones_vary(sheets):
    grid = np.array([t.factors for t in sheets["flesh"].tiles], object).reshape(COLUMNS, COLUMNS)
    for gesture, row in zip(BUILT, grid, strict=False):
        np.testing.assert_array_equal(row[0].pose.articulation, gesture_angles(gesture))
        assert all(changed(row[0], factors) == {"shape"} for factors in row[1:])
        assert (np.diff([factors.shape.coefficients[0] for factors in row]) > 0).all()
    for number, row in enumerate(grid[len(BUILT) :]):
        assert all(changed(row[0], f) == {("shape", "pose")[number % 2]} for f in row[1:])
        np.testing.assert_array_equal(row[0].pose.articulation, row[-1].pose.articulation)


def test_factors_vary_one_group_at_a_time(sheets):
    tiles = sheets["factors"].tiles
    start = tiles[0].factors
    for number, group in enumerate(GROUPS):
        own = tiles[2 * COLUMNS * number : 2 * COLUMNS * (number + 1)]
        assert changed(start, own[0].factors) == set()
        assert all(changed(start, tile.factors) <= {group} for tile in own)
        assert all(changed(start, tile.factors) == {group} for tile in own[1:COLUMNS])
    cut, whole = tiles[-2 * COLUMNS : -COLUMNS], tiles[-COLUMNS:]
    assert [t.factors for t in cut] == [t.factors for t in whole]
    assert not any(t.whole_frame for t in cut) and all(t.whole_frame for t in whole)


def test_a_view_from_the_palms_side_sees_the_palm_and_from_above_the_finger_tips():
    palm, tips = np.array([0.0, 0, -1]), np.array([0.0, -1, 0])  # of the rest hand, in the rest frame
    towards_camera = np.array([0.0, 0, -1])
    for azimuth, elevation, direction in ((0, 0, palm), (180, 0, -palm), (0, 90, tips), (77, -90, -tips)):
        np.testing.assert_allclose(view_from(azimuth, elevation) @ direction, towards_camera, atol=1e-12)
    assert np.linalg.det(view_from(33, 21)) == pytest.approx(1)


def test_tiles_hold_the_whole_hand_and_labels_stand_in_the_margins(sheets):
    tile = sheets["skins"].tiles[0]
    named = draw_sheet(Sheet([dataclasses.replace(tile, label="open")] * 9, ("a", "b")), SIDE, SIZE)
    label, margin = module._LABEL_PX, module._MARGIN_PX
    assert named.shape == (2 * (SIDE + label), margin + COLUMNS * SIDE, 3)
    bare = draw_sheet(Sheet([tile] * 9), SIDE, SIZE)
    assert bare.shape == (2 * SIDE, COLUMNS * SIDE, 3)
    np.testing.assert_array_equal(named[:SIDE, margin:], bare[:SIDE])
    for strip in (named[SIDE : SIDE + label, margin : margin + SIDE], named[: SIDE + label, :margin]):
        assert strip.min() < 100 and strip[0].min() == 255, "text, and white above it"
    assert (bare[SIDE:, SIDE:] == 255).all(), "nothing where there is no tile"


def test_a_whole_frame_is_the_frame(sheets):
    tile = Tile(sheets["skins"].tiles[3].factors, whole_frame=True)
    frame = Image.fromarray(render(tile.factors, SIZE).image).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(draw_sheet(Sheet([tile]), SIDE, SIZE)[:, :SIDE], np.asarray(frame))


def test_the_command_writes_the_files(tmp_path, monkeypatch, capsys):
    small = {name: Sheet(make(0).tiles[:1]) for name, make in SHEETS.items()}
    monkeypatch.setattr(module, "SHEETS", {name: lambda _, s=s: s for name, s in small.items()})
    monkeypatch.setattr(module.draw_sheet, "__defaults__", (SIDE, SIZE, ""))
    monkeypatch.setattr("sys.argv", ["sheets", "--out", str(tmp_path / "new" / "folder")])
    module.main()
    written = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert written == sorted(f"synthhand_{name}.png" for name in small)
    assert len(capsys.readouterr().out.splitlines()) == len(small)
    for name in written:
        with Image.open(tmp_path / "new" / "folder" / name) as picture:
            assert picture.size[0] == COLUMNS * SIDE
