"""Benchmarks: each runs end to end on something small, and its report says what it claims to."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from davae.evaluation import evaluate
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
