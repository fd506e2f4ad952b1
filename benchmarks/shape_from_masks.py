"""Measure how well flesh and bones can be read from a hand's true mask, for each range of flesh.

    python benchmarks/shape_from_masks.py --hands 6000 --px 64 --flesh realistic wide

Hands are sampled as for a dataset, and only their masks are drawn: one ray for each pixel, no light. Masks
are cropped as the project does. A small convolutional network learns the flesh coefficients and the
proportions of the bones (logarithms of ratios) from five sixths of the hands; R2 is measured on the others.
It is trained twice:

    mask     from the mask alone
    joints   also from the mask of the mean hand in the same place, pose and bone proportions, and from the
             pixels that a bone spans: what is known besides flesh once all joints are

R2 of the surface: of the displacement of all vertices of the hand, mm, variance-weighted. Bone proportions
need no network where joints are known, so for them only the first column counts.
"""

import argparse
import dataclasses
import time

import numpy as np
import torch
from torch import Tensor, nn

from davae.config import DataConfig
from davae.data.sample import make_row, stored_px
from synthhand.dataset.factors import FRAME_PX, Factors, ShapeFactors, sample_factors
from synthhand.dataset.scene import build_hand, camera_matrix
from synthhand.formats.record import HandRecord
from synthhand.model import FLESH
from synthhand.model.body import Body
from synthhand.model.procedural import SHAPE_NAMES, procedural_rig
from synthhand.model.rig import PALM_PART
from synthhand.pinhole import project
from synthhand.render.raycast import load_open3d
from synthhand.skeleton import FINGERS

EPOCHS, BATCH, RATE = 16, 64, 3e-3
TURNS = 8  # quarter turns of a mask and of its mirror image


def draw_mask(body: Body, K: np.ndarray) -> np.ndarray:
    """Return the pixels (h, w) bool that show the hand, the forearm before it left out."""
    o3d = load_open3d()
    scene = o3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(body.vertices_mm, body.faces.astype(np.uint32))
    uv = project(body.vertices_mm[body.parts <= PALM_PART], K)
    (left, top), (right, bottom) = (end.clip(0, FRAME_PX).astype(int) for end in (uv.min(0), uv.max(0) + 2))
    u, v = np.meshgrid(np.arange(left, right), np.arange(top, bottom))
    rays = np.zeros((*u.shape, 6), np.float32)
    rays[..., 3:] = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], axis=-1)
    met = scene.cast_rays(o3d.core.Tensor(rays), nthreads=1)
    found = np.isfinite(met["t_hit"].numpy())
    parts = body.parts[body.faces[met["primitive_ids"].numpy()[found].astype(int), 0]]
    mask = np.zeros((FRAME_PX, FRAME_PX), bool)
    mask[top:bottom, left:right][found] = parts <= PALM_PART
    return mask


def crop_mask(factors: Factors, body: Body, data: DataConfig) -> tuple[np.ndarray, float]:
    """Return a hand's mask (px, px) in the test crop, and the pixels that the reference bone spans there."""
    K = camera_matrix(factors, FRAME_PX)
    uv = project(body.joints_mm, K)
    inside = np.all((uv > -0.5) & (uv < FRAME_PX - 0.5), axis=1)
    frame, side = np.zeros((FRAME_PX, FRAME_PX, 3), np.uint8), "left" if factors.scene.left else "right"
    record = HandRecord(frame, draw_mask(body, K), None, body.joints_mm, uv, inside, K, side, 0)
    row = make_row(record, data, evaluation=True)
    begin = (stored_px(data) - data.image_px) // 2
    window = slice(begin, begin + data.image_px)
    span_px = row["camera"][0, 0] * row["scale_mm"] / row["root_mm"][2]
    return row["masks"][window, window] > 0, float(span_px)


