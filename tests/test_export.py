"""ONNX export of finished runs, folded networks, and the export from image to joints."""

import copy
import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from davae import __version__, metrics
from davae.config import Config, mask_preset
from davae.data.augment import centre, load_batch
from davae.data.prepared import PreparedSplit
from davae.evaluation.joints import HandProbability, JointNet
from davae.networks import DaVAE, HandMaskNet
from davae.networks.folding import fold_batchnorm
from davae.networks.handmask import composite_over_grey, enlarge
from davae.photo import export as exporting
from davae.photo import graph
from davae.photo.export import Estimate, ExportError, export, format_export
from davae.pipeline import cli
from davae.training import runs
from davae.training.mask_inference import mask_iou
from synthhand.skeleton import JOINT_NAMES

ROOT = Path(__file__).parents[1]
BLOCKS = ("pose", "appearance", "shape")


def stirred(network: nn.Module, px: int) -> nn.Module:
    """`network` in evaluation mode, with statistics, gains and offsets of BatchNorm that are not trivial."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.rand(8, 3, px, px) ** 2)
    return network.eval()


def finish(run: Path, config, network: nn.Module, digest: str, kind: str = "da-VAE", **masks) -> Path:
    """A run's folder as training leaves it, with the weights of `network`."""
    runs.open_run(run, config, runs.Identity.of(digest, network=kind, **masks))
    runs.save_model(run, network)
    return run


def without_attention(config: Config) -> Config:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, attention="none"))


@pytest.fixture(scope="module")
def onnxruntime(require):
    """The package, for tests that export."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        require(False, f"{error}; pip install 'davae[export]'")
    return onnxruntime


@pytest.fixture(scope="module")
def pose_runs(tiny_config, prepared, tmp_path_factory):
    """Finished runs of da-VAE and na-VAE."""
    torch.manual_seed(1)
    folder, digest = tmp_path_factory.mktemp("runs"), PreparedSplit.open(prepared, "val").manifest["digest"]
    configs = {"da": tiny_config, "na": without_attention(tiny_config)}
    return {
        name: finish(folder / name, config, stirred(DaVAE(config.model), 64), digest)
        for name, config in configs.items()
    }


@pytest.fixture(scope="module")
def mask_run(prepared, tmp_path_factory):
    torch.manual_seed(2)
    config = mask_preset("smoke")
    digest = PreparedSplit.open(prepared, "val").manifest["digest"]
    network = stirred(HandMaskNet(config), config.data.image_px)
    return finish(tmp_path_factory.mktemp("runs") / "mask", config, network, digest, "mask")


@pytest.fixture(scope="module")
def files(onnxruntime, pose_runs, mask_run, prepared, tmp_path_factory):
    """What `export` returns of each run, and of da-VAE and the mask network with fewer bits."""
    folder = tmp_path_factory.mktemp("onnx")
    traced = {}

    def trace_once(network, px, outputs):
        weights = tuple(float(p.detach().sum()) for p in network.parameters())
        if weights not in traced:
            traced[weights] = graph.trace(network, px, outputs)
        return copy.deepcopy(traced[weights])

    asked = {
        "da": (pose_runs["da"], {}),
        "na": (pose_runs["na"], {}),
        "mask": (mask_run, {}),
        "da int8": (pose_runs["da"], {"reduced": "int8", "data": prepared}),
        "da fp16": (pose_runs["da"], {"reduced": "fp16", "data": prepared, "split": "test"}),
        "mask int8": (mask_run, {"reduced": "int8", "data": prepared}),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "trace", trace_once)  # which takes seconds, and is the same with fewer bits
        return {
            name: export(run, folder / f"{name}.onnx", progress=False, **options)
            for name, (run, options) in asked.items()
        }


@pytest.fixture
def already_traced(files, monkeypatch):
    """Let `export` find the graph of the fixture's da-VAE instead of tracing the network that it is given."""
    import onnx

    monkeypatch.setattr(exporting, "trace", lambda *_: onnx.load(files["da"].path))


@pytest.fixture
def session(onnxruntime):
    return lambda path: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def norms(network: nn.Module) -> list[str]:
    return [
        name for name, part in network.named_modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]


