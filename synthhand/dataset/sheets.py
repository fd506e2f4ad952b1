"""Contact sheets of SynthHand: what the generator can do, at a glance.

    python -m synthhand.dataset.sheets --out docs/figures

writes seven pictures: random samples; every gesture; skin tones by shapes; one pose under many views; one
group of factors varied at a time; hands of the wide range of flesh; the factors of the world of photographs.
`--only photographs --side 320` draws tiles large enough to be judged. Each tile is a sample with some of its
factors replaced. `SHEETS` returns the tiles, so that tests can check what a sheet varies.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import count, islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm.auto import tqdm

from synthhand.dataset.factors import (
    FRAME_PX,
    GROUPS,
    Factors,
    PoseFactors,
    SceneFactors,
    ShapeFactors,
    sample_factors,
    sample_group,
)
from synthhand.dataset.flesh import BUILDS
from synthhand.dataset.scene import hand_pixels, render
from synthhand.model import WORLD
from synthhand.model.holding import MODES
from synthhand.model.pose import GESTURE_NAMES, gesture_angles
from synthhand.render.appearance import Skin
from synthhand.render.backdrop import paint_backdrop
from synthhand.render.view import view_from
from synthhand.storage import write_atomically

COLUMNS = 8
BUILT = ("spread", "relaxed", "point", "fist")  # the gestures of the sheet of flesh
VIEWED = ("spread", "point", "ok", "cylinder_grip")  # the gestures of the sheet of views
_LABEL_PX, _MARGIN_PX, _TEXT_PX = 15, 20, 12
_DRAWS = 96  # samples among which a sheet looks for the tones it needs


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet.

    Attributes:
        factors: what it shows.
        label: text under it.
        whole_frame: show the whole frame, not only the hand.
        reach: half the side of what is cut out around the hand, over the side of the hand's box.
    """

    factors: Factors
    label: str = ""
    whole_frame: bool = False
    reach: float = 0.58


@dataclass(frozen=True)
class Sheet:
    """Tiles row by row, `COLUMNS` in each, and the texts to the left of rows and over columns."""

    tiles: list[Tile]
    row_labels: tuple[str, ...] = ()
    column_labels: tuple[str, ...] = ()


def samples_sheet(seed: int) -> Sheet:
    """The first samples: whole frames in the first row, then cut out around the hand."""
    tiles = [Tile(sample_factors(seed, "train", i), whole_frame=i < COLUMNS) for i in range(5 * COLUMNS)]
    return Sheet(tiles)


