"""The paper's experiments on loss weights (4.3) and attention (4.4) as sweeps, each sized by a preset.

preset    what for                                   values, seeds, steps of each run
smoke     to see that it runs                        a few, one, a few
laptop    within `make reproduce`                    fewer than the paper's, one, short
sweep     the figures of record on loss weights      all, three (attention: six), the preset's
gpu       the record on attention, with a GPU        as sweep, the preset's
paper     with several GPUs                          as sweep, the preset's
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from davae.config import Config, LossConfig
from davae.config.settings import Value, set_variable
from davae.studies.points import Point, vary
from davae.studies.sweep import Outcome

_WITH_GPUS = ("gpu", "paper")
MIN_MAP_PX = 8  # of layer4, where attention is studied: on a smaller map a dilated kernel sees mostly padding


@dataclass(frozen=True)
class Study:
    """One experiment: what varies, over which seeds, and what is changed in the preset for all of it."""

    name: str
    choices: dict[str, tuple[Value, ...]]
    seeds: tuple[int, ...]
    fixed: dict[str, Value] = field(default_factory=dict)

    @property
    def variable(self) -> str:
        """What varies."""
        (name,) = self.choices
        return name

    @property
    def values(self) -> tuple[Value, ...]:
        """Its values, in order."""
        return self.choices[self.variable]

    def points(self, config: Config) -> list[Point]:
        """The runs of this study, of a preset's config."""
        for name, value in self.fixed.items():
            config = set_variable(config, name, value)
        return vary(config, self.choices, self.seeds)

    def gather(self, outcomes: Sequence[Outcome], read: Callable[[dict[str, Any]], float]) -> np.ndarray:
        """Arrange what `read` finds in each report: (seeds, values), NaN where a run failed.

        Args:
            outcomes: of this study's points.
            read: from a report to a number.
        """
        table = np.full((len(self.seeds), len(self.values)), np.nan)
        for outcome in outcomes:
            varied = outcome.point.varied
            place = self.seeds.index(varied["seed"]), self.values.index(varied[self.variable])
            table[place] = np.nan if outcome.report is None else read(outcome.report)
        return table

    def command(self, preset: str, data: Path | str, mask: str = "") -> str:
        """The command line that runs it; `mask` where it is not the preset's."""
        varied = {name: (value,) for name, value in self.fixed.items()} | self.choices
        texts = (f"{name}={','.join(_text(value) for value in values)}" for name, values in varied.items())
        seeds = ",".join(map(str, self.seeds))
        mask = f" --mask {mask}" if mask else ""
        return f"davae sweep --preset {preset} --data {data}{mask} --vary {' '.join(texts)} --seeds {seeds}"


def studies(config: Config) -> dict[str, Study]:
    """Return the experiments of the paper for a preset's config, by name.

    beta_ratio is Fig. 2, alpha_pose and alpha_cloud are Fig. 3, attention is Tables 1 and 2 and Fig. 4; beta
    is ours, since a large beta/alpha_image at a fixed beta removes the picture's term and collapses no block.

    Weights are varied around the paper's, whatever the preset's own: `laptop` trains with an alpha_pose so
    large that its error hardly answers to the others (over beta_ratio: 22.4 to 23.2 mm).
    """
    size = _SIZES["sweep" if config.preset in _WITH_GPUS else config.preset]
    steps = {"train.steps": size.steps, "train.warmup_steps": size.steps // 8} if size.steps else {}
    weights = {
        "beta_ratio": ("beta_ratio", size.ratios),
        "beta": ("beta", size.betas),
        "alpha_pose": ("alpha_pose_ratio", size.alphas_pose),
        "alpha_cloud": ("alpha_cloud_ratio", size.alphas_cloud),
    }
    printed = {f"loss.{name}": value for name, value in dataclasses.asdict(LossConfig()).items()}
    around = {name: value for name, value in printed.items() if value != getattr(config.loss, name[5:])}
    found = {
        name: Study(name, {variable: values}, size.seeds, steps | around)
        for name, (variable, values) in weights.items()
    }
    changed = large_maps(config) | steps | (size.attention if config.preset not in _WITH_GPUS else {})
    found["attention"] = Study("attention", {"model": ("da", "na", "se")}, size.attention_seeds, changed)
    return found


def large_maps(config: Config) -> dict[str, Value]:
    """Return the fields to change so that layer4's map has `MIN_MAP_PX` a side: the last strides go first."""
    changed: dict[str, Value] = {}
    model = config.model
    for name, value in (("last_stride", 1), ("stem_pool", False), ("stem_stride", 2), ("stem_stride", 1)):
        if model.last_px >= MIN_MAP_PX:
            break
        if getattr(model, name) != value:
            model = dataclasses.replace(model, **{name: value})
            changed[f"model.{name}"] = value
    return changed


@dataclass(frozen=True)
class _Size:
    ratios: tuple[float, ...]
    betas: tuple[float, ...]
    alphas_pose: tuple[float, ...]
    alphas_cloud: tuple[float, ...]
    seeds: tuple[int, ...]
    attention_seeds: tuple[int, ...]
    steps: int = 0  # of each run; 0 = the preset's
    attention: dict[str, Value] = field(default_factory=dict)  # more that is changed there


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


def _text(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
