"""Command line and notebooks: every stage end to end at preset smoke, and readable errors."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from rhd_fixture import write_dataset

from davae.config.settings import set_variable
from davae.data.prepared import prepare
from davae.pipeline import folders, notebooks, reproduction
from davae.pipeline.commands import reports
from davae.pipeline.workspace import Workspace
from davae.studies.results.tables import read_reported

NOTEBOOKS = ("notebooks", "--preset", "smoke", "--out", "y")
EXECUTED = sorted(path.name for path in notebooks.notebook_folder().glob("[0-9]*.ipynb"))


def davae(*arguments, check=True, cwd=None):
    """Run the command line as a user does; return what it printed and its exit status."""
    done = subprocess.run(
        [sys.executable, "-m", "davae", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    """A folder in which `reproduce` has run from nothing, at preset smoke, and what it printed."""
    home = tmp_path_factory.mktemp("home")
    return home, davae("reproduce", "--preset", "smoke", "--home", home).stdout


@pytest.fixture(scope="module")
def home(reproduced):
    """A workspace in which every stage and every notebook has been run once, at preset smoke."""
    return Workspace.of("smoke", home=str(reproduced[0]))


@pytest.mark.notebook
@pytest.mark.slow
def test_every_notebook_runs_from_nothing_and_leaves_its_figures(home):
    assert [path.name for path in sorted(home.executed.glob("*.ipynb"))] == EXECUTED
    for path in home.executed.glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        assert not [o for o in outputs if o.output_type == "error"]
        assert sum("image/png" in o.get("data", {}) for o in outputs) >= 3
    assert len(list(home.figures.glob("*.png"))) >= 30
    assert (home.run / "predictions.npz").exists()


@pytest.mark.notebook
@pytest.mark.slow
def test_no_measured_number_stands_in_a_reported_column(home):
    """Every cell under a title that says "reported", in any table of any notebook, is one of the paper's."""
    printed = {cell for row in read_reported() for cell in row.values()} | {"–"}
    columns = 0
    for path in home.executed.glob("*.ipynb"):
        outputs = [o for cell in nbformat.read(path, as_version=4).cells for o in cell.get("outputs", [])]
        for text in (o.data["text/markdown"] for o in outputs if "text/markdown" in o.get("data", {})):
            lines = [line[1:-1].split("|") for line in text.splitlines() if line.startswith("|")]
            for place in [i for i, title in enumerate(lines[0]) if title.strip().endswith("reported")]:
                columns += 1
                assert {line[place].strip() for line in lines[2:]} <= printed
    assert columns >= 10  # Tables 1 to 4 in 06, Tables 1 and 2 again in 04


@pytest.mark.slow
def test_stages_on_the_command_line_agree_with_the_notebooks(home, tmp_path):
    """render, prepare, train and evaluate as separate commands reach the same numbers."""
    data, arrays, run, report = (tmp_path / name for name in ("data", "arrays", "run", "report.json"))
    r = home.config.render
    sizes = ("--train", r.train, "--val", r.val, "--test", r.test)
    davae("render", "--out", data, *sizes, "--seed", r.seed, "--flesh", r.flesh)
    davae("prepare", "--dataset", "synthhand", "--root", data, "--out", arrays, "--size", 64)
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (arrays, home.prepared)]
    assert manifests[0]["digest"] == manifests[1]["digest"]
    train = ("train", "--preset", "smoke", "--data", arrays, "--run", run)
    said = davae(*train, "--seed", 0).stdout
    assert "trained" in said and "alpha_cloud" in said
    assert "found finished" in davae(*train, "--seed", 0).stdout
    table = davae("evaluate", "--run", run, "--data", arrays, "--out", report).stdout
    measured = json.loads(report.read_text())
    taught = json.loads((home.run / "metrics.json").read_text())
    assert measured["n"] == r.test and "da-VAE" in table
    for protocol in ("P1", "P2", "P3", "P4", "P5"):
        assert 0 <= measured["protocols"][protocol]["auc_20_50"] <= 1
        # Equal up to rounding: a process and a kernel may run on different numbers of threads.
        ours, theirs = (m["protocols"][protocol]["epe_mm"] for m in (measured, taught))
        assert ours == pytest.approx(theirs, rel=0.02)
    assert measured["mean_pose"]["P1"]["epe_mm"] > 0 and measured["mean_hand"]["P5"]["epe_mm"] > 0
    refused = davae(*train, "--seed", 2, "--model", "na", check=False)
    assert refused.returncode != 0
    assert (
        "config.train.seed: the run has 0, asked for 2" in refused.stderr
        and "Traceback" not in refused.stderr
    )


