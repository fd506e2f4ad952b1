"""Importance of blocks, and scores under interventions: perfect, duplicated, constant and rotated codes."""

import numpy as np
import pytest

from davae.latent import importance as i
from davae.latent import interventions as v
from davae.latent.prediction import KERNELS

RNG = np.random.default_rng(2)
GROUPS = {
    "joints": RNG.normal(size=(300, 3)),
    "colour": RNG.normal(size=(300, 2)),
    "flesh": RNG.normal(size=(300, 2)),
}
PERFECT = {"pose": GROUPS["joints"], "appearance": GROUPS["colour"], "shape": GROUPS["flesh"]}


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_perfect_code_has_scores_of_one_and_a_rotated_one_its_floor(kernel):
    found = i.measure_importance(PERFECT, GROUPS, kernel)
    assert found.disentanglement > 0.99 and found.completeness > 0.99
    assert (found.informativeness > 0.9).all()
    assert (np.diag(found.matrix) > 1.5).all()  # a foreign block errs by twice the variance, so R² falls by 2
    floor = i.entangled_floor(PERFECT, GROUPS, kernel)
    assert all(0 < score < 0.35 for score in floor)


def test_a_rotated_code_holds_the_same_in_other_blocks():
    turned = i.rotate_code(PERFECT, np.random.default_rng(0))
    assert {block: codes.shape for block, codes in turned.items()} == {b: c.shape for b, c in PERFECT.items()}
    whole = [np.concatenate(list(code.values()), axis=1) for code in (PERFECT, turned)]
    standard = (whole[0] - whole[0].mean(0)) / whole[0].std(0)
    np.testing.assert_allclose(whole[1] @ whole[1].T, standard @ standard.T, atol=1e-9)
    assert i.measure_importance(turned, GROUPS, "linear").informativeness.min() > 0.99


def test_a_code_held_twice_is_not_complete():
    """Ridge halves its trust in two copies: each block is of use for every group, so neither is focused."""
    everything = np.concatenate(list(GROUPS.values()), axis=1)
    found = i.measure_importance({"pose": everything, "shape": everything}, GROUPS, "linear")
    assert found.disentanglement < 0.05 and found.completeness < 0.05


def test_a_block_that_serves_two_groups_is_told():
    """Shape knows nothing, appearance two of three groups: by hand, (1 + 2 (1 - log 2 / log 3)) / 3."""
    two = np.concatenate([GROUPS["colour"], GROUPS["flesh"]], axis=1)
    code = {"pose": GROUPS["joints"], "appearance": two, "shape": np.zeros((300, 2))}
    found = i.measure_importance(code, GROUPS, "linear")
    assert found.disentanglement == pytest.approx((1 + 2 * (1 - np.log(2) / np.log(3))) / 3, abs=0.03)
    assert found.completeness > 0.99 and not found.matrix[2].any()


def test_a_constant_code_is_of_no_importance():
    found = i.measure_importance({"a": np.ones((300, 2)), "b": np.ones((300, 1))}, GROUPS, "linear")
    assert np.isnan([found.disentanglement, found.completeness]).all() and not found.matrix.any()


def draw_held(mix=None, noise=0.0, anchors=40, images=8):
    """Codes of a world of one number a group, block k holding group k, or all groups mixed by a matrix."""
    mix = np.eye(3) if mix is None else mix
    rng = np.random.default_rng(3)

    def encode(factors):
        z = factors @ mix + noise * rng.normal(size=factors.shape)
        return {block: z[..., k : k + 1] for k, block in enumerate(PERFECT)}

    held = {}
    for k, group in enumerate(GROUPS):
        factors = rng.normal(size=(anchors, images, 3))
        factors[:, :, k] = factors[:, :1, k]
        held[group] = encode(factors)
    return held, encode(rng.normal(size=(2000, 3)))


def test_interventions_on_a_perfect_code():
    held, reference = draw_held()
    votes = v.measure_votes(held, reference)
    assert (
        votes.accuracy == 1
        and (votes.matrix == 40 * np.eye(3)).all()
        and votes.chance == pytest.approx(1 / 3)
    )
    robust = v.measure_robustness(held, reference)
    np.testing.assert_allclose(np.diag(robust), 1, atol=1e-9)
    assert robust[~np.eye(3, dtype=bool)].max() < 0.5


def test_interventions_on_a_rotated_code():
    mix = np.full((3, 3), 2 / 3) - np.eye(3)  # a reflection in which each block holds every group
    held, reference = draw_held(mix)
    clean = v.measure_votes(*draw_held()).accuracy
    assert v.measure_votes(held, reference).accuracy < clean - 0.2
    assert np.diag(v.measure_robustness(held, reference)).max() < 0.9


def test_noise_lowers_robustness_but_not_votes():
    held, reference = draw_held(noise=0.3)
    assert v.measure_votes(held, reference).accuracy > 0.95
    assert 0.3 < np.diag(v.measure_robustness(held, reference)).max() < 0.9


def test_a_block_that_does_not_vary_has_no_vote():
    held, reference = draw_held()
    still = {block: np.zeros_like(codes) if block == "shape" else codes for block, codes in reference.items()}
    assert not v.measure_votes(held, still).matrix[2].any()
    assert np.isnan(v.measure_robustness(held, still)[2]).all()
    nothing = {block: np.zeros_like(codes) for block, codes in reference.items()}
    assert np.isnan(v.measure_votes(held, nothing).accuracy)
