"""Training batches: in-plane rotation and zoom of image, joints and cloud together (paper 4.2).

All samples of a batch are rotated at once on the device. Each stored crop is resampled once, or twice under
`DataConfig.steady_target`; its margin is wide enough for every angle and scale, unless crops are shifted.
Samples are view-normalised before: only then does rotating the picture about the crop's centre equal rotating
the hand about the optical axis. Zoom, shift, blur and photometric changes (`davae.data.photometric`) are
those of the image alone, since poses are relative to the root and normalised by a bone.
"""

import math
import mmap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from davae.config import CANVAS, DataConfig
from davae.config.schema import Crop
from davae.data.photometric import Changes, change_photos, draw_changes
from davae.data.prepared import PreparedSplit
from davae.data.sample import PADDING, bone_px, stored_px
from davae.networks.handmask import composite_over_grey
from davae.networks.native import call, explain_missing


class RawBatch(NamedTuple):
    """Samples as they are stored, on a device; s is the side of stored crops, p the number of points."""

    images: Tensor  # (b, s, s, 3) uint8
    masks: Tensor  # (b, s, s) uint8
    joints: Tensor  # (b, 21, 3)
    clouds: Tensor  # (b, p, 3)
    has_cloud: Tensor  # (b,) bool
    has_mask: Tensor  # (b,) bool
    scale_mm: Tensor  # (b,)
    predicted_masks: Tensor | None = None  # (b, s, s) uint8, soft; None if none were predicted
    bone_px: Tensor | None = None  # (b,) length of the reference bone in pixels of the stored crop


class Batch(NamedTuple):
    """Input and targets of a network.

    The input follows `DataConfig.mask`. "none" gives the crop as photographed, "truth" and "network" give the
    hand over mid-grey by its true or its predicted mask. The target is the hand over mid-grey by its true
    mask. A sample without a true mask takes the predicted one under "network", and is not masked otherwise.
    """

    image: Tensor  # (b, 3, h, w) in [0, 1], the network's input
    target: Tensor  # (b, 3, h, w), the hand over mid-grey: what the image decoder should return
    mask: Tensor  # (b, 1, h, w) in [0, 1], the target's
    joints: Tensor  # (b, 21, 3) normalised
    cloud: Tensor  # (b, p, 3) normalised; zeros if has_cloud is False
    has_cloud: Tensor  # (b,) bool
    has_mask: Tensor  # (b,) bool
    scale_mm: Tensor  # (b,) length of the reference bone, the unit of normalised lengths
    root: Tensor | None = None  # (b, 2) its offset from the crop's middle, right and down, in crop sides
    zoom: Tensor | None = None  # (b,) size of the hand relative to the test crop


def hold_on_gpu(split: PreparedSplit, device: torch.device) -> PreparedSplit | RawBatch:
    """Copy all samples to a GPU if they take less than a tenth of its free memory; else return the split.

    On a GPU, reading and sending a batch takes longer than a training step. Nine tenths remain for the step
    and for other runs.
    """
    if device.type != "cuda":
        return split
    needed = sum(array.nbytes for name in RawBatch._fields if (array := getattr(split, name)) is not None)
    free, _ = torch.cuda.mem_get_info(device)
    return load_batch(split, np.arange(len(split)), device) if needed < free / 10 else split


def load_batch(
    split: PreparedSplit | RawBatch, indices: np.ndarray, device: torch.device | str = "cpu"
) -> RawBatch:
    """Read samples `indices` (b,) of a prepared split, in that order, onto `device`.

    Samples that `hold_on_gpu` copied are taken from there. Otherwise rows are first announced to the
    operating system, in ascending order: its own read-ahead would read several times as much.
    """
    indices = np.asarray(indices)
    if isinstance(split, RawBatch):
        chosen = torch.from_numpy(indices).to(split.images.device)
        return RawBatch._make(None if held is None else held[chosen].to(device) for held in split)
    for name in RawBatch._fields:
        announce(getattr(split, name), np.sort(indices))

    def rows(array: np.ndarray | None) -> Tensor | None:
        if array is None:
            return None
        return torch.from_numpy(np.asarray(array)[indices]).to(device)

    return RawBatch._make(rows(getattr(split, name)) for name in RawBatch._fields)


def stack_rows(rows: Sequence[Mapping[str, NDArray]], crop: Crop) -> RawBatch:
    """Return rows of `davae.data.sample.make_row`, made with this kind of crop, as a batch."""
    names = [name for name in RawBatch._fields if name in rows[0]]
    arrays = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in names}
    lengths = [bone_px(row["camera"], row["scale_mm"], row["root_mm"], crop) for row in rows]
    return RawBatch(**arrays, bone_px=torch.from_numpy(np.stack(lengths)))