@pytest.mark.slow
def test_reproduce_prints_the_figures_paths_and_the_table(reproduced):
    _, said = reproduced
    assert "mean pose" in said and "weighted term" in said
    assert said.rindex(".ipynb") < said.index("weighted term") < said.index("mean pose")  # the table is last
    paths = re.findall(r"^  (.+\.(?:png|ipynb))$", said, flags=re.M)
    assert len(paths) >= 14 and all(Path(path).exists() for path in paths)


@pytest.mark.slow
def test_reproduce_reuses_finished_work(home, monkeypatch):
    """A second pass over a finished workspace trains nothing; of the notebooks, the one that would is run."""
    execute = notebooks.execute
    monkeypatch.setattr(notebooks, "execute", lambda *given: execute(*given, only="02", progress=False))
    finished = (home.run / "model.safetensors", home.prepared / "manifest.json")
    before = [path.stat().st_mtime_ns for path in finished]
    executed = home.executed / EXECUTED[2]
    first = executed.stat().st_mtime_ns
    assert "mean pose" in reproduction.reproduce(home)
    assert before == [path.stat().st_mtime_ns for path in finished]
    assert executed.stat().st_mtime_ns > first


@pytest.mark.slow
def test_a_notebook_that_fails_does_not_cost_the_report(home, monkeypatch, capsys):
    def fails(*_):
        raise notebooks.NotebookError("03_x.ipynb: the kernel died")

    monkeypatch.setattr(notebooks, "execute", fails)
    with pytest.raises(notebooks.NotebookError, match="03_x"):
        reproduction.reproduce(home)
    said = capsys.readouterr().out
    assert "mean pose" in said and str(home.executed / EXECUTED[0]) in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "--preset", "huge", "--data", "x", "--run", "y"), "unknown choice 'huge'"),
        (("train", "--preset", "smoke", "--data", "nowhere", "--run", "y"), "nothing is prepared there"),
        (("train-mask", "--preset", "smoke", "--data", "nowhere", "--run", "y"), "nothing is prepared there"),
        (
            ("predict-masks", "--mask-run", "nowhere", "--data", "x"),
            "python -m davae train-mask --run nowhere",
        ),
        (("evaluate", "--run", "nowhere", "--data", "x", "--out", "z.json"), "no run here"),
        (("prepare", "--dataset", "rhd", "--root", "nowhere", "--out", "y"), "nowhere"),
        ((*NOTEBOOKS, "--home", "h", "--only", "99"), "no notebook's name contains '99'"),
        ((*NOTEBOOKS, "--home", "h", "--timeout-s", "-1"), "time limit of a cell is -1 s"),
        ((*NOTEBOOKS, "--home", "h", "--weights", "shipped"), "add `--only 05`"),
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
    with pytest.raises(ValueError, match=r"06_sota.* would still train a model; add `--only 05`"):
        notebooks.execute(tmp_path / "out", {"preset": "smoke", "weights": "shipped"}, only="06")
    with pytest.raises(ValueError, match="no notebook's name contains 'nothing'"):
        notebooks.execute(tmp_path / "out", {}, only="nothing")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="holds the notebooks themselves"):
        notebooks.execute(notebooks.notebook_folder(), {})
    with pytest.raises(ValueError, match="time limit of a cell is -1 s; give at least 1, or 0 for no limit"):
        notebooks.execute(tmp_path / "out", {}, timeout_s=-1)
    with pytest.raises(ValueError, match=r"01_data_preprocessing.*would still train.*add `--only 05`"):
        notebooks.execute(tmp_path / "out", {"weights": "shipped"})
    assert not (tmp_path / "out").exists()


