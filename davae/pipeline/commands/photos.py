"""Commands that use a trained model: on photos, in the browser, or in another runtime."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro


def pack(run: Path, mask_run: Path, camera_run: Path, finder_run: Path, out: Path) -> None:
    """Write a model, its mask network, its camera head and a hand finder to one file for `predict` and `app`.

    Args:
        run: Run of `train` on predicted masks and jittered crops.
        mask_run: Run of `train-mask` that predicted those masks.
        camera_run: Folder of `train-camera` on that run.
        finder_run: Run of `train-mask` on strongly jittered crops; it finds the hand in a photo.
        out: File to write, .safetensors.
    """
    from davae.photo.release import pack as write

    about = write(run, mask_run, camera_run, finder_run, out)
    error_mm = about["P1_epe_mm"]
    measured = "not evaluated" if error_mm is None else f"P1 {error_mm:.1f} mm, from one view of each crop"
    print(f"packed: {out}, {out.stat().st_size / 1e6:.1f} MB; {measured}")


def unpack(out: Path, weights: Path | None = None) -> None:
    """Write the networks of a file of weights as finished runs, for `--init` to begin with, and for `pack`.

    Args:
        out: Folder for the runs model, mask, camera and finder, with nothing else in it.
        weights: File of `pack`; the default is the model that comes with davae.
    """
    from davae.photo.predict import WEIGHTS
    from davae.photo.release import write_runs

    for run in write_runs(WEIGHTS if weights is None else weights, out):
        print(run)


def predict(
    images: Annotated[tuple[Path, ...], tyro.conf.Positional],
    out: Path,
    box: Annotated[str, tyro.conf.arg(metavar="X,Y,W,H")] = "",
    side: Literal["left", "right"] | None = None,
    bone_mm: float | None = None,
    intrinsics: Annotated[str, tyro.conf.arg(metavar="FX,FY,CX,CY")] = "",
    weights: Path | None = None,
    hands: int = 1,
    quick: bool = False,
) -> None:
    """Find the hand in photos: write joints and latent code as JSON, the mesh as PLY and GLB, and a picture.

    Of several photos, the joints of all are written to joints.csv, too.
    Unusable photos are reported and skipped. The exit status is 1 if there was one.

    Args:
        images: Photos of any format and size, or folders of photos.
        out: Folder for the results, named after the photos.
        box: Rectangle of the hand: left, top, width and height in pixels. The default is to find the hand.
        side: Side of all hands; the default is to guess it.
        bone_mm: Length of the bone from middle MCP to PIP; the default is an average adult's.
        intrinsics: Focal lengths and principal point of the camera, pixels. Joints are then written in mm in
            the camera's frame.
        weights: File of `pack`; the default is the model that comes with davae.
        hands: Largest number of hands to find in a photo. The second has files of its own, NAME-hand2.json
            and so on.
        quick: Look at each hand less often: two thirds of the time, slightly larger errors.
    """
    from davae.photo.predict_files import predict_files

    found = predict_files(images, out, box, side, bone_mm, intrinsics, weights, hands, quick=quick)
    if found.table is not None:
        print(f"joints of all photos: {found.table}")
    sys.exit(0 if not found.failed else 1)


def app(
    weights: Path | None = None,
    port: int = 8866,
    browser: bool = True,
    keep_s: int = 120,
    pages: int = 8,
    forgotten_s: int = 3600,
) -> None:
    """Serve the web app on this machine: try your own photo, and explore the latent space with sliders.

    Args:
        weights: File of `pack`; the default is the model that comes with davae.
        port: Port on 127.0.0.1.
        browser: Open the app in your browser.
        keep_s: Seconds that a page which lost its connection has to return; then its memory is freed.
        pages: Pages that may be open at once; further visitors are told to wait.
        forgotten_s: Seconds without use after which an open page is ended.
    """
    from davae.photo.app.server import serve

    serve(weights, port, browser, keep_s, pages, forgotten_s)


def export(
    run: Path,
    onnx: Path,
    reduced: Literal["int8", "fp16"] | None = None,
    data: Path | None = None,
    split: Literal["val", "test"] = "val",
) -> None:
    """Write a finished run of `train` or `train-mask` as an ONNX model and compare it with the run.

    Args:
        run: The run's folder.
        onnx: File to write.
        reduced: Lower precision, which needs `data`. int8 is for CPUs, about a quarter of the size; fp16 is
            for GPUs, half the size. The loss of accuracy is printed.
        data: Folder written by `prepare`; its training split calibrates int8.
        split: Split on which the loss of accuracy is measured.
    """
    from davae.photo.export import export as export_run
    from davae.photo.export import format_export

    print(format_export(export_run(run, onnx, reduced=reduced, data=data, split=split)))
