"""From nothing to figures: the stages of a reproduction, each of which finds its own finished work.

    render -> prepare -> (masks) -> train -> evaluate -> notebooks

The command line, the notebooks and `make reproduce` all go through these stages, so a notebook opened alone
makes what it misses, and one opened after `make reproduce` finds everything there.
"""

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from davae.config import Config, DataConfig, preset
from davae.config.settings import experiment, mask_experiment, variant_of
from davae.data.readers import check_dataset
from davae.studies import Outcome, sweep
from davae.studies.executors import factory
from davae.studies.paper import Study

if TYPE_CHECKING:
    from davae.photo.release import Release

# Where data/README.md says that a dataset goes. There its name says enough; elsewhere may lie another copy.
PLACES = {"rhd": "RHD_published_v2", "stb": "STB", "freihand": "FreiHAND_pub_v2"}


@dataclass(frozen=True)
class Workspace:
    """Where an experiment's files live below `home`, and the stages that make them.

    SynthHand is rendered; of any other dataset, `root` is the folder on disk. `rig` is STB's. `weights` is a
    file of `davae pack`, or "shipped": a finished model to look at, whose images the data then are.
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

    @classmethod
    def of(
        cls,
        name: str,
        *,
        seed: int = 0,
        model: str = "da",
        home: str = "",
        dataset: str = "synthhand",
        root: str = "",
        rig: str = "sk",
        mask: str = "",
        weights: str = "",
    ) -> "Workspace":
        """Return the workspace of a preset, below `home` or, where that is empty, the project's folder.

        Raises:
            FileNotFoundError: `home` is empty and there is no such folder, or no file of `weights`.
            ValueError: unknown preset, model, mask or dataset, or `weights` are damaged.
        """
        config = experiment(name, seed=seed, model=model, mask=mask)
        home = Path(home).resolve() if home else project_folder()  # wherever the notebook lies
        weights = str(Path(weights).resolve()) if weights not in ("", "shipped") else weights
        space = cls(config, home, dataset, str(Path(root).resolve()) if root else "", rig, weights)
        if weights:
            seen = space.release().configs["model"].data
            px = {"image_px": seen.image_px}
            data = dataclasses.replace(config.data, **px, crop=seen.crop, scale_min=seen.scale_min)
            model = dataclasses.replace(config.model, **px)
            space = dataclasses.replace(space, config=dataclasses.replace(config, data=data, model=model))
        return space

    def release(self) -> "Release":
        """Open the file of `weights`.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it is damaged, or no file of `davae pack`.
        """
        from davae.photo.predict import WEIGHTS
        from davae.photo.release import unpack

        return unpack(WEIGHTS if self.weights == "shipped" else self.weights)

    @property
    def options(self) -> dict[str, str]:
        """What the dataset's reader is told."""
        return {"rig": self.rig} if self.dataset == "stb" else {}

    @cached_property
    def _data_name(self) -> str:
        """The dataset, its options and, unless that lies in its usual place, its root: name and digest.

        A preparation that an older davae made of this root goes by its shorter name still.
        """
        name, root = "-".join((self.dataset, *self.options.values())), Path(self.root).resolve()
        if root == (self.home / "data" / PLACES[self.dataset]).resolve():
            return name
        digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:6]
        of_root = f"{name}-{root.name}-{digest}"
        if self._arrays(of_root).exists() or not self._made_before(self._arrays(name)):
            return of_root
        return name

    def _made_before(self, arrays: Path) -> bool:
        from davae.data.prepared import made_from

        return made_from(arrays, self.dataset, self.root, self.options)

    def _arrays(self, name: str) -> Path:
        data = self.config.data
        scale = "" if data.scale_min == DataConfig().scale_min else f"-scale{data.scale_min:g}"
        return self.home / "data" / "prepared" / f"{name}-{data.image_px}px-{data.crop}{scale}"

    @property
    def rendered(self) -> Path:
        """The dataset as it lies on disk."""
        if self.dataset != "synthhand":
            return Path(self.root)
        from synthhand.dataset import GENERATOR  # another generator makes other images: another folder

        r = self.config.render
        name = f"synthhand{GENERATOR}-{r.train}-{r.val}-{r.test}-{r.size}px-seed{r.seed}"
        return self.home / "data" / name

    @property
    def prepared(self) -> Path:
        """The prepared arrays."""
        return self._arrays(self.rendered.name if self.dataset == "synthhand" else self._data_name)

    @property
    def run(self) -> Path:
        """The run's folder."""
        variant = variant_of(self.config)
        data = "" if self.dataset == "synthhand" else f"-{self._data_name}"
        mask = self.config.data.mask
        mask = "" if mask == preset(self.config.preset).data.mask else f"-{mask}-mask"
        name = f"{self.config.preset}{data}-{variant}-seed{self.config.train.seed}{mask}"
        return self.home / "outputs" / "runs" / name

    @property
    def mask_run(self) -> Path:
        """The mask network's folder; it belongs to the data, and every preset and seed on them shares it.

        But for smoke, whose network is another: on RHD or FreiHAND its arrays are those of laptop.
        """
        trial = "smoke-" if self.config.preset == "smoke" else ""
        return self.home / "outputs" / "runs" / f"mask-{trial}{self._mask_teacher.prepared.name}"

    @property
    def _mask_teacher(self) -> "Workspace":
        """Where the mask network learns: here, but on SynthHand for STB, which has no masks."""
        return dataclasses.replace(self, dataset="synthhand", root="") if self.dataset == "stb" else self

    @property
    def sweeps(self) -> Path:
        """The store of all sweeps, which names runs by what they are."""
        return self.home / "outputs" / "sweeps"

    @property
    def figures(self) -> Path:
        """Where the notebooks put their figures."""
        of = f"-{Path(self.weights).stem}" if self.weights else ""
        return self.home / "outputs" / "figures" / f"{self.run.name}{of}"

    @property
    def executed(self) -> Path:
        """Where executed notebooks go."""
        return self.home / "outputs" / "notebooks" / self.run.name

    def ensure_rendered(self, workers: int | None = None) -> Path:
        """Render SynthHand where it is not there yet."""
        if self.dataset == "synthhand":
            from synthhand.dataset.writer import write_dataset

            r = self.config.render
            workers = workers or os.cpu_count() or 1
            write_dataset(
                self.rendered,
                train=r.train,
                val=r.val,
                test=r.test,
                seed=r.seed,
                size=r.size,
                workers=workers,
            )
        return self.rendered

    def ensure_prepared(self, workers: int | None = None) -> Path:
        """Prepare the arrays where they are not there yet; unusable samples are left out and counted."""
        from davae.data.prepared import prepare

        workers = workers or os.cpu_count() or 1
        root = self.ensure_rendered(workers)
        return prepare(
            self.dataset,
            root,
            self.prepared,
            self.config.data,
            options=self.options,
            skip_bad=True,
            workers=workers,
        )

    def ensure_masks(self) -> Path:
        """Train and measure the mask network and predict all masks, where that is not done yet."""
        from davae.evaluation import evaluate_masks, predict_masks
        from davae.training.masks import train_mask

        data, teacher = self.ensure_prepared(), self._mask_teacher
        if teacher is self:
            config = mask_experiment(self.config.preset, crop=self.config.data.crop)
            train_mask(config, data, self.mask_run)
            if not (self.mask_run / "metrics.json").exists():
                evaluate_masks(self.mask_run, data)
        else:
            print(
                f"{self.dataset} has no masks to learn from: the mask network learns from SynthHand",
                flush=True,
            )
            teacher.ensure_masks()
        predict_masks(self.mask_run, data)
        return self.mask_run

    def ensure_trained(self) -> Path:
        """Train the run where it is not finished yet, the mask network before it where it is needed."""
        from davae.training.loop import train

        data = self.ensure_prepared()
        if self.config.data.mask == "network":
            self.ensure_masks()
        return train(self.config, data, self.run)

    def ensure_evaluated(self) -> dict[str, Any]:
        """Evaluate the run on the test split: metrics.json and predictions.npz, unless they are there."""
        from davae.data.prepared import PreparedSplit
        from davae.evaluation import evaluate

        run = self.ensure_trained()
        report, weights = run / "metrics.json", run / "model.safetensors"  # the report is written last
        if report.exists() and report.stat().st_mtime_ns > weights.stat().st_mtime_ns:
            found = json.loads(report.read_text(encoding="utf-8"))
            if found["data"] == PreparedSplit.open(self.prepared, "test").manifest["digest"]:
                return found
        return evaluate(run, self.prepared)

    def ensure_swept(self, *planned: Study, jobs: int = 0, progress: bool = True) -> dict[str, list[Outcome]]:
        """Run the points of studies that have not been run, as processes of one thread each.

        Args:
            planned: from `davae.studies.paper.studies`.
            jobs: runs at a time; 0 for as many as there are cores.
            progress: show how far they are.

        Returns:
            What came of each study's points, by its name.
        """
        data = self.ensure_prepared()
        if self.config.data.mask == "network":
            self.ensure_masks()
        make = factory("processes", jobs or os.cpu_count() or 1, self.sweeps)
        points = {study.name: study.points(self.config) for study in planned}
        found = iter(sweep([*chain(*points.values())], data, self.sweeps, make, progress=progress))
        return {name: [next(found) for _ in own] for name, own in points.items()}

    def save_figure(self, figure, name: str):
        """Write a matplotlib figure to `figures` as NAME.png and return it, for a notebook to show."""
        self.figures.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.figures / f"{name}.png", dpi=150)
        return figure


