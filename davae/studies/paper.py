"""The paper's experiments on loss weights (4.3) and attention (4.4) as sweeps, sized by the preset.

preset    purpose                              values             seeds                     steps of a run
smoke     check that everything runs           few                one (attention: two)      12
laptop    part of `make reproduce`             fewer than sweep   one (attention: two)      200
sweep     figures of record on loss weights    all                three (attention: six)    the preset's
gpu       record on attention, with a GPU      as sweep           as sweep                  the preset's
paper     with several GPUs                    as sweep           as sweep                  the preset's
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from davae.config import Config, LossConfig
from davae.config.settings import Value, set_variable
from davae.studies.points import Point, format_value, vary
from davae.studies.sweep import Outcome

_WITH_GPUS = ("gpu", "paper")
MIN_MAP_PX = 8  # side of layer4's map in the attention study; on smaller maps, dilated kernels see padding


@dataclass(frozen=True)
class Study:
    """One experiment: a variable and its values, seeds, and fields of the preset that all runs change."""

    name: str
    choices: dict[str, tuple[Value, ...]]
    seeds: tuple[int, ...]
    fixed: dict[str, Value] = field(default_factory=dict)

    @property
    def variable(self) -> str:
        """The variable."""
        (name,) = self.choices
        return name

    @property
    def values(self) -> tuple[Value, ...]:
        """The variable's values, in order."""
        return self.choices[self.variable]

    @property
    def numbers(self) -> list[float]:
        """The same for a variable that is a number, such as a loss weight.

        Raises:
            TypeError: it is not a number.
        """
        found = [value for value in self.values if isinstance(value, int | float)]
        if len(found) < len(self.values):
            raise TypeError(f"{self.name}: the values {self.values} are not numbers")
        return found

    def settle(self, config: Config) -> Config:
        """Return a preset's config with what all runs of this study change of it."""
        for name, value in self.fixed.items():
            config = set_variable(config, name, value)
        return config

    def points(self, config: Config) -> list[Point]:
        """Return the runs of this study at a preset's config."""
        return vary(self.settle(config), self.choices, self.seeds)

    def gather(self, outcomes: Sequence[Outcome], read: Callable[[dict[str, Any]], float]) -> np.ndarray:
        """Return the table (seeds, values) of what `read` finds in each report; NaN if a run failed.

        Args:
            outcomes: the outcomes of this study's points.
            read: takes a report, returns a number.
        """
        table = np.full((len(self.seeds), len(self.values)), np.nan)
        for outcome in outcomes:
            varied = outcome.point.varied
            place = self.seeds.index(varied["seed"]), self.values.index(varied[self.variable])
            table[place] = np.nan if outcome.report is None else read(outcome.report)
        return table

    def command(self, preset: str, data: Path | str, mask: str = "") -> str:
        """Return the command line that runs the study; `mask` is needed if it is not the preset's."""
        varied = {name: (value,) for name, value in self.fixed.items()} | self.choices
        texts = (
            f"{name}={','.join(format_value(value) for value in values)}" for name, values in varied.items()
        )
        seeds = ",".join(map(str, self.seeds))
        mask = f" --mask {mask}" if mask else ""
        return f"davae sweep --preset {preset} --data {data}{mask} --vary {' '.join(texts)} --seeds {seeds}"


def plan_studies(config: Config) -> dict[str, Study]:
    """Return the experiments of the paper for a preset's config, by name.

    beta_ratio is Fig. 2, alpha_pose and alpha_cloud are Fig. 3, attention is Tables 1 and 2 and Fig. 4. beta
    is our addition: a large beta/alpha_image at a fixed beta only removes the image term, without collapse.

    Weights vary around the paper's at every preset, not around the preset's: the alpha_pose of `laptop` is so
    large that the other weights hardly change its error (over beta_ratio: 22.4 to 23.2 mm). All have the
    paper's image decoder, too.
    """
    size = _SIZES["sweep" if config.preset in _WITH_GPUS else config.preset]
    common: dict[str, Value] = {}
    if size.steps:
        common |= {"train.steps": size.steps, "train.warmup_steps": size.steps // 8}
    if config.model.image_decoder != "paper":
        common |= {"model.image_decoder": "paper", "model.image_last_stride": 4, "data.canvas": False}
    weights = {
        "beta_ratio": ("beta_ratio", size.ratios),
        "beta": ("beta", size.betas),
        "alpha_pose": ("alpha_pose_ratio", size.alphas_pose),
        "alpha_cloud": ("alpha_cloud_ratio", size.alphas_cloud),
    }
    printed = {f"loss.{name}": value for name, value in dataclasses.asdict(LossConfig()).items()}
    around = {name: value for name, value in printed.items() if value != getattr(config.loss, name[5:])}
    found = {
        name: Study(name, {variable: values}, size.seeds, common | around)
        for name, (variable, values) in weights.items()
    }
    changed = enlarge_maps(config) | common | (size.attention if config.preset not in _WITH_GPUS else {})
    found["attention"] = Study("attention", {"model": ("da", "na", "se")}, size.attention_seeds, changed)
    return found


def enlarge_maps(config: Config) -> dict[str, Value]:
    """Return the fields that make layer4's map at least `MIN_MAP_PX` wide; the last strides change first."""
    changed: dict[str, Value] = {}
    for name, value in (("last_stride", 1), ("stem_pool", False), ("stem_stride", 2), ("stem_stride", 1)):
        if config.model.last_px >= MIN_MAP_PX:
            break
        if getattr(config.model, name) != value:
            changed[f"model.{name}"] = value
            config = set_variable(config, f"model.{name}", value)
    return changed


@dataclass(frozen=True)
class _Size:
    ratios: tuple[float, ...]
    betas: tuple[float, ...]
    alphas_pose: tuple[float, ...]
    alphas_cloud: tuple[float, ...]
    seeds: tuple[int, ...]
    attention_seeds: tuple[int, ...]
    steps: int = 0  # of each run; 0: the preset's
    attention: dict[str, Value] = field(default_factory=dict)  # changed in the attention study only


_SIZES = {
    "smoke": _Size((0.03, 3.0, 300.0), (10.0, 1e5), (10.0, 1e4), (1.0, 1e3), (0,), (0, 1), steps=12),
    "laptop": _Size(
        (0.003, 0.03, 0.3, 3.0, 30.0, 300.0, 3000.0),
        (0.1, 10.0, 1e3, 1e4, 1e5),
        (10.0, 1e3, 1e4, 1e5, 1e6),
        (1.0, 10.0, 1e2, 1e3, 1e4),
        (0,),
        (0, 1),
        steps=200,
        attention={"model.width": 16},
    ),
    "sweep": _Size(
        (0.003, 0.03, 0.3, 1.0, 3.0, 10.0, 30.0, 300.0, 3000.0),
        (0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5),
        (10.0, 1e2, 1e3, 1e4, 1e5, 1e6),
        (1.0, 10.0, 1e2, 1e3, 1e4),
        (0, 1, 2),
        (0, 1, 2, 3, 4, 5),
        attention={"model.width": 16},
    ),
}
