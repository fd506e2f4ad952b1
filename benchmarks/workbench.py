"""What the suite works on: a small rendered dataset, prepared at the sizes of the presets."""

import dataclasses
import os
from pathlib import Path

from davae.config import Config, DataConfig, preset
from davae.data.prepared import PreparedSplit, prepare
from synthhand.dataset.writer import write_dataset


@dataclasses.dataclass(frozen=True)
class Workbench:
    """Where the suite writes, and how much it measures.

    Attributes:
        out: folder of results, and of the data that they are measured on.
        quick: everything once and tiny, to see that it runs; its figures mean nothing.
    """

    out: Path
    quick: bool = False

    @property
    def rounds(self) -> int:
        """How often each of two things that take turns runs."""
        return 1 if self.quick else 5

    def scratch(self) -> Path:
        """Folder of what is made to be timed and thrown away; the next start empties it after a kill."""
        folder = self.out / "scratch"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def rendered(self) -> Path:
        """A rendered dataset, made where it is not there yet."""
        counts, size = ((10, 4, 4), 64) if self.quick else ((300, 40, 60), 320)
        folder = self.out / "data" / f"rendered-{'-'.join(map(str, counts))}"
        return write_dataset(folder, *counts, seed=0, size=size, workers=os.cpu_count() or 1)

    def prepared(self, config: DataConfig) -> Path:
        """That dataset prepared for a config."""
        source = self.rendered()
        folder = self.out / "data" / f"{source.name}-prepared-{config.image_px}px"
        return prepare("synthhand", source, folder, config, workers=os.cpu_count() or 1)

    def split(self, config: DataConfig, name: str = "train") -> PreparedSplit:
        """A prepared split, whose true masks stand in for predicted ones: they are as much work."""
        split = PreparedSplit.open(self.prepared(config), name)
        return dataclasses.replace(split, predicted_masks=split.masks)

    def config(self, name: str) -> Config:
        """The preset of that name; quickly, with small batches."""
        config = preset(name)
        return with_batch(config, 4) if self.quick else config


def with_batch(config: Config, size: int) -> Config:
    """That config with batches of another size."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=size))
