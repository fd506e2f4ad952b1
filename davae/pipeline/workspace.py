"""The stages of a reproduction. Each finds its own finished work and first runs the stages that it needs.

    render -> prepare -> (masks) -> train -> evaluate -> notebooks

The command line, the notebooks and `make reproduce` share these stages. A notebook that is opened on its own
makes what is missing; after `make reproduce` it finds everything.
"""

import dataclasses
import json
import os
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from davae.config import Config, preset
from davae.config.rivals import name_of
from davae.config.settings import experiment, mask_experiment
from davae.pipeline.folders import Folders, project_folder
from davae.studies.executors import executor_factory
from davae.studies.paper import Study
from davae.studies.sweep import Outcome, sweep
from synthhand.storage import write_atomically

if TYPE_CHECKING:
    from davae.photo.release import Release


class Workspace(Folders):
    """The stages that make the files of an experiment; see `Folders` for where these are."""

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
        """Return the workspace of a preset. An empty `home` is the clone; an empty `mask` is the preset's.

        With `weights`, images have the size and crop that these were trained on, and hardly any hands are
        rendered for training.

        Raises:
            FileNotFoundError: `home` is empty and there is no clone, or the file of `weights` is missing.
            ValueError: unknown preset, model, mask or dataset, or `weights` are damaged.
        """
        config = experiment(name, seed=seed, model=model, mask=mask)
        folder = Path(home).resolve() if home else project_folder()
        root = str(Path(root).resolve()) if root else ""
        weights = str(Path(weights).resolve()) if weights not in ("", "shipped") else weights
        space = cls(config, folder, dataset, root, rig, weights)
        return dataclasses.replace(space, config=space._config_of_weights()) if weights else space

    def _config_of_weights(self) -> Config:
        """Return the config with image size, crop and scale of `weights`, and few hands but those to test on.

        Nothing is trained with weights: rendering all training images of a preset would be for nothing.
        """
        seen = self.release().configs["model"]
        if not isinstance(seen, Config):
            raise ValueError(f"{self.weights}: its model is not da-VAE; pack it again with `davae pack`")
        px = seen.data.image_px
        data = dataclasses.replace(
            self.config.data, image_px=px, crop=seen.data.crop, scale_min=seen.data.scale_min
        )
        model = dataclasses.replace(self.config.model, image_px=px)
        render, few = self.config.render, preset("smoke").render
        render = dataclasses.replace(render, train=min(render.train, few.train), val=min(render.val, few.val))
        return dataclasses.replace(self.config, render=render, data=data, model=model)

    def release(self) -> "Release":
        """Open the file of `weights`.

        Raises:
            FileNotFoundError: it is missing.
            ValueError: it is damaged or was not written by `davae pack`.
        """
        from davae.photo.predict import WEIGHTS
        from davae.photo.release import unpack

        return unpack(WEIGHTS if self.weights == "shipped" else self.weights)

    @property
    def notebook_parameters(self) -> dict[str, Any]:
        """Parameters that make a notebook work in this workspace."""
        given = {"weights": self.weights} if self.weights else {}  # most notebooks do not have it
        return given | {
            "preset": self.config.preset,
            "seed": self.config.train.seed,
            "model": name_of(self.config),
            "mask": self.config.data.mask,
            "dataset": self.dataset,
            "root": self.root,
            "rig": self.rig,
            "home": str(self.home),
        }

    def ensure_rendered(self, workers: int | None = None) -> Path:
        """Render SynthHand; a dataset on disk is left as it is."""
        if self.dataset == "synthhand":
            from synthhand.dataset.writer import write_dataset

            r = self.config.render
            write_dataset(
                self.rendered,
                train=r.train,
                val=r.val,
                test=r.test,
                seed=r.seed,
                size=r.size,
                flesh=r.flesh,
                workers=workers or os.cpu_count() or 1,
            )
        return self.rendered

    def ensure_prepared(self, workers: int | None = None) -> Path:
        """Prepare the arrays; unusable samples are skipped and counted."""
        from davae.data.manifest import FILE_NAME
        from davae.data.prepared import prepare

        workers = workers or os.cpu_count() or 1
        # Every stage and notebook asks for the arrays, and to look for missing pictures takes seconds. Arrays
        # are complete only after all pictures were read.
        known = (self.prepared / FILE_NAME).exists() and self.rendered.is_dir()
        return prepare(
            self.dataset,
            self.rendered if known else self.ensure_rendered(workers),
            self.prepared,
            self.config.data,
            options=self.options,
            skip_bad=True,
            workers=workers,
        )

    def ensure_masks(self) -> Path:
        """Train and measure the mask network, and predict all masks."""
        from davae.evaluation import evaluate_masks, predict_masks
        from davae.training.mask_task import train_mask

        data, teacher = self.ensure_prepared(), self.mask_teacher
        if teacher is self:
            train_mask(mask_experiment(self.config.preset, crop=self.config.data.crop), data, self.mask_run)
            if not (self.mask_run / "metrics.json").exists():
                evaluate_masks(self.mask_run, data)
        else:
            print(f"{self.dataset} has no masks: the mask network is trained on SynthHand", flush=True)
            teacher.ensure_masks()
        predict_masks(self.mask_run, data)
        return self.mask_run

    def ensure_trained(self) -> Path:
        """Train the run, after the mask network if the run's input needs masks."""
        from davae.rivals import train

        return train(self.config, self._ensure_input(), self.run)

    def _ensure_input(self) -> Path:
        """Prepare the arrays and, if the network's input needs them, predicted masks."""
        data = self.ensure_prepared()
        if self.config.data.mask == "network":
            self.ensure_masks()
        return data

    def ensure_evaluated(self) -> dict[str, Any]:
        """Evaluate the run on the test split: return its report, from metrics.json if that is up to date."""
        from davae.data.manifest import read_manifest
        from davae.evaluation import evaluate

        run = self.ensure_trained()
        report, weights = run / "metrics.json", run / "model.safetensors"  # the report is written last
        if report.exists() and report.stat().st_mtime_ns > weights.stat().st_mtime_ns:
            found = json.loads(report.read_text(encoding="utf-8"))
            if found["data"] == read_manifest(self.prepared)["digest"]:
                return found
        return evaluate(run, self.prepared)

    def ensure_swept(self, *studies: Study, jobs: int = 0, progress: bool = True) -> dict[str, list[Outcome]]:
        """Run the points of studies, in processes of one thread each.

        Args:
            studies: from `davae.studies.paper.plan_studies`.
            jobs: runs at a time; 0 means one per core.
            progress: show a table of the points while they run.

        Returns:
            The outcome of each study's points, by the study's name.
        """
        data = self._ensure_input()
        make_executor = executor_factory("processes", jobs or os.cpu_count() or 1, self.sweeps)
        points = {study.name: study.points(self.config) for study in studies}
        outcomes = iter(
            sweep([*chain(*points.values())], data, self.sweeps, make_executor, progress=progress)
        )
        return {name: [next(outcomes) for _ in own] for name, own in points.items()}

    def save_figure(self, figure: Any, name: str) -> Any:
        """Write a matplotlib figure to `figures` as NAME.png; return it, so that a notebook shows it."""
        self.figures.mkdir(parents=True, exist_ok=True)
        path = self.figures / f"{name}.png"
        write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
        return figure
