"""What a run depends on beside its config: its data, weights that it began with, and the code."""

import ast
import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

Kind = Literal[
    "da-VAE", "mask", "camera", "regressor", "cm-vae", "d-vae", "latent-align", "heatmaps", "lifting"
]

# Sources that decide what a given config and dataset train to.
_SHARED_SOURCES = (
    "networks/blocks.py", "networks/encoder.py", "data/augment.py", "data/photometric.py",
    "training/trainer.py", "training/task.py", "training/schedule.py", "training/optimisers.py",
    "training/muon.py", "training/device.py", "training/distributed.py", "networks/fused.py",
    "networks/native/operations.py", "networks/native/kernels.c", "networks/native/maps.h",
    "networks/native/pictures.h", "networks/native/points.h",
)  # fmt: skip
_RIVAL_SOURCES = (*_SHARED_SOURCES, "losses.py", "rivals/rival.py", "rivals/sight.py")
_SHAPING_SOURCES: dict[Kind, tuple[str, ...]] = {
    "da-VAE": (
        *_SHARED_SOURCES, "losses.py", "networks/davae.py", "networks/decoders.py", "networks/limbs.py",
        *("networks/limb_cloud.py", "networks/nearest.py", "training/davae_task.py"),
    ),
    "mask": (*_SHARED_SOURCES, "networks/handmask.py", "training/mask_task.py"),
    "camera": (*_SHARED_SOURCES, "networks/camera.py", "training/camera_task.py"),
    "regressor": (*_RIVAL_SOURCES, "rivals/regressor.py"),
    "cm-vae": (*_RIVAL_SOURCES, "networks/decoders.py", "rivals/cm_vae.py"),
    "d-vae": (*_RIVAL_SOURCES, "networks/decoders.py", "rivals/canonical.py", "rivals/d_vae.py"),
    "latent-align": (
        *_RIVAL_SOURCES, "networks/decoders.py", "networks/nearest.py", "rivals/latent_align.py",
    ),
    "heatmaps": (*_RIVAL_SOURCES, "rivals/heatmaps.py"),
    "lifting": (*_RIVAL_SOURCES, "rivals/canonical.py", "rivals/heatmaps.py", "rivals/lifting.py"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a run depends on beside its config."""

    data: str  # digest of the prepared data's manifest
    sources: dict[str, str]  # file -> digest of its code
    init: str | None = None  # digest of the weights it began with; None if they were random
    masks: str | None = None  # digest of the predicted masks applied to its input; None without them
    mask_network: str | None = None  # digest of the weights that predicted those masks

    @classmethod
    def of(
        cls,
        data_digest: str,
        init: str | None = None,
        *,
        network: Kind = "da-VAE",
        masks: Mapping[str, Any] | None = None,
    ) -> "Identity":
        """Return the identity of a run started now.

        Args:
            data_digest: of the prepared data.
            init: digest of the weights it begins with.
            network: what is trained.
            masks: `PreparedSplit.mask_network`, if predicted masks are applied to the input.

        Raises:
            FileNotFoundError: a source that shapes the result was renamed, but not in the list of them.
        """
        sources = {name: _digest_source(name) for name in sorted(_SHAPING_SOURCES[network])}
        masks = masks or {}
        return cls(data_digest, sources, init, masks.get("digest"), masks.get("network"))


def _digest_source(name: str) -> str:
    text = _read_source(name)
    return code_digest(text) if name.endswith(".py") else hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_source(name: str) -> str:
    """Return the text of a file of the package.

    A missing file is an error: left out of the fingerprint, it would make different code look the same.
    """
    try:
        return (Path(__file__).parents[1] / name).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error.filename}: missing, but it shapes what a run trains to; "
            "restore it, or correct its name in `_SHAPING_SOURCES` of davae/training/identity.py"
        ) from error


def code_digest(source: str) -> str:
    """Return a digest of Python source without comments, docstrings and layout, which change no result."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]
