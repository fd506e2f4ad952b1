"""Training of da-VAE on Eq. 3 (paper 4.2): `train`, and what is particular to this network."""

import dataclasses
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from davae.config import TERMS, Config
from davae.losses import objective
from davae.networks import DaVAE
from davae.networks.davae import DaVAEOutput
from davae.training import runs
from davae.training.log import MetricsLog
from davae.training.task import Examples, Loss, Task
from davae.training.trainer import train_task

# The decoders that come in more than one kind, each with the fields of ModelConfig that shape no other part.
DECODERS = {
    "image_decoder": ("image_decoder", "image_width", "image_last_stride"),
    "cloud_decoder": ("cloud_decoder", "fold_grid", "fold_hidden"),
}
# These shape maps, and no weights where layer4's map is pooled or stays as large as it was.
SIZES = ("image_px", "stem_stride", "stem_pool", "last_stride")


def train(
    config: Config,
    data: Path | str,
    run: Path | str,
    *,
    init: Path | str | None = None,
    device: str = "auto",
    progress: bool = True,
    threads: int | None = None,
) -> Path:
    """Train one model, resume its training, or find it finished.

    If torchrun started several processes, all of them call this and train one model together, on data that
    each process can read. See `davae.training.distributed` for the difference: BatchNorm uses the statistics
    of each process's share of the batch.

    Args:
        config: the experiment.
        data: folder written by `davae.data.prepared.prepare`.
        run: the run's folder; see `davae.training.runs`.
        init: a finished run whose weights to begin with (RHD first, then STB); None for random weights.
            A decoder of another kind than the run's begins with random ones. Its images may be smaller.
        device: "auto" uses a GPU if there is one.
        progress: show a progress bar.
        threads: of torch on a CPU. None uses OMP_NUM_THREADS or, if that is not set, the number that is
            fastest at the time (`davae.training.threads`). Only a fixed number gives the same bits again.

    Returns:
        The run's folder, finished.

    Raises:
        davae.training.runs.RunMismatchError: the folder holds another experiment.
        ValueError: the data was prepared for another image size or crop, or lacks the masks that the config
            asks for; or `init` is another network; or the processes cannot share the batch evenly.
        FileNotFoundError: nothing is prepared in `data`, or `init` is not a finished run.
        BlockingIOError: another process is training in that folder.
        TrainingDivergedError: a loss or its gradient is not finite; the last resume point is kept.
    """
    return train_task(DaVAETask(config, init), data, run, device=device, progress=progress, threads=threads)


def initial_weights(init: Path | str, config: Config) -> dict[str, Tensor]:
    """Return the weights of a finished run, for a run of `config` to begin with.

    A decoder of another kind than the run's begins at random; its weights are not among those returned. So
    does the paper's image decoder where images have another size, which all else does not mind if layer4's
    map is pooled or as large as the run's (other strides).

    Raises:
        FileNotFoundError: there is no finished run.
        ValueError: its network is another one, apart from its decoders of picture and cloud.
    """
    model, found = runs.load_model(init)
    of_run, asked = dataclasses.asdict(found.model), dataclasses.asdict(config.model)
    anew = {part for part in DECODERS if of_run[part] != asked[part]}
    if config.model.head_pool == "mean" or found.model.last_px == config.model.last_px:
        if found.model.image_px != config.model.image_px and config.model.image_decoder == "paper":
            anew.add("image_decoder")
        for field in SIZES:
            del of_run[field], asked[field]
    for field in {field for part in anew for field in DECODERS[part]}:
        del of_run[field], asked[field]
    runs.require_same_network(init, runs.differences(of_run, asked, "model"))
    return {name: weight for name, weight in model.state_dict().items() if name.partition(".")[0] not in anew}


