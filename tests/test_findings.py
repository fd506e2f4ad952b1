"""Verdicts from runs of record, on made-up records with a known answer."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from davae.config.settings import experiment
from davae.evaluation import evaluate
from davae.metrics import AUC_THRESHOLDS_MM, auc
from davae.studies import findings
from davae.studies.findings import CLAIMS, format_report
from davae.studies.paper import plan_studies
from davae.studies.record_figures import draw
from davae.studies.records import PRESET, read_records
from davae.studies.results.errors import CURVE_MM, read_curves, read_errors, record, write_errors
from davae.studies.results.measured import MEASURED_COLUMNS, append_measured, config_digest, read_measured

REPOSITORY = Path(__file__).parents[1]
IMAGES = 200


def made_up(folder: Path, names: tuple[str, ...], error, seeds=None):
    """A record in which `error(study, seed, value)` is the mean error of each run; from `read_records`."""
    measured, images = folder / "measured.csv", folder / "errors.npz"
    measured.write_text(",".join(MEASURED_COLUMNS) + "\n")
    per_image, rng = {}, np.random.default_rng(0)
    hardness = rng.uniform(0.5, 1.5, IMAGES)
    for name, study in plan_studies(experiment(PRESET)).items():
        for point in study.points(experiment(PRESET)) if name in names else ():
            seed = point.varied["seed"]
            if seeds is not None and seed not in seeds:
                continue
            mean = error(name, seed, point.varied[study.variable])
            digest = config_digest(point.config)
            row = dict.fromkeys(MEASURED_COLUMNS, "1") | {"data": "d" * 12, "config": digest}
            row |= {"P1_epe_mm": f"{mean:.5g}", "mean_pose_P1_epe_mm": "57", "seed": str(seed)}
            append_measured(row, measured)
            per_image["d" * 12, digest] = mean * hardness + rng.normal(0, 0.5, IMAGES)
    write_errors(per_image, images)
    return read_records(measured, images)


def rows_of(text: str, start: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines()
            if line.startswith(f"| {start}")]  # fmt: skip


def valley(name, seed, value):
    """Best at r = 10, and for alphas the larger the better; the studies meet at the paper's weights."""
    if name == "beta_ratio":
        return 25 + abs(np.log10(value / 10)) + 0.1 * seed
    return 25 + 2 * np.log10({"alpha_pose": 1000, "alpha_cloud": 100}[name] / value) + 0.1 * seed


def test_claims_that_hold_are_confirmed(tmp_path):
    found = made_up(tmp_path, ("beta_ratio", "alpha_pose", "alpha_cloud"), valley)
    for claim in CLAIMS:
        (row,) = rows_of(format_report(found), claim.text)
        assert row[-1] == "confirmed" and row[-2] == "3"
    (row,) = rows_of(format_report(found), CLAIMS[0].text)
    assert row[1] == "25.10 at 10" and row[2].endswith("at 1") and row[3].startswith("-1.0")


def test_claims_that_do_not_hold_are_contradicted(tmp_path):
    found = made_up(tmp_path, ("beta_ratio",), lambda name, seed, value: 25 + abs(np.log10(value / 0.3)))
    (row,) = rows_of(format_report(found), CLAIMS[0].text)
    assert row[-1] == "contradicted" and row[2] == "25.00 at 0.3"


def test_a_flat_curve_and_too_few_seeds_decide_nothing(tmp_path):
    def error(name, seed, value):
        """Seeds disagree about what is better."""
        return 25.3 if (seed == 1) == (3 <= value <= 30) else 25.0

    flat = made_up(tmp_path, ("beta_ratio",), error)
    (row,) = rows_of(format_report(flat), CLAIMS[0].text)
    assert row[-2:] == ["3", "not confirmed"]
    few = made_up(tmp_path, ("beta_ratio", "alpha_pose"), valley, seeds=(0, 1))
    for claim in CLAIMS[:2]:
        (row,) = rows_of(format_report(few), claim.text)
        assert row[-1] == "not confirmed" and row[-2] == "2"
    (row,) = rows_of(format_report(few), CLAIMS[2].text)
    assert row[2:] == ["–", "–", "0", "cannot be tested here"]  # of α₂, only the paper's own was run


def test_attention_is_judged_over_six_pairs(tmp_path):
    errors = {"da": 20, "na": 21, "se": 20.01}

    def error(name, seed, value):
        return errors[value] + 0.2 * (seed - 2.5)

    (row,) = rows_of(
        format_report(made_up(tmp_path, ("attention",), error)), "a lower EPE P1, mm, than na-VAE"
    )
    assert row[-2:] == ["6", "confirmed"] and row[1:3] == ["20.00", "21.00"]
    five = made_up(tmp_path, ("attention",), error, seeds=range(5))
    (row,) = rows_of(format_report(five), "a lower EPE P1, mm, than na-VAE")
    assert row[-2:] == ["5", "not confirmed"]


def test_elbo_and_kl_point_the_right_way(tmp_path):
    found = made_up(tmp_path, ("attention",), lambda *_: 20)["attention"]
    for (seed, value), row in found.rows.items():
        better = value == "da"
        row |= {"elbo": str((-100 if better else -200) + seed), "kl_pose": str((5 if better else 6) + seed)}
    text = "\n".join(findings._judge_attention(found))
    (elbo,) = rows_of(text, "a lower negative ELBO, than na-VAE")
    (kl,) = rows_of(text, "a lower KL of pose, nats, than na-VAE")
    assert elbo[1:3] == ["97.50", "197.50"] and elbo[3].startswith("-100.00") and elbo[-1] == "confirmed"
    assert kl[3].startswith("-1.00") and kl[-1] == "confirmed"


