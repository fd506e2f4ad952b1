"""The data of the suite: a small rendered dataset, prepared at the sizes of the presets."""

import dataclasses
import os
from pathlib import Path

from davae.config import Config, DataConfig, preset
from davae.config.settings import apply_settings
from davae.data.prepared import PreparedSplit, prepare
from synthhand.dataset.writer import write_dataset

PHOTO = (  # what the shipped da-VAE differs from `laptop` in (docs/photos.md)
    "image_px=128",
    "model.stem_stride=2",
    "model.stem_pool=true",
    "model.last_stride=2",
    "model.depths=2,2,2,2",
    "data.shift=0.1",
    "data.scale_max=1.25",
)
PAPERS = ("model.image_decoder=paper", "data.canvas=false")


@dataclasses.dataclass(frozen=True)
class Workbench:
    """Output folder, data and extent of a run of the suite.

    Attributes:
        out: folder for results and data.
        quick: run everything once at a tiny size, as a check; the figures are not measurements.
    """

    out: Path
    quick: bool = False

    @property
    def rounds(self) -> int:
        """Number of measured runs of each function."""
        return 1 if self.quick else 5

    def make_scratch(self) -> Path:
        """Create and return the folder for temporary files; the next start of the suite empties it."""
        folder = self.out / "scratch"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def render(self) -> Path:
        """Return the folder of the rendered dataset; render it if it does not exist."""
        counts, size = ((10, 4, 4), 64) if self.quick else ((300, 40, 60), 320)
        folder = self.out / "data" / f"rendered-{'-'.join(map(str, counts))}"
        return write_dataset(folder, *counts, seed=0, size=size, workers=os.cpu_count() or 1)

    def prepare(self, config: DataConfig) -> Path:
        """Return the folder of the dataset prepared for a config; prepare it if it does not exist."""
        source = self.render()
        folder = self.out / "data" / f"{source.name}-prepared-{config.image_px}px"
        return prepare("synthhand", source, folder, config, workers=os.cpu_count() or 1)

    def open_split(self, config: DataConfig, name: str = "train") -> PreparedSplit:
        """Return a prepared split; true masks replace predicted ones, which cost the same to load."""
        split = PreparedSplit.open(self.prepare(config), name)
        return dataclasses.replace(split, predicted_masks=split.masks)

    def load_config(self, name: str) -> Config:
        """Return the config of a preset or of "photo"; in a quick run, with batches of 4.

        All have the paper's image decoder, as the reference and the figures of record do.
        """
        config = apply_settings(preset("laptop"), PHOTO) if name == "photo" else preset(name)
        if config.model.image_decoder != "paper":
            config = apply_settings(config, PAPERS)
        if name in ("laptop", "photo"):
            config = apply_settings(config, ["model.image_last_stride=4"])
        return replace_batch(config, 4) if self.quick else config


def replace_batch(config: Config, size: int) -> Config:
    """Return the config with another batch size."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=size))
