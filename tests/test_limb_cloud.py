"""The cloud decoder that knows the bones: tubes by hand, and what can move a cloud."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from davae.config import BLOCKS, ModelConfig, preset
from davae.data.augment import Batch
from davae.losses import objective
from davae.networks import DaVAE
from davae.networks.limb_cloud import RADIUS, LimbCloudDecoder, wrap_bones
from davae.networks.nearest import nearest_squared_distances
from davae.training.davae_task import DaVAETask
from davae.training.task import Examples
from synthhand.model.procedural import procedural_rig
from synthhand.skeleton import BONES, JOINTS, REFERENCE_BONE, ROOT


def limb_config() -> ModelConfig:
    return dataclasses.replace(preset("smoke").model, cloud_decoder="limbs")


def rest_hand() -> torch.Tensor:
    """Normalised joints (1, 21, 3) of the built-in hand, which shows its palm to the camera."""
    joints = procedural_rig().joints_mm
    bone = np.linalg.norm(np.subtract(*joints[list(REFERENCE_BONE)]))
    return torch.tensor((joints - joints[ROOT]) / bone, dtype=torch.float32)[None]


def draw_code(config: ModelConfig, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {block: torch.randn(2, size, generator=generator) for block, size in config.latent_sizes.items()}


def test_tubes_lie_around_their_bones_on_the_side_of_the_camera():
    joints = torch.randn(3, JOINTS, 3, generator=torch.Generator().manual_seed(0))
    places = LimbCloudDecoder(limb_config()).places
    tubes = wrap_bones(joints, places, torch.zeros(3, len(places), 3))
    bones = joints[:, torch.tensor(BONES)]
    for hand, points in zip(bones, tubes, strict=True):
        for (finger, length, across), point in zip(places.tolist(), points, strict=True):
            start, end = hand[int(4 * finger + min(int(length), 3))]
            way = (end - start) / (end - start).norm()
            share = (point - start) @ way / (end - start).norm()
            assert share == pytest.approx(length - min(int(length), 3), abs=1e-4)
            aside = point - start - ((point - start) @ way) * way
            assert aside.norm() == pytest.approx(RADIUS, rel=1e-4)
            assert aside[2] <= 1e-6  # nearer than the bone
            assert abs(aside[2]) < 1e-6 or abs(across) < 1


def test_moves_go_along_across_and_out_of_a_bone():
    joints, places = rest_hand(), torch.tensor([[2.0, 1.5, 0.0]])  # the palm's side of the reference bone
    still = wrap_bones(joints, places, torch.zeros(1, 1, 3))[0, 0]
    way = joints[0, REFERENCE_BONE[1]] - joints[0, REFERENCE_BONE[0]]
    moved = [wrap_bones(joints, places, move[None, None])[0, 0] - still for move in torch.eye(3)]
    assert_close(moved[0], way / way.norm())
    assert_close(torch.stack(moved) @ torch.stack(moved).T, torch.eye(3), atol=1e-5, rtol=0)
    assert abs(moved[1][2]) < 1e-6 and moved[2][2] < -0.5


def test_a_bone_that_points_at_the_camera_gives_finite_points_and_gradients():
    joints = (torch.arange(JOINTS)[:, None] * torch.tensor([0.0, 0.0, -1.0]))[None].requires_grad_()
    places = LimbCloudDecoder(limb_config()).places
    cloud = wrap_bones(joints, places, torch.zeros(1, len(places), 3))
    cloud.square().sum().backward()
    assert cloud.isfinite().all() and joints.grad is not None and joints.grad.isfinite().all()


def test_more_points_lie_on_the_same_surface():
    config = limb_config()
    model, code = DaVAE(config).eval(), draw_code(limb_config(), 0)
    joints = rest_hand().expand(2, -1, -1)
    few, many = model.decode_cloud(code, joints), model.decode_cloud(code, joints, 20_000)
    assert few.shape[1] == 5 * 12 * 3 and many.shape[1] >= 20_000
    assert nearest_squared_distances(few, many)[0].max() < 0.06**2
    assert model.decode_cloud(code, joints, 2000).shape == (2, 2000, 3)


def test_joints_and_shape_move_the_cloud_and_nothing_else_does():
    config = limb_config()
    model = DaVAE(config).eval()
    first, second, joints = draw_code(config, 0), draw_code(config, 1), rest_hand().expand(2, -1, -1)
    cloud = model.decode(first, joints).cloud
    for block in BLOCKS:
        moved = model.decode(first | {block: second[block]}, joints).cloud
        assert torch.equal(moved, cloud) == (block != "shape")
    assert_close(model.decode(first).cloud, model.decode_cloud(first, model.pose_decoder(first["pose"])))


def test_every_parameter_learns_and_the_pose_block_only_from_joints_and_picture():
    config = limb_config()
    model, px = DaVAE(config).train(), config.image_px
    batch = Batch(
        image=torch.rand(2, 3, px, px), target=torch.rand(2, 3, px, px), mask=torch.ones(2, 1, px, px),
        joints=rest_hand().expand(2, -1, -1), cloud=torch.randn(2, 50, 3),
        has_cloud=torch.ones(2, dtype=torch.bool), has_mask=torch.ones(2, dtype=torch.bool),
        scale_mm=torch.full((2,), 30.0),
    )  # fmt: skip
    output = model(batch.image, drawn=batch.joints)
    terms = objective(output, batch, preset("smoke").loss)
    terms.terms["cloud"].backward(retain_graph=True)
    assert all(p.grad is None for p in model.pose_decoder.parameters())
    assert all(p.grad is None for p in model.encoder.heads["pose"].parameters())
    assert any(p.grad.abs().sum() > 0 for p in model.encoder.heads["shape"].parameters())
    terms.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_it_is_trained_around_true_joints(monkeypatch):
    config = dataclasses.replace(preset("smoke"), model=limb_config())
    px, joints = config.model.image_px, rest_hand().expand(2, -1, -1)
    batch = Batch(
        image=torch.rand(2, 3, px, px), target=torch.rand(2, 3, px, px), mask=torch.ones(2, 1, px, px),
        joints=joints, cloud=torch.zeros(2, 4, 3), has_cloud=torch.ones(2, dtype=torch.bool),
        has_mask=torch.ones(2, dtype=torch.bool), scale_mm=torch.full((2,), 30.0),
    )  # fmt: skip
    task = DaVAETask(config)
    network, read = task.build(), []
    monkeypatch.setattr(
        network.cloud_decoder, "forward", lambda given, *_, **__: read.append(given) or torch.zeros(2, 4, 3)
    )
    task.forward(network, Examples(batch, None, np.arange(2), slice(None), torch.Generator()))
    assert len(read) == 1 and torch.equal(read[0], joints)