class DaVAETask(Task):
    """da-VAE, trained on Eq. 3, validated by its end-point error (mm, protocol P1, mean latent)."""

    kind, measured, shown = "da-VAE", "val_epe_mm", TERMS

    def __init__(self, config: Config, init: Path | str | None = None):
        if config.model.image_decoder == "limbs" and not config.data.canvas:
            raise ValueError(
                "model.image_decoder is 'limbs', which draws at a fixed number of pixels a bone; set "
                "data.canvas to true, so that its target is of that scale, too"
            )
        for field in ("image_decoder", "cloud_decoder"):
            if getattr(config.model, field) == "limbs" and not config.model.divided:
                raise ValueError(
                    f"model.divided is false, but model.{field} is 'limbs', which reads joints and other "
                    f"blocks apart; an undivided code needs model.{field}=paper"
                )
        if config.train.only and init is None:
            raise ValueError(
                f"train.only is {config.train.only!r}, so all else stays as it begins; name a finished run "
                "to begin with (--init)"
            )
        self.config: Config = config
        self.init = init
        self.first_weights = None if init is None else initial_weights(init, config)
        if config.train.only and self.first_weights is not None:
            parts = {name.partition(".")[0] for name in self.first_weights}
            if left := DECODERS.keys() - parts - {config.train.only}:
                raise ValueError(
                    f"{init}: its {left.pop()} is of another kind, which would stay random under "
                    f"train.only={config.train.only}; keep the kind of that run"
                )

    def build(self) -> nn.Module:
        """Return da-VAE with random weights, or those of `init` as far as that has them."""
        model = DaVAE(self.config.model)
        if self.first_weights is not None:
            model.load_state_dict(model.state_dict() | self.first_weights)
        return model

    def forward(self, network: nn.Module, examples: Examples) -> DaVAEOutput:
        """Encode, sample the latent code with the step's own noise, decode.

        Limb decoders learn from true joints: decoded ones would teach them to blur where they err, and
        appearance and shape to make up for them.
        """
        image = examples.batch.image
        latents = sum(self.config.model.latent_sizes.values())
        noise = torch.randn(len(examples.indices), latents, generator=examples.generator)[examples.own]
        noise, image = noise.to(image.device), image.contiguous(memory_format=torch.channels_last)
        if "limbs" in (self.config.model.image_decoder, self.config.model.cloud_decoder):
            return network(image, noise, examples.batch.joints)
        return network(image, noise)

    def loss(self, output: DaVAEOutput, examples: Examples) -> Loss:
        """Return Eq. 3 with each term unweighted and weighted, and KL also as the mean per dimension."""
        parts = objective(output, examples.batch, self.config.loss)
        sizes = self.config.model.latent_sizes
        terms = {"elbo": parts.elbo} | parts.terms
        terms |= {f"kl_{block}": kl for block, kl in parts.kls.items()}
        terms |= {f"kl_{block}_per_dim": kl / sizes[block] for block, kl in parts.kls.items()}
        return Loss(parts.total, terms | parts.weighted)

    def measure(self, network: nn.Module, examples: Examples) -> float:
        """Return the sum over samples of the end-point error in mm."""
        network, batch = cast(DaVAE, network), examples.batch
        image = batch.image.contiguous(memory_format=torch.channels_last)
        # Without the heads and decoders that joints do not need, which takes half of the time.
        features, heads = network.encoder.trunk(image), network.encoder.heads
        means = {block: heads[block](features)[0] for block in self.config.model.reads("pose")}
        pose = network.decode_pose(means)
        errors = torch.linalg.vector_norm(pose - batch.joints, dim=2).mean(1) * batch.scale_mm
        return errors.sum().item()

    def report(self, run: Path, log: MetricsLog) -> None:
        """Write terms.txt: each weighted term of Eq. 3 at the first and last step, to show which are zero."""
        rows = log.rows()
        first, last = rows[0], rows[-1]
        lines = [f"{'weighted term':<18}" + "".join(f"{'step ' + row['step']:>14}" for row in (first, last))]
        names = [name for name in first if name.startswith(("alpha_", "beta_"))]
        lines += [f"{name:<18}{float(first[name]):>14.2f}{float(last[name]):>14.2f}" for name in names]
        runs.write_text(run / "terms.txt", "\n".join(lines) + "\n")
