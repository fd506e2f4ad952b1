"""The networks of a file of weights as functions of arrays, run by ONNX Runtime.

`davae.photo.release.run_in_torch` returns the same of a file without graphs.

A photo is read by one thread, and several photos by several threads, never one network by several: threads
within a network wait for each other, which costs more the busier the machine is
(`davae.training.threads`). So a photo's result is also the same alone and among others.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from davae.config import BLOCKS
from davae.photo.packed import Packed

MOST_WORKERS = 4  # Python's own share of the work runs in one thread at a time

Images = NDArray[np.float32]  # (b, 3, px, px) on [0, 1]


class Estimate(NamedTuple):
    """What da-VAE and the camera head say of b right hands over mid-grey."""

    joints: NDArray[np.float32]  # (b, 21, 3) normalised, of the posterior mean
    root: NDArray[np.float32]  # (b, 2) right and down of the crop's middle, in sides of the crop
    bone: NDArray[np.float32]  # (b,) length of the reference bone, seen from the side, in sides of the crop
    right: NDArray[np.float32]  # (b,) score of a right hand
    means: dict[str, NDArray[np.float32]]  # block -> (b, z)
    logvars: dict[str, NDArray[np.float32]]  # block -> (b, z)


class MaskNetwork(NamedTuple):
    """A network that finds the pixels of a hand, and the crops that it takes."""

    run: Callable[[Images], NDArray[np.float32]]  # crops to the hand's probability (b, 1, px, px)
    px: int  # side of the crops

    def segment(self, crops: Images, quarter_turns: int = 1) -> NDArray[np.float32]:
        """Return the hand's probability (b, 1, px, px) in crops, a mean over quarter turns."""
        turned = [np.rot90(crops, turn, (2, 3)) for turn in range(quarter_turns)]
        found = np.split(self.run(np.concatenate(turned)), quarter_turns)
        back = [np.rot90(mask, -turn, (2, 3)) for turn, mask in enumerate(found)]
        return np.mean(back, axis=0)


class Networks(NamedTuple):
    """The networks of a file of weights."""

    estimate: Callable[[Images], Estimate]
    mask: MaskNetwork  # of crops with a hand in their middle
    finder: MaskNetwork  # of squares in which a hand may lie anywhere
    px: int  # side of the crops that `estimate` takes
    workers: int  # threads that may use them at once


def open_graphs(packed: Packed) -> Networks:
    """Return the networks of a file that holds graphs of them, in ONNX Runtime.

    Raises:
        ValueError: a graph is damaged, or is not of these weights.
    """
    (estimate, px), (mask, mask_px), (finder, finder_px) = (
        _open_graph(packed, name) for name in ("estimate", "mask", "finder")
    )
    return Networks(
        lambda images: to_estimate(estimate(images)),
        MaskNetwork(lambda images: mask(images)[0], mask_px),
        MaskNetwork(lambda images: finder(images)[0], finder_px),
        px,
        count_workers(),
    )


def to_estimate(outputs: list[NDArray]) -> Estimate:
    """Return the outputs of `davae.photo.release.Estimator`, in its order, by their names."""
    joints, root, bone, right, *codes = outputs
    means, logvars = codes[: len(BLOCKS)], codes[len(BLOCKS) :]
    return Estimate(
        joints,
        root,
        bone,
        right,
        dict(zip(BLOCKS, means, strict=True)),
        dict(zip(BLOCKS, logvars, strict=True)),
    )


def count_workers() -> int:
    """Return the number of threads that read photos at once: one for each processor that may be used."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, MOST_WORKERS)


def _open_graph(packed: Packed, name: str) -> tuple[Callable[[Images], list[NDArray]], int]:
    """Return a graph as a function of images, and the side of its images."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors
    try:
        weights = packed.fold(packed.inputs[name])
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(weight) for weight in weights.values()]
        options.add_external_initializers(list(weights), values)
        session = onnxruntime.InferenceSession(
            packed.graphs[name], options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # of ONNX Runtime, whose own classes derive from no common one
        raise ValueError(
            f"{packed.path}: its graph of {name} does not go with its weights ({error}); pack the runs again"
        ) from error
    (taken,) = session.get_inputs()
    return lambda images: session.run(None, {taken.name: images}), taken.shape[-1]
