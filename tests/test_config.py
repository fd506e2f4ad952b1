"""Configs: presets, round trip, and errors that name the field."""

import dataclasses
import json
import math
import re
from typing import get_type_hints

import pytest

from davae.config import (
    PRESETS,
    RIVALS,
    CameraConfig,
    Config,
    DataConfig,
    LossConfig,
    MaskConfig,
    ModelConfig,
    RenderConfig,
    TrainConfig,
    preset,
)
from davae.config.reading import AT_LEAST_ONE, COMMANDS, LIMITS, read_config, to_oldest_json
from davae.config.schema import ADDED, RENAMED
from davae.config.settings import experiment

# A run's config.json, as written before any field was added or renamed.
OLDEST_SMOKE = """\
{
  "preset": "smoke",
  "render": {
    "train": 64,
    "val": 16,
    "test": 32,
    "size": 320,
    "seed": 0
  },
  "data": {
    "image_px": 64,
    "crop": "plain",
    "scale_min": 0.8,
    "rotation": 3.141592653589793,
    "cloud_points": 128,
    "mask": "none"
  },
  "model": {
    "attention": "sk",
    "image_px": 64,
    "width": 8,
    "blocks": [
      1,
      1,
      1,
      1
    ],
    "stem_stride": 2,
    "stem_pool": false,
    "last_stride": 2,
    "side_heads": 1.0,
    "head_pool": "mean",
    "latent_pose": 24,
    "latent_appearance": 16,
    "latent_shape": 8,
    "pose_hidden": 64,
    "fold_grid": 10,
    "fold_hidden": 32,
    "image_width": 8,
    "image_last_stride": 2
  },
  "loss": {
    "alpha_pose": 1000.0,
    "alpha_cloud": 100.0,
    "alpha_image": 1.0,
    "beta_pose": 10.0,
    "beta_appearance": 10.0,
    "beta_shape": 10.0
  },
  "train": {
    "steps": 60,
    "batch_size": 16,
    "optimiser": "muon",
    "learning_rate": 0.004,
    "schedule": "cosine",
    "warmup_steps": 10,
    "final_learning_rate": 1e-07,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
    "average_decay": 0.0,
    "checkpoint_every": 20,
    "seed": 0
  }
}
"""


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    config = preset(name)
    assert config.preset == name
    assert read_config(Config, config.to_json()) == config


@pytest.mark.parametrize("kind", [Config, MaskConfig, CameraConfig])
def test_every_kind_of_config_survives_json(kind):
    assert read_config(kind, kind().to_json()) == kind()


def test_paper_preset_is_the_papers():
    config = preset("paper")
    assert config.model.latent_sizes == {"pose": 24, "appearance": 16, "shape": 8}
    assert (config.train.batch_size, config.train.learning_rate, config.train.final_learning_rate) == (
        32,
        1e-3,
        1e-7,
    )
    assert config.data.image_px == 256 and config.data.scale_min == 0.8
    assert config.loss.alpha_pose / config.loss.alpha_image >= 1000
    assert config.loss.alpha_cloud / config.loss.alpha_image >= 100
    assert 3 <= config.loss.beta_pose / config.loss.alpha_image <= 30


def test_unknown_preset_and_model_are_named():
    with pytest.raises(
        ValueError, match="unknown preset 'lap'; choose one of smoke, laptop, sweep, gpu, paper"
    ):
        preset("lap")
    with pytest.raises(ValueError, match="unknown model 'xa'; choose one of da, na"):
        experiment("smoke", model="xa")
    with pytest.raises(ValueError, match="crop = 'round': expected one of plain, rotated-camera"):
        experiment("smoke", crop="round")


def test_experiments_vary_a_preset_by_seed_model_and_crop():
    config = experiment("laptop", seed=3, model="na", crop="rotated-camera")
    assert (config.train.seed, config.model.attention, config.data.crop) == (3, "none", "rotated-camera")
    assert experiment("laptop") == preset("laptop")


def test_a_config_of_the_first_version_is_read_and_has_its_old_text():
    now, replace = preset("smoke"), dataclasses.replace
    smoke = replace(
        now,
        render=replace(now.render, flesh="realistic"),
        data=replace(now.data, canvas=False),
        model=replace(now.model, image_decoder="paper"),
    )
    assert read_config(Config, OLDEST_SMOKE) == smoke
    assert to_oldest_json(smoke) == OLDEST_SMOKE
    moved = replace(smoke, data=replace(smoke.data, shift=0.1))
    assert (
        json.loads(to_oldest_json(moved))["data"].keys() - {"shift"}
        == json.loads(OLDEST_SMOKE)["data"].keys()
    )
    assert read_config(Config, to_oldest_json(moved)) == moved


@pytest.mark.parametrize("made", COMMANDS)
@pytest.mark.parametrize("kind", COMMANDS)
def test_a_run_of_another_kind_is_named(kind, made):
    found = made()
    if made is kind:
        assert read_config(kind, found.to_json()) == found
        return
    of, asked = COMMANDS[made], COMMANDS[kind]
    expected = f"config: is of a run of `davae {of}`, not of `davae {asked}`; name another"
    texts = [found.to_json(), to_oldest_json(found)]
    texts += [experiment("smoke", model="cm-vae").to_json()] if made is Config else []
    for text in texts:
        with pytest.raises(ValueError, match=f"^{expected}$"):
            read_config(kind, text)


