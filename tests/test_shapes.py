"""Shapes and types of results of the core's public functions, for sizes drawn by hypothesis."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float32, Float64, Int64, jaxtyped
from torch import Tensor

from davae import losses, metrics
from davae.config import BLOCKS, CameraConfig, LossConfig, MaskConfig, preset
from davae.networks import DaVAE, HandMaskNet
from davae.networks.blocks import (
    BasicBlock,
    SelectiveKernelBlock,
    SqueezeExcitationBlock,
    residual_layer,
    run_in_fp32,
)
from davae.networks.camera import CameraHead, project_to_crop, trunk_shape
from davae.networks.folding import fold_batchnorm
from davae.networks.handmask import ResNet, composite_over_grey, enlarge
from davae.networks.nearest import find_nearest, nearest_squared_distances
from synthhand import pinhole
from synthhand.skeleton import BONES, JOINTS, PARENTS, RHD_ORDER

Array = np.ndarray
few = st.integers(1, 4)
sizes = st.integers(1, 9)


def check(*pairs) -> None:
    """Assert that each value is of its type and shape; an axis name stands for one size in all of them."""
    with jaxtyped("context"):
        for value, kind in pairs:
            assert isinstance(value, kind), f"{value.dtype} {tuple(value.shape)} is not {kind}"


def test_the_check_sees_wrong_sizes_ranks_and_types():
    a = torch.zeros(2, 3)
    check((a, Float32[Tensor, "b 3"]), (a[:, 0], Float32[Tensor, "b"]))
    for wrong in ((a, Float32[Tensor, "b 4"]), (a, Float32[Tensor, "b"]), (a, Float64[Tensor, "b 3"])):
        with pytest.raises(AssertionError):
            check(wrong)
    with pytest.raises(AssertionError):
        check((a, Float32[Tensor, "b c"]), (a, Float32[Tensor, "c b"]))


# --- losses ------------------------------------------------------------------------------------------------


@given(few, sizes, sizes)
def test_shapes_of_distances(b, n, m):
    p, q = torch.randn(b, n, 3), torch.randn(b, m, 3)
    forward, backward = nearest_squared_distances(p, q)
    in_q, in_p = find_nearest(p, q)
    check(
        (p, Float32[Tensor, "b n 3"]),
        (q, Float32[Tensor, "b m 3"]),
        (forward, Float32[Tensor, "b n"]),
        (backward, Float32[Tensor, "b m"]),
        (in_q, Int64[Tensor, "b n"]),
        (in_p, Int64[Tensor, "b m"]),
        (losses.cloud_loss(p, q), Float32[Tensor, "b"]),
        (losses.chamfer_distance(p, q), Float32[Tensor, "b"]),
    )


@given(few, sizes, sizes, sizes)
def test_shapes_of_terms(b, j, h, z):
    joints, image, code = torch.randn(b, j, 3), torch.rand(b, 3, h, z), torch.randn(b, z)
    check(
        (joints, Float32[Tensor, "b j 3"]),
        (losses.pose_loss(joints, joints + 1), Float32[Tensor, "b"]),
        (losses.image_loss(image, 1 - image), Float32[Tensor, "b"]),
        (losses.image_loss(image.bfloat16(), image), Float32[Tensor, "b"]),
        (losses.gaussian_kl(code, code), Float32[Tensor, "b z"]),
    )


@given(few, sizes, sizes, st.tuples(few, few, few))
def test_shapes_of_the_objective(b, p, h, latents):
    codes = dict(zip(BLOCKS, (torch.randn(b, z) for z in latents), strict=True))
    joints, cloud, image = torch.randn(b, JOINTS, 3), torch.randn(b, p, 3), torch.rand(b, 3, h, h)
    predicted = SimpleNamespace(pose=joints, cloud=cloud, image=image, mask=None, means=codes, logvars=codes)
    true = SimpleNamespace(joints=-joints, cloud=-cloud, target=1 - image, has_cloud=torch.ones(b) > 0)
    parts = losses.objective(predicted, true, LossConfig())
    assert (len(parts.terms), len(parts.kls), len(parts.weighted)) == (3, 3, 6)
    scalars = [parts.total, parts.elbo, *parts.terms.values(), *parts.kls.values(), *parts.weighted.values()]
    check(*((scalar, Float32[Tensor, ""]) for scalar in scalars))


# --- metrics -----------------------------------------------------------------------------------------------


@given(few, sizes, st.integers(2, 9))
def test_shapes_of_errors(n, j, t):
    rng = np.random.default_rng(n)
    pred, true, thresholds = rng.normal(size=(n, j, 3)), rng.normal(size=(n, j, 3)), np.arange(t) / t
    errors = metrics.endpoint_error(pred, true)
    curve = metrics.pck(errors, thresholds)
    check(
        (pred, Float64[Array, "n j 3"]),
        (errors, Float64[Array, "n j"]),
        (metrics.endpoint_error(pred[0], true[0]), Float64[Array, "j"]),
        (metrics.procrustes_align(pred, true), Float64[Array, "n j 3"]),
        (metrics.procrustes_align(pred[0], true[0]), Float64[Array, "j 3"]),
        (metrics.mean_pose(true), Float64[Array, "j 3"]),
        (thresholds, Float64[Array, "t"]),
        (curve, Float64[Array, "t"]),
    )
    assert type(metrics.auc(thresholds, curve)) is float
    interval = metrics.bootstrap_interval(errors, n=10)
    assert [type(end) for end in interval] == [float, float]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6))
def test_shapes_of_protocols(n):
    pred, true = np.random.default_rng(n).normal(size=(2, n, JOINTS, 3))
    scale, visible = np.full(n, 30.0), np.ones((n, JOINTS), bool)
    results = metrics.evaluate_protocols(pred, true, scale, visible, 30.0, resamples=5)
    for name, result in results.items():
        errors = metrics.protocol_errors(metrics.PROTOCOLS[name], pred, true, scale, visible, 30.0)
        check(
            (errors, Float64[Array, "n 21"]),
            (result.errors_mm, Float64[Array, "n 21"]),
            (result.per_joint_mm, Float64[Array, "21"]),
        )
    check((metrics.procrustes_mean_hand(true), Float64[Array, "21 3"]))


# --- geometry ----------------------------------------------------------------------------------------------


@given(st.lists(few, max_size=3), sizes, sizes)
def test_shapes_of_geometry(batch, h, w):
    K, uv, depth = np.diag([300.0, 300.0, 1.0]), np.ones((*batch, 2)), np.full(batch, 500.0)
    points = pinhole.backproject(uv, depth, K)
    ray = pinhole.pixel_ray([3.0, 4.0], K)
    mask = np.arange(h * w).reshape(h, w) % 2 == 0
    centre, half = pinhole.hand_crop(np.arange(2.0 * JOINTS).reshape(JOINTS, 2), np.ones(JOINTS, bool))
    matrices = (
        pinhole.view_rotation(ray),
        pinhole.rotation_about_z(0.3),
        pinhole.mirror_camera(K, w),
        pinhole.crop_camera(K, centre, half, w),
        pinhole.rotation_homography(K, np.eye(3), K),
    )
    check(
        (uv, Float64[Array, "*batch 2"]),
        (points, Float64[Array, "*batch 3"]),
        (pinhole.project(points, K), Float64[Array, "*batch 2"]),
        (pinhole.apply_homography(K, uv), Float64[Array, "*batch 2"]),
        (pinhole.depth_to_points(np.full((h, w), 400.0), mask, K), Float64[Array, f"{mask.sum()} 3"]),
        (ray, Float64[Array, "3"]),
        (centre, Float64[Array, "2"]),
        *((matrix, Float64[Array, "3 3"]) for matrix in matrices),
    )
    assert type(half) is float


@given(sizes)
def test_shape_of_the_plain_crops_error(rotations):
    hand = np.random.default_rng(0).normal(size=(JOINTS, 3))
    check((pinhole.plain_crop_error(hand, 0.2, rotations=rotations), Float64[Array, f"{rotations} 21"]))


def test_shapes_of_the_skeleton():
    check((PARENTS, Int64[Array, "21"]), (BONES, Int64[Array, "20 2"]), (RHD_ORDER, Int64[Array, "21"]))


# --- networks ----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(few, few, few, st.integers(4, 9), st.integers(4, 9), st.sampled_from([1, 2]))
def test_shapes_of_residual_blocks(b, half_in, c_out, h, w, stride):
    x = torch.randn(b, 2 * half_in, h, w)
    blocks = (
        BasicBlock(2 * half_in, c_out, stride=stride),
        SelectiveKernelBlock(2 * half_in, c_out, stride=stride, reduced=3),
        SqueezeExcitationBlock(2 * half_in, c_out, stride=stride, reduced=3),
        residual_layer(BasicBlock, 2 * half_in, c_out, depth=3, stride=stride),
    )
    shape = f"{b} {c_out} {-(-h // stride)} {-(-w // stride)}"
    check(*((block.eval()(x), Float32[Tensor, shape]) for block in blocks))
    with torch.autocast("cpu", torch.bfloat16):
        check((run_in_fp32(blocks[0], x), Float32[Tensor, shape]))


SETS = st.fixed_dictionaries({
    "image_px": st.sampled_from([32, 48, 80]),
    "width": st.sampled_from([8, 16]),
    "depths": st.tuples(*[st.integers(1, 2)] * 4),
    "attention": st.sampled_from(["sk", "none", "se"]),
    "head_pool": st.sampled_from(["mean", "none"]),
    "stem_stride": st.sampled_from([1, 2]),
    "stem_pool": st.booleans(),
    "latent_pose": sizes,
    "latent_appearance": sizes,
    "latent_shape": sizes,
    "fold_grid": few,
})  # fmt: skip


@settings(max_examples=10, deadline=None)
@given(few, SETS, st.booleans())
def test_shapes_of_da_vae(b, values, folded):
    config = dataclasses.replace(preset("smoke").model, **values)
    px, points, sizes = config.image_px, config.fold_grid**2, config.latent_sizes
    model = DaVAE(config).eval()
    model = fold_batchnorm(model) if folded else model
    image = torch.rand(b, 3, px, px)
    with torch.inference_mode():
        features = model.encoder.trunk(image)
        output = model(image, torch.randn(b, model.latents))
        decoded = model.decode(model.encode(image).means)
    channels, height, width = trunk_shape(config)
    check((features, Float32[Tensor, f"{b} {channels} {height} {width}"]))
    for pose, cloud, picture in (output[:3], decoded[:3]):
        check(
            (pose, Float32[Tensor, f"{b} 21 3"]),
            (cloud, Float32[Tensor, f"{b} {points} 3"]),
            (picture, Float32[Tensor, f"{b} 3 {px} {px}"]),
        )
    for codes in (output.means, output.logvars, output.z):
        assert tuple(codes) == BLOCKS
        check(*((codes[block], Float32[Tensor, f"{b} {sizes[block]}"]) for block in BLOCKS))


@settings(max_examples=10, deadline=None)
@given(few, st.integers(8, 40), st.integers(8, 40), st.booleans())
def test_shapes_of_the_mask_network(b, h, w, pool):
    config = MaskConfig(width=8, depths=(1, 1, 1, 1), stem_pool=pool, decoder=4)
    image = torch.rand(b, 3, h, w)
    with torch.inference_mode():
        logits = HandMaskNet(config).eval()(image)
        maps = ResNet(config).eval()(image)
        mask = enlarge(logits, image).sigmoid()
    check(
        (image, Float32[Tensor, "b 3 h w"]),
        (logits, Float32[Tensor, f"b 1 {-(-h // 2)} {-(-w // 2)}"]),
        (mask, Float32[Tensor, "b 1 h w"]),
        (composite_over_grey(image, mask), Float32[Tensor, "b 3 h w"]),
    )
    assert [found.shape[1] for found in maps] == [8, 8, 16, 32, 64]


@settings(max_examples=5, deadline=None)
@given(few)
def test_shapes_of_the_camera_head(b):
    config = CameraConfig(model=preset("smoke").model, channels=(8, 16), hidden=4)
    with torch.inference_mode():
        placement = CameraHead(config).eval()(torch.rand(b, *trunk_shape(config.model)))
    check(
        (placement.root, Float32[Tensor, "b 2"]),
        (placement.bone, Float32[Tensor, "b"]),
        (placement.right, Float32[Tensor, "b"]),
        (project_to_crop(torch.randn(b, JOINTS, 3), placement, 64), Float32[Tensor, "b 21 2"]),
    )