def announce(array: np.ndarray | None, rows: np.ndarray) -> None:
    """Hint to the operating system to fetch `rows` (k,) of an array (n, ...) mapped from disk, and no others.

    The hint does not change what is read. None and arrays in memory are ignored.
    """
    mapping = getattr(array, "_mmap", None)
    if not isinstance(array, np.memmap) or mapping is None or not hasattr(mmap, "MADV_WILLNEED"):  # Windows
        return
    size = array[:1].nbytes
    if size < mmap.PAGESIZE:  # rows share pages, so read-ahead does no harm
        return
    mapping.madvise(mmap.MADV_RANDOM)
    offset = array.offset % mmap.ALLOCATIONGRANULARITY
    for row in rows:
        start = offset + int(row) * size
        page = start - start % mmap.PAGESIZE
        mapping.madvise(mmap.MADV_WILLNEED, page, start + size - page)


def augment(
    raw: RawBatch,
    config: DataConfig,
    generator: torch.Generator,
    *,
    batch: int | None = None,
    rows: slice = slice(None),
) -> Batch:
    """Rotate and zoom a batch at random, and draw cloud points anew.

    Per sample: an angle from U[-rotation, rotation] (positive is clockwise on the screen, as in
    `synthhand.pinhole.rotation_about_z`), a scale of the hand in the image from U[scale_min, scale_max], and
    a shift, photometric changes and a blur of the input if `config` has them. `cloud_points` of the stored
    points are drawn, without repetition if there are enough; they are stored in random order, so consecutive
    ones will do.

    Args:
        raw: the stored samples (b, ...).
        config: ranges and sizes; the data must have been prepared for them.
        generator: source of all random numbers, on the CPU, so that batches are equal on every device.
        batch: size of the whole batch if `raw` is a share of it; the default is b.
        rows: the samples of that batch that `raw` holds.

    Raises:
        ValueError: the stored crops do not have the margin that `config` needs, or predicted masks that it
            needs are missing.
    """
    b, stored_points = raw.clouds.shape[:2]
    b = b if batch is None else batch
    angle = config.rotation * (2 * torch.rand(b, generator=generator) - 1)
    scale = config.scale_min + (config.scale_max - config.scale_min) * torch.rand(b, generator=generator)
    first = torch.randint(stored_points, (b, 1), generator=generator)
    cloud = _draw_points(raw.clouds, first[rows].to(raw.clouds.device), config.cloud_points)
    shift = None
    if config.shift:
        shift = config.shift * (2 * torch.rand(b, 2, generator=generator) - 1)[rows]
    largest = config.image_px * config.blur
    if config.blur:
        spread = largest * torch.rand(b, generator=generator)
        spread *= torch.rand(b, generator=generator) < 0.5  # photos are sharp as often as not
    changes = None
    if config.photometric:
        changes = draw_changes(b, config.image_px, config.photometric, generator).select(rows)
    seen = turn_and_zoom(raw._replace(clouds=cloud), config, angle[rows], scale[rows], shift, changes)
    if changes is not None:  # appearance is what the photo shows: its light and tint, too
        seen = seen._replace(target=change_photos(seen.target, changes.keep_colours(), seen.mask))
    if not config.blur:
        return seen
    image = blur(seen.image, spread[rows].to(seen.image.device), math.ceil(3 * largest))
    return seen._replace(image=image)


def turn_and_zoom(
    raw: RawBatch,
    config: DataConfig,
    angle: Tensor,
    scale: Tensor,
    shift: Tensor | None = None,
    changes: Changes | None = None,
) -> Batch:
    """Rotate image, joints and cloud by `angle` (b,) radians, and scale the image by `scale` (b,).

    Under `DataConfig.steady_target` the target is rotated but neither scaled nor shifted, so that no block of
    the code has to hold the hand's place and size in the crop.

    `shift` (b, 2), in sides of the crop, moves the picture right and down. Joints and cloud stay, since they
    are relative to the root. What then lies beyond the stored crop is grey and no hand.

    `changes` are made to the input, before its background is hidden.

    Raises:
        ValueError: as `augment`.
    """
    b, stored = raw.images.shape[:2]
    device = raw.images.device
    _check_margin(stored, config)
    masks = _select_masks(raw, config)
    Rz = torch.zeros(b, 3, 3)
    Rz[:, 0, 0] = Rz[:, 1, 1] = torch.cos(angle)
    Rz[:, 1, 0] = torch.sin(angle)
    Rz[:, 0, 1] = -Rz[:, 1, 0]
    Rz[:, 2, 2] = 1

    # The output's offset d from the centre shows what lies at Rz(-angle) d / scale in the stored crop. With
    # align_corners=False, -1..1 runs from pixel border to pixel border, as the crops of synthhand.pinhole do.
    step = (config.image_px / stored) * Rz[:, :2, :2].transpose(1, 2)
    zoomed = step / scale[:, None, None]
    if config.canvas:
        assert raw.bone_px is not None  # `load_batch` gives it
        step = (CANVAS / stored) * raw.bone_px.cpu()[:, None, None] * Rz[:, :2, :2].transpose(1, 2)
    apart = config.canvas or config.steady_target  # input and target are resampled each by its own
    turn = Rz.to(device).transpose(1, 2)  # row vectors: p @ Rz.T
    root = (torch.zeros(b, 2) if shift is None else shift).to(device)
    joints, clouds, scale = raw.joints @ turn, raw.clouds @ turn, scale.to(device)
    if device.type == "cpu" and explain_missing() is None:
        pictures = _resample_by_kernel(raw, config, zoomed, step, shift, changes)
        return Batch(*pictures, joints, clouds, raw.has_cloud, raw.has_mask, raw.scale_mm, root, scale)
    # Reordering bytes and then casting is five times as fast as both at once.
    layers = torch.empty(b, 3 + len(masks), stored, stored, dtype=torch.uint8, device=device)
    layers[:, :3] = raw.images.permute(0, 3, 1, 2)
    for channel, mask in enumerate(masks, start=3):
        layers[:, channel] = mask
    layers = layers.float()
    pixels = _resample(layers, zoomed, config.image_px, shift)
    shown = _resample(layers, step, config.image_px) if apart else pixels
    return _assemble(raw, config, pixels, shown, joints, clouds, root, scale, changes)


