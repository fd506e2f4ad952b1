"""Benchmarks: each runs end to end at a small size, and its report is correct."""

import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import types
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rhd_fixture import write_dataset
from torch.utils.flop_counter import FlopCounterMode

from davae.config import BLOCKS, DataConfig, RenderConfig, mask_preset
from davae.data.prepared import PreparedSplit, prepare
from davae.evaluation import evaluate, predict_masks
from davae.evaluation.summary import summarise
from davae.networks import DaVAE, HandMaskNet
from davae.networks.handmask import composite_over_grey, enlarge
from davae.photo.hand import mirror
from davae.training.davae_task import train
from davae.training.runs import Identity, load_model, open_run, save_model
from synthhand.dataset.writer import write_dataset as write_synthhand
from synthhand.formats.rhd import RHDSplit
from synthhand.model.pose import ANGLES
from synthhand.model.procedural import procedural_rig

FOLDER = Path(__file__).parents[1] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("recipe", ["plain", "run"])
def test_plain_regressor_reports_beside_the_run(recipe, tiny_config, prepared, tmp_path, capsys):
    run = train(tiny_config, prepared, tmp_path / "run", progress=False)
    evaluate(run, prepared)
    out = tmp_path / "regressor.json"
    load("plain_regressor").main(prepared, run, out, seconds=0.5, recipe=recipe)
    report = json.loads(out.read_text())
    assert report["images_seen"] >= tiny_config.train.batch_size and recipe in report["model"]
    assert set(report["protocols"]) == {"P1", "P2", "P3", "P4", "P5"}
    assert "plain regressor" in capsys.readouterr().out


@pytest.mark.slow
def test_inference_is_timed_beside_a_resnet(require):
    missing = [
        name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None
    ]
    require(not missing, f"{missing} not installed")
    bench = load("inference")
    measured = bench.measure("smoke", batches=(1, 2), seconds=0, progress=False)
    assert (measured["px"], list(measured["batches"])) == (64, [1, 2])
    for table in measured["batches"].values():
        assert list(table) == [bench.BARE, bench.MASKED, bench.WHOLE]
        for row in table.values():
            assert {"torch", "folded", "ONNX", "ONNX, int8"} <= row.keys() == table[bench.BARE].keys()
            for way, cell in row.items():
                assert cell["ratio"] == pytest.approx(cell["ms"] / table[bench.BARE]["torch"]["ms"])
                assert cell["ratio_alike"] == pytest.approx(cell["ms"] / table[bench.BARE][way]["ms"])
    text = bench.format_tables(measured)
    assert "2 at a time, ms" in text and text.count("goal: ") == 2 * len(table[bench.BARE])


def test_inference_times_the_networks_that_it_names(tiny_config, tmp_path):
    bench = load("inference")
    config, mask_config = tiny_config, mask_preset("smoke")
    model, network = DaVAE(config.model), HandMaskNet(mask_config)
    for run, made, settings in ((tmp_path / "run", model, config), (tmp_path / "mask", network, mask_config)):
        open_run(run, settings, Identity.of("digest"))
        save_model(run, made)
    found, px = bench.load_networks("paper", tmp_path / "run", tmp_path / "mask")
    assert px == 64 and not any(network.training for network in found.values())
    assert sum(p.numel() for p in found[bench.BARE].parameters()) == 21_797_672  # as published
    image = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert found[bench.BARE](image).shape == (2, 1000)
        assert torch.equal(found[bench.MASKED](image), model.eval()(image).pose)
        masked = composite_over_grey(image, enlarge(network.eval()(image), image).sigmoid())
        assert torch.equal(found[bench.WHOLE](image), model(masked).pose)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_private_memory_counts_children_and_passes_the_status_on():
    child = "import time; x = bytearray(b'1') * (64 << 20); time.sleep(0.6)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); sys.exit(3)"
    command = [sys.executable, FOLDER / "private_memory.py", sys.executable, "-c", parent]
    done = subprocess.run(command, capture_output=True, text=True)
    peak = float(done.stdout.rsplit("memory:", 1)[1].split()[0])
    assert done.returncode == 3 and 64 < peak < 128


