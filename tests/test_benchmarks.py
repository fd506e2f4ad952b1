"""Benchmarks: each runs end to end on something small, and its report says what it claims to."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rhd_fixture import write_dataset

from davae.evaluation import evaluate
from davae.hand.pose import ANGLES
from davae.hand.procedural import procedural_rig
from davae.training.loop import train

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
    assert bench.volume_mm3(corners, faces) == pytest.approx(2 * 3 * 4 / 6)
    inside_and_out = np.array([[0.3, 0.3, 0.3], [2.0, 2.0, 2.0], [0.3, 0.3, -1.0]])
    assert bench.winding(corners, faces, inside_and_out).tolist() == [1, 0, 0]
    cap, apex = bench.fan(faces[:3], corners)  # one side taken away, and closed again
    closed = np.concatenate([corners, [apex]]), np.concatenate([faces[:3], cap])
    assert bench.volume_mm3(*closed) == pytest.approx(4.0)


def test_penetration_is_found_where_there_is_some_and_nowhere_else():
    bench, rig = load("self_penetration"), procedural_rig()
    deepest = []
    for sideways in (-0.5, 0.0, 0.5):  # the index finger leant into its neighbour, straight, and away from it
        angles = np.zeros(ANGLES)
        angles[1] = sideways
        deepest.append(bench.penetration_mm(rig, bench.posed(rig, angles)).max())
    assert deepest[0] > bench.LIMIT_MM and deepest[1:] == [0, 0]


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("self_penetration", ("--poses", "5"), "5 poses: "),
        ("skin_tones", ("--samples", "3", "--size", "32"), "of the hands are at most"),
        ("render_speed", ("--images", "1", "--total", "2", "--size", "32", "--workers", "1"), "images/s"),
    ],
)
def test_benchmarks_of_the_renderer_print_their_tables(name, arguments, says):
    assert says in run_main(name, *arguments)
