"""The command that reports what the blocks of the latent code hold."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from davae.pipeline.options import Mask

if TYPE_CHECKING:
    from davae.data.prepared import PreparedSplit
    from davae.latent.reading import Reader


def latent_report(
    data: Path,
    out: Path,
    run: Path | None = None,
    weights: str = "",
    split: Literal["test", "val", "train"] = "test",
    mask: Mask = None,
    samples: int = 1000,
    swap_pairs: int = 50,
    held_values: int = 20,
    seed: int = 0,
) -> None:
    """Report what each block of the latent code holds: tables, JSON and a figure.

    Factors read from blocks, disentanglement and completeness, dependence between blocks, interventions,
    swaps against rendered hands, decoded pictures. What needs factors is measured on SynthHand only.

    Args:
        data: Folder written by `prepare`.
        out: Folder of the report: latent.md, latent.json, latent.png.
        run: A finished run's folder; or give `--weights`.
        weights: File of `pack`, or `shipped` for the model that comes with davae. Its mask network makes the
            masks of data that have none, and of rendered hands.
        split: Split to measure. Make choices on val; use test for reporting only.
        samples: Number of images.
        swap_pairs: Number of pairs of hands that exchange blocks.
        held_values: Number of values at which each group of factors is held by intervention.
        seed: Seed of the choice of images and of all draws.
    """
    import json

    from davae.figures.disentanglement import block_map
    from davae.latent.report import measure_latent, to_plain
    from davae.latent.report_table import format_latent
    from davae.training.runs import write_text

    reader, held_out = _open(run, weights, data, split, mask)
    found = measure_latent(
        reader, held_out, samples=samples, swap_pairs=swap_pairs, held_values=held_values, seed=seed
    )
    measured = to_plain(found.measured)
    text = format_latent(measured)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "latent.json", json.dumps(measured, indent=1, allow_nan=False) + "\n")
    write_text(out / "latent.md", text)
    r2 = {
        code: {
            block: {group: cell["r2"][0] for group, cell in cells.items()}
            for block, cells in measured["prediction"][code]["rbf"].items()
        }
        for code in ("means", "samples")
    }
    examples = [
        {
            kind: {name: image.permute(1, 2, 0).numpy() for name, image in pictures.items()}
            for kind, pictures in example._asdict().items()
        }
        for example in found.examples
    ]
    title = "What each block of the code knows of a held-out hand"
    block_map(r2["means"], r2["samples"], measured["blocks"], examples, title=title).savefig(
        out / "latent.png"
    )
    print(text)
    print(*(out / f"latent.{kind}" for kind in ("md", "json", "png")), sep="\n")


def _open(
    run: Path | None, weights: str, data: Path, name: Literal["train", "val", "test"], mask: Mask
) -> tuple["Reader", "PreparedSplit"]:
    """Open a model and held-out data with the input that it was trained on, unless `mask` says otherwise.

    Raises:
        ValueError: neither a run nor weights are given, or both.
    """
    import dataclasses

    from davae.data.prepared import PreparedSplit
    from davae.evaluation.measure import open_split
    from davae.latent.reading import Reader
    from davae.photo.predict import WEIGHTS
    from davae.photo.release import unpack
    from davae.training import runs

    if (run is None) == (not weights):
        raise ValueError("latent-report: give either --run, a finished run, or --weights, a file of `pack`")
    if run is not None:
        model, config = runs.load_model(run)
        used = mask or config.data.mask
        if used == config.data.mask:
            split = open_split(run, config, data, name)
        else:
            split = PreparedSplit.open(data, name).seen_through(used)
        return Reader(model, dataclasses.replace(config.data, mask=used)), split
    release = unpack(WEIGHTS if weights == "shipped" else weights)
    config = release.configs["model"]
    used = mask or config.data.mask
    # The file's own mask network sees the pictures, whichever masks lie with the data.
    split = PreparedSplit.open(data, name).seen_through("none" if used == "network" else used)
    return Reader(release.model, dataclasses.replace(config.data, mask=used), release.mask), split
