"""Shared test set-up: one thread, fixed seeds, no windows, a tiny config, and the rule for skipping."""

import dataclasses
import io
import json
import logging
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from rhd_fixture import write_dataset
from traitlets.log import get_logger

from davae.config import Config, mask_preset, preset
from davae.data.prepared import prepare

os.environ["MPLBACKEND"] = "Agg"  # for this process and those it starts; nothing has imported matplotlib yet
torch.set_num_threads(1)
if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
    # What tests start gets one thread, too: those of several processes on the same cores wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

CI = os.environ.get("CI") == "true"
EXPLORE = os.environ.get("HYPOTHESIS_EXPLORE") == "true"  # draw new examples: a matter for developers

# A busy machine must not fail a test, so no limit on time; the same examples each time, so no stray failure.
settings.register_profile(
    "davae",
    deadline=None,
    derandomize=not EXPLORE,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("davae")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that run notebooks come first: of two workers, none is then left with the longest at the end."""
    long = {item.path for item in items if item.get_closest_marker("notebook")}
    items.sort(key=lambda item: item.path not in long)  # stable: else in pytest's order


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start each test from the same global random state, whatever ran before it."""
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def foreign_kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for JUPYTER_PATH whose kernel python3 is not of this Python, and useless."""
    folder = tmp_path_factory.mktemp("jupyter")
    argv = [sys.executable, "-c", "raise SystemExit('the Python of someone else')", "{connection_file}"]
    spec = folder / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    return folder


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """The smallest experiment that is still a whole one: preset smoke, with fewer images and steps."""
    smoke = preset("smoke")
    return dataclasses.replace(
        smoke,
        render=dataclasses.replace(smoke.render, train=8, val=4, test=4, size=96),
        train=dataclasses.replace(smoke.train, steps=4, batch_size=4, warmup_steps=1, checkpoint_every=2),
    )


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny_config: Config) -> Path:
    """A prepared folder of a few drawn hands: 20 to train on, 8 for validation, 8 to test."""
    root = write_dataset(tmp_path_factory.mktemp("rhd"), train=20, val=8, test=8)
    return prepare("synthhand", root, tmp_path_factory.mktemp("prepared"), tiny_config.data, progress=False)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tiny_config, prepared):
    """The three runs of a release, trained for a few steps on jittered crops, and the prepared data."""
    from davae.config import camera_schedule
    from davae.evaluation import predict_masks
    from davae.training.camera_task import train_camera
    from davae.training.davae_task import train
    from davae.training.mask_task import train_mask

    home = tmp_path_factory.mktemp("release")
    data = shutil.copytree(prepared, home / "data")
    jittered = dataclasses.replace(tiny_config.data, scale_max=1.25, shift=0.1)
    masks = mask_preset("smoke")
    masks = dataclasses.replace(
        masks,
        data=dataclasses.replace(jittered, canvas=False),
        train=dataclasses.replace(masks.train, steps=4, batch_size=4, warmup_steps=1),
    )
    train_mask(masks, data, home / "mask", progress=False)
    predict_masks(home / "mask", data, progress=False)
    config = dataclasses.replace(tiny_config, data=dataclasses.replace(jittered, mask="network", blur=0.02))
    train(config, data, home / "run", progress=False)
    schedule = dataclasses.replace(camera_schedule(), steps=4, batch_size=4)
    train_camera(home / "run", data, home / "camera", schedule, progress=False)
    return home


@pytest.fixture(scope="session")
def release(trained):
    """The file that `davae pack` writes of them, without graphs, whose tracing takes long."""
    from davae.photo.release import pack

    pack(*(trained / part for part in ("run", "mask", "camera", "mask", "hand.safetensors")), graphs=False)
    return trained / "hand.safetensors"


@pytest.fixture(scope="session")
def stb_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered set in STB's form, which no test changes: 11 frames to train on and 2 to test, of seed 4."""
    from synthhand.dataset.stb_writer import write_stb

    return write_stb(tmp_path_factory.mktemp("stb") / "set", train=11, test=2, seed=4, progress=False)


@pytest.fixture
def logged():
    """What has been logged since the test began, as the console of a kernel's server gets it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    get_logger().addHandler(handler)
    yield stream.getvalue
    get_logger().removeHandler(handler)


@pytest.fixture(scope="session")
def require() -> Callable[[object, str], None]:
    """A check of prerequisites: `require(condition, reason)` skips the test, or fails it where CI=true.

    CI is there to run everything, so a prerequisite missing there is a fault of its own.
    """

    def check(condition: object, reason: str) -> None:
        if not condition:
            (pytest.fail if CI else pytest.skip)(reason)

    return check
