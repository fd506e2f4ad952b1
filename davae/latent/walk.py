"""A walk through the latent space (paper 4.5): where it stands, what is seen there, what has changed.

It starts at the code of one image. One block, or all, is led towards the code of another image; any block can
be moved from there along its principal directions or single dimensions. Whatever the walk is told, it
computes again only what that alters. `davae.photo.explorer` puts sliders before it.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from davae.config import BLOCKS
from davae.latent.codes import (
    WAYS,
    CachedDecoder,
    Change,
    Code,
    Decoding,
    PrincipalDirections,
    change_between,
)
from davae.networks import DaVAE
from synthhand.formats.png import encode_png
from synthhand.model.procedural import procedural_rig
from synthhand.model.rig import Rig
from synthhand.model.skinning import fitted
from synthhand.render.view import HALF_BONES, draw_cloud, draw_mesh, view_from

ALL = "all"
VIEWS = ("image", "mesh", "cloud")
SOLVER_STEPS = 2  # of the mesh's pose; within 0.2 mm of what more steps find, in a third of the time


class Step(NamedTuple):
    """One place on the way from start to end."""

    share: float  # 0 at the start, 1 at the end
    pictures: dict[str, NDArray[np.uint8]]  # view -> (h, w, 3)
    change: Change  # since the start


class LatentWalk:
    """Where a walk stands, with its views.

    Args:
        model: a trained model in evaluation mode, on the CPU.
        codes: posterior means, block -> (n, z), of the images that it may start and end at.
        bone_mm: length of the reference bone, in which decoded joints and clouds are measured.
        reference: codes that say how each block spreads, better many; by default `codes`.
        rig: the right hand whose mesh is shown; by default the built-in one.
        px: side of the views of mesh and cloud.

    Attributes:
        directions: block -> its `PrincipalDirections`.
        start, end: indices of images; each block that is not moved stays as in the start.
        block: which block goes towards the end, one of `BLOCKS` or `ALL`.
        share: how far, 0 to 1.
        way: how, a name of `davae.latent.codes.WAYS`.
        turn_deg, tilt_deg: from where mesh and cloud are seen.
        solved, drawn: how often a mesh was fitted to joints, and how often each view was drawn.

    Raises:
        ValueError: no codes, codes of other sizes than the model's, or a model in training mode.
    """

    def __init__(
        self,
        model: DaVAE,
        codes: Code,
        bone_mm: float,
        *,
        reference: Code | None = None,
        rig: Rig | None = None,
        px: int = 240,
    ):
        reference = codes if reference is None else reference
        self.codes = _checked("codes", codes, model)
        reference = _checked("reference", reference, model)
        self.directions = {block: PrincipalDirections.of(reference[block]) for block in BLOCKS}
        self.decoder = CachedDecoder(model, bone_mm)
        self.rig, self.px = rig or procedural_rig(), px
        self.end, self.block, self.share, self.way = min(1, len(self) - 1), "pose", 0.0, "straight line"
        self.turn_deg = self.tilt_deg = 0.0
        self.solved, self.drawn = 0, dict.fromkeys(VIEWS, 0)
        self._made_from: dict[str, tuple] = {}  # mesh or view -> what it was made from last
        self._made: dict = {}
        self.start = 0

    def __len__(self) -> int:
        return len(self.codes["pose"])

    @property
    def start(self) -> int:
        """Index of the image that the walk starts at; setting it takes every block back there."""
        return self._start

    @start.setter
    def start(self, index: int) -> None:
        self._start = index
        self.origin = self.decoder(self._code_of(index))  # what changes are measured from
        self.reset()

    def base(self, block: str) -> Tensor:
        """The code (z,) of a block on the way from start to end, before any slider has moved it."""
        start, end = (self.codes[block][index] for index in (self.start, self.end))
        return WAYS[self.way](start, end, self.share) if self.block in (block, ALL) else start

    def raw(self, block: str) -> Tensor:
        """The code (z,) of a block where the walk stands."""
        return self.base(block) + self._offsets[block]

    def set_raw(self, block: str, dimension: int, value: float) -> None:
        """Move one dimension of a block."""
        self._offsets[block][dimension] = value - self.base(block)[dimension]

    def principal(self, block: str) -> Tensor:
        """How far (k,) a block has been moved from its way along its directions, in standard deviations."""
        return self.directions[block].coordinates(self._offsets[block])

    def set_principal(self, block: str, direction: int, value: float) -> None:
        """Move a block along one principal direction to so many standard deviations from its way."""
        step = torch.zeros(len(self.directions[block]))
        step[direction] = value - self.principal(block)[direction]
        self._offsets[block] += self.directions[block].offset(step)

    def reset(self) -> None:
        """Go back to the start."""
        self.share = 0.0
        self._offsets = {block: torch.zeros_like(self.codes[block][0]) for block in BLOCKS}

    def random(self, generator: torch.Generator) -> None:
        """Take the chosen block, or all, to a code drawn as the reference codes are distributed."""
        for block in BLOCKS if self.block == ALL else (self.block,):
            drawn = self.directions[block].sample(1, generator)[0]
            self._offsets[block] = drawn - self.base(block)

    def swap(self) -> None:
        """Exchange start and end, and go back to the new start."""
        old = self.start
        self.start, self.end = self.end, old

    def code(self) -> Code:
        """The code, block -> (1, z), where the walk stands."""
        return {block: self.raw(block)[None] for block in BLOCKS}

    def decoding(self) -> Decoding:
        """What it decodes to."""
        return self.decoder(self.code())

    def change(self) -> Change:
        """How far that is from what the start decodes to."""
        return change_between(self.origin, self.decoding())

    def views(self) -> dict[str, bytes]:
        """The three views as PNG files; what did not change is not drawn again."""
        decoding, side = self.decoding(), (self.turn_deg, self.tilt_deg)
        sources = {
            "image": (decoding.image,),
            "mesh": (decoding.joints_mm, *side),
            "cloud": (decoding.cloud_mm, *side),
        }
        for view, source in sources.items():
            if self._is_new(view, source):
                self._made[view] = encode_png(self._draw(view, decoding))
                self.drawn[view] += 1
        return {view: self._made[view] for view in VIEWS}

    def steps(self, count: int = 5) -> list[Step]:
        """Views at evenly spaced shares of the way; the walk itself stays where it is."""
        kept, found = self.share, []
        for share in np.linspace(0.0, 1.0, count).tolist():
            self.share = share
            decoding = self.decoding()
            pictures = {view: self._draw(view, decoding) for view in VIEWS}
            found.append(Step(share, pictures, self.change()))
        self.share = kept
        return found

    def _code_of(self, index: int) -> Code:
        return {block: self.codes[block][index : index + 1] for block in BLOCKS}

    def _draw(self, view: str, decoding: Decoding) -> NDArray[np.uint8]:
        if view == "image":
            return (255 * decoding.image.permute(1, 2, 0)).round().byte().contiguous().numpy()
        half_mm = HALF_BONES * self.decoder.bone_mm
        rotation = view_from(self.turn_deg, self.tilt_deg)
        if view == "cloud":
            return draw_cloud(decoding.cloud_mm.numpy(), rotation, half_mm=half_mm, px=self.px)
        return draw_mesh(
            self._mesh(decoding.joints_mm), self.rig.faces, rotation, half_mm=half_mm, px=self.px
        )

    def _mesh(self, joints_mm: Tensor) -> NDArray[np.float32]:
        """Vertices (v, 3), mm, of the hand whose joints lie nearest to those decoded."""
        if self._is_new("vertices", (joints_mm,)):
            vertices, _ = fitted(self.rig, joints_mm[None], self.decoder.bone_mm, SOLVER_STEPS)
            self._made["vertices"] = vertices[0].numpy()
            self.solved += 1
        return self._made["vertices"]

    def _is_new(self, name: str, source: tuple) -> bool:
        """Whether something is to be made from another source than last time; it is taken for made then.

        Tensors are compared by identity: the decoder returns the same one until it has decoded another.
        """
        last = self._made_from.get(name)
        self._made_from[name] = source
        return last is None or any(
            new is not old if isinstance(new, Tensor) else new != old
            for new, old in zip(source, last, strict=True)
        )


def _checked(name: str, codes: Code, model: DaVAE) -> Code:
    """Return codes as float32 on the CPU.

    Raises:
        ValueError: a block is missing or of another size than the model's, there are no codes, or blocks
            differ in their number.
    """
    sizes = model.config.latent_sizes
    found = {block: tuple(codes[block].shape) if block in codes else "missing" for block in BLOCKS}
    counts = {shape[0] for shape in found.values() if len(shape) == 2}
    if any(shape[1:] != (sizes[block],) for block, shape in found.items()) or len(counts) != 1 or 0 in counts:
        wanted = ", ".join(f"{block} (n, {size})" for block, size in sizes.items())
        raise ValueError(
            f"{name}: found {found}, the model needs {wanted} with one n > 0; see davae.latent.codes.encode"
        )
    return {block: codes[block].detach().float().cpu().clone() for block in BLOCKS}
