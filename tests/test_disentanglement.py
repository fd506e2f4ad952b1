"""Effects of moving a block: hand-drawn pictures, and a model that is disentangled by construction."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from davae.config import BLOCKS, DataConfig, preset
from davae.latent import disentanglement as d
from davae.latent.blend import render_frame, render_path
from davae.latent.codes import encode
from davae.networks import DaVAE
from synthhand.dataset.writer import sample_factors


def disc(u: float, v: float, radius: float, colour: tuple[float, float, float], px: int = 32) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(px), torch.arange(px), indexing="ij")
    inside = (x - u) ** 2 + (y - v) ** 2 < radius**2
    return torch.where(inside, torch.tensor(colour)[:, None, None], torch.tensor(0.5))


RED, BLUE = (0.9, 0.2, 0.2), (0.2, 0.2, 0.9)


def test_silhouettes_and_colours_by_hand():
    a, b, far = disc(10, 10, 6, RED), disc(10, 10, 6, BLUE), disc(25, 25, 4, RED)
    empty = torch.full_like(a, 0.5)
    first, second = torch.stack([a, a, a, empty]), torch.stack([a, b, far, empty])
    assert_close(d.silhouette_change(first, second), torch.tensor([0.0, 0.0, 1.0, 0.0]).double())
    change = d.colour_change(first, second)
    assert_close(change[:3], 255 * torch.tensor([0.0, 1.4 / 3, 0.0]).double(), atol=1e-3, rtol=0)
    assert change[3].isnan()
    larger = disc(10, 10, 8, RED)
    inside, outside = (d.silhouette(image).sum().item() for image in (a, larger))
    assert d.silhouette_change(a[None], larger[None]).item() == pytest.approx(1 - inside / outside)


def blurred(image: torch.Tensor, radius: int = 3) -> torch.Tensor:
    kernel = torch.ones(3, 1, 2 * radius + 1, 2 * radius + 1) / (2 * radius + 1) ** 2
    padded = torch.nn.functional.pad(image[None], (radius,) * 4, value=0.5)
    return torch.nn.functional.conv2d(padded, kernel, groups=3)[0]


@pytest.mark.parametrize("contrast", [0.2, 0.5, 1.0])
def test_an_outline_does_not_depend_on_how_far_the_colour_is_from_grey(contrast):
    """Nor on the blur, as far as that can be: near the edge of the sharp disc."""
    sharp = disc(16, 16, 9, RED)
    soft = blurred(sharp)
    pale = 0.5 + contrast * (soft - 0.5)
    assert d.silhouette_change(soft[None], pale[None]).item() == 0
    assert d.silhouette_change(sharp[None], pale[None]).item() < 0.3
    assert not d.silhouette(torch.full((3, 8, 8), 0.51)).any()  # an empty picture stays empty


class Painter(torch.nn.Module):
    """Pose says where a disc lies and appearance its colour; or, entangled, appearance says both."""

    def __init__(self, entangled: bool = False):
        super().__init__()
        self.entangled = entangled

    def decode(self, z):
        rows = []
        for pose, appearance in zip(z["pose"], z["appearance"], strict=True):
            where = appearance if self.entangled else pose
            rows.append(disc(16 + float(where[0]), 16, 7, RED if appearance[0] > 0 else BLUE))
        return type("Decoded", (), {"image": torch.stack(rows)})()

    def encode(self, images):
        places = torch.arange(images.shape[3], dtype=torch.float32)
        weights = d.silhouette(images).float().sum(1)
        return type(
            "Code", (), {"means": {"pose": (weights * places).sum(1, keepdim=True) / weights.sum(1, True)}}
        )()

    def decode_pose(self, code):
        return code["pose"][:, :, None].expand(-1, 21, 3) / 10


@pytest.mark.parametrize("entangled", [False, True])
def test_a_model_that_mixes_blocks_is_told_from_one_that_does_not(entangled):
    generator = torch.Generator().manual_seed(0)
    codes = {block: torch.zeros(40, 1) for block in BLOCKS}
    codes["pose"] = 12 * torch.rand(40, 1, generator=generator) - 6
    codes["appearance"] = torch.tensor([-5.0, 5.0]).repeat(20)[:, None]
    pairs = np.stack([np.arange(0, 40, 2), np.arange(1, 40, 2)], axis=1)
    found = d.measure_effects(Painter(entangled), codes, pairs, np.full(40, 30.0))
    assert set(found) == set(BLOCKS) and all(len(values) == 20 for values in found["pose"])
    assert not found["shape"].silhouette.any() and not found["shape"].joints_mm.any()
    claims = d.measure_leaks(found)
    if entangled:
        assert not found["pose"].silhouette.any() and found["appearance"].silhouette.min() > 0.5
        assert not any(claim.holds for claim in claims[:2])
    else:
        assert not found["appearance"].silhouette.any() and found["pose"].silhouette.max() > 0.3
        assert all(claim.holds and claim.ratio < 1e-4 for claim in claims)
        pixel_mm = 30 * np.sqrt(3) / 10
        moved_px = np.abs(np.diff(codes["pose"][pairs][:, :, 0].numpy(), axis=1))[:, 0]
        np.testing.assert_allclose(found["pose"].joints_mm, pixel_mm * moved_px, atol=pixel_mm)


def test_effects_of_a_network_are_what_decoding_by_hand_gives():
    torch.manual_seed(0)
    model = DaVAE(preset("smoke").model).eval()
    codes = encode(model, torch.rand(3, 3, 64, 64))
    scale = np.array([40.0, 45.0, 50.0])
    found = d.measure_effects(model, codes, np.array([[0, 2], [1, 1]]), scale)
    start, moved = ({b: codes[b][:1] for b in BLOCKS} for _ in range(2))
    moved["appearance"] = codes["appearance"][2:]
    with torch.inference_mode():
        images = [model.decode(code).image for code in (start, moved)]
        joints = [model(image).pose for image in images]
    distance = (joints[0] - joints[1]).norm(dim=2).mean() * 40
    assert found["appearance"].joints_mm[0] == pytest.approx(distance.item(), rel=1e-4, abs=1e-6)
    assert found["appearance"].silhouette[0] == pytest.approx(d.silhouette_change(*images).item())
    assert all(effect.joints_mm[1] == 0 and effect.silhouette[1] == 0 for effect in found.values())


def test_the_rendered_truth_of_a_move():
    data = DataConfig(image_px=32, cloud_points=64)
    a, b = (sample_factors(0, "test", index) for index in (0, 1))
    ends = [render_frame(factors, data) for factors in (a, b)]
    way = render_path(a, b, "pose", (0.0, 0.5, 1.0), data)
    assert_close(way[0].image, ends[0].image)
    assert_close(way[2].joints, ends[1].joints, atol=1e-3, rtol=0)  # the same pose, in the first hand's scene
    own = d.measure_agreement(way[0].image, way[0].cloud, way[0])
    assert own.iou == 1 and own.colour == 0 and own.chamfer_mm == pytest.approx(0, abs=1e-3)
    other = d.measure_agreement(way[2].image, way[2].cloud, way[0])
    assert other.iou < 0.9 and other.chamfer_mm > 1
    skin = render_path(a, b, "appearance", (0.0, 1.0), data)
    assert d.silhouette_change(skin[0].image[None], skin[1].image[None]).item() < 0.1
    assert_close(skin[0].joints, skin[1].joints)