def test_every_notebook_takes_the_parameters_of_a_workspace():
    import papermill

    wanted = set(Workspace.of("smoke").notebook_parameters)
    for path in notebooks.notebook_folder().glob("[0-9]*.ipynb"):
        known = set(papermill.inspect_notebook(path))
        assert wanted <= known if notebooks.needs_run(known) else path.name.startswith("00"), path.name


def test_rhd_needs_a_root_and_datasets_have_names():
    with pytest.raises(ValueError, match="set root to its folder"):
        Workspace.of("smoke", dataset="rhd")
    with pytest.raises(ValueError, match="unknown dataset 'mano'"):
        Workspace.of("smoke", dataset="mano")


@pytest.fixture(scope="module")
def two_copies(tmp_path_factory):
    """Two sets in RHD's form, of other hands, in folders of the same name."""
    folder = tmp_path_factory.mktemp("copies")
    return [
        str(write_dataset(folder / place / "RHD", train=count, val=0, test=2, factors=False))
        for place, count in (("one", 41), ("two", 42))
    ]


def on_rhd(home, root):
    return Workspace.of("smoke", home=str(home), dataset="rhd", root=str(root))


def test_each_copy_of_a_dataset_has_its_own_folders(tmp_path, two_copies, tiny_config):
    one, two = (dataclasses.replace(on_rhd(tmp_path, root), config=tiny_config) for root in two_copies)
    folders = [
        {space.prepared, space.run, space.mask_run, space.figures, space.executed} for space in (one, two)
    ]
    assert not folders[0] & folders[1] and len(folders[0]) == 5
    assert re.fullmatch(r"rhd-RHD-[0-9a-f]{6}-64px-plain", one.prepared.name)
    assert re.fullmatch(r"smoke-rhd-RHD-[0-9a-f]{6}-da-seed0", one.run.name)
    assert one.prepared == on_rhd(tmp_path, two_copies[0]).prepared  # stable
    made = [space.ensure_prepared(workers=1) for space in (one, two)]
    assert made == [one.prepared, two.prepared] and all((path / "manifest.json").exists() for path in made)


def test_a_range_of_flesh_is_rendered_as_the_config_says_into_a_folder_of_its_own(tmp_path, tiny_config):
    render = dataclasses.replace(tiny_config.render, train=2, val=1, test=1, size=32, flesh="realistic")
    usual = Workspace(dataclasses.replace(tiny_config, render=render), tmp_path)
    wide = Workspace(set_variable(usual.config, "render.flesh", "wide"), tmp_path)
    assert wide.rendered.name == f"{usual.rendered.name}-wide" and wide.prepared != usual.prepared
    manifest = json.loads((wide.ensure_rendered(workers=1) / "synthhand.json").read_text())
    assert manifest["flesh"] == "wide" and manifest["train"] == 2
    with pytest.raises(ValueError, match="expected one of realistic, wide"):
        set_variable(usual.config, "render.flesh", "fat")


def test_pictures_are_not_looked_for_once_their_arrays_are_there(
    tmp_path, two_copies, tiny_config, monkeypatch
):
    space = dataclasses.replace(on_rhd(tmp_path, two_copies[0]), config=tiny_config)
    asked = []
    monkeypatch.setattr(Workspace, "ensure_rendered", lambda space, _: asked.append(space) or space.rendered)
    assert [space.ensure_prepared(workers=1) for _ in range(3)] == [space.prepared] * 3
    assert len(asked) == 1
    gone = dataclasses.replace(space, root=str(tmp_path / "gone" / "RHD"))
    monkeypatch.setattr(Workspace, "prepared", space.prepared)
    assert gone.ensure_prepared(workers=1) == space.prepared and len(asked) == 2  # deleted: looked for again