def test_figures_show_what_there_is(tmp_path):
    assert draw(made_up(tmp_path, (), valley), tmp_path / "none") == []
    found = made_up(tmp_path, ("beta_ratio", "alpha_pose"), valley, seeds=(0,))
    assert [path.stem for path in draw(found, tmp_path / "some")] == [
        *(
            "record_fig2_beta_ratio",
            "record_beta",
            "record_fig3_alphas",
        ),  # at the paper's own β there is a run
    ]


def test_of_a_run_made_twice_the_later_row_counts(tmp_path):
    found = made_up(tmp_path, ("beta_ratio",), valley, seeds=(0,))
    rows = read_measured(tmp_path / "measured.csv")
    append_measured(rows[0] | {"P1_epe_mm": "99"}, tmp_path / "measured.csv")
    again = read_records(tmp_path / "measured.csv", tmp_path / "errors.npz")["beta_ratio"]
    assert np.nanmax(again.table("P1_epe_mm")) == 99 > np.nanmax(found["beta_ratio"].table("P1_epe_mm"))


# Errors of images


def test_errors_come_back_to_a_hundredth_of_a_millimetre(tmp_path):
    errors = {("a", "b"): np.random.default_rng(0).uniform(0, 600, 50), ("a", "c"): np.zeros(3)}
    write_errors(errors, tmp_path / "e.npz")
    back = read_errors(tmp_path / "e.npz")
    assert back.keys() == errors.keys()
    for key, values in errors.items():
        np.testing.assert_allclose(back[key], values, atol=0.0051)
    first = (tmp_path / "e.npz").read_bytes()
    write_errors(dict(reversed(back.items())), tmp_path / "e.npz")
    assert (tmp_path / "e.npz").read_bytes() == first  # whatever the order: no needless change in git


@pytest.mark.parametrize("wrong", [np.nan, -1.0, 700.0])
def test_errors_that_cannot_be_are_refused_and_nothing_is_lost(tmp_path, wrong):
    write_errors({("a", "b"): np.ones(2)}, tmp_path / "e.npz")
    with pytest.raises(ValueError, match="expected 0 to 655 mm"):
        write_errors({("a", "b"): np.array([1.0, wrong])}, tmp_path / "e.npz")
    np.testing.assert_array_equal(read_errors(tmp_path / "e.npz")["a", "b"], [1, 1])
    assert read_errors(tmp_path / "none.npz") == {}


def test_a_run_is_recorded_with_its_images(trained, tmp_path):
    """From its folder, once, beside what was there before."""
    run = shutil.copytree(trained / "run", tmp_path / "run")
    files = measured, errors, curves = [
        tmp_path / name for name in ("measured.csv", "errors.npz", "curves.npz")
    ]
    measured.write_text(",".join(MEASURED_COLUMNS) + "\n")
    write_errors({("old", "run"): np.ones(2)}, errors)
    with pytest.raises(FileNotFoundError, match=r"metrics\.json"):
        record(run, *files)
    found = evaluate(run, trained / "data", progress=False)
    record(run, *files)
    record(run, *files)
    (row,) = read_measured(measured)
    kept = read_errors(errors)
    assert kept.keys() == {("old", "run"), (row["data"], row["config"])}
    assert kept[row["data"], row["config"]].mean() == pytest.approx(
        found["protocols"]["P1"]["epe_mm"], abs=0.01
    )
    curve = read_curves(curves)[row["data"], row["config"]]
    area = auc(AUC_THRESHOLDS_MM, np.interp(AUC_THRESHOLDS_MM, CURVE_MM, curve))
    assert area == pytest.approx(found["protocols"]["P1"]["auc_20_50"], abs=1e-5)


def test_a_run_whose_errors_cannot_be_kept_is_not_recorded_at_all(trained, tmp_path):
    run = shutil.copytree(trained / "run", tmp_path / "run")
    measured = tmp_path / "measured.csv"
    measured.write_text(",".join(MEASURED_COLUMNS) + "\n")
    evaluate(run, trained / "data", progress=False)
    with np.load(run / "predictions.npz") as file:
        arrays = dict(file)
    arrays["pose"] = arrays["pose"] + 1e4
    np.savez(run / "predictions.npz", **arrays)
    with pytest.raises(ValueError, match="expected 0 to 655 mm"):
        record(run, measured, tmp_path / "errors.npz", tmp_path / "curves.npz")
    assert read_measured(measured) == []
    assert not any((tmp_path / name).exists() for name in ("errors.npz", "curves.npz"))


# What is committed


def test_the_document_says_what_the_record_says():
    text = (REPOSITORY / "docs" / "findings.md").read_text()
    begin, end = "<!-- davae findings -->\n", "<!-- end -->"
    assert text.split(begin)[1].split(end)[0].strip() == format_report(read_records()).strip()


def test_errors_of_record_belong_to_rows():
    rows = {(row["data"], row["config"]): row for row in read_measured()}
    for key, values in read_errors().items():
        assert values.mean() == pytest.approx(float(rows[key]["P1_epe_mm"]), abs=0.6)
