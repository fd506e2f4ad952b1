"""Train the baseline: a plain ResNet regressor with the data, augmentation and wall time of a da-VAE run.

It maps an image to 63 numbers by a ResNet and minimises squared error: no latent code, no decoders of cloud
or image, no attention. Run

    python benchmarks/plain_regressor.py --data DIR --like RUN --out FILE.json

It trains for as many seconds as RUN did (or `--seconds`), on the same number of threads, and reports the same
protocols on the same test split beside those of the run; evaluate the run first. `--recipe plain` uses AdamW
(3e-3, batches of 32) and tests the last weights. `--recipe run` uses the run's optimiser, batch size, weight
average and arithmetic, which are not specific to da-VAE.

At equal steps instead of equal time, and with da-VAE's three heads instead of one: `davae train --model
regressor` (docs/rivals.md).
"""

import csv
import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from torch import nn
from tqdm.auto import tqdm

from davae import metrics
from davae.config import Config
from davae.data.augment import augment, centre, load_batch
from davae.data.prepared import PreparedSplit
from davae.evaluation import format_table, protocol_scores
from davae.losses import pose_loss
from davae.networks.blocks import BasicBlock, initialise, residual_layer
from davae.networks.encoder import Trunk
from davae.training.device import has_bf16
from davae.training.optimisers import AVERAGE_EVERY, build_average, build_optimisers, take_step
from davae.training.runs import config_of, write_text
from davae.training.schedule import batch_indices


class Regressor(nn.Module):
    """ResNet (arXiv:1512.03385) of the run's width: plain blocks, linear layer to joints (b, 21, 3)."""

    def __init__(self, config: Config, depths: tuple[int, int, int, int]):
        super().__init__()
        width = config.model.width
        self.trunk = Trunk(config.model)
        self.layer3 = residual_layer(BasicBlock, 2 * width, 4 * width, depth=depths[2], stride=2)
        self.layer4 = residual_layer(
            BasicBlock, 4 * width, 8 * width, depth=depths[3], stride=config.model.last_stride
        )
        self.fc = nn.Linear(8 * width, 63)
        initialise(self)
        nn.init.normal_(self.fc.weight, std=0.01)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map images (b, 3, h, w) to normalised joints (b, 21, 3)."""
        x = self.layer4(self.layer3(self.trunk(image))).mean(dim=(2, 3))
        return self.fc(x).view(-1, 21, 3)


def main(
    data: Path,
    like: Path,
    out: Path,
    seconds: float | None = None,
    depth: Literal["same", "resnet34"] = "same",
    recipe: Literal["plain", "run"] = "plain",
    seed: int = 0,
) -> None:
    """Train for a given wall time and write the report.

    Args:
        data: Prepared data.
        like: Run that gives the config and the training time.
        out: JSON file to write.
        seconds: Training time; the default is the run's.
        depth: Blocks per layer: "same" as the run, or ResNet-34's 3, 4, 6, 3.
        recipe: "plain" training, or the "run"'s optimiser, average and arithmetic.
        seed: Seed of weights, order and augmentation.
    """
    config = config_of(like, Config)
    if seconds is None:
        with (like / "metrics.csv").open(encoding="utf-8") as file:
            seconds = float(list(csv.DictReader(file))[-1]["seconds"])
    train, test = PreparedSplit.open(data, "train"), PreparedSplit.open(data, "test")
    torch.manual_seed(seed)
    depths = config.model.depths if depth == "same" else (3, 4, 6, 3)
    model = Regressor(config, depths).to(memory_format=torch.channels_last)
    settings = config.train
    if recipe == "plain":
        settings = dataclasses.replace(settings, optimiser="adam", learning_rate=3e-3, batch_size=32)
    peak = settings.learning_rate
    movers = build_optimisers(model, settings)
    average = build_average(model, settings.average_decay) if recipe == "run" else None
    autocast = torch.autocast("cpu", torch.bfloat16, recipe == "run" and has_bf16(torch.device("cpu")))
    began, step = time.perf_counter(), 0
    bar = tqdm(total=round(seconds), unit="s", desc="plain regressor")
    while (elapsed := time.perf_counter() - began) < seconds:
        bar.update(round(elapsed) - bar.n)
        # The cosine schedule follows the clock, not the step, so it is complete on any machine.
        rate = peak * 0.5 * (1 + math.cos(math.pi * elapsed / seconds)) * min(1, (step + 1) / 100)
        indices = batch_indices(len(train), settings.batch_size, seed, step)
        batch = augment(load_batch(train, indices), config.data, torch.Generator().manual_seed(step))
        with autocast:
            joints = model.train()(batch.image.contiguous(memory_format=torch.channels_last))
        loss = pose_loss(joints, batch.joints).mean()
        model.zero_grad(set_to_none=True)
        loss.backward()
        take_step(movers, rate)
        if average is not None and step % AVERAGE_EVERY == 0:
            average.update_parameters(model)
        step += 1
    bar.close()
    model = model if average is None else average.module
    predicted = predict(model.eval(), test, config)
    results = metrics.evaluate_protocols(
        predicted, test.joints, test.scale_mm, test.visible, float(np.mean(train.scale_mm))
    )
    report = {
        "model": f"plain regressor, width {config.model.width}, depths {list(depths)}, recipe {recipe}",
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": seconds,
        "images_seen": step * settings.batch_size,
        "n": len(test),
        "protocols": protocol_scores(results),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps(report, indent=2) + "\n")
    measured = json.loads((like / "metrics.json").read_text(encoding="utf-8"))
    print(format_table(measured, {"plain regressor": report["protocols"]}))


@torch.inference_mode()
def predict(model: Regressor, split: PreparedSplit, config: Config) -> np.ndarray:
    """Predict normalised joints (n, 21, 3) of a split's centred crops."""
    return np.concatenate(
        [
            model(
                centre(load_batch(split, np.arange(i, min(i + 100, len(split)))), config.data).image
            ).numpy()
            for i in range(0, len(split), 100)
        ]
    )


if __name__ == "__main__":
    tyro.cli(main)
