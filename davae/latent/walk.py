"""A walk through the latent space (paper 4.5): its position, the views there, and the change since the start.

It starts at the code of one image. One block, or all blocks, move towards the code of another image; any
block can then be moved along its principal directions or single dimensions. After each change the walk
recomputes only what depends on it. `davae.photo.explorer` adds sliders.
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
from synthhand.model.kinematics import fit_mesh
from synthhand.model.procedural import procedural_rig
from synthhand.model.rig import Rig
from synthhand.render.view import HALF_BONES, cloud_view, mesh_view, viewpoint

ALL = "all"
VIEWS = ("image", "mesh", "cloud")
SOLVER_STEPS = 2  # of the mesh's pose; within 0.2 mm of the result of more steps, in a third of the time


class Step(NamedTuple):
    """One place on the way from start to end."""

    share: float  # 0 at the start, 1 at the end
    pictures: dict[str, NDArray[np.uint8]]  # view -> (h, w, 3)
    change: Change  # since the start


class LatentWalk:
    """The position of a walk, with its views.

    Args:
        model: a trained model in evaluation mode, on the CPU.
        codes: posterior means, block -> (n, z), of the images that can be start and end.
        bone_mm: length of the reference bone, the unit of decoded joints and clouds.
        reference: codes, preferably many, that give the spread of each block; the default is `codes`.
        rig: the right hand to show as a mesh; the default is the built-in one.
        px: side of the views of mesh and cloud.

    Attributes:
        directions: block -> its `PrincipalDirections`.
        start, end: indices of images; a block that is not moved keeps the code of the start.
        block: the block that moves towards the end, one of `BLOCKS` or `ALL`.
        share: how far it has moved, 0 to 1.
        way: how it moves, a name of `davae.latent.codes.WAYS`.
        turn_deg, tilt_deg: viewpoint of mesh and cloud.
        solved, drawn: how often a mesh was fitted to joints, and how often each view was drawn.

    Raises:
        ValueError: there are no codes, their sizes are not the model's, or the model is in training mode.
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
        self.codes = _check_codes("codes", codes, model)
        reference = _check_codes("reference", reference, model)
        self.directions = {block: PrincipalDirections.of(reference[block]) for block in BLOCKS}
        self.decoder = CachedDecoder(model, bone_mm)
        self.rig, self.px = rig or procedural_rig(), px
        self.end, self.block, self.share, self.way = min(1, len(self) - 1), "pose", 0.0, "straight line"
        self.turn_deg = self.tilt_deg = 0.0
        self.solved, self.drawn = 0, dict.fromkeys(VIEWS, 0)
        self._made_from: dict[str, tuple] = {}  # mesh or view -> its inputs when it was last made
        self._made: dict = {}
        self.start = 0

    def __len__(self) -> int:
        return len(self.codes["pose"])

    @property
    def start(self) -> int:
        """Index of the image that the walk starts at; setting it moves every block back to the start."""
        return self._start

    @start.setter
    def start(self, index: int) -> None:
        self._start = index
        self.origin = self.decoder(self._code_of(index))  # changes are measured from here
        self.reset()

    def base(self, block: str) -> Tensor:
        """Return the code (z,) of a block between start and end, without the offset of any slider."""
        start, end = (self.codes[block][index] for index in (self.start, self.end))
        return WAYS[self.way](start, end, self.share) if self.block in (block, ALL) else start

    def raw(self, block: str) -> Tensor:
        """Return the code (z,) of a block at the walk's position."""
        return self.base(block) + self._offsets[block]

    def set_raw(self, block: str, dimension: int, value: float) -> None:
        """Move one dimension of a block."""
        self._offsets[block][dimension] = value - self.base(block)[dimension]

    def principal(self, block: str) -> Tensor:
        """Return the offset (k,) of a block along its principal directions, in standard deviations."""
        return self.directions[block].coordinates(self._offsets[block])

    def set_principal(self, block: str, direction: int, value: float) -> None:
        """Set the offset of a block along one principal direction, in standard deviations."""
        step = torch.zeros(len(self.directions[block]))
        step[direction] = value - self.principal(block)[direction]
        self._offsets[block] += self.directions[block].offset(step)

    def reset(self) -> None:
        """Go back to the start."""
        self.share = 0.0
        self._offsets = {block: torch.zeros_like(self.codes[block][0]) for block in BLOCKS}

    def random(self, generator: torch.Generator) -> None:
        """Move the chosen block, or all, to a code drawn from the distribution of the reference codes."""
        for block in BLOCKS if self.block == ALL else (self.block,):
            drawn = self.directions[block].sample(1, generator)[0]
            self._offsets[block] = drawn - self.base(block)

    def swap(self) -> None:
        """Exchange start and end, and go back to the new start."""
        old = self.start
        self.start, self.end = self.end, old

    def code(self) -> Code:
        """Return the code, block -> (1, z), at the walk's position."""
        return {block: self.raw(block)[None] for block in BLOCKS}

    def decoding(self) -> Decoding:
        """Decode the code at the walk's position."""
        return self.decoder(self.code())

    def change(self) -> Change:
        """Return how that differs from the decoded start."""
        return change_between(self.origin, self.decoding())

    def views(self) -> dict[str, bytes]:
        """Return the three views as PNG files; unchanged views are not drawn again."""
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
        """Return views at evenly spaced shares of the way; the walk itself does not move."""
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
        rotation = viewpoint(self.turn_deg, self.tilt_deg)
        if view == "cloud":
            return cloud_view(decoding.cloud_mm.numpy(), rotation, half_mm=half_mm, px=self.px)
        return mesh_view(
            self._mesh(decoding.joints_mm), self.rig.faces, rotation, half_mm=half_mm, px=self.px
        )

    def _mesh(self, joints_mm: Tensor) -> NDArray[np.float32]:
        """Vertices (v, 3), mm, of the rig posed so that its joints lie nearest to the decoded ones."""
        if self._is_new("vertices", (joints_mm,)):
            vertices, _ = fit_mesh(self.rig, joints_mm.numpy()[None], self.decoder.bone_mm, SOLVER_STEPS)
            self._made["vertices"] = vertices[0]
            self.solved += 1
        return self._made["vertices"]

    def _is_new(self, name: str, source: tuple) -> bool:
        """Return whether the inputs of a mesh or view have changed, and remember them.

        Tensors are compared by identity: the decoder returns the same one until it decodes another code.
        """
        last = self._made_from.get(name)
        self._made_from[name] = source
        return last is None or any(
            new is not old if isinstance(new, Tensor) else new != old
            for new, old in zip(source, last, strict=True)
        )


def _check_codes(name: str, codes: Code, model: DaVAE) -> Code:
    """Return codes as float32 on the CPU.

    Raises:
        ValueError: a block is missing or its size is not the model's, there are no codes, or blocks differ in
            their number.
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
