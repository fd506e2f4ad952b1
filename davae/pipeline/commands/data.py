"""Commands that write, check and prepare datasets."""

import sys
from pathlib import Path
from typing import Annotated

import tyro

from davae.config.schema import Crop
from davae.pipeline.options import Dataset, Flesh, Rig, Viewpoint, World, WristRule

Form = Annotated[Dataset, tyro.conf.arg(name="as")]


def render(
    out: Path,
    train: int,
    test: int,
    val: int | None = None,
    form: Form = "synthhand",
    seed: int = 0,
    size: int | None = None,
    workers: int = 1,
    viewpoint: Viewpoint | None = None,
    backgrounds: Path | None = None,
    flesh: Flesh | None = None,
    world: tuple[World, ...] = (),
) -> None:
    """Render SynthHand, hands with known factors, in RHD's format or exactly as another dataset is published.

    An interrupted rendering continues when the command is run again.

    Args:
        out: Folder to write.
        train: Number of training images; for STB, frames of its ten training sequences together.
        test: Number of test images, in the folder `evaluation` as in RHD; for STB, frames of B1.
        val: Number of validation images, in the folder `validation`; only the form synthhand has them.
        form: Files to write: synthhand is RHD's format plus `validation` and the factors of each image; the
            others follow the published datasets.
        seed: Seed of the dataset; the same seed gives the same images.
        size: Side of the square images, pixels; the default is 320. Only the form synthhand has a choice.
        workers: Number of processes; the images do not depend on it.
        viewpoint: sphere, the default, is any direction. frontal shows the palm or the back within 60 degrees
            of the camera, fingers mostly up.
        backgrounds: Folder of pictures to put behind the hands instead of generated ones; they are cropped,
            flipped, tinted and sometimes blurred.
        flesh: realistic, the default, is the spread of adults, which a picture hardly shows. wide reaches
            from thin to stout hands with short to long fingers.
        world: What renderings lack beside photographs, off by default, one or more of: framing (hands from a
            tenth of the frame to 1.4 times the frame), held (things that hide fingers), camera (exposure,
            casts, tones, sharpening, noise, JPEG of every quality), detail (sharp backgrounds), company
            (other people's hands), worn (rings, patterned sleeves); photographs is all of them. Only the form
            synthhand has them.
    """
    from synthhand.dataset.forms import write_as

    choices = {"val": val, "size": size, "viewpoint": viewpoint, "backgrounds": backgrounds, "flesh": flesh}
    write_as(form, out, train, test, seed, workers, **choices, world=world or None)
    counts = " + ".join(str(count) for count in (train, val, test) if count is not None)
    print(f"rendered {counts} samples, in the form of {form}, into {out}")


def check_data(
    dataset: Dataset,
    root: Path,
    full: bool = False,
    sheet: Path | None = None,
    seed: int = 0,
) -> None:
    """Check a dataset on disk: are all files there, and do pictures, labels and depth agree?

    Each problem is reported with its file and what to do. The exit status is 0 if the dataset can be used,
    else 1.

    Args:
        dataset: Format of the files in `root`.
        root: The dataset's folder.
        full: Decode every picture; the default is all labels, the end of every file and 1,000 pictures.
        sheet: PNG file to write, a contact sheet with joints and masks drawn over pictures; the default is
            outputs/check/DATASET-FOLDER.png.
        seed: Seed that selects the pictures.
    """
    from davae.data.doctor import examine, make_tiles
    from davae.figures import check_sheet
    from synthhand.storage import write_atomically

    diagnosis = examine(dataset, root, full=full, seed=seed)
    print(diagnosis.format())
    if tiles := make_tiles(diagnosis, seed=seed):
        path = sheet or Path("outputs") / "check" / f"{dataset}-{root.resolve().name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: check_sheet(tiles).savefig(temporary, format="png", dpi=180))
        print(f"contact sheet: {path}")
    sys.exit(0 if diagnosis.usable else 1)


def prepare(
    dataset: Dataset,
    root: Path,
    out: Path,
    size: int = 64,
    scale_min: float = 0.8,
    crop: Crop = "plain",
    rig: Rig | None = None,
    wrist: WristRule | None = None,
    workers: int = 1,
    skip_bad: bool = False,
) -> None:
    """Turn a dataset on disk into memory-mapped training arrays.

    Args:
        dataset: Format of the files in `root`.
        root: The dataset's folder.
        out: Folder to write.
        size: Side of the network's input, pixels: 64 for the presets smoke, laptop and sweep, 128 for gpu,
            256 for paper.
        scale_min: Smallest size of a hand in a training crop, relative to its size in the test crop; crops
            are stored with the margin that this needs.
        crop: The paper's crop, or one that is exact under view normalisation.
        rig: For STB only. sk, the default: colour pictures, with a cloud from the depth camera. bb: both
            pictures of the stereo camera, without a cloud.
        wrist: For STB only, whose joint 0 is the centre of the palm: the rule that computes a wrist from it.
            The default is ring; palm leaves joint 0 as it is.
        workers: Number of processes; the arrays do not depend on it.
        skip_bad: Skip and count bad samples; the default is to stop at the first.
    """
    from davae.config import DataConfig
    from davae.data.prepared import prepare as prepare_data

    config = DataConfig(image_px=size, crop=crop, scale_min=scale_min)
    options = {name: value for name, value in (("rig", rig), ("wrist", wrist)) if value is not None}
    prepare_data(dataset, root, out, config, options=options, skip_bad=skip_bad, workers=workers)
    print(f"prepared {dataset} into {out}")
    _print_counts(out)


def join_data(data: tuple[Path, ...], out: Path) -> None:
    """Join prepared folders into one, to train on several renderings at once.

    Every split holds the rows of all folders. Masks must be predicted anew.

    Args:
        data: Two or more folders of `prepare`, made with equal --size, --crop and --scale-min.
        out: Folder to write.
    """
    from davae.data.joined import join_prepared

    join_prepared(data, out)
    print(f"joined {len(data)} prepared folders into {out}")
    _print_counts(out)


def _print_counts(prepared: Path) -> None:
    """Print how many samples each split of a prepared folder has."""
    from davae.data.manifest import read_manifest

    for split, entry in read_manifest(prepared)["splits"].items():
        count, skipped = entry["count"], len(entry["skipped"])
        print(f"  {split}: {count} samples, {entry['with_cloud']} with a cloud, {skipped} left out")
