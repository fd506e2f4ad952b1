"""Where the files of an experiment live."""

import dataclasses
import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from davae.config import Config, DataConfig, RenderConfig, preset
from davae.config.rivals import name_of
from davae.data.readers import check_dataset

# Folders below `home`/data, as in data/README.md. Elsewhere, a dataset's root belongs to its name.
PLACES = {"rhd": "RHD_published_v2", "stb": "STB", "freihand": "FreiHAND_pub_v2"}


@dataclass(frozen=True)
class Folders:
    """The folders of an experiment: all below `home`, except a dataset on disk.

    Attributes:
        config: the experiment.
        home: folder that holds data and outputs.
        dataset: a name in `davae.data.readers.READERS`; synthhand is rendered below `home`.
        root: folder of any other dataset.
        rig: of STB, sk or bb.
        weights: a file of `davae pack`, or "shipped": a finished model that notebook 05 looks at instead of
            the run.
    """

    config: Config
    home: Path
    dataset: str = "synthhand"
    root: str = ""
    rig: str = "sk"
    weights: str = ""

    def __post_init__(self):
        check_dataset(self.dataset)
        if self.dataset != "synthhand" and not self.root:
            raise ValueError(
                f"dataset is {self.dataset} but root is empty; set root to its folder (see data/README.md)"
            )

    @property
    def options(self) -> dict[str, str]:
        """Options of the dataset's reader."""
        return {"rig": self.rig} if self.dataset == "stb" else {}

    @property
    def rendered(self) -> Path:
        """The dataset on disk."""
        if self.dataset != "synthhand":
            return Path(self.root)
        from synthhand.dataset import GENERATOR  # another generator makes other images

        r = self.config.render
        name = f"synthhand{GENERATOR}-{r.train}-{r.val}-{r.test}-{r.size}px-seed{r.seed}"
        return self.home / "data" / (name if r.flesh == RenderConfig().flesh else f"{name}-{r.flesh}")

    @property
    def prepared(self) -> Path:
        """The prepared arrays."""
        return self._arrays(self.rendered.name if self.dataset == "synthhand" else self._data_name)

    @property
    def run(self) -> Path:
        """The run."""
        variant = name_of(self.config)
        data = "" if self.dataset == "synthhand" else f"-{self._data_name}"
        given = self.config.data.mask
        mask = "" if given == preset(self.config.preset).data.mask else f"-{given}-mask"
        name = f"{self.config.preset}{data}-{variant}-seed{self.config.train.seed}{mask}"
        return self.home / "outputs" / "runs" / name

    @property
    def mask_run(self) -> Path:
        """The mask network's run. It belongs to the data: all presets and seeds on the same arrays share it.

        The network of preset smoke is another, so its folder has another name even on the same arrays.
        """
        trial = "smoke-" if self.config.preset == "smoke" else ""
        return self.home / "outputs" / "runs" / f"mask-{trial}{self.mask_teacher.prepared.name}"

    @property
    def mask_teacher(self) -> Self:
        """Where the mask network is trained: here, but for STB, which has no masks, on SynthHand."""
        return dataclasses.replace(self, dataset="synthhand", root="") if self.dataset == "stb" else self

    @property
    def sweeps(self) -> Path:
        """The runs of all sweeps, named by digests."""
        return self.home / "outputs" / "sweeps"

    @property
    def figures(self) -> Path:
        """The notebooks' figures."""
        of = f"-{Path(self.weights).stem}" if self.weights else ""
        return self.home / "outputs" / "figures" / f"{self.run.name}{of}"

    @property
    def executed(self) -> Path:
        """The executed notebooks."""
        return self.home / "outputs" / "notebooks" / self.run.name

    @cached_property
    def _data_name(self) -> str:
        """The dataset, its options and, unless that is its usual place, name and digest of its root.

        If an older davae prepared this root under the name without root, that name is kept.
        """
        name, root = "-".join((self.dataset, *self.options.values())), Path(self.root).resolve()
        if root == (self.home / "data" / PLACES[self.dataset]).resolve():
            return name
        digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:6]
        name_with_root = f"{name}-{root.name}-{digest}"
        if self._arrays(name_with_root).exists() or not self._was_made_before(self._arrays(name)):
            return name_with_root
        return name

    def _was_made_before(self, arrays: Path) -> bool:
        from davae.data.prepared import is_made_from

        return is_made_from(arrays, self.dataset, self.root, self.options)

    def _arrays(self, name: str) -> Path:
        data = self.config.data
        scale = "" if data.scale_min == DataConfig().scale_min else f"-scale{data.scale_min:g}"
        return self.home / "data" / "prepared" / f"{name}-{data.image_px}px-{data.crop}{scale}"


def project_folder() -> Path:
    """Return the clone that davae is imported from, or else the nearest one above the current folder.

    Raises:
        FileNotFoundError: there is none.
    """
    here, marks = Path.cwd(), ("davae/pipeline/folders.py", "notebooks/01_data_preprocessing.ipynb")
    for folder in (Path(__file__).parents[2], here, *here.parents):
        if all((folder / mark).exists() for mark in marks):
            return folder
    raise FileNotFoundError(
        f"{here}: davae was not installed from a clone (`pip install -e .`) and this folder is not in one, "
        "so there is no default place for data and outputs; name a folder with `home`"
    )
