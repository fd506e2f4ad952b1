"""A network as an ONNX graph: traced, run, and reduced to fewer bits.

Needs onnx and onnxscript, and to run or reduce a graph onnxruntime: `pip install davae[export]`.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterator
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


def onnx_model(network: nn.Module, px: int, outputs: tuple[str, ...]) -> "ModelProto":
    """Return a network in evaluation mode as an ONNX model with BatchNorm folded and any number of images.

    Args:
        network: images (b, 3, px, px) to tensors whose first axis is b.
        px: side of its images.
        outputs: names of what it returns.
    """
    import onnx

    images = torch.zeros(2, 3, px, px)  # of 1, torch 2.13 refuses to call the number of images free
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
    model = program.model_proto
    _forget_origin(model)
    onnx.checker.check_model(model)
    return model


def session(model: "ModelProto") -> "InferenceSession":
    """Return ONNX Runtime, on the CPU and with as many threads as torch has, ready to run a model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def quantised(model: "ModelProto", batches: Iterator[NDArray[np.float32]]) -> "ModelProto":
    """Return `model` with its convolutions on 8 bits, between nodes that quantise and dequantise (QDQ).

    Linear layers, which decide millimetres, stay in fp32: they take no time. The first and the last
    convolution are quantised too, since leaving them out gained nothing on the validation split; nor did
    ranges by percentile or by entropy.

    Args:
        model: of `onnx_model`.
        batches: images (b, 3, px, px), whose activations set the ranges.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quant_utils, quantize_static

    # What the tool's own preparation would do is done: BatchNorm is folded, shapes are known.
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
            # With Relu, so that a range covers what passes it: a fifth of the cost of Conv alone.
            op_types_to_quantize=["Conv", "Relu"],
            nodes_to_exclude=after_linear,
            per_channel=True,
            reduce_range=True,  # 7 bits of a weight: with 8, processors without VNNI saturate in silence
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(file)


class _Reader:
    """Batches in the form in which ONNX Runtime's calibration takes them."""

    def __init__(self, batches: Iterator[NDArray[np.float32]]):
        self.batches = iter(batches)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        images = next(self.batches, None)
        return None if images is None else {"image": images}


def halved(model: "ModelProto") -> "ModelProto":
    """Return `model` in fp16, with input and output in fp32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return convert_float_to_float16(copy, keep_io_types=True)


def largest_difference(network: nn.Module, model: "ModelProto", px: int) -> float:
    """Return how far ONNX Runtime is from torch, the most of any output, on 3 random images and on 1.

    Args:
        network: images (b, 3, px, px) to a tensor or a tuple of them, in evaluation mode.
        model: the same as a graph.
        px: side of its images.
    """
    generator, runtime, largest = torch.Generator().manual_seed(0), session(model), []
    for count in (3, 1):
        images = torch.rand(count, 3, px, px, generator=generator)
        with torch.inference_mode():
            expected = network(images)
        expected = expected if isinstance(expected, tuple) else (expected,)
        found = runtime.run(None, {"image": images.numpy()})
        largest += [np.abs(a - b.numpy()).max() for a, b in zip(found, expected, strict=True)]
    return float(np.max(largest))  # NaN, where there is one


def _forget_origin(model: "ModelProto") -> None:
    """Take out the exporter's notes: each node's holds a stack trace, with the paths of this machine."""
    graph = model.graph
    del graph.metadata_props[:]
    for part in (graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        for entry in part:
            del entry.metadata_props[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch's exporter says of torchvision's absence, and of its own future, from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