def gather(flesh: str, hands: int, px: int, seed: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Return masks (n, 2, px, px) of hands and of mean hands, spans (n, 1), and what is to be read (n, k)."""
    masks, spans, targets = [], [], []
    data, mean = DataConfig(image_px=px), ShapeFactors(np.zeros(len(SHAPE_NAMES)))
    for index in range(hands):
        factors = sample_factors(seed, "train", index, flesh=flesh)
        pair = (factors, dataclasses.replace(factors, shape=mean))
        (own, span), (other, _) = (crop_mask(each, build_hand(each), data) for each in pair)
        masks.append(np.stack([own, other]))
        spans.append([span])
        width, length = np.log(factors.pose.palm_scale)
        fingers = np.log(factors.pose.bone_scale).reshape(5, 3).mean(axis=1)
        all_fingers = fingers.mean()
        ratios = [all_fingers - length, width - length, *(fingers - all_fingers)]
        targets.append(np.concatenate([factors.shape.coefficients, ratios]))
    return torch.from_numpy(np.stack(masks)), torch.tensor(spans), np.stack(targets)


class Reader(nn.Module):
    """Five convolutions and two linear layers."""

    def __init__(self, channels: int, px: int, outputs: int):
        super().__init__()
        widths = [16, 32, 64, 96] if px <= 64 else [8, 16, 32, 64, 96]
        layers: list[nn.Module] = []
        for place, width in enumerate([*widths, widths[-1]]):
            stride = 2 if place < len(widths) else 1
            layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(16 * channels + 1, 192), nn.ReLU(), nn.Linear(192, outputs))

    def forward(self, masks: Tensor, spans: Tensor) -> Tensor:
        """Map masks (b, c, h, w) and spans (b, 1) to standardised values (b, k)."""
        maps = self.body(masks.to(memory_format=torch.channels_last))
        return self.head(torch.cat([maps, spans], dim=1))


def turn(masks: Tensor, number: int) -> Tensor:
    """Return masks turned by a quarter turn `number` times, and mirrored from the fourth number on."""
    masks = masks.float().flip(-1) if number >= 4 else masks.float()
    return torch.rot90(masks, number % 4, (-2, -1))


def read(masks: Tensor, spans: Tensor, targets: Tensor, held_out: int, epochs: int) -> np.ndarray:
    """Train on all but the first `held_out` hands; return what is read from these, (held_out, k)."""
    torch.manual_seed(0)
    model = Reader(masks.shape[1], masks.shape[-1], targets.shape[1])
    steps = (len(masks) - held_out) // BATCH
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, RATE, total_steps=epochs * steps, pct_start=0.15
    )
    for _ in range(epochs):
        order = held_out + torch.randperm(len(masks) - held_out)
        for rows in order[: steps * BATCH].split(BATCH):
            seen = turn(masks[rows], int(torch.randint(TURNS, ())))
            loss = (model(seen, spans[rows]) - targets[rows]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    model.eval()
    with torch.inference_mode():
        pieces = zip(masks[:held_out].split(BATCH), spans[:held_out].split(BATCH), strict=True)
        return torch.cat([sum(model(turn(m, k), s) for k in range(TURNS)) / TURNS for m, s in pieces]).numpy()


def explained(errors: np.ndarray, truth: np.ndarray, gram: np.ndarray) -> float:
    """Return R2 of vectors (n, k), weighted by a positive matrix (k, k)."""
    spread = truth - truth.mean(axis=0)
    unexplained, whole = (np.einsum("nk,kl,nl", values, gram, values) for values in (errors, spread))
    return 1 - float(unexplained / whole)


def measure(flesh: str, hands: int, px: int, epochs: int, seed: int) -> dict[str, dict[str, float]]:
    """Return R2 of each quantity, by what the network sees."""
    masks, spans, targets = gather(flesh, hands, px, seed)
    held_out = hands // 6
    mean, deviation = targets[held_out:].mean(axis=0), targets[held_out:].std(axis=0)
    wanted = torch.from_numpy((targets - mean) / deviation).float()
    spans = (spans - spans.mean()) / spans.std()
    names = (*SHAPE_NAMES, "fingers/palm", "palm width/length", *(f"{name}/fingers" for name in FINGERS))
    rig, fields = procedural_rig(), len(SHAPE_NAMES)
    moves = rig.shape_fields[:, rig.parts <= PALM_PART].reshape(fields, -1)
    found = {}
    for name, seen, known in (("mask", masks[:, :1], 0 * spans), ("joints", masks, spans)):
        errors = (read(seen, known, wanted, held_out, epochs) * deviation + mean) - targets[:held_out]
        truth = targets[:held_out]
        found[name] = {"surface": explained(errors[:, :fields], truth[:, :fields], moves @ moves.T)} | {
            what: explained(errors[:, [k]], truth[:, [k]], np.eye(1)) for k, what in enumerate(names)
        }
    return found


def main() -> None:
    """Print a table for each range."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hands", type=int, default=6000, help="a sixth of them is held out")
    parser.add_argument("--px", type=int, default=64, help="side of the crop: 64 or 128")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--flesh", nargs="+", choices=FLESH, default=FLESH)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for flesh in options.flesh:
        begin = time.process_time()
        found = measure(flesh, options.hands, options.px, options.epochs, options.seed)
        spent = time.process_time() - begin
        print(f"{flesh}: {options.hands} hands, {options.px} px, {spent:.0f} s of one thread")
        print(f"  {'R2':18s}{'mask':>8s}{'joints':>8s}")
        for what in found["mask"]:
            print(f"  {what:18s}{found['mask'][what]:8.2f}{found['joints'][what]:8.2f}")


if __name__ == "__main__":
    main()
