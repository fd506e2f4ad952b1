"""Skin: range of tones, and the places of nails, creases, bands and rings."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.color import rgb2lab

from synthhand.dataset.factors import sample_factors
from synthhand.dataset.scene import render
from synthhand.model.body import rest_palmar
from synthhand.model.procedural import procedural_rig
from synthhand.model.rig import FOREARM_PART, PALM_PART
from synthhand.render.appearance import BANDS, Surface, ita_degrees, shade_skin, skin_colour
from synthhand.render.backdrop import to_display

RIG = procedural_rig()
REST = Surface(
    RIG.vertices_mm.T.astype(np.float32), RIG.parts, rest_palmar(RIG).astype(np.float32)
)  # every vertex of the rest hand
PLAIN = dataclasses.replace(
    sample_factors(0, "train", 0).appearance, melanin=0.4, veins=0.0, sleeved=0.0, band=0, ring=0
)


@settings(deadline=None)
@given(arrays(np.float64, (5, 3), elements=st.floats(0, 1)))
def test_typology_angle_is_that_of_cielab(rgb):
    lab = rgb2lab(rgb)
    expected = np.degrees(np.arctan2(lab[:, 0] - 50, lab[:, 2]))
    # Near (50, 0) the angle jumps: compare as arrows of the length |(L* - 50, b*)|.
    length = np.hypot(lab[:, 0] - 50, lab[:, 2])
    apart = 2 * np.sin(np.radians(ita_degrees(rgb) - expected) / 2) * length
    np.testing.assert_allclose(apart, 0, atol=0.02)


def test_skin_without_light_spans_the_human_range():
    tones = ita_degrees(to_display(skin_colour(np.linspace(0.12, 3.7, 30), np.full(30, 0.3))))
    assert (np.diff(tones) < 0).all()
    assert tones[0] > 60
    assert tones[-1] < -50


def test_rendered_hands_span_the_human_range():
    colours = np.array([render(sample_factors(0, "val", i), 40).mean_colour for i in range(70)])
    tones = ita_degrees(colours)
    low, high = np.quantile(tones, [0.05, 0.95])
    assert low < -50
    assert high > 60
    # Tones in between are not left out.
    assert np.diff(np.sort(tones[(tones >= low) & (tones <= high)])).max() < 30
    # And few hands are too dark to be seen.
    assert np.mean(rgb2lab(colours)[:, 0] < 12) < 0.05


def changed(skin) -> np.ndarray:
    """Which vertices of the rest hand look different from plain skin."""
    return np.abs(shade_skin(skin, RIG, REST)[0] - shade_skin(PLAIN, RIG, REST)[0]).max(0) > 1e-4


@pytest.mark.parametrize("finger", [1, 2, 3, 4])
def test_a_ring_is_worn_on_its_finger_alone(finger):
    there = changed(dataclasses.replace(PLAIN, ring=finger, ring_colour=np.array([0.9, 0.6, 0.1])))
    assert there.any()
    assert set(REST.parts[there]) == {3 * finger + 2}  # its proximal phalanx


@pytest.mark.parametrize("band", range(1, len(BANDS)))
def test_a_band_goes_round_the_wrist_unless_a_sleeve_covers_it(band):
    worn = dataclasses.replace(PLAIN, band=band, band_mm=25.0, band_colour=np.array([0.02, 0.02, 0.3]))
    there = changed(worn)
    along = REST.rest_mm[1]
    assert there.any()
    assert (REST.parts[there] >= PALM_PART).all()
    assert along[there].min() > 24
    assert along[there].max() < 52
    x = REST.rest_mm[0, there]
    assert x.min() < -15 < 15 < x.max()  # from side to side
    sleeve = {"sleeved": 1.0, "cuff_mm": 22.0}
    forearm = REST.parts == FOREARM_PART
    covered = shade_skin(dataclasses.replace(worn, **sleeve), RIG, REST)[0]
    bare = shade_skin(dataclasses.replace(PLAIN, **sleeve), RIG, REST)[0]
    np.testing.assert_array_equal(covered[:, forearm & (along > 22)], bare[:, forearm & (along > 22)])


def test_veins_are_blue_lines_on_the_back_of_fair_hands():
    there = changed(dataclasses.replace(PLAIN, veins=1.0))
    assert 0.01 < there.mean() < 0.5
    assert (REST.palmar[there] < 0).all()
    assert (REST.parts[there] >= PALM_PART).all()
    fair, veined = (shade_skin(dataclasses.replace(PLAIN, veins=v), RIG, REST)[0] for v in (0.0, 1.0))
    lost = (1 - veined / fair)[:, there].max(1)
    assert lost[0] > 2 * lost[2] > 0  # red goes, blue stays
    dark = dataclasses.replace(PLAIN, melanin=3.0)
    hidden = shade_skin(dark, RIG, REST)[0] - shade_skin(dataclasses.replace(dark, veins=1.0), RIG, REST)[0]
    assert np.abs(hidden).max() < 0.01


def test_reflectances_are_physical():
    for index in range(30):
        colour, gloss = shade_skin(sample_factors(4, "train", index).appearance, RIG, REST)
        assert np.isfinite(colour).all()
        assert colour.min() >= 0
        assert colour.max() <= 1.1
        assert gloss.min() >= 0
        assert gloss.max() <= 1
