"""From the command line and from notebooks: every stage end to end at preset smoke, and errors in words."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from davae import notebooks
from davae.workspace import Workspace, parameters_of

EXECUTED = sorted(path.name for path in notebooks.notebook_folder().glob("[0-9]*.ipynb"))


def davae(*arguments, check=True):
    """Run the command line as a user does; return what it printed and its exit status."""
    done = subprocess.run(
        [sys.executable, "-m", "davae", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A workspace in which every stage and every notebook has been run once, at preset smoke."""
    home = tmp_path_factory.mktemp("home")
    space = Workspace.of("smoke", home=str(home))
    notebooks.execute(space.executed, parameters_of(space), progress=False)
    return space


@pytest.mark.notebook
@pytest.mark.slow
def test_every_notebook_runs_from_nothing_and_leaves_its_figures(home):
    assert [path.name for path in sorted(home.executed.glob("*.ipynb"))] == EXECUTED
    for path in home.executed.glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        assert not [o for o in outputs if o.output_type == "error"]
        assert sum("image/png" in o.get("data", {}) for o in outputs) >= 6
    assert len(list(home.figures.glob("*.png"))) >= 12
    assert (home.run / "predictions.npz").exists()


@pytest.mark.slow
def test_stages_on_the_command_line_agree_with_the_notebooks(home, tmp_path):
    """render, prepare, train and evaluate as separate commands reach the same numbers."""
    data, arrays, run, report = (tmp_path / name for name in ("data", "arrays", "run", "report.json"))
    r = home.config.render
    davae("render", "--out", data, "--train", r.train, "--val", r.val, "--test", r.test, "--seed", r.seed)
    davae("prepare", "--dataset", "synthhand", "--root", data, "--out", arrays, "--size", 64)
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (arrays, home.prepared)]
    assert manifests[0]["digest"] == manifests[1]["digest"]
    said = davae(
        "train", "--preset", "smoke", "--data", arrays, "--run", run, "--seed", 1, "--model", "na"
    ).stdout
    assert "trained" in said and "alpha_cloud" in said
    assert "found finished" in davae(
        "train", "--preset", "smoke", "--data", arrays, "--run", run, "--seed", 1, "--model", "na"
    ).stdout  # fmt: skip
    table = davae("evaluate", "--run", run, "--data", arrays, "--out", report).stdout
    measured = json.loads(report.read_text())
    assert measured["n"] == r.test and "na-VAE" in table
    for protocol in ("P1", "P2", "P3", "P4", "P5"):
        assert measured["protocols"][protocol]["epe_mm"] > 0
        assert 0 <= measured["protocols"][protocol]["auc_20_50"] <= 1
    assert measured["mean_pose"]["P1"]["epe_mm"] > 0 and measured["mean_hand"]["P5"]["epe_mm"] > 0
    refused = davae(
        "train",
        "--preset",
        "smoke",
        "--data",
        arrays,
        "--run",
        run,
        "--seed",
        2,
        "--model",
        "na",
        check=False,
    )
    assert refused.returncode != 0
    assert (
        "config.train.seed: the run has 1, asked for 2" in refused.stderr
        and "Traceback" not in refused.stderr
    )


@pytest.mark.slow
def test_reproduce_reuses_finished_work(home):
    """A second pass over a finished workspace trains nothing and prints the table and the figures' paths."""
    before = {
        path: path.stat().st_mtime_ns
        for path in (home.run / "model.safetensors", home.prepared / "manifest.json")
    }
    script = (
        "from davae.workspace import Workspace, reproduce\n"
        f"print(reproduce(Workspace.of('smoke', home={str(home.home)!r})))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "mean pose" in said and "weighted term" in said
    paths = re.findall(r"^  (.+\.(?:png|ipynb))$", said, flags=re.M)
    assert len(paths) >= 14 and all(Path(path).exists() for path in paths)
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "--preset", "huge", "--data", "x", "--run", "y"), "unknown preset 'huge'"),
        (("train", "--preset", "smoke", "--data", "nowhere", "--run", "y"), "nothing is prepared there"),
        (("evaluate", "--run", "nowhere", "--data", "x", "--out", "z.json"), "no run here"),
        (("prepare", "--dataset", "rhd", "--root", "nowhere", "--out", "y"), "nowhere"),
    ],
)
def test_errors_are_told_in_words(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = davae(*arguments, check=False)
    assert done.returncode != 0
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "a refused command leaves nothing behind"


def test_unknown_notebook_parameters_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match=r"unknown parameter\(s\) \['presett'\]"):
        notebooks.execute(tmp_path / "out", {"presett": "smoke"})
    with pytest.raises(ValueError, match="no notebook's name contains 'nothing'"):
        notebooks.execute(tmp_path / "out", {}, only="nothing")
    assert not (tmp_path / "out").exists()


def test_every_notebook_takes_the_parameters_of_a_workspace():
    import papermill

    wanted = set(parameters_of(Workspace.of("smoke")))
    for path in notebooks.notebook_folder().glob("[0-9]*.ipynb"):
        assert wanted <= set(papermill.inspect_notebook(path)), path.name


def test_rhd_needs_a_root_and_datasets_have_names():
    with pytest.raises(ValueError, match="set root to the folder"):
        Workspace.of("smoke", dataset="rhd")
    with pytest.raises(ValueError, match="unknown dataset 'mano'"):
        Workspace.of("smoke", dataset="mano")