def gestures_sheet(seed: int) -> Sheet:
    """Every named gesture, each on several persons' hands and from several sides."""
    tiles = []
    of_tile = [GESTURE_NAMES[i * len(GESTURE_NAMES) // COLUMNS**2] for i in range(COLUMNS**2)]
    for place, gesture in enumerate(of_tile):
        own = sample_factors(seed, "val", place)
        side = place - of_tile.index(gesture)
        azimuth, elevation = ((205, 12), (25, 12), (95, 8), (150, -25), (320, 25))[side % 5]
        pose = _pose_as(own.pose, gesture, view_from(azimuth, elevation))
        tiles.append(Tile(replace(own, pose=pose, scene=_studio(own.scene)), gesture.replace("_", " ")))
    return Sheet(tiles)


def skins_sheet(seed: int) -> Sheet:
    """Eight persons' skins, fair to dark, on eight persons' flesh, thin to stout: one pose, one light."""
    start, by_tone = _start(seed), _sort_skins(seed)
    skins = [by_tone[i] for i in np.linspace(0, _DRAWS - 1, COLUMNS).astype(int)]
    tiles = []
    for row, stoutness in enumerate(np.linspace(-2.2, 2.2, COLUMNS)):
        shape = sample_group("shape", seed, "val", row)
        coefficients = shape.coefficients.copy()
        coefficients[:2] = stoutness, 0.7 * stoutness
        shape = replace(shape, coefficients=coefficients)
        tiles += [Tile(replace(start, shape=shape, appearance=skin)) for skin in skins]
    return Sheet(tiles, ("thin", *[""] * (COLUMNS - 2), "stout"), ("fair", *[""] * (COLUMNS - 2), "dark"))


def views_sheet(seed: int) -> Sheet:
    """Four poses, each from sixteen sides: once around from above the fingers, once from below the wrist."""
    start, tiles, rows = _start(seed), [], []
    for gesture in VIEWED:
        for elevation, offset in ((20, 0.0), (-40, 0.5)):
            rows.append(gesture.replace("_", " "))
            for turn in range(COLUMNS):
                azimuth = 360 * (turn + offset) / COLUMNS
                pose = _pose_as(start.pose, gesture, view_from(azimuth, elevation))
                tiles.append(Tile(replace(start, pose=pose), f"{azimuth:g}°, {elevation:+d}°"))
    return Sheet(tiles, tuple(rows))


def factors_sheet(seed: int) -> Sheet:
    """One group of factors drawn anew from tile to tile, the others kept; two rows for each group.

    The scene's second row shows the whole frames of its first: place and distance are factors of the scene.
    """
    start, tiles, rows = _start(seed), [], []
    for group in GROUPS:
        draws = [sample_group(group, seed, "test", i) for i in range(2 * COLUMNS - 1)]
        varied = [start, *(replace(start, **{group: draw}) for draw in draws)]
        whole = [False] * 2 * COLUMNS
        if group == "scene":
            varied, whole[COLUMNS:] = varied[:COLUMNS] * 2, [True] * COLUMNS
        tiles += [Tile(factors, whole_frame=w) for factors, w in zip(varied, whole, strict=True)]
        rows += [f"{group} varies", "whole frame" if group == "scene" else f"{group} varies"]
    return Sheet(tiles, tuple(rows))


def flesh_sheet(seed: int) -> Sheet:
    """The wide range: thin to stout in four gestures, then flesh and bones of eight persons, seen twice."""
    start, wide, tiles = _start(seed), BUILDS["wide"], []
    for gesture in BUILT:
        pose = _pose_as(start.pose, gesture, view_from(205, 12))
        for stoutness in np.linspace(*wide.stoutness, COLUMNS):
            shape = ShapeFactors(stoutness * np.array(wide.common))
            tiles.append(Tile(replace(start, pose=pose, shape=shape)))
    persons = [[sample_group(g, seed, "test", i, flesh="wide") for i in range(COLUMNS)] for g in GROUPS[:2]]
    for azimuth in (205, 25):
        pose = replace(start.pose, orientation=view_from(azimuth, 12))
        tiles += [Tile(replace(start, pose=pose, shape=shape)) for shape in persons[1]]
        for bones in persons[0]:
            proportions = {"palm_scale": bones.palm_scale, "bone_scale": bones.bone_scale}
            tiles.append(Tile(replace(start, pose=replace(pose, **proportions))))
    labels = (*BUILT, "flesh varies", "bones vary", "flesh varies", "bones vary")
    return Sheet(tiles, labels, ("thin", *[""] * (COLUMNS - 2), "stout"))


def photographs_sheet(seed: int) -> Sheet:
    """A row of samples for each factor of the world of photographs, and two for things; then all together."""

    def in_mode(*modes: str) -> Callable[[dict], bool]:
        return lambda world: MODES[world["held/mode"]] in modes

    def is_worn(world: dict) -> bool:
        return bool(world["worn/sleeve"] or world["worn/rings"].any())

    held = ("held",)
    rows = {
        "framing": _show_framing(seed),
        "held": _show(seed, held, in_mode("held", "pinched"), reach=0.8),
        "resting, before": _show(seed, held, in_mode("resting", "before"), reach=0.9),
        "camera": _show(seed, ("camera",)),
        "detail": _show(seed, ("detail",), lambda world: world["detail/kind"] > 0, whole_frame=True),
        "company": _show(seed, ("company",), lambda world: world["company/count"] > 0, whole_frame=True),
        "worn": _show(seed, ("worn",), is_worn, reach=0.65),
        "all": _show(seed, WORLD, whole_frame=True),
    }
    return Sheet([tile for row in rows.values() for tile in row], tuple(rows))


def _show_framing(seed: int) -> list[Tile]:
    """Return samples from the smallest hand in the frame to the largest."""
    drawn = [sample_factors(seed, "val", i, world=("framing",)) for i in range(3 * COLUMNS)]
    drawn.sort(key=lambda factors: float(factors.world.flat()["framing/share"]))
    return [Tile(factors, whole_frame=True) for factors in drawn[2::3]]


def _show(
    seed: int,
    world: tuple[str, ...],
    wanted: Callable[[dict], bool] = lambda _: True,
    whole_frame: bool = False,
    reach: float = Tile.reach,
) -> list[Tile]:
    """Return the first samples in whose world there is something to see."""
    drawn = (sample_factors(seed, "val", i, world=world) for i in count())
    found = islice((factors for factors in drawn if wanted(factors.world.flat())), COLUMNS)
    return [Tile(factors, whole_frame=whole_frame, reach=reach) for factors in found]


SHEETS: dict[str, Callable[[int], Sheet]] = {
    "sheet": samples_sheet,
    "gestures": gestures_sheet,
    "skins": skins_sheet,
    "views": views_sheet,
    "factors": factors_sheet,
    "flesh": flesh_sheet,
    "photographs": photographs_sheet,
}


def draw_sheet(sheet: Sheet, side: int = 136, size: int = FRAME_PX, progress: str = "") -> np.ndarray:
    """Render and lay out a sheet.

    Args:
        sheet: what to show.
        side: of a tile, px.
        size: of the frames that tiles are cut from, px.
        progress: label of the progress bar; empty for no bar.

    Returns:
        (h, w, 3) uint8.
    """
    rows = -(-len(sheet.tiles) // COLUMNS)
    left, top = _MARGIN_PX * bool(sheet.row_labels), _LABEL_PX * bool(sheet.column_labels)
    high = side + _LABEL_PX * any(tile.label for tile in sheet.tiles)
    canvas = Image.new("RGB", (left + COLUMNS * side, top + rows * high), "white")
    for place, tile in enumerate(tqdm(sheet.tiles, desc=progress, unit="tile", disable=not progress)):
        x, y = left + place % COLUMNS * side, top + place // COLUMNS * high
        canvas.paste(_picture(tile, side, size), (x, y))
        _write(canvas, tile.label, (x + side / 2, y + side + _LABEL_PX / 2))
    for column, text in enumerate(sheet.column_labels):
        _write(canvas, text, (left + (column + 0.5) * side, top / 2))
    upright = Image.new("RGB", (rows * high, left or 1), "white")
    for row, text in enumerate(sheet.row_labels):
        _write(upright, text, (upright.width - (row + 0.5) * high, left / 2))
    if left:
        canvas.paste(upright.transpose(Image.Transpose.ROTATE_90), (0, top))
    return np.asarray(canvas)


def _picture(tile: Tile, side: int, size: int) -> Image.Image:
    rendering = render(tile.factors, size)
    picture = Image.fromarray(rendering.image)
    own = hand_pixels(rendering.part_mask, rendering.side)
    if not tile.whole_frame and own.any():
        (top, left), (bottom, right) = np.argwhere(own).min(0), np.argwhere(own).max(0)
        half = int(tile.reach * max(bottom - top, right - left, size // 13))
        half = min(half, size // 2)
        x, y = (np.clip((low + high) // 2, half, size - half) for low, high in ((left, right), (top, bottom)))
        picture = picture.crop((x - half, y - half, x + half, y + half))
    return picture.resize((side, side), Image.Resampling.LANCZOS)


def _write(canvas: Image.Image, text: str, centre: tuple[float, float]) -> None:
    font = ImageFont.load_default(_TEXT_PX)
    ImageDraw.Draw(canvas).text(centre, text, fill=(30, 30, 30), font=font, anchor="mm")


def _pose_as(pose: PoseFactors, gesture: str, orientation: np.ndarray) -> PoseFactors:
    """Return the same person's hand in a gesture, with a straight wrist."""
    return replace(
        pose,
        articulation=gesture_angles(gesture),
        gesture=GESTURE_NAMES.index(gesture),
        orientation=orientation,
        wrist=np.zeros(2),
    )


def _sort_skins(seed: int) -> list[Skin]:
    """Return skins of several persons, fair to dark."""
    draws = (sample_group("appearance", seed, "val", i) for i in range(_DRAWS))
    return sorted(draws, key=lambda skin: skin.melanin)


def _start(seed: int) -> Factors:
    """Return the hand that sheets vary: open, of medium tone, palm half towards the camera, well lit."""
    first = sample_factors(seed, "val", 0)
    pose = _pose_as(first.pose, "relaxed", view_from(205, 12))
    pose = replace(pose, articulation=(pose.articulation + gesture_angles("open")) / 2)
    shape = replace(first.shape, coefficients=np.zeros_like(first.shape.coefficients))
    return Factors(pose, shape, _sort_skins(seed)[_DRAWS // 3], _studio(first.scene))


def _studio(scene: SceneFactors) -> SceneFactors:
    """Return a scene of one right hand near the camera, sharp, well lit, before a plain wall."""
    return replace(
        scene,
        left=0,
        second_shown=0,
        root_uv=np.full(2, FRAME_PX / 2),
        root_mm=330.0,
        focal_px=285.0,
        size=1.0,
        key_direction=np.array([-0.55, -0.62, -0.56]),
        key_colour=np.array([0.82, 0.78, 0.72]),
        key_width=0.2,
        sky_colour=np.array([0.34, 0.35, 0.37]),
        ground_colour=np.array([0.2, 0.19, 0.18]),
        wall_seed=_find_plain_wall(),
        wall_mm=900.0,
        wall_slope=np.zeros(2),
        fill_colour=np.zeros(3),
        exposure=1.0,
        white_balance=np.ones(3),
        vignette=0.0,
        blur_px=0.0,
        motion_px=np.zeros(2),
        noise=0.001,
        jpeg_quality=100,
    )


@cache
def _find_plain_wall() -> int:
    """Return the seed of the softest and greyest of some backgrounds."""

    def unrest(seed: int) -> float:
        picture = paint_backdrop(seed, 64)
        sharpest = max(np.abs(np.diff(picture, axis=axis)).max() for axis in (0, 1))
        return sharpest + np.abs(picture - 0.35).mean()

    return min(range(300), key=unrest)


def main() -> None:
    """Write all sheets, or one of them, as PNG files."""
    parser = argparse.ArgumentParser(description="Draw contact sheets of SynthHand.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write synthhand_*.png to")
    parser.add_argument("--only", choices=SHEETS, help="just this sheet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", type=int, help="of a tile, px")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in [arguments.only] if arguments.only else SHEETS:
        side = {} if arguments.side is None else {"side": arguments.side}
        pixels = draw_sheet(SHEETS[name](arguments.seed), progress=name, **side)
        # Six bits a channel look the same and keep the file small.
        picture = Image.fromarray(pixels & 0xFC)
        path = arguments.out / f"synthhand_{name}.png"
        write_atomically(path, partial(picture.save, format="PNG", optimize=True))
        print(path)


if __name__ == "__main__":
    main()