# Folding, and joints alone


@pytest.mark.parametrize("attention", ["sk", "none"])
@pytest.mark.parametrize(
    ("decoder", "kept"),
    [("paper", ["image_decoder.start.2"]), ("limbs", [])],  # that one is behind a change of shape
)
def test_fused_model_is_the_same_function_without_batchnorm(tiny_config, attention, decoder, kept):
    config = dataclasses.replace(tiny_config.model, attention=attention, image_decoder=decoder)
    model = stirred(DaVAE(config), config.image_px)
    image = torch.rand(3, 3, 64, 64)
    folded = fold_batchnorm(model)
    with torch.inference_mode():
        expected, found = model(image), folded(image)
    for block in BLOCKS:
        torch.testing.assert_close(found.means[block], expected.means[block], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.logvars[block], expected.logvars[block], rtol=1e-4, atol=1e-5)
    for name in ("pose", "cloud", "image"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-5)
    assert norms(folded) == kept


def test_fused_leaves_the_network_itself_alone(tiny_config):
    model = DaVAE(tiny_config.model).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fold_batchnorm(model)
    assert model.training and not folded.training
    assert not any(p.requires_grad for p in folded.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_fused_mask_network_is_the_same_function_without_batchnorm():
    network = stirred(HandMaskNet(mask_preset("smoke")), 64)
    image = torch.rand(2, 3, 64, 64)
    folded = fold_batchnorm(network)
    with torch.inference_mode():
        torch.testing.assert_close(folded(image), network(image), rtol=1e-4, atol=1e-4)
    assert not norms(folded)


def test_joints_alone_are_those_of_the_whole_model(tiny_config):
    model = stirred(DaVAE(tiny_config.model), 64)
    image = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(JointNet(model)(image), model(image).pose)
    used = {p.data_ptr() for p in JointNet(model).parameters()}
    assert used < {p.data_ptr() for p in model.parameters()}  # shared, and not all of them


def test_joints_alone_of_an_undivided_code_need_every_head(tiny_config):
    model = DaVAE(dataclasses.replace(tiny_config.model, divided=False)).eval()
    image = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        expected = model(image)
        assert_close(JointNet(model)(image), expected.pose)
        joints, *codes = Estimate(model)(image)
    assert_close(joints, expected.pose)
    assert_close(codes, list(expected.means.values()))


def test_joints_through_a_mask_network_are_those_of_the_masked_crop(tiny_config):
    model = stirred(DaVAE(tiny_config.model), 64)
    network = stirred(HandMaskNet(mask_preset("smoke")), 64)
    image = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        masked = composite_over_grey(image, enlarge(network(image), image).sigmoid())
        expected = model(masked).pose
        assert torch.equal(JointNet(model, network)(image), expected)
        assert not torch.allclose(model(image).pose, expected, atol=1e-3)
        folded = fold_batchnorm(JointNet(model, network))(image)
    torch.testing.assert_close(folded, expected, rtol=1e-4, atol=1e-5)


def test_joints_of_images_of_another_size_are_refused(tiny_config):
    with pytest.raises(ValueError, match=r"takes images of shape \(b, 3, 64, 64\), found \(1, 3, 32, 32\)"):
        JointNet(DaVAE(tiny_config.model))(torch.rand(1, 3, 32, 32))


# What is written


@pytest.mark.parametrize("name", ["da", "na"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_onnx_returns_what_the_run_does(name, count, files, pose_runs, session):
    model, _ = runs.load_model(pose_runs[name])
    image = torch.rand(count, 3, 64, 64)
    with torch.inference_mode():
        expected = model(image)
    outputs = ["joints", *(f"z_{block}" for block in BLOCKS)]
    joints, *means = session(files[name].path).run(outputs, {"image": image.numpy()})
    assert joints.shape == (count, 21, 3) and joints.dtype == np.float32
    assert np.abs(joints - expected.pose.numpy()).max() < 1e-4
    for block, mean in zip(BLOCKS, means, strict=True):
        assert np.abs(mean - expected.means[block].numpy()).max() < 1e-4
    assert count == 1 or np.ptp(joints, axis=0).max() > 0.01  # images do matter


@pytest.mark.parametrize("count", [1, 4])
def test_onnx_of_a_mask_network_returns_one_look(count, files, mask_run, session):
    network, _ = runs.load_mask_network(mask_run)
    image = torch.rand(count, 3, 64, 64)
    with torch.inference_mode():
        expected = HandProbability(network)(image).numpy()
    (found,) = session(files["mask"].path).run(["probability"], {"image": image.numpy()})
    assert found.shape == (count, 1, 64, 64) and np.abs(found - expected).max() < 1e-4
    assert np.ptp(found) > 0.01


@pytest.mark.parametrize("name", ["da", "na", "mask"])
def test_no_batchnorm_is_left_and_nothing_of_this_machine(name, files, onnxruntime, tmp_path):
    import onnx

    operators = {node.op_type for node in onnx.load(files[name].path).graph.node}
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(files[name].path, options, providers=["CPUExecutionProvider"])
    operators |= {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert "Conv" in operators and "BatchNormalization" not in operators
    content = files[name].path.read_bytes()
    assert str(ROOT).encode() not in content and b".py" not in content


def test_metadata_say_what_goes_in_and_comes_out(files, pose_runs, mask_run, prepared, session):
    facts = session(files["da int8"].path).get_modelmeta().custom_metadata_map
    assert facts["network"] == "da-VAE" and facts["preset"] == "smoke" and facts["davae"] == __version__
    assert facts["image_px"] == "64" and facts["input_mask"].startswith("none: ")
    assert facts["joint_order"].split() == list(JOINT_NAMES)
    assert facts["weights"] == runs.weights_digest(pose_runs["da"])
    assert facts["precision"].startswith("int8") and "middle_pip" in facts["units"]
    digest = PreparedSplit.open(prepared, "val").manifest["digest"]
    assert facts["dataset"] == f"not named, since the run is not evaluated (prepared data {digest[:12]})"
    assert session(files["na"].path).get_modelmeta().custom_metadata_map["network"] == "na-VAE"
    facts = session(files["mask"].path).get_modelmeta().custom_metadata_map
    assert facts["network"] == "hand mask network" and "joint_order" not in facts
    assert facts["weights"] == runs.weights_digest(mask_run) and facts["precision"] == "fp32"


def test_metadata_name_the_dataset_of_an_evaluated_run_and_the_network_of_its_masks(
    tiny_config, tmp_path, pose_runs
):
    config = dataclasses.replace(tiny_config, data=dataclasses.replace(tiny_config.data, mask="network"))
    masks = {"digest": "masks", "network": "f00d"}
    run = finish(tmp_path / "run", config, DaVAE(config.model), "d1ge57", masks=masks)
    (run / "metrics.json").write_text('{"dataset": "synthhand", "data": "d1ge57"}')
    facts = exporting.describe_run(run, config, None)
    assert facts["dataset"] == "synthhand (prepared data d1ge57)"
    assert facts["mask_network"] == "f00d"
    assert facts["input_mask"].startswith("network: ")


# Fewer bits


def crops(prepared, config, split, rows=None):
    split = PreparedSplit.open(prepared, split)
    rows = np.arange(len(split)) if rows is None else rows
    return split, centre(load_batch(split, rows), config.data)


@pytest.mark.parametrize(("name", "split"), [("da int8", "val"), ("da fp16", "test")])
def test_cost_of_fewer_bits_is_that_of_the_files(name, split, files, tiny_config, prepared, session):
    exported = files[name]
    split, batch = crops(prepared, tiny_config, split)
    for file, field in ((files["da"].path, "full"), (exported.path, "reduced")):
        (joints,) = session(file).run(["joints"], {"image": batch.image.contiguous().numpy()})
        results = metrics.evaluate_protocols(joints, split.joints, split.scale_mm, split.visible, 1.0)
        for protocol in ("P1", "P5"):
            cost = getattr(exported.costs[f"{protocol} EPE in mm"], field)
            assert cost == pytest.approx(results[protocol].epe_mm, abs=1e-3)
    cost = exported.costs["P1 EPE in mm"]
    assert cost.full != cost.reduced  # bits do matter
    assert cost.interval[0] <= cost.reduced - cost.full <= cost.interval[1]
    assert abs(cost.reduced - cost.full) < 0.02 * cost.full
    assert (exported.split, exported.images) == (split.name, len(split))


def test_cost_of_a_mask_network_is_measured_on_masks(files, mask_run, prepared, session):
    _, config = runs.load_mask_network(mask_run)
    _, batch = crops(prepared, config, "val")
    cost = files["mask int8"].costs["IoU"]
    for file, found in ((files["mask"].path, cost.full), (files["mask int8"].path, cost.reduced)):
        (probability,) = session(file).run(None, {"image": batch.image.contiguous().numpy()})
        ious = mask_iou(torch.from_numpy(probability), batch.mask)
        assert found == pytest.approx(float(ious.mean()), abs=1e-3)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", ["da int8", "da fp16", "mask int8"])
def test_fewer_bits_take_any_number_of_images(name, count, files, session):
    image = np.random.default_rng(0).random((count, 3, 64, 64), dtype=np.float32)
    full = session(files[name.split()[0]].path).run(None, {"image": image})
    for a, b in zip(session(files[name].path).run(None, {"image": image}), full, strict=True):
        assert a.shape == b.shape and a.dtype == np.float32 and np.isfinite(a).all()


def test_int8_holds_every_convolution_in_8_bits_and_linear_layers_in_full(files):
    import onnx

    model = onnx.load(files["da int8"].path).graph
    makers = {output: node for node in model.node for output in node.output}
    stored = {tensor.name: tensor for tensor in model.initializer}
    convolutions = [node for node in model.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        weight, scale, _ = makers[node.input[1]].input
        assert stored[weight].data_type == onnx.TensorProto.INT8
        assert list(stored[scale].dims) == [stored[weight].dims[0]]  # one an output channel
        assert np.abs(onnx.numpy_helper.to_array(stored[weight])).max() <= 64
    linear = [node for node in model.node if node.op_type == "Gemm"]
    assert linear and all(stored[node.input[1]].data_type == onnx.TensorProto.FLOAT for node in linear)
    for node in linear:  # nor does what goes in between them pass 8 bits
        readers = {other.op_type for other in model.node if node.output[0] in other.input}
        assert "QuantizeLinear" not in readers
        assert node.input[0] not in makers or makers[node.input[0]].op_type != "DequantizeLinear"


def test_what_was_written_is_told(files):
    text = format_export(files["da int8"])
    assert "image -> joints (n, 21, 3), z_pose (n, 24)" in text and "differ by at most" in text
    assert "int8 instead of fp32" in text and "on 8 images of val" in text
    assert "P1 EPE in mm" in text and "P5 EPE in mm" in text
    assert files["da int8"].difference < 1e-4
    assert files["da fp16"].megabytes < 0.7 * files["da fp16"].fp32_megabytes
    assert "P1" not in format_export(files["da"])


# What is refused


def test_a_difference_is_an_error_and_leaves_the_old_file(
    already_traced, tiny_config, pose_runs, tmp_path_factory, tmp_path
):
    model, _ = runs.load_model(pose_runs["da"])
    with torch.no_grad():
        model.pose_decoder[-1].bias[0] += 2e-4
    run = finish(tmp_path_factory.mktemp("runs") / "other", tiny_config, model, "digest")
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    with pytest.raises(ExportError, match=r"model\.onnx: not written, since ONNX Runtime and torch differ"):
        export(run, path, progress=False)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_values_that_are_not_finite_are_an_error(already_traced, tiny_config, tmp_path):
    model = DaVAE(tiny_config.model)
    nn.init.constant_(model.pose_decoder[-1].bias, torch.nan)
    run = finish(tmp_path / "run", tiny_config, model, "digest")
    with pytest.raises(ExportError, match="differ by nan"):
        export(run, tmp_path / "model.onnx", progress=False)
    assert not (tmp_path / "model.onnx").exists()


def test_a_failure_while_reducing_leaves_nothing(already_traced, pose_runs, prepared, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of bits")

    monkeypatch.setattr(exporting, "quantise", fail)
    with pytest.raises(RuntimeError, match="out of bits"):
        export(pose_runs["da"], tmp_path / "m.onnx", reduced="int8", data=prepared, progress=False)
    assert not list(tmp_path.iterdir())


def test_an_unfinished_run_is_refused(tiny_config, tmp_path):
    runs.open_run(tmp_path / "run", tiny_config, runs.Identity.of("digest"))
    with pytest.raises(FileNotFoundError, match="training is not finished"):
        export(tmp_path / "run", tmp_path / "model.onnx", progress=False)
    with pytest.raises(FileNotFoundError, match=r"no config\.json, so no run here"):
        export(tmp_path / "none", tmp_path / "model.onnx", progress=False)


def test_a_place_that_cannot_be_written_is_refused_first(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere; make it"):
        export(tmp_path / "no run", tmp_path / "nowhere" / "model.onnx", progress=False)
    with pytest.raises(IsADirectoryError, match="name the file to write"):
        export(tmp_path / "no run", tmp_path, progress=False)


@pytest.mark.parametrize("reduced", ["int8", "fp16"])
def test_fewer_bits_need_data(reduced, pose_runs, tmp_path):
    with pytest.raises(ValueError, match=f"a model in {reduced} needs prepared data"):
        export(pose_runs["da"], tmp_path / "model.onnx", reduced=reduced, progress=False)
    with pytest.raises(FileNotFoundError, match="no data"):
        export(
            pose_runs["da"], tmp_path / "m.onnx", reduced=reduced, data=tmp_path / "no data", progress=False
        )
    with pytest.raises(ValueError, match="unknown reduced 'int4'; choose one of int8, fp16"):
        export(pose_runs["da"], tmp_path / "model.onnx", reduced="int4", data="data", progress=False)


def test_data_of_another_size_are_refused(tiny_config, prepared, tmp_path):
    config = dataclasses.replace(
        tiny_config,
        data=dataclasses.replace(tiny_config.data, image_px=96),
        model=dataclasses.replace(tiny_config.model, image_px=96),
    )
    run = finish(tmp_path / "run", config, DaVAE(config.model), "digest")
    with pytest.raises(ValueError, match="prepared with image_px 64, this run needs 96"):
        export(run, tmp_path / "model.onnx", reduced="int8", data=prepared, progress=False)


def test_data_without_the_masks_that_a_run_sees_through_are_refused(tiny_config, prepared, tmp_path):
    config = dataclasses.replace(tiny_config, data=dataclasses.replace(tiny_config.data, mask="network"))
    masks = {"digest": "masks", "network": "f00d"}
    run = finish(tmp_path / "run", config, DaVAE(config.model), "digest", masks=masks)
    with pytest.raises(ValueError, match="no masks were predicted for this data"):
        export(run, tmp_path / "model.onnx", reduced="int8", data=prepared, progress=False)


def test_packages_that_are_missing_are_named(already_traced, pose_runs, prepared, tmp_path, monkeypatch):
    path, installed = tmp_path / "model.onnx", exporting.find_spec

    def without(*names):
        monkeypatch.setattr(exporting, "find_spec", lambda name: None if name in names else installed(name))

    without("onnx", "onnxscript")
    with pytest.raises(
        ExportError, match=r"needs onnx and onnxscript, not installed: pip install 'davae\[export"
    ):
        export(pose_runs["da"], path, progress=False)
    without("onnxruntime")
    with pytest.raises(ExportError, match="needs onnxruntime, not installed"):
        export(pose_runs["da"], path, reduced="int8", data=prepared, progress=False)
    assert not path.exists()
    exported = export(pose_runs["da"], path, progress=False)
    assert path.exists() and exported.difference is None
    assert "not compared with torch, since onnxruntime is not installed: pip install" in format_export(
        exported
    )


def test_command_line(onnxruntime, mask_run, tmp_path, monkeypatch):
    arguments = ["davae", "export", "--run", str(mask_run), "--onnx", str(tmp_path / "mask.onnx")]
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mask.onnx" in done.stdout and "probability (n, 1, 64, 64)" in done.stdout
    assert "torchvision" not in done.stderr and "Warning" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mask.onnx"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--reduced", "int8"])
    with pytest.raises(SystemExit, match="davae: a model in int8 needs prepared data"):
        cli.main()
