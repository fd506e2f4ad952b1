"""The notebooks on every dataset, selected by parameters alone; sets have the published forms."""

import json

import pytest

from davae.pipeline import notebooks
from davae.pipeline.workspace import Workspace
from synthhand.dataset.forms import write_as

# 00 reads no dataset.
ON_DATA = [path.name for path in notebooks.find_notebooks() if not path.name.startswith("00")]


@pytest.mark.notebook
@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "rig"), [("rhd", "sk"), ("stb", "sk"), ("stb", "bb"), ("freihand", "sk")]
)
def test_the_same_notebooks_run_on_every_dataset(dataset, rig, tmp_path, stb_set):
    root = stb_set if dataset == "stb" else write_as(dataset, tmp_path / "set", 12, 4, 0, 1, progress=False)
    mask = "network" if dataset == "freihand" else ""  # one of them through predicted masks
    home = str(tmp_path / "home")
    space = Workspace.of("smoke", home=home, dataset=dataset, root=str(root), rig=rig, mask=mask)
    # On a set that has everything, all but 03, which sweeps as 04 and 08 do; on one that lacks clouds and
    # masks, those that look at samples.
    numbers = {("rhd", "sk"): "01245678", ("stb", "bb"): "1257"}.get((dataset, rig), "12")
    wanted = [name for name in ON_DATA if name[1] in numbers]
    for name in wanted:
        notebooks.execute(space.executed, space.notebook_parameters, only=name, progress=False)
    assert sorted(p.name for p in space.executed.glob("*.ipynb")) == wanted
    assert len(list(space.figures.glob("*.png"))) >= {4: 15, 2: 12}.get(len(wanted), 30)
    report = json.loads((space.run / "metrics.json").read_text())
    assert report["dataset"] == dataset and report["n"] == (2 if (dataset, rig) == ("stb", "sk") else 4)
    assert (report["cloud"]["chamfer_mm"] is None) == (dataset == "freihand" or rig == "bb")
