"""Latent codes: principal directions against other methods, interpolation, effects of a block."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.decomposition import PCA
from torch.testing import assert_close

from davae.config import BLOCKS, READS
from davae.latent.codes import (
    SHOWN_POINTS,
    CachedDecoder,
    Change,
    Decoding,
    PrincipalDirections,
    combine,
    encode,
    hand_colour,
    lerp,
    measure_change,
    slerp,
)
from davae.networks import DaVAE


@pytest.fixture(scope="module")
def model(tiny_config):
    torch.manual_seed(1)
    return DaVAE(tiny_config.model).eval()


def draw(model, seed=0, count=1):
    generator = torch.Generator().manual_seed(seed)
    return {b: torch.randn(count, z, generator=generator) for b, z in model.config.latent_sizes.items()}


# Principal directions


@pytest.mark.parametrize("shape", [(200, 8), (5, 8), (40, 1)])
def test_directions_are_those_of_scikit_learn_and_of_the_covariance(shape):
    rng = np.random.default_rng(0)
    codes = rng.normal(size=shape) * np.geomspace(1, 0.05, shape[1]) + 3
    found = PrincipalDirections.of(torch.from_numpy(codes))
    k = min(shape[0] - 1, shape[1])
    pca = PCA(k, svd_solver="full").fit(codes)
    assert len(found) == k
    np.testing.assert_allclose(found.mean, pca.mean_, rtol=1e-5)
    np.testing.assert_allclose(found.deviations, pca.explained_variance_**0.5, rtol=1e-4)
    np.testing.assert_allclose(np.abs((found.directions.numpy() * pca.components_).sum(1)), 1, atol=1e-4)
    variances = np.linalg.eigvalsh(np.atleast_2d(np.cov(codes, rowvar=False)))[::-1][:k]
    np.testing.assert_allclose(found.deviations.numpy() ** 2, variances, rtol=1e-3, atol=1e-9)
    largest = found.directions.abs().argmax(1)
    assert (found.directions[torch.arange(k), largest] > 0).all()


def test_offsets_and_coordinates_are_inverse_where_codes_span_the_block():
    found = PrincipalDirections.of(torch.randn(50, 8) @ torch.randn(8, 8))
    offset = torch.randn(3, 8)
    assert_close(found.offset(found.coordinates(offset)), offset, atol=1e-4, rtol=1e-4)
    assert_close(found.coordinates(found.offset(torch.eye(8))), torch.eye(8), atol=1e-4, rtol=0)


def test_draws_have_the_codes_mean_and_covariance():
    codes = torch.randn(300, 3) @ torch.tensor([[2.0, 0, 0], [1, 0.5, 0], [0, 0.3, 0.1]]) + 5
    drawn = PrincipalDirections.of(codes).sample(20_000, torch.Generator().manual_seed(0))
    assert_close(drawn.mean(0), codes.mean(0), atol=0.06, rtol=0)
    assert_close(drawn.T.cov(), codes.T.cov(), atol=0.15, rtol=0)


@pytest.mark.parametrize("codes", [torch.ones(1, 4), torch.full((9, 4), 1234.5), torch.zeros(3, 1)])
def test_codes_that_do_not_differ_have_no_direction(codes):
    found = PrincipalDirections.of(codes)
    assert len(found) == 0 and found.directions.shape == (0, codes.shape[1])
    assert_close(found.sample(2, torch.Generator()), codes[:1].expand(2, -1))
    assert found.coordinates(torch.ones(codes.shape[1])).shape == (0,)


@pytest.mark.parametrize(
    ("codes", "says"),
    [(torch.zeros(0, 4), "n > 0"), (torch.zeros(4), "n, z"), (torch.tensor([[1.0, math.nan]]), "finite")],
)
def test_codes_that_cannot_be_analysed_are_refused(codes, says):
    with pytest.raises(ValueError, match=says):
        PrincipalDirections.of(codes)


# Ways

vectors = arrays(np.float64, 5, elements=st.floats(-10, 10))


@given(vectors, vectors, st.floats(0, 1))
def test_ways_begin_and_end_where_they_should(start, end, t):
    start, end = torch.from_numpy(start), torch.from_numpy(end)
    for way in (lerp, slerp):
        assert_close(way(start, end, 0.0), start, atol=1e-6, rtol=1e-6)
        assert_close(way(start, end, 1.0), end, atol=1e-6, rtol=1e-6)
        assert way(start, end, t).isfinite().all()
        assert_close(way(start, end, t), way(end, start, 1 - t), atol=1e-6, rtol=1e-6)  # there and back
        assert_close(way(start, start, t), start, atol=1e-6, rtol=1e-6)


@given(arrays(np.float64, 6, elements=st.floats(0.1, 3)), st.floats(0, 1))
def test_a_great_circle_runs_evenly_in_angle_and_length(values, t):
    """In the plane, where the code of angle a and length r is known."""
    (first, second), (r0, r1) = np.sort(values[:2]), values[2:4]
    start, end = (r * torch.tensor([math.cos(a), math.sin(a)]) for a, r in ((first, r0), (second, r1)))
    angle, radius = (1 - t) * first + t * second, (1 - t) * r0 + t * r1
    expected = radius * torch.tensor([math.cos(angle), math.sin(angle)])
    assert_close(slerp(start, end, t), expected, atol=2e-5, rtol=1e-5)


def test_the_straight_line_passes_nearer_to_the_origin():
    start, end = torch.randn(2, 100, 24)
    middle = [torch.linalg.vector_norm(way(start, end, 0.5), dim=1) for way in (slerp, lerp)]
    lengths = (torch.linalg.vector_norm(start, dim=1) + torch.linalg.vector_norm(end, dim=1)) / 2
    assert_close(middle[0], lengths)
    assert (middle[1] < middle[0]).all()


# Blocks


def test_each_decoder_reads_the_blocks_that_it_is_said_to_read(model):
    a, b = draw(model, 0), draw(model, 1)
    for block in BLOCKS:
        decoder = CachedDecoder(model, 40.0)
        before = decoder(a)
        after = decoder(combine(dict.fromkeys(BLOCKS, a) | {block: b}))
        for name, was, now in zip(READS, before, after, strict=True):
            reads = block in READS[name]
            assert decoder.calls[name] == 1 + reads
            assert torch.equal(was, now) != reads
        assert decoder(combine(dict.fromkeys(BLOCKS, a) | {block: b})) == after  # the same tensors
        assert sum(decoder.calls.values()) == 3 + sum(block in blocks for blocks in READS.values())


def test_each_decoder_of_an_undivided_code_reads_every_block(tiny_config):
    model = DaVAE(dataclasses.replace(tiny_config.model, divided=False)).eval()
    a, b = draw(model, 0), draw(model, 1)
    for block in BLOCKS:
        decoder = CachedDecoder(model, 40.0)
        for was, now in zip(decoder(a), decoder(combine(dict.fromkeys(BLOCKS, a) | {block: b})), strict=True):
            assert not torch.equal(was, now)
        assert set(decoder.calls.values()) == {2}


def test_a_decoding_is_the_models_in_mm(model):
    code = draw(model)
    found, whole = CachedDecoder(model, 44.0)(code), model.decode(code)
    assert_close(found.joints_mm, 44 * whole.pose[0])
    assert_close(found.cloud_mm, 44 * model.decode_cloud(code, whole.pose, SHOWN_POINTS)[0])
    assert_close(found.image, whole.image[0])


def test_a_code_changed_in_place_is_decoded_anew(model):
    code, decoder = draw(model), CachedDecoder(model, 44.0)
    before = decoder(code).joints_mm
    code["pose"] += 1
    assert not torch.equal(decoder(code).joints_mm, before)


def test_swapped_blocks_form_a_grid(model):
    """Joints depend on the donor of the pose alone, clouds not on that of the appearance; twice is back."""
    codes, decoder = [draw(model, seed) for seed in range(2)], CachedDecoder(model, 44.0)
    grid = {
        (i, j, k): decoder(combine({"pose": codes[i], "appearance": codes[j], "shape": codes[k]}))
        for i in range(2)
        for j in range(2)
        for k in range(2)
    }
    for (i, j, k), found in grid.items():
        assert torch.equal(found.joints_mm, grid[i, 0, 0].joints_mm)
        assert torch.equal(found.cloud_mm, grid[i, 0, k].cloud_mm)
        assert torch.equal(found.image, grid[i, j, k].image)
    assert_close(grid[1, 1, 1].image, model.decode(codes[1]).image[0])
    a, b = codes
    mixed = (
        combine({"pose": a, "appearance": b, "shape": a}),
        combine({"pose": b, "appearance": a, "shape": b}),
    )
    back = combine({"pose": mixed[0], "appearance": mixed[1], "shape": mixed[0]})
    assert all(torch.equal(back[block], a[block]) for block in BLOCKS)


def test_a_code_without_a_donor_is_refused(model):
    with pytest.raises(ValueError, match="appearance, shape"):
        combine({"pose": draw(model)})


def test_codes_are_posterior_means_however_few_at_a_time(model):
    images = torch.rand(5, 3, 64, 64)
    found = encode(model, images, batch=2)
    for block, mean in model.encode(images).means.items():
        assert_close(found[block], mean, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="at least one"):
        encode(model, images[:0])


def test_a_decoder_that_would_mislead_is_refused(model, tiny_config):
    with pytest.raises(ValueError, match="eval"):
        CachedDecoder(DaVAE(tiny_config.model), 44.0)
    with pytest.raises(ValueError, match="eval"):
        encode(DaVAE(tiny_config.model), torch.rand(1, 3, 64, 64))
    for bone_mm in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="bone_mm"):
            CachedDecoder(model, bone_mm)


# Change


def hand(colour, at, joints=0.0):
    image = torch.full((3, 20, 20), 0.5)
    image[:, at : at + 6, at : at + 6] = torch.tensor(colour)[:, None, None]
    points = torch.cartesian_prod(*[torch.arange(3.0) * 10] * 3)
    return Decoding(torch.zeros(21, 3) + joints, points + joints, image)


def test_changes_are_measured_in_mm_and_colour():
    a, b = hand([0.8, 0.6, 0.4], 2), hand([0.7, 0.6, 0.2], 9, joints=1.0)
    assert measure_change(a, a) == Change(0.0, 0.0, 0.0)
    found = measure_change(a, b)
    assert found.joints_mm == pytest.approx(3**0.5)
    assert found.cloud_mm == pytest.approx(3**0.5)  # points 10 apart, moved by less than half of that
    assert found.colour == pytest.approx(255 * 0.3 / 3, abs=0.01)
    assert measure_change(b, a) == found
    assert measure_change(a, hand([0.8, 0.6, 0.4], 11)).colour == pytest.approx(0, abs=1e-3)


def test_a_picture_without_a_hand_has_no_colour():
    assert hand_colour(torch.full((3, 8, 8), 0.52)).isnan().all()
