"""What every test shares: one thread, fixed seeds, no windows, a tiny config, and a rule about skipping."""

import dataclasses
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from rhd_fixture import write_dataset

from davae.config import Config, preset
from davae.data.prepared import prepare

os.environ["MPLBACKEND"] = "Agg"  # for this process and those it starts; nothing has imported matplotlib yet
torch.set_num_threads(1)

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
def stb_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered set in STB's form, which no test changes: 11 frames to train on and 2 to test, of seed 4."""
    from davae.data.synthhand_stb import write_stb

    return write_stb(tmp_path_factory.mktemp("stb") / "set", train=11, test=2, seed=4, progress=False)


@pytest.fixture(scope="session")
def require() -> Callable[[object, str], None]:
    """A check of prerequisites: `require(condition, reason)` skips the test, or fails it where CI=true.

    CI is there to run everything, so a prerequisite missing there is a fault of its own.
    """

    def check(condition: object, reason: str) -> None:
        if not condition:
            (pytest.fail if CI else pytest.skip)(reason)

    return check
