"""Configs: presets, round trip, and errors that name the field."""

import dataclasses
import json

import pytest

from davae.config import ADDED, PRESETS, Config, DataConfig, preset
from davae.config.settings import experiment


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    config = preset(name)
    assert config.preset == name
    assert Config.from_json(config.to_json()) == config


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


def test_experiments_vary_a_preset_by_seed_model_and_crop():
    config = experiment("laptop", seed=3, model="na", crop="rotated-camera")
    assert (config.train.seed, config.model.attention, config.data.crop) == (3, "none", "rotated-camera")
    assert experiment("laptop") == preset("laptop")


def test_runs_older_than_a_field_mean_what_they_meant():
    values = json.loads(preset("smoke").to_json())
    for name in ADDED:
        del values["data"][name]
    assert Config.from_json(json.dumps(values)) == preset("smoke")


def test_unknown_and_missing_fields_are_named():
    values = json.loads(preset("smoke").to_json())
    values["train"]["stepz"] = 3
    with pytest.raises(ValueError, match=r"config.train: unknown field\(s\) \['stepz'\]"):
        Config.from_json(json.dumps(values))
    del values["train"]["stepz"], values["train"]["steps"]
    with pytest.raises(ValueError, match=r"config.train: missing field\(s\) \['steps'\]"):
        Config.from_json(json.dumps(values))


def test_image_sizes_must_agree():
    with pytest.raises(ValueError, match=r"data.image_px is 128 but model.image_px is 256"):
        dataclasses.replace(preset("paper"), data=DataConfig(image_px=128))