def run_main(name, *arguments):
    """The benchmark's output, from a process of its own, as a user would see it."""
    command = [sys.executable, FOLDER / f"{name}.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_full_size_links_as_many_samples_as_it_is_told_and_survives_its_kill(tmp_path):
    root, out = write_dataset(tmp_path / "data", 3, 1, 1, factors=False), tmp_path / "out"
    arguments = (
        "--root",
        root,
        "--out",
        out,
        "--train",
        "96",
        "--test",
        "5",
        "--size",
        "32",
        "--workers",
        "1",
    )
    said = run_main("full_size", *map(str, arguments))
    assert "prepare, 32 px, 1 workers: 101 images in" in said and "data path, 32 px:" in said
    assert not out.exists() and len(list((root / "training" / "color").iterdir())) == 3
    out.mkdir()
    command = [sys.executable, FOLDER / "full_size.py", *arguments]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2 and "exists; name a new folder" in refused.stderr


def test_volume_and_winding_of_a_closed_mesh():
    bench = load("self_penetration")
    corners = np.array([[0, 0, 0], [2, 0, 0], [0, 3, 0], [0, 0, 4]], float)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    assert bench.measure_volume_mm3(corners, faces) == pytest.approx(2 * 3 * 4 / 6)
    inside_and_out = np.array([[0.3, 0.3, 0.3], [2.0, 2.0, 2.0], [0.3, 0.3, -1.0]])
    assert bench.count_winding(corners, faces, inside_and_out).tolist() == [1, 0, 0]
    cap, apex = bench.close_mesh(faces[:3], corners)  # one side taken away, and closed again
    closed = np.concatenate([corners, [apex]]), np.concatenate([faces[:3], cap])
    assert bench.measure_volume_mm3(*closed) == pytest.approx(4.0)


def test_penetration_is_found_where_there_is_some_and_nowhere_else():
    bench, rig = load("self_penetration"), procedural_rig()
    deepest = []
    for sideways in (-0.5, 0.0, 0.5):  # the index finger leant into its neighbour, straight, and away from it
        angles = np.zeros(ANGLES)
        angles[1] = sideways
        deepest.append(bench.measure_penetration_mm(rig, bench.pose_hand(rig, angles)).max())
    assert deepest[0] > bench.LIMIT_MM and deepest[1:] == [0, 0]


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("self_penetration", ("--poses", "5"), "5 poses: "),
        ("shape_from_masks", ("--hands", "150", "--px", "32", "--epochs", "1"), "wide: 150 hands, 32 px"),
        ("joints_to_mesh", ("--count", "3", "--oracle", "1"), "hands/s with mesh"),
        ("skin_tones", ("--samples", "3", "--size", "32"), "of the hands are at most"),
        ("render_speed", ("--images", "1", "--total", "2", "--size", "32", "--workers", "1"), "images/s"),
    ],
)
def test_benchmarks_of_the_hand_print_their_tables(name, arguments, says):
    assert says in run_main(name, *arguments)


@pytest.mark.parametrize("where", ["here", pytest.param("kernel", marks=pytest.mark.slow)])
def test_moves_of_the_explorers_sliders_are_timed(suite, tmp_path, monkeypatch, where):
    module = suite("explorer_latency")
    if where == "here":
        monkeypatch.setattr(module, "measure_in_kernel", module.measure)
    found = list(module.measure_rows(suite("workbench").Workbench(tmp_path, quick=True)))
    assert [row.name.split()[2] for row in found] == [*BLOCKS, "viewpoint"]
    assert all(row.unit == "ms" and row.value > 0 for row in found)


# The suite