def _resample_by_kernel(
    raw: RawBatch,
    config: DataConfig,
    zoomed: Tensor,
    step: Tensor,
    shift: Tensor | None,
    changes: Changes | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return input (b, 3, px, px), target (b, 3, px, px) and its mask (b, 1, px, px), as `_assemble` would.

    Colours and masks are read, interpolated and put over grey in one pass (`davae.networks.native`).
    """
    (b, stored), px = raw.images.shape[:2], config.image_px
    image, target, mask = torch.empty(b, px, px, 3), torch.empty(b, px, px, 3), torch.empty(b, px, px)
    none = torch.zeros(b, 2)
    shifted = none if shift is None else 2 * (zoomed @ shift[:, :, None])[:, :, 0]
    masked = ("none", "truth", "network").index(config.mask)
    predicted = raw.predicted_masks if config.mask == "network" else None
    layers = raw.masks, predicted, raw.has_mask

    def resample(step, shift, image, target, mask=mask, layers=layers, masked=masked) -> None:
        arrays = raw.images, *layers, step, shift, image, target, mask
        ordered = (None if array is None else array.contiguous() for array in arrays)
        call("resample", *ordered, float(PADDING), b, stored, px, masked)

    apart = config.canvas or config.steady_target
    if changes is not None and masked:  # of the photo, so its background is hidden afterwards
        seen = torch.empty_like(mask)
        own = layers if predicted is None else (predicted, None, torch.ones_like(raw.has_mask))
        resample(zoomed, shifted, image, torch.empty_like(image), seen, own, masked=0)
        resample(*((step, none) if apart else (zoomed, shifted)), None, target)
        changed = change_photos(image.permute(0, 3, 1, 2), changes, seen[:, None])
        return changed, target.permute(0, 3, 1, 2), mask[:, None]
    if apart:
        resample(zoomed, shifted, image, None)
        resample(step, none, None, target)
    else:
        resample(zoomed, shifted, image, target)
    shown = image.permute(0, 3, 1, 2)
    shown = shown if changes is None else change_photos(shown, changes)
    return shown, target.permute(0, 3, 1, 2), mask[:, None]


def _resample(layers: Tensor, step: Tensor, px: int, shift: Tensor | None = None) -> Tensor:
    """Resample colours and masks (b, c, s, s) in 0..255 to (b, c, px, px) in [0, 1].

    The output at d from the middle shows the input at `step` (b, 2, 2) times d, where sides run from -1 to 1.
    `shift` (b, 2), in sides of the output, moves the picture.
    """
    b, device, stored = len(layers), layers.device, layers.shape[-1]
    line = (2 * torch.arange(px, device=device) + 1) / px - 1
    columns, rows = step.to(device)[:, :, None, None, :].unbind(-1)  # (b, 2, 1, 1) each
    grid = torch.empty(b, px, px, 2, device=device)
    torch.add(columns * line, rows * line[:, None], out=grid.permute(0, 3, 1, 2))
    if shift is not None:
        grid -= 2 * (step @ shift[:, :, None]).to(device)[:, None, None, :, 0]
    pixels = F.grid_sample(layers, grid, mode="bilinear", align_corners=False)  # (b, 4 or 5, h, w)
    if shift is not None:  # beyond the stored crop colours are sampled as 0, black: make them grey
        ones = torch.ones(1, 1, stored, stored, device=device).expand(b, -1, -1, -1)
        inside = F.grid_sample(ones, grid, mode="bilinear", align_corners=False)
        pixels[:, :3] += PADDING * (1 - inside)
    return pixels / 255


def blur(images: Tensor, spread: Tensor, reach: int) -> Tensor:
    """Blur images (b, c, h, w) by Gaussians of standard deviations `spread` (b,), pixels; 0 does not blur.

    Kernels end `reach` pixels from their middle. Images are continued beyond their border by its pixels.
    """
    b, channels, height, width = images.shape
    offsets = torch.arange(-reach, reach + 1, device=images.device)
    # A spread of 0 counts as 0.01: the next pixel's weight is then e^-5000, which is 0.
    kernels = torch.softmax(-((offsets / spread.clamp(min=0.01)[:, None]) ** 2) / 2, dim=1)
    kernels = kernels.repeat_interleave(channels, 0)
    planes = F.pad(images, (reach,) * 4, mode="replicate").flatten(0, 1)[None]
    planes = F.conv2d(planes, kernels[:, None, :, None], groups=b * channels)
    return F.conv2d(planes, kernels[:, None, None], groups=b * channels).view(b, channels, height, width)


def centre(raw: RawBatch, config: DataConfig) -> Batch:
    """Cut the test crop out of the stored one, without randomness or resampling."""
    stored = raw.images.shape[1]
    _check_margin(stored, config)
    start = (stored - config.image_px) // 2
    window = slice(start, start + config.image_px)
    layers = [raw.images, *(mask[..., None] for mask in _select_masks(raw, config))]
    pixels = torch.cat([layer[:, window, window] for layer in layers], dim=-1)
    first = torch.zeros(len(raw.clouds), 1, dtype=torch.long, device=raw.clouds.device)
    cloud = _draw_points(raw.clouds, first, config.cloud_points)
    root, zoom = torch.zeros(len(cloud), 2, device=cloud.device), torch.ones(len(cloud), device=cloud.device)
    pixels = pixels.permute(0, 3, 1, 2).float() / 255
    seen = _assemble(raw, config, pixels, pixels, raw.joints, cloud, root, zoom)
    if not config.canvas:
        return seen
    shown = turn_and_zoom(raw._replace(clouds=cloud), config, torch.zeros(len(cloud)), torch.ones(len(cloud)))
    return seen._replace(target=shown.target, mask=shown.mask)


def _check_margin(stored: int, config: DataConfig) -> None:
    """Raise ValueError if the stored crop was not made for this config."""
    needed = stored_px(config)
    if stored != needed:
        raise ValueError(
            f"stored crops are {stored} px, but image_px {config.image_px} and scale_min {config.scale_min} "
            f"need {needed} px; prepare the data with this config"
        )


def _draw_points(clouds: Tensor, first: Tensor, points: int) -> Tensor:
    """Take `points` of each cloud (b, p, 3) from index `first` (b, 1) on, starting over at the end."""
    chosen = (first + torch.arange(points, device=first.device)) % clouds.shape[1]
    return clouds.gather(1, chosen[..., None].expand(-1, -1, 3))


def _select_masks(raw: RawBatch, config: DataConfig) -> list[Tensor]:
    """Return the masks (b, s, s) to resample with the image: the true ones and, if used, the predicted."""
    if config.mask != "network":
        return [raw.masks]
    if raw.predicted_masks is None:
        raise ValueError(
            "mask is 'network', but these samples have no predicted masks; run `davae predict-masks` first"
        )
    return [raw.masks, raw.predicted_masks]


def _assemble(
    raw: RawBatch,
    config: DataConfig,
    pixels: Tensor,
    shown: Tensor,
    joints: Tensor,
    cloud: Tensor,
    root: Tensor,
    zoom: Tensor,
    changes: Changes | None = None,
) -> Batch:
    """Assemble a batch from colours and masks (b, 4 or 5, h, w) of input (`pixels`) and target (`shown`)."""
    image, mask = pixels[:, :3], _choose_mask(raw, config, shown)
    if changes is not None:
        image = change_photos(image, changes)
    if config.mask == "network":
        image = composite_over_grey(image, pixels[:, 4:])
    elif config.mask == "truth":
        image = composite_over_grey(image, _choose_mask(raw, config, pixels))
    target = composite_over_grey(shown[:, :3], mask)
    return Batch(image, target, mask, joints, cloud, raw.has_cloud, raw.has_mask, raw.scale_mm, root, zoom)


def _choose_mask(raw: RawBatch, config: DataConfig, layers: Tensor) -> Tensor:
    """Return the true mask (b, 1, h, w); for a sample without one, the predicted mask or all ones."""
    other = layers[:, 4:] if config.mask == "network" else torch.ones((), device=layers.device)
    return torch.where(raw.has_mask[:, None, None, None], layers[:, 3:4], other)
