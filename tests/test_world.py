"""The world of photographs: occlusion by brute force, labels that stay, switches that are off, records."""

import dataclasses
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from synthhand.dataset import render, sample_factors, write_dataset
from synthhand.dataset.company import LARGEST, place_company
from synthhand.dataset.company import _pose as posed
from synthhand.dataset.effects import bend_tones, finish, light_colour
from synthhand.dataset.factors import FRAME_PX
from synthhand.dataset.framing import FARTHEST_MM, FLESH, LEAST_FOCAL, LEAST_INSIDE, NEAREST_MM
from synthhand.dataset.scene import (
    MOST_COVERED,
    _place_held,
    build_hand,
    build_second_hand,
    camera_matrix,
    hand_pixels,
)
from synthhand.dataset.world import SAMPLERS, Camera, World, choose_world, sample_held
from synthhand.model import WORLD
from synthhand.model.body import face_normals, vertex_normals
from synthhand.model.holding import MODES, MOST_HIDDEN, SINK_MM, SUITABLE, flesh_balls, palm_axes, place_thing
from synthhand.model.procedural import flesh_radii
from synthhand.model.rig import FOREARM_PART
from synthhand.model.things import KINDS, Piece, Thing, build_thing, make_thing
from synthhand.pinhole import project
from synthhand.render.backdrop import paint_backdrop
from synthhand.render.clothing import dress_body
from synthhand.render.detail import KINDS as BACKGROUNDS
from synthhand.render.detail import paint_detail
from synthhand.render.photos import crop_photo
from synthhand.skeleton import RHD_ORDER

SIZE = 64
NEUTRAL = Camera(
    stops=0, kelvin=6500, cast=0, contrast=0, gamma=1, black=0, white=1, saturation=1, noise=0.002, chroma=0,
    chroma_px=1, scale=1, resampling=0, sharpen=0, sharpen_px=1, quality=100, subsampled=0, again=0, seed=0,
)  # fmt: skip

# Two by two blocks of seed 3's pictures of 48 px, mean depth (mm), pixels of hands and visible joints, as
# rendered before there was such a world.
BEFORE = {
    0: ([61.5, 63.1, 71.1, 64.0, 68.0, 71.1, 157.5, 138.4, 128.6, 156.2, 130.3, 118.3], 1060.65, 139, 32),
    1: ([118.5, 99.2, 90.6, 79.3, 61.0, 52.5, 49.7, 40.2, 18.5, 48.3, 38.7, 16.5], 1968.82, 86, 16),
    4: ([182.1, 150.4, 134.3, 156.0, 121.8, 102.1, 80.2, 55.6, 47.0, 191.1, 99.1, 74.3], 1232.40, 74, 15),
}


# -- switched off -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", BEFORE)
def test_without_the_world_pictures_and_labels_are_what_they_were(index):
    """Within a grey level, by which processors may differ; on the machine of record they are equal."""
    blocks, depth, pixels, visible = BEFORE[index]
    rendering = render(sample_factors(3, "train", index), 48)
    found = rendering.image.reshape(2, 24, 2, 24, 3).mean((1, 3)).ravel()
    np.testing.assert_allclose(found, blocks, atol=1)
    assert rendering.depth_mm.mean() == pytest.approx(depth, rel=1e-3)
    assert abs((rendering.part_mask > 1).sum() - pixels) <= 1
    assert rendering.uv_vis[:, 2].sum() == visible
    assert rendering.outcomes == {}


def test_a_switch_adds_its_own_factors_and_changes_no_other():
    off = sample_factors(2, "val", 5).flat()
    assert {name.split("/")[0] for name in off} == {"pose", "shape", "appearance", "scene"}
    whole = sample_factors(2, "val", 5, world=WORLD).flat()
    moved = {"scene/focal_px", "scene/root_uv", "scene/root_mm", "scene/second_mm"}  # by framing
    for name in WORLD:
        on = sample_factors(2, "val", 5, world=(name,)).flat()
        assert {new.split("/")[0] for new in on.keys() - off.keys()} == {name}
        changed = {known for known in off if not np.array_equal(off[known], on[known])}
        assert changed == (moved if name == "framing" else set())
        for own in on.keys() - off.keys():
            np.testing.assert_array_equal(on[own], whole[own])


