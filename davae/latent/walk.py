"""A walk through the latent space (paper 4.5): the current code, its views, and its change since the start.

The walk starts at the code of one image. One block, or all of them, moves towards the code of another image.
In addition, each block can be offset along its principal directions or single dimensions. Only what a step
changes is computed again. `davae.photo.explorer` adds the sliders.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from davae.config import BLOCKS
from davae.latent.codes import (
    PATHS,
    CachedDecoder,
    Change,
    Code,
    Decoding,
    PrincipalDirections,
    measure_change,
)
from davae.networks import DaVAE
from synthhand.formats.pictures import encode_png
from synthhand.model.kinematics import fit_mesh
from synthhand.model.procedural import procedural_rig
from synthhand.model.rig import Rig
from synthhand.render.view import HALF_BONES, draw_cloud, draw_mesh, fit_normals, view_from

ALL = "all"
VIEWS = ("image", "mesh", "cloud")
SOLVER_STEPS = 2  # of the fit of the mesh; within 0.2 mm of more steps, in a third of the time


class Step(NamedTuple):
    """One place on the path from start to end."""

    share: float  # 0 at the start, 1 at the end
    pictures: dict[str, NDArray[np.uint8]]  # view -> (h, w, 3)
    change: Change  # since the start


class LatentWalk:
    """The current place of a walk, and its views.

    Args:
        model: a trained model in evaluation mode, on the CPU.
        codes: posterior means, block -> (n, z), of the images at which the walk may start and end.
        bone_mm: length of the reference bone; it scales decoded joints and clouds.
        reference: codes, better many, that define the spread of each block; the default is `codes`.
        rig: of the right hand to show as a mesh; the default is the built-in one.
        px: side of the views of mesh and cloud, in pixels.

    Attributes:
        directions: block -> its `PrincipalDirections`.
        start, end: indices of images; blocks that do not move keep the code of the start.
        block: the block that moves towards the end, one of `BLOCKS` or `ALL`.
        share: of the path from start to end, 0 to 1.
        path: its form, a key of `davae.latent.codes.PATHS`.
        turn_deg, tilt_deg: viewpoint of mesh and cloud, in degrees.
        solved, drawn: number of fits of the mesh to joints, and view -> number of drawings.

    Raises:
        ValueError: there are no codes, their sizes differ from the model's, or the model is in training mode.
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
        self.end, self.block, self.share, self.path = min(1, len(self) - 1), "pose", 0.0, "straight line"
        self.turn_deg = self.tilt_deg = 0.0
        self.solved, self.drawn = 0, dict.fromkeys(VIEWS, 0)
        self._made_from: dict[str, tuple] = {}  # mesh or view -> its last source
        self._made: dict = {}
        self.start = 0

    def __len__(self) -> int:
        return len(self.codes["pose"])

    @property
    def start(self) -> int:
        """Index of the image at which the walk starts; setting it resets the walk to that image."""
        return self._start

    @start.setter
    def start(self, index: int) -> None:
        self._start = index
        self.origin = self.decoder(self._code_of(index))  # the origin of all changes
        self.reset()

    def base(self, block: str) -> Tensor:
        """Return the code (z,) of a block on the path from start to end, without its offset."""
        start, end = (self.codes[block][index] for index in (self.start, self.end))
        return PATHS[self.path](start, end, self.share) if self.block in (block, ALL) else start

    def raw(self, block: str) -> Tensor:
        """Return the current code (z,) of a block."""
        return self.base(block) + self._offsets[block]

    def set_raw(self, block: str, dimension: int, value: float) -> None:
        """Set one dimension of a block's code."""
        self._offsets[block][dimension] = value - self.base(block)[dimension]

    def principal(self, block: str) -> Tensor:
        """Return a block's offset (k,) along its principal directions, in standard deviations."""
        return self.directions[block].coordinates(self._offsets[block])

    def set_principal(self, block: str, direction: int, value: float) -> None:
        """Set a block's offset along one principal direction, in standard deviations."""
        step = torch.zeros(len(self.directions[block]))
        step[direction] = value - self.principal(block)[direction]
        self._offsets[block] += self.directions[block].offset(step)

    def reset(self) -> None:
        """Return to the start, without offsets."""
        self.share = 0.0
        self._offsets = {block: torch.zeros_like(self.codes[block][0]) for block in BLOCKS}

    def random(self, generator: torch.Generator) -> None:
        """Move the chosen block, or all, to a random code from the distribution of the reference codes."""
        for block in BLOCKS if self.block == ALL else (self.block,):
            drawn = self.directions[block].sample(1, generator)[0]
            self._offsets[block] = drawn - self.base(block)

    def swap(self) -> None:
        """Exchange start and end, and reset the walk to the new start."""
        old = self.start
        self.start, self.end = self.end, old

    def code(self) -> Code:
        """Return the current code, block -> (1, z)."""
        return {block: self.raw(block)[None] for block in BLOCKS}

    def decoding(self) -> Decoding:
        """Return the decoding of the current code."""
        return self.decoder(self.code())

    def change(self) -> Change:
        """Return the change of the decoding since the start."""
        return measure_change(self.origin, self.decoding())

    def views(self) -> dict[str, bytes]:
        """Return the three views as PNG files; only views that changed are drawn again."""
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
        """Return the views at evenly spaced shares of the path; the walk itself does not move."""
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
            cloud = decoding.cloud_mm.numpy()
            return draw_cloud(cloud, rotation, half_mm=half_mm, px=self.px, normals=fit_normals(cloud))
        return draw_mesh(
            self._mesh(decoding.joints_mm), self.rig.faces, rotation, half_mm=half_mm, px=self.px
        )

    def _mesh(self, joints_mm: Tensor) -> NDArray[np.float32]:
        """Return the vertices (v, 3), mm, of the hand that fits the decoded joints best."""
        if self._is_new("vertices", (joints_mm,)):
            vertices, _ = fit_mesh(self.rig, joints_mm.numpy()[None], self.decoder.bone_mm, SOLVER_STEPS)
            self._made["vertices"] = vertices[0]
            self.solved += 1
        return self._made["vertices"]

    def _is_new(self, name: str, source: tuple) -> bool:
        """Return whether the source of a mesh or view differs from its last one, and remember the new one.

        Tensors are compared by identity: the decoder returns the same one until its input changes.
        """
        last = self._made_from.get(name)
        self._made_from[name] = source
        return last is None or any(
            new is not old if isinstance(new, Tensor) else new != old
            for new, old in zip(source, last, strict=True)
        )


def _check_codes(name: str, codes: Code, model: DaVAE) -> Code:
    """Return copies of the codes as float32 on the CPU.

    Raises:
        ValueError: a block is missing, its size differs from the model's, there are no codes, or the blocks
            hold different numbers of codes.
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
