"""A hand found in a photo: joints, mask, code and posed mesh."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from davae.config import BLOCKS
from davae.photo.finding import Box
from davae.photo.reading import photo_px
from synthhand.formats.mesh_files import glb, ply
from synthhand.model.procedural import procedural_rig
from synthhand.model.skinning import fitted
from synthhand.skeleton import REFERENCE_BONE

Side = Literal["left", "right"]
UNITS = {  # as the JSON states them, for itself and for the files beside it
    "assumed_bone_mm": "length of the middle MCP-PIP bone, joints 9 to 10: exact in posed_joints_mm, in the "
    "PLY and in the GLB; joints_mm are decoded one by one, and their bones are only near it",
    "joints_mm, posed_joints_mm, PLY": "mm; x right, y down, z away from the camera",
    "GLB": "metres; x right, y up, z towards the viewer",
    "distance": "of the hand from the camera, where intrinsics are given: on renderings off by 6 % (median) "
    "in a true box and by 8 % in a found one, on photographs by more",
    "px": "pixels of the photo as it is seen; x right, y down, pixel centres at integers",
}


class Posed(NamedTuple):
    """The built-in hand posed as a hand that was found, in its frame."""

    vertices_mm: NDArray[np.float32]  # (v, 3)
    faces: NDArray[np.int32]  # (f, 3)
    joints_mm: NDArray[np.float64]  # (21, 3), the model's own


@dataclass(frozen=True)
class Hand:
    """What was found in one photo.

    Attributes:
        name: of the photo.
        box: the square of the photo in which the hand was read.
        side: "left" or "right".
        joints: (21, 3) normalised: relative to the middle MCP, in units of the middle MCP-PIP bone, in the
            frame of a camera that looks at the root, x right, y down, z away. They are as the photo shows
            them: a left hand's joints are a left hand's. They are decoded one by one: the length of their
            middle MCP-PIP bone is only as near to 1 as the network is to the truth.
        joints_mm: (21, 3) `joints` times `bone_mm`. With intrinsics they are in the camera's frame, where the
            hand lies; without, relative to the root. For bones of a stated length see `posed_joints_mm`.
        bone_mm: assumed length of the middle MCP-PIP bone.
        joints_px: (21, 2) pixels of the photo; pixel centres lie at integers.
        mask: (px, px) probability that a pixel of the crop is the hand's, as the photo shows it.
        means: block -> (z,) of the posterior, of the crop as a right hand.
        spreads: block -> (z,) standard deviations.
        intrinsics: fx, fy, cx, cy of the camera; `joints_mm` are in its frame. None if they were not given.
            The distance is an estimate; docs/photos.md gives its error (*Lengths and distance*).
        photo_px: (width, height) of the photo; `box` and `joints_px` are in its pixels.
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

    def scale_to(self, photo: NDArray[np.uint8]) -> "Hand":
        """Return the hand in the pixels of its photo as it was read (h, w, 3), perhaps reduced."""
        scale = photo.shape[1] / photo_px(photo)[0]
        if scale == 1:
            return self
        return replace(self, box=self.box.scale(scale), joints_px=(self.joints_px + 0.5) * scale - 0.5)

    @cached_property
    def _posed(self) -> Posed:
        rig = procedural_rig()
        right = torch.from_numpy(mirror(self.joints_mm, self.side)[None])
        vertices, joints = (points[0].numpy() for points in fitted(rig, right, self.bone_mm))
        faces = rig.faces if self.side == "right" else rig.faces[:, ::-1]  # mirroring turns them inside out
        return Posed(mirror(vertices, self.side), np.ascontiguousarray(faces), mirror(joints, self.side))

    def mesh_mm(self) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return vertices (v, 3), mm, in the frame of `joints_mm`, and faces (f, 3), counter-clockwise.

        They are the built-in hand's, its middle MCP-PIP bone `bone_mm` long, posed so that its joints lie
        nearest to `joints_mm`.
        """
        return self._posed.vertices_mm, self._posed.faces

    @property
    def posed_joints_mm(self) -> NDArray[np.float64]:
        """Joints (21, 3), mm, of the mesh of `mesh_mm`, in the frame of `joints_mm`.

        Their middle MCP-PIP bone is exactly `bone_mm` long, and their angles are within a hand's limits.
        """
        return self._posed.joints_mm

    def encode_files(self) -> dict[str, bytes]:
        """Return files, ending -> content: "json" (`as_dict`), "ply" (mesh), "glb" (mesh and skeleton)."""
        vertices, faces, joints = self._posed
        return {
            "json": (json.dumps(self.as_dict(), indent=2) + "\n").encode(),
            "ply": ply(vertices, faces),
            "glb": glb(vertices, faces, joints, procedural_rig().weights),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return everything but mask and mesh in types that JSON has."""
        return {
            "photo": self.name,
            "box": {"centre_px": list(self.box.centre), "half_px": self.box.half},
            "confidence": self.box.confidence,  # null if the box was given
            "side": self.side,
            "assumed_bone_mm": self.bone_mm,
            "units": UNITS,
            "joints_normalised": self.joints.tolist(),
            "joints_mm_from": "middle MCP" if self.intrinsics is None else "camera",
            "joints_mm": self.joints_mm.tolist(),
            "posed_joints_mm": self.posed_joints_mm.tolist(),
            "photo_px": None if self.photo_px is None else list(self.photo_px),
            "joints_px": self.joints_px.tolist(),
            "latent_means": {block: self.means[block].tolist() for block in BLOCKS},
            "latent_spreads": {block: self.spreads[block].tolist() for block in BLOCKS},
        }


def reference_bone_mm() -> float:
    """Return the length of the built-in hand's middle MCP-PIP bone, that of an average adult."""
    joints = procedural_rig().joints_mm
    return float(np.linalg.norm(np.subtract(*joints[list(REFERENCE_BONE)])))


def mirror(points: NDArray, side: Side) -> NDArray:
    """Return points (..., 3) of a right hand as those of a hand of `side`, or the other way round."""
    return points if side == "right" else points * np.array([-1.0, 1.0, 1.0], points.dtype)