def test_names_of_the_world_are_ordered_and_checked():
    assert choose_world("photographs") == choose_world(["worn", "photographs"]) == WORLD
    assert choose_world(()) == () and choose_world(["camera", "held"]) == ("held", "camera")
    with pytest.raises(ValueError, match="unknown world 'hold'; choose some of photographs, framing, held"):
        choose_world(["hold"])
    assert {*SAMPLERS} == {*WORLD} == {field.name for field in dataclasses.fields(World)}


# -- things -----------------------------------------------------------------------------------------------


def moeller_trumbore(directions: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Smallest distance (n,) of rays (n, 3) from the origin to triangles (f, 3, 3), in float64."""
    a, e1, e2 = triangles[:, 0], triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    q = np.cross(-a, e1)
    far = np.einsum("fi,fi->f", e2, q)
    nearest = []
    for d in directions:
        p = np.cross(d, e2)
        det = np.einsum("fi,fi->f", e1, p)
        with np.errstate(divide="ignore", invalid="ignore"):
            u, v, t = np.einsum("fi,fi->f", -a, p) / det, q @ d / det, far / det
        nearest.append(np.min(t[(u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)], initial=np.inf))
    return np.array(nearest)


def triangles(body, chosen=slice(None)) -> np.ndarray:
    return body.vertices_mm.astype(float)[body.faces[chosen]]


def with_thing(mode: str, least: float) -> tuple:
    """A sample with a thing in a mode that covers much of the hand, and the same one without."""
    for index in range(400):
        factors = sample_factors(8, "train", index, world=("held",))
        if MODES[factors.world.held.mode] == mode and not factors.scene.second_shown:
            rendering = render(factors, SIZE)
            if rendering.outcomes["held/covered"] > least:
                bare = dataclasses.replace(factors, world=World())
                return factors, rendering, render(bare, SIZE)
    raise AssertionError(f"no {mode}")


@pytest.fixture(scope="module", params=["before", "held"])
def hidden(request) -> tuple:
    return with_thing(request.param, 0.15)


def test_mask_and_depth_show_what_is_nearest_by_brute_force(hidden):
    factors, rendering, _ = hidden
    K, hand = camera_matrix(factors, SIZE), build_hand(factors)
    [role], _ = _place_held(factors.world.held, factors, hand, K, None)
    v, u = np.mgrid[0:SIZE:2, 0:SIZE:2].reshape(2, -1)
    rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(len(u))], axis=1)
    arm = (hand.parts[hand.faces] == FOREARM_PART).all(1)
    whole, thing = moeller_trumbore(rays, triangles(hand)), moeller_trumbore(rays, triangles(role.body))
    only_hand = moeller_trumbore(rays, triangles(hand, ~arm))
    own = hand_pixels(rendering.part_mask, rendering.side)[v, u]
    before = thing < whole
    assert before.sum() > 10 and (before & np.isfinite(whole)).sum() > 3
    assert not rendering.part_mask[v, u][before].any(), "a thing is background"
    met = (whole < thing) & np.isfinite(whole)
    assert (own[met] == (only_hand <= whole)[met]).mean() > 0.97, "parts change within triangles at the wrist"
    nearest = np.minimum(whole, thing)
    found = np.isfinite(nearest)
    np.testing.assert_allclose(rendering.depth_mm[v, u][found], nearest[found], rtol=1e-4)


def test_a_joint_behind_a_thing_is_not_visible_and_no_other_changes(hidden):
    factors, rendering, bare = hidden
    K, hand = camera_matrix(factors, SIZE), build_hand(factors)
    [role], _ = _place_held(factors.world.held, factors, hand, K, None)
    rays = hand.joints_mm / hand.joints_mm[:, 2:]
    covered = moeller_trumbore(rays, triangles(role.body)) < moeller_trumbore(rays, triangles(hand))
    half = slice(0, 21) if rendering.side == "left" else slice(21, 42)
    with_it, without = (r.uv_vis[half, 2].astype(bool) for r in (rendering, bare))
    assert (without & covered[RHD_ORDER]).any()
    np.testing.assert_array_equal(with_it, without & ~covered[RHD_ORDER])


def test_a_thing_changes_no_joint_and_takes_from_the_mask_alone(hidden):
    _, rendering, bare = hidden
    np.testing.assert_array_equal(rendering.joints_mm, bare.joints_mm)
    np.testing.assert_array_equal(rendering.uv_vis[:, :2], bare.uv_vis[:, :2])
    changed = rendering.part_mask != bare.part_mask
    assert changed.any() and not rendering.part_mask[changed].any()
    whole = hand_pixels(bare.part_mask, bare.side).sum()
    lost = whole - hand_pixels(rendering.part_mask, bare.side).sum()
    assert rendering.outcomes["held/covered"] == pytest.approx(lost / whole, abs=0.04)
    assert rendering.outcomes["held/shown"] == 1


def test_a_thing_that_covers_most_of_a_hand_is_left_out(monkeypatch):
    factors, rendering, bare = with_thing("before", 0.15)
    monkeypatch.setattr("synthhand.dataset.scene.MOST_COVERED", 0.1)
    without = render(factors, SIZE)
    np.testing.assert_array_equal(without.image, bare.image)
    assert without.outcomes["held/shown"] == without.outcomes["held/covered"] == 0
    assert rendering.outcomes["held/covered"] < MOST_COVERED


@pytest.mark.parametrize("kind", KINDS)
def test_meshes_are_closed_outward_and_agree_with_the_distance(kind):
    rng = np.random.default_rng(KINDS.index(kind))
    thing = make_thing(kind, rng)
    for piece in thing.pieces:
        body = build_thing(Thing((piece,)), np.eye(3), np.zeros(3))
        a, b, c = np.moveaxis(triangles(body), 1, 0)
        volume = np.einsum("fi,fi->f", a, np.cross(b, c)).sum() / 6
        x, y, z = piece.half
        exact = {"ball": 4 / 3 * np.pi * x**3, "tube": 2 * np.pi * x * x * z, "block": 8 * x * y * z}[
            piece.form
        ]
        assert 0.85 * exact < volume < 1.001 * exact
        gaps = piece.distance(body.vertices_mm.T.astype(float))
        assert gaps.max() < 1e-4 and gaps.min() > -1.3, "rounded edges lie a little inside"


@given(st.tuples(*[st.floats(-40, 40)] * 3), st.sampled_from(["ball", "tube", "block"]))
@settings(max_examples=60, deadline=None)
def test_distance_is_that_of_the_nearest_point(point, form):
    half = np.array([11.0, 11.0 if form != "block" else 7.0, 11.0 if form == "ball" else 19.0])
    piece, point = Piece(form, np.array([2.0, -3, 1]), half), np.array(point)
    local = point - piece.centre
    if form == "ball":
        expected = np.linalg.norm(local) - 11
    else:
        flat = np.array([np.hypot(*local[:2]), abs(local[2])]) if form == "tube" else np.abs(local)
        over = flat - (half[[0, 2]] if form == "tube" else half)
        expected = np.linalg.norm(over.clip(0)) + min(over.max(), 0)
    assert piece.distance(point) == pytest.approx(expected, abs=1e-9)


def test_things_touch_flesh_without_cutting_into_it_and_hide_no_more_than_they_may():
    placed, asked = 0, 0
    for index in range(60):
        factors = sample_factors(4, "val", index)
        rng = np.random.default_rng(index)
        mode = ("held", "pinched", "resting")[index % 3]
        kind = SUITABLE[mode][int(rng.integers(len(SUITABLE[mode])))]
        hand, radii = build_hand(factors), flesh_radii() * factors.scene.size
        thing = make_thing(kind, rng, factors.scene.size)
        place = place_thing(thing, kind, mode, rng, hand, radii, bool(factors.scene.left))
        asked += 1
        if place is None:
            continue
        placed += 1
        balls, sizes, own = flesh_balls(hand, radii)
        gaps = thing.distance(((balls - place.centre_mm) @ place.rotation).T) - sizes
        assert gaps.min() > -2 * SINK_MM - 1.01
        assert (gaps[:own] < 5).sum() >= 2
        assert place.hidden <= MOST_HIDDEN
        np.testing.assert_allclose(place.rotation @ place.rotation.T, np.eye(3), atol=1e-6)
    assert placed > 0.75 * asked


def test_the_palm_faces_the_camera_of_the_rest_hand_on_either_side():
    from synthhand.model.procedural import procedural_rig

    joints = procedural_rig().joints_mm
    for left, mirror in ((False, 1.0), (True, -1.0)):
        across, along, out = palm_axes(joints * [mirror, 1, 1], left)
        assert out[2] < -0.9 and along[1] < -0.9 and mirror * across[0] > 0.9


def test_every_mode_and_kind_comes_up():
    draws = [sample_held(np.random.default_rng(i)) for i in range(1500)]
    assert {MODES[d.mode] for d in draws} == {*MODES}
    for mode, kinds in SUITABLE.items():
        assert {KINDS[d.kind] for d in draws if MODES[d.mode] == mode} == {*kinds}


# -- framing ----------------------------------------------------------------------------------------------


def test_hands_fill_the_frame_as_asked_and_stay_in_it_by_half():
    exact = 0
    for index in range(60):
        factors = sample_factors(6, "train", index, world=("framing",))
        joints, framing = build_hand(factors).joints_mm, factors.world.framing
        uv = project(joints, camera_matrix(factors, FRAME_PX))
        inside = ((uv >= 0) & (uv < FRAME_PX)).all(1).sum()
        assert inside >= LEAST_INSIDE - 3
        assert joints[:, 2].min() > 0.8 * NEAREST_MM and factors.scene.root_mm <= FARTHEST_MM
        assert factors.scene.focal_px >= LEAST_FOCAL * FRAME_PX
        share = np.ptp(uv, axis=0).max() * (1 + 2 * FLESH) / FRAME_PX
        exact += abs(share / framing.share - 1) < 0.12
    assert exact >= 54, "a hand far from the optical axis looks a little larger"


# -- what must not change labels --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["camera", "detail"])
def test_camera_and_background_change_the_picture_alone(name):
    for index in range(3):
        on, off = (render(sample_factors(1, "test", index, world=w), SIZE) for w in ((name,), ()))
        for label in ("depth_mm", "part_mask", "joints_mm", "uv_vis", "K", "side"):
            np.testing.assert_array_equal(getattr(on, label), getattr(off, label))
        assert not np.array_equal(on.image, off.image)


def test_other_peoples_hands_are_smaller_and_leave_the_annotated_one():
    shown = 0
    for index in range(14):
        on, off = (sample_factors(5, "train", index, world=w) for w in (("company",), ()))
        with_them, alone = render(on, SIZE), render(off, SIZE)
        np.testing.assert_array_equal(with_them.joints_mm, alone.joints_mm)
        np.testing.assert_array_equal(with_them.uv_vis[:, :2], alone.uv_vis[:, :2])
        count = int(with_them.outcomes["company/shown"])
        assert count <= on.world.company.count
        if count == 0:
            np.testing.assert_array_equal(with_them.image, alone.image)
            continue
        shown += 1
        changed = with_them.part_mask != alone.part_mask
        assert set(np.unique(with_them.part_mask[changed])) <= {1}, "other people's hands are RHD's person"
        K, hand = camera_matrix(on, SIZE), build_hand(on)
        bodies, _, _ = place_company(on.world.company, hand, K, SIZE)
        area = np.prod(np.ptp(project(hand.joints_mm, K), axis=0))
        for body in bodies:
            assert np.prod(np.ptp(project(body.joints_mm, K), axis=0)) <= LARGEST * area * 1.0001
            assert body.joints_mm[9, 2] > hand.joints_mm[:, 2].max()
    assert shown > 1


def test_coarse_hands_of_other_people_have_fewer_triangles_and_no_flat_ones():
    for number in range(4):
        body = posed(number)
        fine = build_hand(sample_factors(0, "train", 0))
        assert len(body.faces) < 0.6 * len(fine.faces)
        assert np.linalg.norm(face_normals(body.vertices_mm, body.faces), axis=0).min() > 0.01
        used = np.unique(body.faces)
        lengths = np.linalg.norm(vertex_normals(body.vertices_mm, body.faces)[used], axis=1)
        np.testing.assert_allclose(lengths, 1, atol=1e-5)
        assert np.abs(np.ptp(body.vertices_mm[body.parts < FOREARM_PART], axis=0)).max() < 250


def test_rings_change_colour_alone_and_a_sleeve_hides_what_it_covers():
    factors = sample_factors(0, "val", 3, world=("worn",))
    factors = dataclasses.replace(
        factors,
        scene=dataclasses.replace(
            factors.scene, second_shown=0, root_mm=330.0, root_uv=np.full(2, FRAME_PX / 2), left=0
        ),
        appearance=dataclasses.replace(factors.appearance, sleeved=0.0, band=0),
    )
    bare = render(dataclasses.replace(factors, world=World()), SIZE)

    def wear(**changes):
        worn = dataclasses.replace(factors.world.worn, **{"sleeve": 0, "rings": np.zeros(5, int)} | changes)
        return render(dataclasses.replace(factors, world=World(worn=worn)), SIZE)

    np.testing.assert_array_equal(wear().image, bare.image)
    ringed = wear(rings=np.array([1, 1, 2, 1, 1]))
    for label in ("depth_mm", "part_mask", "joints_mm", "uv_vis"):
        np.testing.assert_array_equal(getattr(ringed, label), getattr(bare, label))
    assert not np.array_equal(ringed.image, bare.image)
    sleeved = wear(sleeve=1, cuff_mm=-12.0, loose_mm=5.0)
    np.testing.assert_array_equal(sleeved.joints_mm, bare.joints_mm)
    fewer = hand_pixels(bare.part_mask, "right") & ~hand_pixels(sleeved.part_mask, "right")
    assert fewer.any() and set(np.unique(sleeved.part_mask[fewer])) == {1}
    hand = build_hand(factors)
    dressed = dress_body(hand, -12.0, 5.0)
    moved = np.linalg.norm(dressed.vertices_mm - hand.vertices_mm, axis=1)
    past = (hand.rest_mm[:, 1] > -12) & (hand.parts >= 15)
    assert not moved[~past].any() and 3 < moved[past].max() < 6.5
    assert (dressed.parts[past] == FOREARM_PART).all()


# -- camera -----------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_tone_curves_rise(seed):
    camera = SAMPLERS["camera"](np.random.default_rng(seed))
    tones = bend_tones(np.linspace(0, 1, 500), camera)
    assert (np.diff(tones) >= -1e-12).all() and tones.min() >= 0 and tones.max() <= 1
    assert tones[-1] > 0.99


def test_candles_are_red_and_shade_is_blue():
    np.testing.assert_allclose(light_colour(6500.0), 1)
    for kelvin in (1900.0, 3000.0, 5000.0):
        red, green, blue = light_colour(kelvin)
        assert red > green > blue
    red, green, blue = light_colour(10000.0)
    assert red < green < blue


def test_a_neutral_camera_changes_nothing_and_each_setting_does_what_it_says():
    picture = np.asarray(Image.fromarray(np.asarray(crop_photo(np.random.default_rng(3), 96))))
    np.testing.assert_array_equal(finish(picture, NEUTRAL), picture)

    def change(**settings) -> np.ndarray:
        return finish(picture, dataclasses.replace(NEUTRAL, **settings)).astype(float)

    grey = change(saturation=0.0, chroma=9.0)
    assert np.ptp(grey, axis=2).max() == 0
    errors = [np.abs(change(quality=quality) - picture).mean() for quality in (95, 60, 10)]
    assert errors[0] < errors[1] < errors[2]
    steps = [
        np.abs(np.diff(p, axis=1)).mean()
        for p in (change(scale=0.4), picture.astype(float), change(sharpen=1.5))
    ]
    assert steps[0] < steps[1] < steps[2]
    luma = np.array([0.299, 0.587, 0.114])
    noise = change(chroma=8.0, chroma_px=2) - picture
    inner = ((picture > 50) & (picture < 205)).all(2)
    assert noise[inner].std() > 5 and (noise @ luma)[inner].std() < 1


def test_exposure_and_casts_reach_the_picture():
    factors = sample_factors(1, "test", 4)
    seen = {}
    for name, settings_ in {
        "as it is": {},
        "under": {"stops": -1.5},
        "over": {"stops": 1.5},
        "candle": {"kelvin": 2000.0, "cast": 0.7},
    }.items():
        camera = dataclasses.replace(NEUTRAL, **settings_)
        seen[name] = render(dataclasses.replace(factors, world=World(camera=camera)), SIZE).image.mean((0, 1))
    assert seen["under"].mean() < 0.75 * seen["as it is"].mean() < 0.75 * seen["over"].mean()
    ratio = seen["candle"] / seen["as it is"]
    assert ratio[0] > 1.02 * ratio[1] and ratio[1] > 1.02 * ratio[2]


# -- backgrounds ------------------------------------------------------------------------------------------


def roughness(picture: np.ndarray) -> float:
    """Mean step between neighbouring pixels of the square root of the light, over its deviation."""
    root = np.sqrt(picture)
    return float(np.abs(np.diff(root, axis=1)).mean() / root.std())


def test_detailed_backgrounds_are_sharper_than_painted_ones_and_depend_on_the_seed_alone():
    painted = np.mean([roughness(paint_backdrop(seed, 160)) for seed in range(12)])
    for kind in BACKGROUNDS[1:]:
        first, again, other = (paint_detail(kind, seed, 160) for seed in (7, 7, 8))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)
        assert first.shape == (160, 160, 3) and first.dtype == np.float32
        assert first.min() >= 0 and first.max() <= 1
        if kind != "painted":
            assert np.mean([roughness(paint_detail(kind, seed, 160)) for seed in range(6)]) > 1.5 * painted


def test_photographs_of_a_folder_are_cut_sharp(tmp_path):
    checks = np.indices((900, 1200)).sum(0) % 2 * 255
    Image.fromarray(checks.astype(np.uint8)).convert("RGB").save(tmp_path / "fine.png")
    sharp = np.asarray(crop_photo(np.random.default_rng(0), 700, tmp_path, sharp=True)).astype(float)
    assert np.asarray(crop_photo(np.random.default_rng(0), 700, tmp_path)).std() < sharp.std()
    assert paint_detail("photo", 1, 96, tmp_path).std() > 0.003


# -- on disk ----------------------------------------------------------------------------------------------


def test_factors_and_what_became_of_them_are_recorded(tmp_path):
    world = ("held", "camera", "company")
    given = {"train": 4, "val": 1, "test": 0, "seed": 5, "size": 32, "progress": False}
    out = write_dataset(tmp_path / "set", **given, world=world)
    assert json.loads((out / "synthhand.json").read_text())["world"] == list(world)
    with np.load(out / "training/factors.npz") as stored:
        assert {"framing", "detail", "worn"}.isdisjoint(name.split("/")[0] for name in stored)
        for index in range(4):
            factors = sample_factors(5, "train", index, world=world)
            rendering = render(factors, 32)
            with Image.open(out / f"training/color/{index:05d}.png") as picture:
                np.testing.assert_array_equal(np.asarray(picture), rendering.image)
            for name, value in (factors.flat() | rendering.outcomes).items():
                np.testing.assert_array_equal(stored[name][index], value)
        assert {*rendering.outcomes} <= {*stored}
    again = write_dataset(tmp_path / "two", **given, world=("company", "held", "camera"))
    files = [p.relative_to(out) for p in sorted(out.rglob("*")) if p.is_file()]
    assert [(again / p).read_bytes() for p in files] == [(out / p).read_bytes() for p in files]
    with pytest.raises(ValueError, match=r"world is \['held', 'camera', 'company'\] there, \[\] asked for"):
        write_dataset(out, **given)
    with pytest.raises(ValueError, match="unknown world 'gloves'"):
        write_dataset(tmp_path / "new", **given, world="gloves")
    assert not (tmp_path / "new").exists()


def test_all_together_keep_the_rules_of_a_sample():
    for index in range(8):
        factors = sample_factors(13, "train", index, world="photographs")
        rendering = render(factors, SIZE)
        own, others = (
            hand_pixels(rendering.part_mask, side).sum()
            for side in (rendering.side, "left" if rendering.side == "right" else "right")
        )
        assert own > others and own > 10
        assert rendering.part_mask.max() <= 33
        assert rendering.image.shape == (SIZE, SIZE, 3) and rendering.image.dtype == np.uint8
        hand, joints = (
            build_hand(factors),
            rendering.joints_mm[21:] if rendering.side == "right" else rendering.joints_mm[:21],
        )
        np.testing.assert_array_equal(joints, hand.joints_mm[RHD_ORDER])
        assert {name.split("/")[0] for name in rendering.outcomes} == {"held", "company"}
        buffer = io.BytesIO()
        Image.fromarray(rendering.image).save(buffer, "PNG")


def test_a_second_hand_keeps_its_place_behind_the_first_under_framing():
    for index in range(20):
        factors = sample_factors(13, "train", index, world=("framing",))
        if factors.scene.second_shown:
            assert build_second_hand(factors).joints_mm[9, 2] > 1.3 * build_hand(factors).joints_mm[9, 2]
