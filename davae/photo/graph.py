"""ONNX graphs of networks: trace, run, and reduce to fewer bits.

Tracing needs onnx and onnxscript; running or reducing a graph needs onnxruntime: `pip install davae[export]`.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from davae.networks.folding import fold_batchnorm

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

OPSET = 18


def trace(network: nn.Module, px: int, outputs: tuple[str, ...]) -> "ModelProto":
    """Return a network in evaluation mode as an ONNX model, with BatchNorm folded, for any number of images.

    Args:
        network: images (b, 3, px, px) to tensors whose first axis is b.
        px: side of its images.
        outputs: names of what it returns.
    """
    import onnx

    images = torch.zeros(2, 3, px, px)  # with 1, torch 2.13 refuses to leave the number of images open
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            fold_batchnorm(network),
            (images,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("n")},),
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program; use the torch that davae pins")
    model = program.model_proto
    _remove_origin(model)
    onnx.checker.check_model(model)
    return model


def strip_weights(
    model: "ModelProto", layers: Sequence[str], rename: Callable[[str], str]
) -> tuple[bytes, list[str]]:
    """Return a model without the weights of its layers, and their names: they are to be given to a session.

    Args:
        model: of `trace`; it is changed.
        layers: names of the modules whose weights are taken out.
        rename: from the name of a weight to its new one.
    """
    import onnx

    names = {}
    for tensor in model.graph.initializer:
        if tensor.name.rpartition(".")[0] in layers and "." in tensor.name:
            names[tensor.name] = rename(tensor.name)
            tensor.ClearField("raw_data")
            tensor.name, tensor.data_location = names[tensor.name], onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="weights")  # as the format wants; no such file
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    return model.SerializeToString(), list(names.values())


def open_session(model: "ModelProto") -> "InferenceSession":
    """Return ONNX Runtime, on the CPU and with as many threads as torch has, ready to run a model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def quantise(model: "ModelProto", batches: Iterator[NDArray[np.float32]]) -> "ModelProto":
    """Return `model` with its convolutions in 8 bits, between nodes that quantise and dequantise (QDQ).

    Linear layers stay in fp32: they decide millimetres and take no time. The first and the last convolution
    are quantised too: leaving them out gained nothing on the validation split. Nor did ranges by percentile
    or by entropy.

    Args:
        model: of `trace`.
        batches: images (b, 3, px, px); their activations set the ranges.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quant_utils, quantize_static

    # The tool's own preparation is not needed: BatchNorm is folded, shapes are known.
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    quant_utils.add_pre_process_metadata(prepared)
    linear = {output for node in prepared.graph.node if node.op_type == "Gemm" for output in node.output}
    after_linear = [
        node.name for node in prepared.graph.node if node.op_type == "Relu" and node.input[0] in linear
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        quantize_static(
            prepared,
            file,
            _Reader(batches),
            # With Relu, ranges cover only what passes it, at a fifth of the accuracy lost with Conv alone.
            op_types_to_quantize=["Conv", "Relu"],
            nodes_to_exclude=after_linear,
            per_channel=True,
            reduce_range=True,  # 7 bits a weight: with 8, processors without VNNI saturate silently
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(file)


class _Reader:
    """Batches as ONNX Runtime's calibration reads them."""

    def __init__(self, batches: Iterator[NDArray[np.float32]]):
        self.batches = iter(batches)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        images = next(self.batches, None)
        return None if images is None else {"image": images}


def convert_to_fp16(model: "ModelProto") -> "ModelProto":
    """Return `model` in fp16; its input and output stay in fp32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return convert_float_to_float16(copy, keep_io_types=True)


def measure_difference(network: nn.Module, model: "ModelProto", px: int) -> float:
    """Return the largest difference of any output between ONNX Runtime and torch, on 3 random images and 1.

    Args:
        network: images (b, 3, px, px) to a tensor or a tuple of them, in evaluation mode.
        model: the same network as a graph.
        px: side of its images.
    """
    generator, session, largest = torch.Generator().manual_seed(0), open_session(model), []
    for count in (3, 1):
        images = torch.rand(count, 3, px, px, generator=generator)
        with torch.inference_mode():
            expected = network(images)
        expected = expected if isinstance(expected, tuple) else (expected,)
        found = session.run(None, {"image": images.numpy()})
        largest += [np.abs(a - b.numpy()).max() for a, b in zip(found, expected, strict=True)]
    return float(np.max(largest))  # NaN if any is


def _remove_origin(model: "ModelProto") -> None:
    """Remove the exporter's notes: each node has a stack trace with paths of this machine."""
    graph = model.graph
    del graph.metadata_props[:]
    for part in (graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        for entry in part:
            del entry.metadata_props[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings, of torchvision's absence and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