def test_mask_networks_of_the_first_version_are_read():
    values = json.loads(to_oldest_json(MaskConfig(depths=(1, 2, 3, 4))))
    assert values["blocks"] == [1, 2, 3, 4] and not ADDED.keys() & values["data"].keys()
    assert read_config(MaskConfig, json.dumps(values)) == MaskConfig(depths=(1, 2, 3, 4))
    values["depths"] = [1, 1, 1, 1]  # both names: which of them is meant?
    with pytest.raises(ValueError, match=r"config: unknown field\(s\) \['blocks'\]"):
        read_config(MaskConfig, json.dumps(values))


def test_tables_of_fields_name_fields_that_there_are():
    parts = (RenderConfig, DataConfig, ModelConfig, LossConfig, TrainConfig, MaskConfig, CameraConfig)
    parts += tuple(type(kind().rival) for kind in RIVALS.values())
    names = {field.name for part in parts for field in dataclasses.fields(part)}
    assert {*AT_LEAST_ONE, *ADDED, *RENAMED.values()} <= names
    assert not RENAMED.keys() & names
    real = {name for part in parts for name, hint in get_type_hints(part).items() if hint is float}
    assert LIMITS.keys() == real, "a field that is no whole number has no limits"


@pytest.mark.parametrize(
    ("part", "field", "value", "words"),
    [
        ("train", "optimiser", "sgd", "config.train.optimiser = 'sgd': expected one of adam, muon"),
        ("train", "steps", "60", "config.train.steps = '60': expected a whole number of at least 1, such as"),
        ("train", "steps", True, "config.train.steps = True: expected a whole number"),
        ("train", "steps", 6.0, "config.train.steps = 6.0: expected a whole number"),
        ("train", "steps", None, "config.train.steps = None: expected a whole number"),
        (
            "train",
            "warmup_steps",
            -1,
            "config.train.warmup_steps = -1: expected a whole number of at least 0",
        ),
        ("train", "learning_rate", "fast", "config.train.learning_rate = 'fast': expected a finite number"),
        ("train", "learning_rate", True, "config.train.learning_rate = True: expected a finite number"),
        ("train", "learning_rate", math.nan, "config.train.learning_rate = nan: expected a finite number"),
        ("loss", "alpha_pose", -math.inf, "config.loss.alpha_pose = -inf: expected a finite number"),
        ("loss", "beta_shape", -1.0, "config.loss.beta_shape = -1.0: expected a finite number at least 0"),
        (
            *("train", "learning_rate", 0.0),
            "config.train.learning_rate = 0.0: expected a finite number above 0, such as 0.001",
        ),
        (
            *("data", "photometric", 3),
            "config.data.photometric = 3: expected a finite number at least 0 and at most 1",
        ),
        (
            *("train", "average_decay", 1.0),
            "config.train.average_decay = 1.0: expected a finite number at least 0 and below 1",
        ),
        (
            "model",
            "depths",
            [0, 1, 1, 1],
            "config.model.depths = 0,1,1,1: expected 4 whole numbers, each at least 1",
        ),
        ("model", "depths", [1, 1, 1], "config.model.depths = 1,1,1: expected 4 whole numbers"),
        ("model", "depths", 1, "config.model.depths = 1: expected 4 whole numbers"),
        ("model", "stem_pool", 1, "config.model.stem_pool = 1: expected true or false"),
        ("data", "image_px", [64], "config.data.image_px = 64: expected a whole number"),
    ],
)
def test_a_value_of_another_type_is_refused_in_words(part, field, value, words):
    values = json.loads(preset("smoke").to_json())
    values[part][field] = value
    with pytest.raises(ValueError, match=re.escape(words)):
        read_config(Config, json.dumps(values))


def test_a_whole_number_is_a_number_too():
    values = json.loads(preset("smoke").to_json())
    values["loss"]["alpha_image"] = 1
    read = read_config(Config, json.dumps(values))
    assert read == preset("smoke") and type(read.loss.alpha_image) is float


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "config = []"),
        ('{"data": 3}', "missing field"),
        ("{", "JSON|Expecting"),
        ('{"train": {"steps": 1, "seed": 0, "steps": 2}}', r"config: field\(s\) \['steps'\] given twice"),
        ("[" * 100_000, "config: nested too deeply"),
    ],
)
def test_what_is_no_config_is_refused(text, words):
    with pytest.raises(ValueError, match=words.replace("[]", r"\[\]")):
        read_config(Config, text)


def test_a_part_must_have_fields():
    values = json.loads(preset("smoke").to_json()) | {"data": 3}
    with pytest.raises(ValueError, match=r"config\.data = 3: expected an object with fields"):
        read_config(Config, json.dumps(values))


def test_unknown_and_missing_fields_are_named():
    values = json.loads(preset("smoke").to_json())
    values["train"]["stepz"] = 3
    with pytest.raises(ValueError, match=r"config.train: unknown field\(s\) \['stepz'\]"):
        read_config(Config, json.dumps(values))
    del values["train"]["stepz"], values["train"]["steps"]
    with pytest.raises(ValueError, match=r"config.train: missing field\(s\) \['steps'\]"):
        read_config(Config, json.dumps(values))


def test_image_sizes_must_agree():
    with pytest.raises(ValueError, match=r"data.image_px is 128 but model.image_px is 256"):
        dataclasses.replace(preset("paper"), data=DataConfig(image_px=128))
