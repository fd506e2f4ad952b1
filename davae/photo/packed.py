"""Read the file of weights that `davae pack` writes, without torch: a photo is soon read, torch is not.

It is a safetensors file, so nothing in it is executed. Its metadata hold `about`, the config of each network
and, if `pack` could trace the networks, `graphs`: what ties the file's graphs (tensors GRAPH + name, the
bytes of ONNX models without weights) to its weights, which it holds once.

Two checksums tell a file that has changed by accident: `sha256` of the metadata covers all else in the file,
and FILE.sha256 beside a file, as `sha256sum` writes it, covers the file. Neither tells who wrote the file.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from synthhand.formats.kinds import kind_of_file

FORMAT = 1
PARTS = ("model", "mask", "camera", "finder")  # the networks in a file
GRAPH = "graph."  # begins the names of tensors that hold graphs
EPSILON = 1e-5  # of torch's BatchNorm
CHECKSUM = "sha256"  # in the metadata, and the ending of the file beside a file of weights


@dataclass(frozen=True, eq=False)
class Packed:
    """The content of a file of `davae pack`.

    Attributes:
        path: of the file.
        about: data, runs and error of the weights, as `davae.photo.release.pack` returns them.
        configs: config of each of `PARTS`, as JSON.
        tensors: the weights by name, each name beginning with its part.
        graphs: the ONNX models, by name; empty if the file holds none.
        norms: layer -> BatchNorm right behind it, which the graphs' layers have absorbed.
        inputs: graph -> names of the weights that it takes.
    """

    path: Path
    about: Mapping[str, Any]
    configs: Mapping[str, str]
    tensors: Mapping[str, NDArray]
    graphs: Mapping[str, bytes]
    norms: Mapping[str, str]
    inputs: Mapping[str, list[str]]

    def fold(self, names: list[str]) -> dict[str, NDArray[np.float32]]:
        """Return weights as a graph takes them: BatchNorm is folded into the layer before it.

        The same function as `davae.networks.folding.fold_batchnorm`, of arrays.
        """
        return {name: self._fold(*name.rsplit(".", 1)) for name in names}

    def _fold(self, layer: str, kind: str) -> NDArray[np.float32]:
        def take(name: str) -> NDArray[np.float32]:
            return self.tensors[name].astype(np.float32)

        if layer not in self.norms:
            return take(f"{layer}.{kind}")
        norm = self.norms[layer]
        scale = take(f"{norm}.weight") / np.sqrt(take(f"{norm}.running_var") + np.float32(EPSILON))
        if kind == "weight":
            weight = take(f"{layer}.weight")
            return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        own = take(f"{layer}.bias") if f"{layer}.bias" in self.tensors else np.float32(0)
        return (own - take(f"{norm}.running_mean")) * scale + take(f"{norm}.bias")


def read_packed(path: Path | str) -> Packed:
    """Read a file of `davae pack`.

    Raises:
        FileNotFoundError: it does not exist, or is a folder.
        ValueError: it is damaged or has changed, or is no such file, or one of a later version.
    """
    path = Path(path)
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "missing"
        raise FileNotFoundError(f"{path}: {found}; name a file that `python -m davae pack` wrote")
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        what = f"is {kind}" if (kind := kind_of_file(path)) else "damaged, or no safetensors file"
        raise ValueError(f"{path}: {what} ({error}); get it again") from error
    missing = {"about", *(f"{part}.config" for part in PARTS)} - metadata.keys()
    if missing:
        raise ValueError(f"{path}: lacks {sorted(missing)}, so `python -m davae pack` did not write it")
    try:
        about = dict(json.loads(metadata["about"]))
        ties = json.loads(metadata.get("graphs", '{"norms": {}, "inputs": {}}'))
        norms, inputs = dict(ties["norms"]), {name: list(taken) for name, taken in ties["inputs"].items()}
        missing = {GRAPH + name for name in inputs} - tensors.keys()
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged ({error}); get it again") from error
    if missing:
        raise ValueError(f"{path}: damaged (it lacks {sorted(missing)}); get it again")
    if about.get("format") != FORMAT:
        raise ValueError(f"{path}: is of format {about.get('format')}, this davae reads {FORMAT}; update it")
    _check(path, tensors, metadata)
    return Packed(
        path,
        about,
        {part: metadata[f"{part}.config"] for part in PARTS},
        {name: tensor for name, tensor in tensors.items() if not name.startswith(GRAPH)},
        {name: tensors[GRAPH + name].tobytes() for name in inputs},
        norms,
        inputs,
    )


def locate_checksum(path: Path) -> Path:
    """Return where the checksum of a file of weights lies, if it has one beside it."""
    return path.with_name(f"{path.name}.{CHECKSUM}")


def sum_content(tensors: Mapping[str, NDArray], metadata: Mapping[str, str]) -> str:
    """Return the checksum of a file's tensors and metadata, without the checksum among them."""
    total = hashlib.sha256()
    for name, text in sorted(metadata.items()):
        if name != CHECKSUM:
            total.update(json.dumps([name, text]).encode())
    for name, tensor in sorted(tensors.items()):
        total.update(json.dumps([name, tensor.dtype.str, tensor.shape]).encode())
        total.update(np.ascontiguousarray(tensor).data)
    return total.hexdigest()


def _check(path: Path, tensors: Mapping[str, NDArray], metadata: Mapping[str, str]) -> None:
    """Raise ValueError if the file's checksum, should it have one, is not the one that is stated."""
    beside = locate_checksum(path)
    try:
        stated = beside.read_text(encoding="ascii", errors="replace").split()[:1]
    except FileNotFoundError:
        if CHECKSUM not in metadata:  # packed before there were checksums
            return
        where, expected, found = "its metadata state", metadata[CHECKSUM], sum_content(tensors, metadata)
    else:
        where, expected = f"{beside.name} states", "".join(stated)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(
            f"{path}: has changed since it was written: its checksum is {found:.12}, {where} "
            f"{expected:.12}; get it again"
        )
