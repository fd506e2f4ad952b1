"""A hand found in a photo: box, joints, mask, latent code and mesh."""

import json
import threading
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from davae.config import BLOCKS
from davae.photo.finding import Box
from davae.photo.reading import photo_px
from synthhand.formats.mesh_files import encode_glb, encode_ply
from synthhand.model.anatomy import rest_joints_mm
from synthhand.model.kinematics import fit_mesh
from synthhand.model.procedural import procedural_rig
from synthhand.model.rig import Rig
from synthhand.skeleton import REFERENCE_BONE

Side = Literal["left", "right"]
_MESHING = threading.Lock()
UNITS = {  # as written into a file of results, for itself and the files beside it
    "assumed_bone_mm": "length of the middle MCP-PIP bone, joints 9 to 10: exact in posed_joints_mm, in the "
    "PLY and in the GLB; joints_mm are decoded one by one, and their bones are only near it",
    "joints_mm, posed_joints_mm, PLY": "mm; x right, y down, z away from the camera",
    "GLB": "metres; x right, y up, z towards the viewer",
    "distance": "of the hand from the camera, where intrinsics are given: on renderings off by 5 % (median) "
    "in a true box and by 8 % in a found one, on photographs by more",
    "px": "pixels of the photo as it is seen; x right, y down, pixel centres at integers",
}


class PosedHand(NamedTuple):
    """The built-in hand, posed like a hand found in a photo, in the frame of that hand."""

    vertices_mm: NDArray[np.float32]  # (v, 3)
    faces: NDArray[np.int32]  # (f, 3)
    joints_mm: NDArray[np.float64]  # (21, 3), the model's own


@dataclass(frozen=True)
class Hand:
    """The result for one photo.

    Attributes:
        name: of the photo.
        box: the square of the photo that the network saw.
        side: "left" or "right".
        joints: (21, 3) normalised: relative to the middle MCP, in units of the middle MCP-PIP bone, in the
            frame of a camera that looks at the root, x right, y down, z away. They are of the side in the
            photo: those of a left hand are not mirrored. Each joint is decoded separately, so the length of
            the middle MCP-PIP bone is only approximately 1.
        joints_mm: (21, 3) the same in mm, times `bone_mm`; with intrinsics at their place in the camera's
            frame, else relative to the root. For bones of a stated length see `posed_joints_mm`.
        bone_mm: assumed length of the middle MCP-PIP bone.
        joints_px: (21, 2) pixels of the photo; pixel centres lie at integers.
        mask: (px, px) probability on the crop that a pixel belongs to the hand, not mirrored.
        means: block -> (z,) of the posterior, for the right-handed crop that the network saw.
        spreads: block -> (z,) standard deviations.
        intrinsics: fx, fy, cx, cy that placed the joints in front of the camera, or None if none were given.
            The distance is an estimate; docs/photos.md gives its error (*Lengths and distance*).
        photo_px: (width, height) of the photo that the pixels of box and joints refer to.
        side_probability: 0.5..1, how likely the side is right if the box is; None if the side was given.
    """

    name: str
    box: Box
    side: Side
    joints: NDArray[np.float64]
    joints_mm: NDArray[np.float64]
    bone_mm: float
    joints_px: NDArray[np.float64]
    mask: NDArray[np.float32]
    means: dict[str, NDArray[np.float32]]
    spreads: dict[str, NDArray[np.float32]]
    intrinsics: tuple[float, float, float, float] | None = None
    photo_px: tuple[int, int] | None = None
    side_probability: float | None = None

    def scale_to(self, photo: NDArray[np.uint8]) -> "Hand":
        """Return this hand in the pixels of its photo (h, w, 3) as read, which may be reduced in size."""
        scale = photo.shape[1] / photo_px(photo)[0]
        if scale == 1:
            return self
        return replace(self, box=self.box.scale(scale), joints_px=(self.joints_px + 0.5) * scale - 0.5)

    @cached_property
    def _posed(self) -> PosedHand:
        rig = built_in_rig()
        right = mirror(self.joints_mm, self.side)
        (vertices,), (joints,) = fit_mesh(rig, right[None], self.bone_mm)
        vertices, joints = mirror(vertices, self.side), mirror(joints, self.side)
        faces = rig.faces if self.side == "right" else rig.faces[:, ::-1]  # mirroring turns them inside out
        return PosedHand(np.ascontiguousarray(vertices), np.ascontiguousarray(faces), joints)

    def mesh_mm(self) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return vertices (v, 3), mm, in the frame of `joints_mm`, and outward faces (f, 3).

        They are those of the built-in hand, with a middle MCP-PIP bone of length `bone_mm`, posed so that its
        joints lie nearest to `joints_mm`.
        """
        return self._posed.vertices_mm, self._posed.faces

    @property
    def posed_joints_mm(self) -> NDArray[np.float64]:
        """Joints (21, 3), mm, of the posed hand in `mesh_mm`, in the frame of `joints_mm`.

        Their middle MCP-PIP bone is exactly `bone_mm` long, and their angles are within a hand's limits.
        """
        return self._posed.joints_mm

    @property
    def joints_mm_from(self) -> str:
        """What `joints_mm` are relative to: "middle MCP" or, with intrinsics, "camera"."""
        return "middle MCP" if self.intrinsics is None else "camera"

    def describe_side(self) -> str:
        """Return which hand it is and, if that was guessed, how likely."""
        sure = "" if self.side_probability is None else f" (probability {self.side_probability:.2f})"
        return f"{self.side} hand{sure}"

    def encode_files(self) -> dict[str, bytes]:
        """Return files, ending -> content: "json" (`as_dict`), "ply" (mesh), "glb" (mesh and skeleton)."""
        vertices, faces, joints = self._posed
        return {
            "json": (json.dumps(self.as_dict(), indent=2) + "\n").encode(),
            "ply": encode_ply(vertices, faces),
            "glb": encode_glb(vertices, faces, joints, built_in_rig().weights),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return everything but mask and mesh as values that JSON can hold."""
        return {
            "photo": self.name,
            "box": {"centre_px": list(self.box.centre), "half_px": self.box.half},
            "confidence": self.box.confidence,  # null if the box was given
            "side": self.side,
            "side_probability": self.side_probability,  # null if the side was given
            "assumed_bone_mm": self.bone_mm,
            "units": UNITS,
            "joints_normalised": self.joints.tolist(),
            "joints_mm_from": self.joints_mm_from,
            "joints_mm": self.joints_mm.tolist(),
            "posed_joints_mm": self.posed_joints_mm.tolist(),
            "photo_px": None if self.photo_px is None else list(self.photo_px),
            "joints_px": self.joints_px.tolist(),
            "latent_means": {block: self.means[block].tolist() for block in BLOCKS},
            "latent_spreads": {block: self.spreads[block].tolist() for block in BLOCKS},
        }


def reference_bone_mm() -> float:
    """Return the length of the built-in hand's middle MCP-PIP bone, that of an average adult."""
    return float(np.linalg.norm(np.subtract(*rest_joints_mm()[list(REFERENCE_BONE)])))


def built_in_rig() -> Rig:
    """Return the built-in hand; it is meshed once, also if several threads ask for it at the same time."""
    with _MESHING:
        return procedural_rig()


def mirror(points: NDArray, side: Side) -> NDArray:
    """Mirror points (..., 3) of a right hand to a hand of `side`, or back."""
    return points if side == "right" else points * np.array([-1.0, 1.0, 1.0], points.dtype)
