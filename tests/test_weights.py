"""The shipped weights: file size, accuracy, and agreement of the model card with the reports."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from davae.photo.predict import WEIGHTS, HandPredictor
from davae.photo.release import unpack
from synthhand.dataset.writer import write_dataset
from synthhand.formats.rhd import RHDSplit
from synthhand.pinhole import pixel_ray, view_rotation
from synthhand.skeleton import REFERENCE_BONE, ROOT

REPOSITORY = Path(__file__).parents[1]
LARGEST_BYTES = 12_000_000
FRAMES = 24
SEED = 11  # of no data that the weights were trained or measured on


def benchmark(name: str):
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patched:  # scripts import what lies beside them
        patched.syspath_prepend(REPOSITORY / "benchmarks")
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def predictor():
    return HandPredictor.load()


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    root = write_dataset(tmp_path_factory.mktemp("frames"), 0, 0, FRAMES, SEED, progress=False)
    split = RHDSplit(root, "test")
    return [split.record(number) for number in range(FRAMES)]


def test_they_are_small():
    assert WEIGHTS.stat().st_size <= LARGEST_BYTES


def test_they_read_rendered_hands_that_they_never_saw(predictor, records):
    """In the true crop: far nearer to the truth than the best constant answer, on the photo as well."""
    photos = benchmark("photos")
    boxes = [photos.cut_true_box(record) for record in records]
    hands = photos.predict_by_side(predictor, records, [record.image for record in records], boxes)
    errors = np.array(
        [photos.measure_p1_mm(hand, record) for hand, record in zip(hands, records, strict=True)]
    )
    truth = []
    for record in records:
        joints = record.joints_mm.astype(float)
        scale_mm = np.linalg.norm(np.subtract(*joints[list(REFERENCE_BONE)]))
        seen = (joints - joints[ROOT]) @ view_rotation(pixel_ray(record.uv_px[ROOT], record.K)).T / scale_mm
        truth.append((seen if record.side == "right" else seen * [-1, 1, 1], scale_mm))
    poses, scales = np.stack([pose for pose, _ in truth]), np.array([scale for _, scale in truth])
    guess = np.linalg.norm(poses - poses.mean(0), axis=2).mean(1) * scales  # of the mean of these very hands
    assert errors.mean() < 0.4 * guess.mean()
    on_photo = [
        np.median(np.linalg.norm(hand.joints_px - record.uv_px, axis=1)) / (2 * box.half)
        for hand, record, box in zip(hands, records, boxes, strict=True)
    ]
    assert np.median(on_photo) < 0.08


def test_they_find_hands_and_their_sides_better_than_chance(predictor, records):
    photos = benchmark("photos")
    hands = predictor.predict_all([record.image for record in records])
    overlaps = [
        photos.measure_overlap(hand.box, photos.cut_true_box(record))
        for hand, record in zip(hands, records, strict=True)
    ]
    right = [hand.side == record.side for hand, record in zip(hands, records, strict=True)]
    assert np.mean(np.array(overlaps) > 0.3) > 0.5
    assert np.mean(right) > 0.6


def test_the_card_says_what_was_measured():
    """Its tables are those of the committed reports, which are of these weights."""
    card = (WEIGHTS.with_name("README.md")).read_text(encoding="utf-8")
    model_card = benchmark("model_card")
    assert model_card.fill_card(card, model_card.format_tables()) == card
    assert not {"DESCRIPTION", "LIMITS", "MINUTES"} & set(card.split())
    about = unpack(WEIGHTS).about
    report = json.loads((model_card.RESULTS / "photo_evaluation.json").read_text())
    assert report["weights"] == about["runs"]["model"] and report["trained_on"] == about["data"]
    assert report["n"] == 2000 and report["mask"] == "network" and report["data"] != report["trained_on"]