def test_the_usual_place_and_folders_of_older_versions_keep_their_short_names(
    tmp_path, two_copies, tiny_config
):
    usual = on_rhd(tmp_path, tmp_path / "data" / "RHD_published_v2")
    assert (usual.prepared.name, usual.run.name) == ("rhd-64px-plain", "smoke-rhd-da-seed0")
    assert usual.mask_run.name == "mask-smoke-rhd-64px-plain"
    prepare("rhd", two_copies[0], usual.prepared, tiny_config.data, skip_bad=True, progress=False)
    old, other = (on_rhd(tmp_path, root) for root in two_copies)
    assert (old.prepared, old.run) == (usual.prepared, usual.run)
    assert other.prepared != usual.prepared and other.run != usual.run
    moved = on_rhd(tmp_path, tmp_path / "gone" / "RHD")  # deleted since: the arrays are all that is needed
    assert moved.prepared == usual.prepared
    manifest = usual.prepared / "manifest.json"
    told = {key: value for key, value in json.loads(manifest.read_text()).items() if key != "options"}
    manifest.write_text(json.dumps(told))
    assert on_rhd(tmp_path, two_copies[0]).prepared == usual.prepared  # as the oldest were written


def test_usual_places_are_those_of_the_page_on_data():
    page = (notebooks.notebook_folder().parent / "data" / "README.md").read_text(encoding="utf-8")
    assert all(f"data/{place}/" in page for place in folders.PLACES.values())


def test_empty_home_is_the_clone_wherever_a_notebook_lies(tmp_path, monkeypatch):
    copied = tmp_path / "notebooks"  # as a student may copy them: to a folder of the same name, too
    copied.mkdir()
    (copied / "01_data_preprocessing.ipynb").touch()
    monkeypatch.chdir(copied)
    clone = notebooks.notebook_folder().parent
    assert Workspace.of("smoke").home == clone
    assert Workspace.of("smoke", home="mine").home == copied / "mine"
    # Installed without a clone, only a folder inside of one will do.
    monkeypatch.setattr(
        folders, "__file__", str(tmp_path / "site-packages" / "davae" / "pipeline" / "folders.py")
    )
    with pytest.raises(FileNotFoundError, match="name a folder with `home`"):
        Workspace.of("smoke")
    monkeypatch.chdir(clone / "notebooks")
    assert Workspace.of("smoke").home == clone


def test_weights_bring_their_size_of_pictures_and_a_folder_of_figures(tmp_path, monkeypatch):
    ours, shipped = (Workspace.of("smoke", home=str(tmp_path), weights=w) for w in ("", "shipped"))
    model = shipped.release().configs["model"]
    assert shipped.config.data.image_px == model.data.image_px != ours.config.data.image_px
    assert shipped.rendered == ours.rendered and shipped.prepared != ours.prepared
    assert shipped.figures.name == f"{ours.figures.name}-shipped"
    whole, tested = (
        Workspace.of("laptop", home=str(tmp_path), weights=w).config.render for w in ("", "shipped")
    )
    assert tested == dataclasses.replace(
        whole, train=64, val=16
    )  # nothing is trained: hands to test on suffice
    assert "weights" not in ours.notebook_parameters and shipped.notebook_parameters["weights"] == "shipped"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"mine\.safetensors: missing"):
        Workspace.of("smoke", home=str(tmp_path), weights="mine.safetensors")


@pytest.mark.notebook
@pytest.mark.slow
def test_the_walk_through_the_latent_space_runs_on_the_shipped_weights(home):
    space = Workspace.of("smoke", home=str(home.home), weights="shipped")
    (path,) = notebooks.execute(
        space.executed / "shipped", space.notebook_parameters, only="05", progress=False
    )
    assert path.exists() and len(list(space.figures.glob("*.png"))) >= 10
    assert not (space.figures / "leaks_over_r.png").exists()  # that is of runs


def test_the_first_notebook_alone_needs_no_run(tmp_path, monkeypatch):
    trained, executed = [], []
    monkeypatch.setattr(Workspace, "ensure_trained", lambda space: trained.append(space))
    monkeypatch.setattr(notebooks, "execute", lambda *_, only, **__: executed.append(only) or [])
    for only in ("00", "01"):
        reports.notebooks(preset="smoke", out=tmp_path / "out", home=str(tmp_path), only=only)
        assert len(trained) == (only != "00")
    assert executed == ["00", "01"]
    with pytest.raises(ValueError, match=r"00_start_here.ipynb: unknown parameter\(s\) \['weights'\]"):
        notebooks.select(tmp_path, {"preset": "smoke", "weights": "shipped"}, only="00")
