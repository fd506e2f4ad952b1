"""The decoder that draws: maps of bones against brute force, and what each block of the code can move."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from davae.config import BLOCKS, CANVAS, MID_GREY, Config, preset
from davae.data.augment import Batch
from davae.losses import image_loss, objective
from davae.networks import DaVAE
from davae.networks.fused import FusedLimbDecoder
from davae.networks.limbs import DISTANCE, EDGE, REACH, LimbDecoder, draw_limbs, project_bones
from davae.networks.native import explain_missing
from davae.training.davae_task import DaVAETask
from synthhand.model.procedural import procedural_rig
from synthhand.skeleton import BONES, JOINTS, REFERENCE_BONE, ROOT


def limb_config(image_decoder: str = "limbs") -> Config:
    config = preset("smoke")
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, canvas=True),
        model=dataclasses.replace(config.model, image_decoder=image_decoder),
    )


def rest_hand() -> torch.Tensor:
    """Normalised joints (1, 21, 3) of the built-in hand."""
    joints = procedural_rig().joints_mm
    bone = np.linalg.norm(np.subtract(*joints[list(REFERENCE_BONE)]))
    return torch.tensor((joints - joints[ROOT]) / bone, dtype=torch.float32)[None]


def draw_by_hand(joints: np.ndarray, side: int) -> np.ndarray:
    """Maps (40, side, side) by a thousand points along each bone."""
    maps = np.zeros((40, side, side))
    projected = joints[:, :2] * DISTANCE / (DISTANCE + joints[:, 2:])
    points = np.concatenate([projected, joints[:, 2:]], 1)
    centres = CANVAS * ((np.arange(side) + 0.5) / side - 0.5)
    for bone, (parent, child) in enumerate(BONES):
        along = points[parent] + np.linspace(0, 1, 1001)[:, None] * (points[child] - points[parent])
        for row, y in enumerate(centres):
            for column, x in enumerate(centres):
                squared = (along[:, 0] - x) ** 2 + (along[:, 1] - y) ** 2
                nearest = squared.argmin()
                profile = (1 + squared[nearest] / (REACH * CANVAS / side) ** 2) ** -2
                maps[bone, row, column] = profile
                maps[20 + bone, row, column] = profile * along[nearest, 2]
    return maps


def test_maps_are_those_drawn_point_by_point():
    joints = torch.randn(2, JOINTS, 3, generator=torch.Generator().manual_seed(0))
    maps = draw_limbs(project_bones(joints), 16).numpy()
    for hand, drawn in zip(joints.double().numpy(), maps, strict=True):
        np.testing.assert_allclose(drawn, draw_by_hand(hand, 16), atol=2e-3)


def test_a_bone_seen_end_on_is_a_finite_spot():
    """All its points project to one, so that the direction in the picture is not defined."""
    joints = torch.zeros(1, JOINTS, 3)
    joints[0, :, 2] = torch.arange(JOINTS) / 10
    maps = draw_limbs(project_bones(joints), 9)
    assert maps.isfinite().all() and (maps[:, :20, 4, 4] == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("side", [4, 16, 34])
def test_the_kernel_draws_the_same_maps(require, dtype, side):
    require(explain_missing() is None, f"no kernels: {explain_missing()}")
    decoder = LimbDecoder(dataclasses.replace(limb_config().model, image_px=2 * side)).train()
    joints = torch.randn(3, JOINTS, 3, generator=torch.Generator().manual_seed(side))
    joints[0] = 0  # bones without length
    plain = decoder.draw(joints)
    decoder.__class__ = FusedLimbDecoder
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        fused = decoder.draw(joints)
    assert fused.dtype == dtype and fused.is_contiguous(memory_format=torch.channels_last)
    rounding = 1e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(fused.float(), plain, rtol=rounding, atol=1e-5)


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_paints_the_same_picture(require, dtype, stride):
    """And has the same gradients, also where only one of image and mask is read."""
    require(explain_missing() is None, f"no kernels: {explain_missing()}")
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 4 * stride**2, 3, 5, generator=generator)
    logits = logits.to(dtype, memory_format=torch.channels_last).requires_grad_()
    decoder = LimbDecoder(dataclasses.replace(limb_config().model, image_last_stride=stride)).train()
    size = 3 * stride, 5 * stride
    weights = torch.randn(2, 3, *size, generator=generator), torch.randn(2, 1, *size, generator=generator)
    found = {}
    for kind in (LimbDecoder, FusedLimbDecoder):
        decoder.__class__ = kind
        image, mask = decoder.paint(logits)
        totals = (image * weights[0]).sum(), (mask * weights[1]).sum()
        for name, total in (("image", totals[0]), ("mask", totals[1]), ("both", totals[0] + totals[1])):
            (gradient,) = torch.autograd.grad(total, logits, retain_graph=True)
            found.setdefault(name, []).append((image, mask, gradient))
    for plain, fused in found.values():
        for one, other in zip(plain, fused, strict=True):
            rounding = 1e-5 if dtype == torch.float32 or other.dtype == torch.float32 else 1e-2
            torch.testing.assert_close(other, one, rtol=rounding, atol=rounding / 10)


def test_appearance_moves_colours_alone_and_shape_the_outline_alone():
    torch.manual_seed(0)
    decoder = LimbDecoder(limb_config().model).eval()
    joints = rest_hand().expand(2, -1, -1)
    shape, appearance = torch.randn(1, 8).expand(2, -1), torch.randn(2, 16)
    image, mask = decoder(joints, appearance, shape)
    assert (mask[0] == mask[1]).all() and (image[0] - image[1]).abs().max() > 0.01
    image, mask = decoder(joints, appearance[:1].expand(2, -1), torch.randn(2, 8))
    assert (mask[0] - mask[1]).abs().max() > 0.01
    colour = (image - MID_GREY) / torch.sigmoid(EDGE * torch.logit(mask))  # over grey
    torch.testing.assert_close(colour[0], colour[1])


def test_outlines_are_sharp_once_training_is_over():
    torch.manual_seed(0)
    decoder = LimbDecoder(limb_config().model)
    logits = 3 * torch.randn(1, 4 * decoder.stride**2, 4, 4)
    soft, mask = decoder.train().paint(logits)
    sharp, same = decoder.eval().paint(logits)
    assert torch.equal(mask, same)
    cut = [((image - MID_GREY) / (soft - MID_GREY) * mask).mean(1) for image in (soft, sharp)]
    torch.testing.assert_close(cut[0], mask[:, 0])
    assert torch.equal(cut[1] > 0.5, mask[:, 0] > 0.5)
    assert ((cut[1] - 0.5).abs() >= (cut[0] - 0.5).abs() - 1e-6).all()


def test_training_paints_the_first_half_of_a_batch():
    torch.manual_seed(0)
    model = DaVAE(limb_config().model).train()
    images, noise = torch.rand(5, 3, 64, 64), torch.randn(5, 48)
    output = model(images, noise)
    assert len(output.image) == len(output.mask) == 3 and len(output.pose) == len(output.cloud) == 5
    joints = output.pose.detach()
    batch = Batch(
        image=images, target=torch.rand(5, 3, 64, 64), mask=torch.rand(5, 1, 64, 64), joints=joints,
        cloud=torch.randn(5, 30, 3), has_cloud=torch.ones(5) > 0, has_mask=torch.arange(5) != 1,
        scale_mm=torch.ones(5),
    )  # fmt: skip
    term = objective(output, batch, limb_config().loss).terms["image"]
    masks = 256**2 * (output.mask - batch.mask[:3]).square().mean((1, 2, 3))
    torch.testing.assert_close(
        term, image_loss(output.image, batch.target[:3]).mean() + (masks[0] + masks[2]) / 3
    )
    model.eval()
    assert len(model.decode_image(output.z, joints)[0]) == 5


def test_the_picture_gives_pose_no_gradient():
    """Pose reaches the picture through the joints alone, which are learnt from joints."""
    torch.manual_seed(0)
    model = DaVAE(limb_config().model).train()
    output = model(torch.rand(4, 3, 64, 64))
    assert output.mask is not None and output.mask.shape == (2, 1, 64, 64)
    output.image.sum().backward()
    assert all(p.grad is None for p in model.pose_decoder.parameters())
    heads = {block: model.encoder.heads[block].fc.weight.grad for block in BLOCKS}
    assert heads["pose"] is None or not heads["pose"].any()
    assert heads["appearance"].any() and heads["shape"].any()


def test_given_joints_are_drawn_instead_of_decoded_ones():
    torch.manual_seed(0)
    model = DaVAE(limb_config().model).eval()
    image, joints = torch.rand(2, 3, 64, 64), rest_hand().expand(2, -1, -1)
    given, own = model(image, drawn=joints), model(image)
    torch.testing.assert_close(given.pose, own.pose)
    assert (given.image - own.image).abs().max() > 1e-3
    torch.testing.assert_close(given.image, model.decode_image(given.z, joints)[0])


def test_the_mask_counts_as_a_fourth_channel_where_it_is_known():
    torch.manual_seed(0)
    config = limb_config()
    output = DaVAE(config.model).eval()(torch.rand(2, 3, 64, 64))
    truth = torch.rand(2, 1, 64, 64)
    batch = Batch(
        image=output.image, target=torch.rand(2, 3, 64, 64), mask=truth, joints=torch.randn(2, JOINTS, 3),
        cloud=torch.randn(2, 30, 3), has_cloud=torch.ones(2) > 0, has_mask=torch.tensor([True, False]),
        scale_mm=torch.ones(2),
    )  # fmt: skip
    term = objective(output, batch, config.loss).terms["image"]
    squared = (output.mask[0] - truth[0]).square().mean() * 256 * 256
    torch.testing.assert_close(term, image_loss(output.image, batch.target).mean() + squared / 2)


def test_a_task_wants_a_canvas_for_limbs():
    config = limb_config()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, canvas=False))
    with pytest.raises(ValueError, match=r"model.image_decoder is 'limbs'.*set data.canvas to true"):
        DaVAETask(config)


def test_a_task_wants_a_divided_code_for_limbs():
    config = limb_config()
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, divided=False))
    with pytest.raises(ValueError, match=r"model.divided is false, but.*needs model.image_decoder=paper"):
        DaVAETask(config)


def test_pictures_must_divide_into_maps():
    model = dataclasses.replace(limb_config().model, image_px=66)
    with pytest.raises(ValueError, match=r"image_px is 66; the limb decoder needs a multiple of 4"):
        LimbDecoder(model)


def test_the_built_in_hand_fits_the_canvas():
    """With room for flesh: half the canvas reaches beyond the farthest joint, turned any way."""
    reach = torch.linalg.vector_norm(rest_hand(), dim=2).max()
    assert 2 * reach < CANVAS < 2.5 * reach
    assert math.isclose(float(torch.linalg.vector_norm(rest_hand()[0, 10])), 1, rel_tol=1e-5)
