"""The paper's experiments: what varies at each preset, and assignment of records to studies."""

import dataclasses

import numpy as np
import pytest

from davae.config import PRESETS, preset
from davae.studies.paper import MIN_MAP_PX, enlarge_maps, plan_studies
from davae.studies.points import parse_choices, vary
from davae.studies.sweep import Outcome


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_all_experiments(name):
    config = preset(name)
    planned = plan_studies(config)
    assert list(planned) == ["beta_ratio", "beta", "alpha_pose", "alpha_cloud", "attention"]
    for study in planned.values():
        points = study.points(config)
        assert len({point.config.to_json() for point in points}) == len(study.seeds) * len(study.values)
    assert {p.config.model.attention for p in planned["attention"].points(config)} == {"sk", "none", "se"}
    assert all(p.config.model.last_px >= MIN_MAP_PX for p in planned["attention"].points(config))


@pytest.mark.parametrize("name", PRESETS)
def test_studies_have_the_decoders_of_the_paper(name):
    for study in plan_studies(preset(name)).values():
        settled = study.settle(preset(name))
        assert settled.model.image_decoder == "paper" and not settled.data.canvas
        if name in ("laptop", "sweep"):  # the runs of record differ from those of `laptop` in steps and data
            assert settled.model.image_last_stride == 4


@pytest.mark.parametrize("name", ["sweep", "paper"])
def test_runs_of_record_are_as_many_as_a_verdict_needs(name):
    planned = plan_studies(preset(name))
    ratios = planned["beta_ratio"]
    assert len(ratios.values) >= 9 and min(ratios.values) == 0.003 and max(ratios.values) == 3000
    assert len(ratios.seeds) >= 3 and len(planned["beta"].values) >= 5
    for alpha in ("alpha_pose", "alpha_cloud"):
        assert len(planned[alpha].values) >= 5 and len(planned[alpha].seeds) >= 3
    assert len(planned["attention"].seeds) >= 6


def test_claims_have_values_inside_and_outside_at_every_preset():
    claims = {"beta_ratio": (3, 30), "alpha_pose": (1000, np.inf), "alpha_cloud": (100, np.inf)}
    for name in PRESETS:
        planned = plan_studies(preset(name))
        for study, (low, high) in claims.items():
            inside = [low <= value <= high for value in planned[study].values]
            assert any(inside) and not all(inside)


def test_the_command_makes_the_same_points():
    config = preset("laptop")
    for study in plan_studies(config).values():
        words = study.command("laptop", "DIR").split()
        texts = words[words.index("--vary") + 1 : words.index("--seeds")]
        seeds = [int(seed) for seed in words[-1].split(",")]
        again = vary(config, parse_choices(texts), seeds)
        assert {p.config for p in again} == {p.config for p in study.points(config)}


def test_results_are_arranged_by_seed_and_value(tmp_path):
    config = preset("sweep")
    study = plan_studies(config)["beta_ratio"]
    outcomes = [
        Outcome(point, tmp_path, {"x": 100 * point.varied["seed"] + point.varied["beta_ratio"]})
        for point in study.points(config)
    ]
    outcomes[0] = dataclasses.replace(outcomes[0], report=None, error="lost")
    table = study.gather(outcomes[::-1], lambda report: report["x"])
    assert np.isnan(table[0, 0]) and np.isnan(table).sum() == 1
    assert table[2, 4] == 200 + study.values[4]


def test_large_maps_change_no_more_than_they_need():
    assert enlarge_maps(preset("paper")) == {}
    assert enlarge_maps(preset("smoke")) == {"model.last_stride": 1}
    assert enlarge_maps(preset("laptop")) == {"model.stem_stride": 2}