SMOKE = (
    "Preset smoke proves that everything runs. It learns next to nothing: errors near those of the constant",
    "guesses, or above, are expected, and what it draws are no hands yet.",
    "",
)


def reproduce(space: Workspace) -> str:
    """Run every stage and all notebooks; return the report: paths of what was made, then the table.

    Raises:
        NotebookError: notebooks failed; the report of all else is printed before.
    """
    from davae.evaluation import format_table
    from davae.pipeline.notebooks import NotebookError, execute

    masked = space.config.data.mask == "network"
    stages = [("render and prepare", space.prepared, space.ensure_prepared)]
    stages += [("hand mask network", space.mask_run, space.ensure_masks)] if masked else []
    stages += [
        ("train", space.run, space.ensure_trained),
        ("evaluate", space.run / "metrics.json", space.ensure_evaluated),
        ("notebooks", space.executed, lambda: execute(space.executed, parameters_of(space))),
    ]
    done, failed = {}, None
    for number, (name, folder, work) in enumerate(stages, start=1):
        print(f"[{number}/{len(stages)}] {name}: {folder}", flush=True)
        try:
            done[name] = work()
        except NotebookError as error:  # of the last stage
            failed = error
    figures = sorted(space.figures.glob("*.png"))
    report = "\n".join(
        [
            "",
            "Figures:",
            *(f"  {path}" for path in figures),
            "Executed notebooks:",
            *(f"  {path}" for path in sorted(space.executed.glob("*.ipynb"))),
            "",
            (space.run / "terms.txt").read_text(encoding="utf-8"),
            *(SMOKE if space.config.preset == "smoke" else ()),
            format_table(done["evaluate"]),  # last, where one looks
        ]
    )
    if failed is not None:
        print(report, flush=True)
        raise failed
    return report


def parameters_of(space: Workspace) -> dict[str, Any]:
    """The notebook parameters that lead a notebook to this workspace."""
    given = {"weights": space.weights} if space.weights else {}  # not every notebook knows it
    return given | {
        "preset": space.config.preset,
        "seed": space.config.train.seed,
        "model": variant_of(space.config),
        "mask": space.config.data.mask,
        "dataset": space.dataset,
        "root": space.root,
        "rig": space.rig,
        "home": str(space.home),
    }


def project_folder() -> Path:
    """The clone that davae is imported from, wherever one works; where it is none, the nearest one above.

    Raises:
        FileNotFoundError: there is none.
    """
    here, marks = Path.cwd(), ("davae/pipeline/workspace.py", "notebooks/01_data_preprocessing.ipynb")
    for folder in (Path(__file__).parents[2], here, *here.parents):
        if all((folder / mark).exists() for mark in marks):
            return folder
    raise FileNotFoundError(
        f"{here}: davae is not installed from a clone (`pip install -e .`), and this folder lies in none, so "
        "nothing says where data and outputs belong; name a folder by `home`"
    )