@pytest.fixture
def suite(monkeypatch):
    """The modules of the suite, imported as its own files import one another."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def test_functions_take_turns_and_the_median_counts(suite):
    readings = [100, 100, 0, 5, 0, 10, 0, 1, 0, 90, 0, 3, 0, 20]
    clock, order = accumulate(readings), []
    functions = {name: (lambda name=name: order.append(name)) for name in "ab"}
    found = suite("timing").alternate(functions, rounds=3, clock=lambda: next(clock), warm_up=1)
    assert "".join(order) == "abababab"
    assert found == {"a": 3, "b": 20}  # of 5, 1, 3 and of 10, 90, 20; the first round is not counted


@pytest.mark.parametrize(
    ("bar", "met"),
    [
        ("", None),
        ("ratio >= 3", False),
        ("ratio >= 2", True),
        ("ratio <= 0.1", False),
        ("value <= 0.3", True),
    ],
)
def test_a_bar_is_met_or_missed(suite, bar, met):
    timing = suite("timing")
    row = timing.Row("speed", 0.25, "s", "other: 0.5", 2.0, bar)
    assert row.met is met and row.to_dict()["met"] is met
    assert timing.Row.from_dict(row.to_dict() | {"met": True}) == row
    said = suite("suite").format_line(row.to_dict())
    assert ("MISSED" in said, "met" in said) == (met is False, met is True)


@pytest.mark.parametrize("bar", ["3", "ratio > 3", "speed >= 3", "ratio >= 3", "value >= three"])
def test_a_bar_that_says_nothing_is_refused(suite, bar):
    with pytest.raises(ValueError):
        suite("timing").Row("speed", 1.0, "s", bar=bar)  # it has no ratio


def test_what_is_not_a_number_meets_no_bar(suite):
    for relation in (">=", "<="):
        assert suite("timing").Row("speed", float("nan"), "s", bar=f"value {relation} 1").met is False


def test_a_group_that_fails_keeps_its_rows_and_stops_no_other(suite, monkeypatch, tmp_path, capsys):
    timing, module = suite("timing"), suite("suite")

    def breaks(bench):
        yield timing.Row("first", 2.0, "s", "python: 1", 2.0, "ratio <= 1.1")
        raise RuntimeError("no room")

    groups = types.SimpleNamespace(breaks=breaks, works=lambda bench: [timing.Row("second", 1.0, "s")])
    monkeypatch.setitem(sys.modules, "some_groups", groups)
    for name in ("breaks", "works"):
        monkeypatch.setitem(module.GROUPS, name, ("some_groups", name))
    assert module.main(["--only", "breaks,works", "--out", str(tmp_path)]) == 1
    said, table = capsys.readouterr().out, (tmp_path / "table.md").read_text()
    assert "missed: breaks: first (ratio <= 1.1)" in said and "failed: breaks" in said
    assert "Failed: RuntimeError: no room" in table and "| second | 1 s |" in table
    saved = json.loads((tmp_path / "breaks.json").read_text())
    assert [row["name"] for row in saved["rows"]] == ["first"] and saved["rows"][0]["met"] is False
    assert {"processor", "cores", "threads", "torch", "bf16", "date"} <= saved["machine"].keys()
    assert module.main(["--only", "works", "--out", str(tmp_path)]) == 0  # what was there before stays
    assert "| first | 2 s | python: 1 | 2 | ratio <= 1.1: MISSED |" in (tmp_path / "table.md").read_text()


@pytest.mark.slow
def test_cheap_groups_measure_what_they_name(tmp_path):
    run_main("suite", "--quick", "--only", "limits,training,data,startup,photos", "--out", str(tmp_path))
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in
             ("limits", "training", "data", "startup")}  # fmt: skip
    predicted = json.loads((tmp_path / "photos.json").read_text())  # its rate of two photos may be noise
    assert predicted["error"] is None and predicted["rows"][0]["value"] > 0 and len(predicted["rows"]) == 2
    values = {row["name"]: row["value"] for group in found.values() for row in group["rows"]}
    assert all(value > 0 for name, value in values.items() if "rest" not in name)
    assert {"copy", "PNG decoding", "3x3 convolution, fp32", "import davae"} <= values.keys()
    of_step = [row for row in found["training"]["rows"] if row["unit"] == "ms/step"]
    assert {f"smoke: head {block}" for block in BLOCKS} <= {row["name"] for row in of_step}
    assert sum(row["ratio"] for row in of_step) == pytest.approx(1)
    for row in found["training"]["rows"] + found["data"]["rows"]:
        if row["unit"] == "images/s":  # a rate of davae over the other's, as the table says
            assert row["ratio"] == pytest.approx(
                row["value"] / float(row["baseline"].split(": ")[1]), rel=1e-3
            )


@pytest.mark.slow
def test_what_a_gpu_is_asked_runs_on_a_processor_too(suite, tmp_path, monkeypatch, capsys):
    bench = suite("workbench").Workbench(tmp_path, quick=True)
    found = {row.name: row for row in suite("card").measure_device(bench, torch.device("cpu"))}
    trained = found["GPU, smoke, batches of 4: training"]
    assert trained.ratio == pytest.approx(trained.value / float(trained.baseline.split(": ")[1]), rel=1e-3)
    share = next(row for name, row in found.items() if "arithmetic of a step" in name)
    assert share.value > 0 and 0 < share.ratio < 1
    assert found["GPU: matrix product, fp32"].value > 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert list(suite("card").measure_rows(bench)) == [] and "no GPU" in capsys.readouterr().out


def test_work_is_counted_by_hand(suite, tiny_config):
    limits, training = suite("limits"), suite("training")
    assert limits.make_convolution(torch.float32, 2).amount * 1e9 == 3 * 2 * 2 * 16 * 16 * 256 * 256 * 9
    with FlopCounterMode(display=False) as counter:
        limits.make_convolution(torch.float32, 2).run()
    assert counter.get_total_flops() == 3 * 2 * 2 * 16 * 16 * 256 * 256 * 9
    parts = {part.name: part.flops for part in summarise(tiny_config.model)}
    # The limb decoder paints half of a batch in training.
    forward = parts["total"] - parts["image decoder"] / 2
    # Backward is twice the forward, but for gradients of what has none: the image, the sheet.
    assert 2.7 * forward < training.count_flops(tiny_config) < 3 * forward


def test_every_chamfer_of_the_suite_is_the_same(suite):
    chamfer = suite("chamfer")
    predicted, true = chamfer.make_clouds(quick=True)
    methods = chamfer.METHODS | {"torch.cdist, default": chamfer.cdist_loss}
    unsquared = ("chamfer_distance", "Open3D, forward only")
    found = {name: method(predicted, true).detach() for name, method in methods.items()}
    for name, values in found.items():
        torch.testing.assert_close(
            values, found["chamfer_distance" if name in unsquared else "cloud_loss"], rtol=1e-4, atol=1e-4
        )
    gradients = [torch.autograd.grad(chamfer.METHODS[name](predicted, true).sum(), predicted)[0]
                 for name in ("cloud_loss", "torch.cdist, exact", "SciPy's cKDTree and gather")]  # fmt: skip
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-4, atol=1e-4)


def test_memory_of_a_fresh_process_is_what_it_takes(suite):
    timing = suite("timing")
    grown = timing.run_in_fresh_process("chamfer", "measure_memory_mib", "torch.cdist, exact", False)
    matrix = 32 * 2025 * 2048 * 4 / 2**20  # the distances, which autograd keeps; their gradients come later
    assert matrix < grown < 6 * matrix
    with pytest.raises(RuntimeError, match="no_such_function"):
        timing.run_in_fresh_process("timing", "no_such_function")


def test_steps_of_a_running_training_are_read(suite, tmp_path):
    path = tmp_path / "metrics.csv"
    assert suite("commands").read_seconds(path) == {}
    path.write_text("step,seconds\n1,0.5\n10,2.25\n20,4.")
    assert suite("commands").read_seconds(path) == {1: 0.5, 10: 2.25}


def test_inference_is_judged_by_its_quickest_way_but_not_in_eight_bits(suite, monkeypatch):
    def measure(name, *, batches, seconds):
        ways = {"torch": {"ms": 3.0, "ratio": 1.5}, "folded": {"ms": 2.2, "ratio": 1.1}}
        ways["ONNX, int8"] = {"ms": 1.0, "ratio": 0.5}
        table = {"ResNet-34": {"torch": {"ms": 2.0, "ratio": 1.0}}, "crop to joints": ways}
        return {"goals": {"crop to joints": 1.2}, "batches": dict.fromkeys(batches, table)}

    fake = types.ModuleType("inference")
    fake.measure, fake.BARE = measure, "ResNet-34"
    monkeypatch.setitem(sys.modules, "inference", fake)
    rows = list(suite("inference_rows").measure_rows(suite("workbench").Workbench(Path("nowhere"))))
    judged = {row.name: row.met for row in rows if row.bar}
    assert judged == {f"{name}: crop to joints, folded, 1 at a time": True for name in ("laptop", "paper")}
    assert len(rows) == 12 and rows[1].baseline == "ResNet-34 in torch: 2"


# Photos and interpolation


@pytest.fixture(scope="module")
def photos():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield load("photos")


@pytest.fixture(scope="module")
def peers(photos):
    return sys.modules["peers"]


def test_squares_overlap_by_hand(photos):
    a = photos.Box((10.0, 10.0), 10.0)
    assert photos.measure_overlap(a, a) == 1
    assert photos.measure_overlap(a, photos.Box((20.0, 10.0), 10.0)) == pytest.approx(200 / 600)
    assert photos.measure_overlap(a, photos.Box((10.0, 10.0), 5.0)) == pytest.approx(0.25)
    assert photos.measure_overlap(a, photos.Box((50.0, 10.0), 10.0)) == 0


def test_distances_are_over_the_true_one(photos, prepared):
    """Of a hand that was placed before the unit camera for another bone, by the true size of the true one."""
    root, bone, focal = 700.0, 40.0, 320.0
    joints = np.zeros((21, 3))
    joints[:, 2], joints[10] = root, (bone, 0, root)
    record = types.SimpleNamespace(joints_mm=joints, K=np.diag([focal, focal, 1.0]))
    for seen in (1.0, 1.25):  # the bone on the photo, over its true length
        placed = np.zeros((21, 3))
        placed[9, 2] = 45.0 / (seen * focal * bone / root)
        hand = types.SimpleNamespace(joints_mm=placed, bone_mm=45.0)
        assert photos.measure_distance(hand, record) == pytest.approx(1 / seen)


def test_a_hand_that_is_right_has_no_error_on_the_photo(photos, prepared, tmp_path):
    """Of either side: what preparation made of a sample, mirrored back, is what the frame shows."""
    root = write_dataset(tmp_path / "rhd", train=4, val=1, test=8)
    split = RHDSplit(root, "test")
    data = prepare("synthhand", root, tmp_path / "data", DataConfig(image_px=32), progress=False)
    rows = PreparedSplit.open(data, "test")
    sides = set()
    for number in range(len(split)):
        record = split.record(number)
        hand = types.SimpleNamespace(joints=mirror(rows.joints[number].astype(float), record.side))
        assert photos.measure_p1_mm(hand, record) < 0.01
        hand.joints[:, 0] += 1.0  # one reference bone to the side, of every joint
        assert photos.measure_p1_mm(hand, record) == pytest.approx(float(rows.scale_mm[number]), rel=1e-3)
        sides.add(record.side)
    assert sides == {"left", "right"}


def test_photos_end_to_end(photos, release, tmp_path, capsys):
    root = write_dataset(tmp_path / "rhd", train=4, val=1, test=5)
    photos.main(root, release, count=3, out=tmp_path / "out.json")
    report = json.loads((tmp_path / "out.json").read_text())
    assert report == json.loads(capsys.readouterr().out)
    assert report["frames"] == 3 and report["photos a second"] > 0
    for way in photos.WAYS:
        assert 0 < report[way]["P1 mm, median"] < 1000


def test_close_ups_are_filled_by_the_hand_and_see_its_joints_where_they_are(photos, tmp_path):
    split = RHDSplit(write_synthhand(tmp_path / "set", 0, 0, 6, 3, progress=False), "test")
    for number in range(6):
        record = split.record(number)
        views = photos.cut_views(record, np.random.default_rng(number))
        side = photos.SEEN_PX
        filled = photos.cut_true_box(views["close-up"]).half * 2 / side
        assert 0.99 < filled < 1.41
        assert photos.cut_true_box(views["whole"]).half * 2 < filled * side
        for view in views.values():
            assert view.image.shape == (side, side, 3)
            seen = view.joints_mm.astype(float) @ view.K.T
            np.testing.assert_allclose(seen[:, :2] / seen[:, 2:], view.uv_px, atol=1e-2)
            assert (photos.change(view, "none", 0).image == view.image).all()


def test_each_change_of_a_photo_is_the_one_it_is_called(photos):
    pixels = np.random.default_rng(0).uniform(40, 160, (32, 32, 3)).astype(np.float32)

    def change(name):
        return photos.CHANGES[name](pixels, np.random.default_rng(1))

    assert change("darker, x 0.6").mean() == pytest.approx(0.6 * pixels.mean(), rel=1e-4)
    assert np.ptp(change("grey"), axis=2).max() == 0
    detail = [
        change(name).std() for name in ("blurred, 3 px", "blurred, 1.5 px", "none", "noise of 20 levels")
    ]
    assert detail == sorted(detail) and change("sharpened").std() > 1.5 * detail[2]
    blue_over_red = [
        change(name)[..., 2].mean() / change(name)[..., 0].mean() for name in ("warmer", "cooler")
    ]
    assert blue_over_red[0] < 0.7 and blue_over_red[1] > 1.4
    assert 0 < np.abs(change("JPEG of quality 30") - pixels).mean() < 40


def test_changed_photos_are_measured_one_by_one(photos, release, tmp_path, capsys):
    root = write_dataset(tmp_path / "rhd", train=4, val=1, test=3)
    photos.main(root, release, count=1, out=tmp_path / "out.json", perturb=True)
    rows, table = json.loads((tmp_path / "out.json").read_text()), capsys.readouterr().out
    assert [(row["view"], row["change"]) for row in rows] == [
        (view, change) for change in photos.CHANGES for view in ("whole", "close-up")
    ]
    assert all(row["good boxes"] in (0, 1) and 0 < row["P1, mm, mean"] < 1000 for row in rows)
    whole = [row["good boxes"] for row in rows if row["view"] == "whole"]
    assert f"| whole, mean of these | {np.mean(whole):.2f} |" in table


NEEDS_SHELL = pytest.mark.skipif(sys.platform == "win32", reason="the peer's stand-in is a shell script")


@pytest.fixture
def peer_env(tmp_path, monkeypatch):
    """A folder like a virtual environment, whose MediaPipe sees a left hand in pictures 40 high or more."""
    package = tmp_path / "lib" / "mediapipe"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from types import SimpleNamespace as N\n"
        "class Hands:\n"
        "    def __init__(self, **options): assert options['static_image_mode']\n"
        "    def __enter__(self): return self\n"
        "    def __exit__(self, *_): pass\n"
        "    def process(self, pixels):\n"
        "        print('noise on the standard output')\n"
        "        assert pixels.dtype == 'uint8' and pixels[0, 1].tolist() == [3, 4, 5]\n"
        "        if pixels.shape[0] < 40: return N(multi_hand_landmarks=None)\n"
        "        points = N(landmark=[N(x=k / 21, y=0.5, z=k * 0.01) for k in range(21)])\n"
        "        label = N(classification=[N(label='Right')])\n"
        "        return N(multi_hand_landmarks=[points], multi_hand_world_landmarks=[points],\n"
        "                 multi_handedness=[label])\n"
        "solutions = N(hands=N(Hands=Hands))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return tmp_path / "env"


@pytest.mark.skipif(
    sys.platform == "win32", reason="the stand-in for a virtual environment is a shell script"
)
def test_mediapipe_is_asked_in_another_process(peers, peer_env):
    pixels = np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)
    with peers.open_mediapipe(peer_env) as read:
        seen, nothing = read(pixels), read(pixels[:30])
        again = read(pixels)
    np.testing.assert_allclose(seen.joints_px[7], [7 / 21 * 60 - 0.5, 19.5])
    np.testing.assert_allclose(seen.joints[7], [7 / 21, 0.5, 0.07])
    assert seen.side == "left", "its names of sides are of mirror images"
    assert nothing.joints_px is None and nothing.side is None and nothing.ms > 0
    np.testing.assert_array_equal(again.joints, seen.joints)
    with (
        pytest.raises(RuntimeError, match=r"ended \(status 1\); its message is above"),
        peers.open_mediapipe(peer_env) as read,
    ):
        read(pixels + 1)


def test_an_answer_is_measured_against_what_is_known(peers):
    rng = np.random.default_rng(0)
    joints_mm = 30 * rng.normal(size=(21, 3))
    joints_mm -= joints_mm[9]
    uv = 100 + joints_mm[:, :2]
    pixels = np.zeros((200, 200, 3), np.uint8)
    photo = peers.Photo(pixels, uv, "right", joints_mm, peers.surround(uv, np.ones(21, bool)))
    perfect = peers.Answer(7.0, 5.0, uv, 0.001 * joints_mm + 3, "right")
    found = peers.compare(photo, perfect)
    assert (found["found"], found["box"], found["side"], found["ms"], found["core ms"]) == (1, 1, 1, 7, 5)
    assert found["scale"] == pytest.approx(1000) and max(found[n] for n in ("P1", "P5", "joints")) < 1e-6
    turned = perfect._replace(joints=joints_mm @ np.diag([-1.0, -1, 1]), joints_px=uv + 300, side="left")
    found = peers.compare(photo, turned)
    assert found["P1"] > 10 and found["P5"] < 1e-6 and (found["box"], found["side"]) == (0, 0)
    assert found["joints"] == pytest.approx(100 * np.hypot(300, 300) / (2 * photo.box.half))
    missed = peers.compare(photo, peers.Answer(1.0, 1.0))
    assert (missed["found"], missed["box"], missed["side"]) == (0, 0, 0) and np.isnan(missed["P1"])
    bare = peers.compare(photo._replace(side=None, joints_mm=None, box=None), perfect)
    assert bare["found"] == 1 and all(np.isnan(bare[n]) for n in ("box", "side", "P1", "P5", "joints"))
    own, other = peers.summarise({"a": [found, peers.compare(photo, perfect)], "b": [missed, missed]})
    assert own["found"] == 1 and own["right sides"] == own["good boxes"] == 0.5 and own["both"] == 0
    assert other["found"] == 0 and other["P1, mm"] is None and own["P1 of both, mm"] is None


def test_annotated_photographs_are_read_with_what_is_known_of_them(peers, photos, release, tmp_path, capsys):
    root = write_dataset(tmp_path / "rhd", train=4, val=1, test=3)
    record = RHDSplit(root, "test").record(0)
    Image.fromarray(record.image).save(tmp_path / "a.png")
    joints = record.uv_px.tolist()
    few = [one if k < 5 else None for k, one in enumerate(joints)]
    told = {
        "a.png": {"side": record.side, "joints_px": joints, "joints_mm": record.joints_mm.tolist(),
                  "K": record.K.tolist(), "size": [1, 1]},
        "b.png": {"side": None, "joints_px": [[None, None], *few[1:]]},
        "c.png": {"side": "left", "joints_px": None},
    }  # fmt: skip
    for name in ("b.png", "c.png"):
        Image.fromarray(record.image).save(tmp_path / name)
    (tmp_path / "photos.json").write_text(json.dumps(told))
    a, b, c = peers.read_annotated(tmp_path).values()
    # Here, the ray is that of the joints.
    np.testing.assert_allclose(a.joints_mm, peers.to_photo(record).joints_mm, atol=0.05)
    assert a.side == record.side and b.side is None and b.box is None and np.isnan(b.uv_px[0]).all()
    assert c.joints_mm is None and np.isnan(c.uv_px).all()
    photos.main(photos=tmp_path, weights=release, quick=True, out=tmp_path / "out.json")
    rows, table = json.loads((tmp_path / "out.json").read_text()), capsys.readouterr().out
    assert [(row["reader"], row["photos"], row["found"]) for row in rows] == [
        ("davae", 3, 1.0), ("davae, quick", 3, 1.0)
    ]  # fmt: skip
    assert table.startswith("| davae / davae, quick | photos |")
    assert f"| {tmp_path} | 3 | 1.00 / 1.00 |" in table
    told["a.png"]["joints_px"] = joints[:20]
    (tmp_path / "photos.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"photos.json, a.png: expected a side or null, and 21 joints"):
        peers.read_annotated(tmp_path / "photos.json")
    with pytest.raises(ValueError, match="nothing to measure"):
        photos.main(weights=release)


@pytest.mark.skipif(
    sys.platform == "win32", reason="the stand-in for a virtual environment is a shell script"
)
def test_both_are_asked_about_the_same_photos(
    photos, peers, release, peer_env, tmp_path, monkeypatch, capsys
):
    root = write_dataset(tmp_path / "rhd", train=4, val=1, test=3)
    monkeypatch.setattr(photos, "render_photos", marked(photos.render_photos))
    photos.main(root, release, count=1, out=tmp_path / "out.json", peer="mediapipe", peer_env=peer_env)
    rows = json.loads((tmp_path / "out.json").read_text())
    assert [(row["of"], row["reader"]) for row in rows] == [
        (f"rendered, {view}", reader) for view in ("whole", "close-up") for reader in ("davae", "MediaPipe")
    ]
    assert all(row["found"] == 1 and row["P1, mm"] > 0 for row in rows)
    assert "| rendered, whole | 1 | 1.00 / 1.00 |" in capsys.readouterr().out


def test_changes_are_measured_one_by_one_and_together(photos, peers, tmp_path):
    split = RHDSplit(write_dataset(tmp_path / "rhd", train=4, val=1, test=3), "test")
    answer = peers.Answer(1.0, 1.0, np.random.default_rng(0).normal(size=(21, 2)), np.eye(21, 3), "left")
    rows = photos.measure_readers({"same": lambda pixels: answer}, photos.render_photos(split, 2, True))
    assert len(rows) == 2 * (len(photos.CHANGES) + 1)
    kinds = {row["of"]: row for row in rows}
    for view in ("whole", "close-up"):
        together = kinds.pop(f"rendered, {view}, all of these")
        assert together["photos"] == 2 * len(photos.CHANGES)
        own = [row["P1, mm"] for of, row in kinds.items() if of.startswith(f"rendered, {view}, ")]
        assert len(own) == len(photos.CHANGES) and np.mean(own) == pytest.approx(together["P1, mm"])


def marked(render):
    """Let photos have the pixel by which the stand-in for MediaPipe knows that they came over whole."""

    def wrapped(*given):
        for of, photo in render(*given):
            photo.pixels[0, 1] = 3, 4, 5
            yield of, photo

    return wrapped


def test_views_and_probabilities_of_sides_are_measured(release, tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    root = write_dataset(tmp_path / "rhd", train=4, val=3, test=1)
    load("views").main(root, release, count=1)
    table = capsys.readouterr().out
    assert table.count(", usual |") == table.count(", `--quick` |") == 2 and "close-up, 1 frames" in table
    sides = load("side_probability")
    with pytest.raises(ValueError, match="no box found in 2 photos is good"):
        monkeypatch.setattr(sides, "measure_overlap", lambda *boxes: 0.4)
        sides.main(root, release, count=1)
    monkeypatch.setattr(sides, "measure_overlap", lambda *boxes: 0.6)
    sides.main(root, release, count=3)
    said = capsys.readouterr().out
    assert "the best SURENESS is" in said and "| all | 6 |" in said
    scores = np.random.default_rng(0).logistic(3.0, 1.0, 4000)
    drawn = np.where(np.random.default_rng(1).random(4000) < 1 / (1 + np.exp(-0.8 * scores)), scores, -scores)
    assert sides.fit_sureness(drawn) == pytest.approx(0.8, abs=0.06)


def test_weights_of_the_signs_of_a_side_are_those_that_it_was_drawn_by(
    release, tmp_path, capsys, monkeypatch
):
    monkeypatch.syspath_prepend(FOLDER)
    sides, rng = load("sides"), np.random.default_rng(2)
    signs, weights = rng.normal(size=(8000, 3)) * [1.0, 0.3, 4.0], np.array([0.9, 2.0, 0.4])
    truth = rng.random(8000) < 1 / (1 + np.exp(-signs @ weights))
    np.testing.assert_allclose(sides.fit(signs, truth), weights, rtol=0.15)
    frames = np.arange(8000)
    best = ((signs @ weights >= 0) == truth).mean()
    assert sides.count_right(signs, truth, frames) == pytest.approx(best, abs=0.005)
    assert sides.count_right(signs[:, :1], truth, frames) < best - 0.1
    root = write_dataset(tmp_path / "rhd", train=4, val=3, test=1)
    measured = sides.measure(sides.HandPredictor.load(release), sides.RHDSplit(root, "val"), 3)
    assert [len(one) for one in measured] == [12] * 4 and measured[1].shape == (12, 3)
    monkeypatch.setattr(sides, "measure", lambda *_: (frames, signs, truth, truth))
    sides.main(root, release)
    said = capsys.readouterr().out
    assert "the best INFORMATION is 0.4" in said and "| all, davae's constants | 1.000 |" in said
    monkeypatch.setattr(sides, "measure", lambda *_: (frames, signs * [-1, 1, 1], truth, truth))
    with pytest.raises(ValueError, match="it tells nothing of the side"):
        sides.main(root, release)


@pytest.fixture(scope="module")
def rendered(trained, tmp_path_factory):
    """Four hands to test on, prepared for the run of `trained`, drawn by the seed of its preset."""
    config = load_model(trained / "run")[1]
    home = tmp_path_factory.mktemp("rendered")
    root = write_synthhand(
        home / "frames", 1, 1, 4, config.render.seed, size=96, flesh=config.render.flesh, progress=False
    )
    prepare("synthhand", root, home / "data", config.data, progress=False)
    predict_masks(trained / "mask", home / "data", progress=False)
    return home / "data"


def test_interpolation_refuses_hands_that_it_cannot_render(trained, rendered):
    interpolation = load("interpolation")
    with pytest.raises(ValueError, match=r"--data: no \S+ is stored with these images"):
        interpolation.measure(trained / "run", trained / "data", pairs=2)
    test = PreparedSplit.open(rendered, "test")
    with pytest.raises(ValueError, match=r"--data: \S+ of test image 0 is not what .* draws, of seed 99"):
        interpolation.check_drawn_with(RenderConfig(seed=99), test, 0)


def test_interpolation_end_to_end(trained, rendered, tmp_path, capsys):
    interpolation = load("interpolation")
    drawn = tmp_path / "ways.png"
    interpolation.main(trained / "run", rendered, pairs=2, out=tmp_path / "out.json", figure=drawn)
    with Image.open(drawn) as picture:
        assert min(picture.size) > 500
    report = json.loads((tmp_path / "out.json").read_text())
    assert report == json.loads(capsys.readouterr().out)
    assert len(report["claims"]) == 4 and report["pairs"] == 2
    assert report["agreement"].keys() == {*BLOCKS, "floor"}
    assert all(0 <= row["iou"] <= 1 for row in report["agreement"].values())
