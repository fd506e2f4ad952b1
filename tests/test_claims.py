"""The page of all claims: the rule, the paper's arithmetic, verdicts on made-up runs with a known answer."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_findings import made_up, valley

from davae.evaluation import evaluate
from davae.evaluation.compare import Difference
from davae.pipeline.commands import reports as commands
from davae.studies.claims import printed
from davae.studies.claims.measured import judge_measured
from davae.studies.claims.page import format_page, judge_claims
from davae.studies.claims.result import VERDICTS, Result, judge
from davae.studies.claims.untested import list_untested
from davae.studies.records import PRESET, Runs, read_run_folders, read_runs_of_record
from davae.studies.results.errors import read_errors
from davae.studies.results.measured import MEASURED_COLUMNS, read_measured
from davae.studies.results.tables import read_reported

REPOSITORY = Path(__file__).parents[1]
UNTESTED = "cannot be tested here"


def recorded(folder: Path, names, error, seeds=None) -> Runs:
    made_up(folder, names, error, seeds)
    return Runs(read_measured(folder / "measured.csv"), read_errors(folder / "errors.npz"), PRESET, "made up")


def find(results: list[Result], text: str) -> Result:
    (found,) = (result for result in results if text in result.claim)
    return found


# What is committed


@pytest.fixture(scope="module")
def found() -> dict[str, list[Result]]:
    return judge_claims(read_runs_of_record())


def test_the_page_is_what_the_records_say():
    """If this fails, a record has changed: `python -m davae findings` writes the page again."""
    text = (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
    assert text == format_page(read_runs_of_record()), "stale: run `python -m davae findings`"


def test_every_claim_has_one_row_and_all_that_a_row_needs(found):
    page = (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
    every = [result for results in found.values() for result in results]
    assert len({(r.place, r.claim) for r in every}) == len(every) >= 45
    rows = [re.split(r" *\| *", line.strip("| ")) for line in page.splitlines() if "|" in line]
    for result in every:
        (row,) = (row for row in rows if row[:2] == [result.place, result.claim.replace("|", "/")])
        assert result.verdict in row[2] or result.verdict == UNTESTED
    for result in found["measured"]:
        assert result.seeds >= 1 and result.runs >= result.seeds and result.found and result.command
        assert result.note or result.verdict != "not confirmed"  # why not is said
    assert all(result.note for result in found["untested"])  # what a test would need


def test_tables_and_figures_with_results_have_rows(found):
    every = [result for results in found.values() for result in results]
    places = " ".join(result.place for result in every)
    for named in (
        *(f"Table {n}" for n in (1, 2, 3, 4)),
        *(f"Fig. {n}" for n in (2, 3, 4, 5, 6, 7, 8)),
        "Eqs.",
    ):
        assert named in places


# The rule


@pytest.mark.parametrize(
    ("low", "high", "seeds", "word", "why"),
    [
        (-2, -1, 3, "confirmed", ""),
        (1, 2, 3, "contradicted", ""),
        (-1, 2, 3, "not confirmed", "the interval contains zero"),
        (-2, -1, 2, "not confirmed", "2 of 3 seeds"),
        (1, 2, 2, "not confirmed", "2 of 3 seeds"),
        (0, 2, 3, "not confirmed", "the interval contains zero"),
    ],
)
def test_a_verdict_needs_an_interval_without_zero_and_seeds(low, high, seeds, word, why):
    assert judge(Difference((low + high) / 2, low, high, np.zeros(seeds)), 3) == (word, why)


def test_without_a_run_nothing_is_judged():
    assert judge(None, 3) == (UNTESTED, "no run of both")
    assert VERDICTS == ("confirmed", "not confirmed", "contradicted", UNTESTED)
    with pytest.raises(ValueError, match="'proven' is no verdict; choose one of confirmed, not confirmed"):
        Result("1", "x", "proven")


# Measured, on made-up runs


def test_weights_are_judged_at_both_ends_of_a_range(tmp_path):
    runs = recorded(tmp_path, ("beta_ratio", "alpha_pose", "alpha_cloud"), valley)
    found = [r for r in judge_measured(runs, tmp_path) if r.place.startswith("4.3")]
    assert len(found) == 5 and {r.verdict for r in found} == {"confirmed"}
    assert {(r.seeds, r.command, r.runs) for r in found} == {
        *((3, "beta_ratio", 27), (3, "alpha_pose", 18), (3, "alpha_cloud", 15))
    }

    def rising(name, seed, value):
        return 25 + np.log10(value) + 0.1 * seed

    runs = recorded(tmp_path, ("beta_ratio",), rising)
    verdicts = {r.claim: r.verdict for r in judge_measured(runs, tmp_path) if r.place == "4.3, Fig. 2"}
    assert list(verdicts.values()) == ["contradicted", "contradicted", "confirmed"]  # whole, below, above


@pytest.mark.parametrize(("better", "word"), [("da", "confirmed"), ("na", "contradicted")])
def test_attention_is_judged_in_the_direction_of_each_measure(tmp_path, better, word):
    runs = recorded(tmp_path, ("attention",), lambda name, seed, value: 20 + (value != better) + 0.1 * seed)
    for (_, value), row in runs.records["attention"].rows.items():
        good = value == better
        row |= {"P1_auc_20_50": "0.97" if good else "0.95", "elbo": "-12" if good else "-17"}
        row |= {f"kl_{block}": "2" if good else "3" for block in ("pose", "appearance", "shape")}
    found = [r for r in judge_measured(runs, tmp_path) if r.command == "attention"]
    assert [r.verdict for r in found] == [word] * 6 and {(r.seeds, r.runs) for r in found} == {(6, 12)}
    sign = 1 if better == "da" else -1
    numbers = [float(r.found.split()[0]) for r in found]
    np.testing.assert_allclose(numbers, sign * np.array([-1, 0.02, -1, -1, -1, 5]), atol=0.05)


def test_an_empty_code_contradicts_that_a_smaller_kl_is_better(tmp_path):
    runs = recorded(tmp_path, ("beta",), lambda name, seed, value: 25 if value < 1000 else 57)
    assert find(judge_measured(runs, tmp_path), "smaller KL").verdict == "contradicted"
    runs = recorded(tmp_path, ("beta",), lambda name, seed, value: 25 if value < 1000 else 57, seeds=(0,))
    one = find(judge_measured(runs, tmp_path), "smaller KL")
    assert (one.verdict, one.note) == ("not confirmed", "1 of 3 seeds")


@pytest.mark.parametrize(
    ("errors", "word"),
    [((9, 9.5, 9), "confirmed"), ((12, 13, 12), "contradicted"), ((9, 9), "not confirmed"), ((), UNTESTED)],
)
def test_errors_of_full_size_on_rhd_are_held_against_the_printed_one(tmp_path, errors, word):
    rows, images = [], {}
    for seed, mean in enumerate(errors):
        row = dict.fromkeys(MEASURED_COLUMNS, "1") | {"dataset": "rhd", "model": "da-VAE", "preset": "paper"}
        row |= {"split": "test", "mask": "network", "seed": str(seed), "data": "d", "config": f"c{seed}"}
        rows.append(row)
        images["d", f"c{seed}"] = np.full(10, float(mean))
    found = judge_measured(Runs(rows, images, PRESET, "made up"), tmp_path)
    assert (find(found, "on RHD").verdict, find(found, "on STB").verdict) == (word, UNTESTED)
    if word == "contradicted":
        assert find(found, "on RHD").found.startswith("12.33 mm [")


def test_without_reports_their_claims_are_untested(tmp_path):
    runs = Runs([], {}, PRESET, "none")
    absent = [r for r in judge_measured(runs, tmp_path) if r.verdict == UNTESTED]
    assert sum("block has no significant impact" in r.claim for r in absent) == 5
    assert find(absent, "separating the pose").note
    shutil.copytree(REPOSITORY / "docs" / "results", tmp_path / "reports")
    path = tmp_path / "reports" / "photo_interpolation.json"
    report = json.loads(path.read_text(encoding="utf-8"))
    report["effects"]["appearance"]["silhouette"] = report["effects"]["pose"]["silhouette"] / 2
    path.write_text(json.dumps(report), encoding="utf-8")
    assert find(judge_measured(runs, tmp_path / "reports"), "outline").found.startswith("0.50 of what pose")


def test_masks_are_compared_on_the_same_test_images_only(tmp_path):
    rows = [
        dict.fromkeys(MEASURED_COLUMNS, "1")
        | {"preset": "laptop", "model": "da-VAE", "crop": "plain", "seed": str(seed), "mask": mask}
        | {"mean_pose_P1_epe_mm": mean_pose, "P1_epe_mm": str(error + seed)}
        for seed in range(3)
        for mask, mean_pose, error in (("none", "57", 24), ("none", "60", 1), ("network", "57", 22))
    ]
    found = find(judge_measured(Runs(rows, {}, PRESET, "made up"), tmp_path), "masking")
    assert (found.verdict, found.seeds, found.runs) == ("confirmed", 3, 6)
    assert found.found.startswith("-2.00 mm")


# Counted in the paper's tables


def test_verdicts_on_the_tables_are_those_counted_by_hand():
    found = {result.claim: result for result in printed.judge_printed()}
    wrong = [claim for claim, result in found.items() if result.verdict == "contradicted"]
    assert [claim[:10] for claim in wrong] == ["comparison", "in EPE, da", "Zimmermann"]
    assert len(found) == 12 and {result.verdict for result in found.values()} == {"confirmed", "contradicted"}
    numbers = {  # from Tables 3 and 4 by hand
        "8.99": "8.99 mm against d-VAE, 8.77 against CM-VAE",
        "14 %": "14.1 % of d-VAE's AUC, which is 0.120",
        "99 %": "10 of 16",
        "other 14": "of 15 others, 9 print an EPE, 8 of them",
        "more than 6 mm": "6.59 mm less and 6.81 mm less",
    }
    for text, number in numbers.items():
        assert find(list(found.values()), text).found.startswith(number)


def test_other_numbers_in_the_tables_give_other_verdicts(monkeypatch):
    changed = {("3", "d-VAE"): {"epe_mm": "18.95"}, ("4", "da-VAE"): {"epe_mm": "9.80"}}

    def read(table):
        return [row | changed.get((row["table"], row["method"]), {}) for row in read_reported(table)]

    monkeypatch.setattr(printed, "read_reported", read)
    found = printed.judge_printed()
    assert find(found, "8.99").verdict == find(found, "0.24 mm").verdict == "contradicted"
    assert find(found, "more than 6 mm").verdict == "contradicted"  # 18.95 - 13.14
    assert find(found, "other 14").found.endswith("0 of them a higher one")


def test_what_no_run_decides_is_listed_with_what_would():
    assert all(result.verdict == UNTESTED and result.note and not result.found for result in list_untested())


# Runs of one's own


def test_runs_below_a_folder_are_judged_instead(trained, tmp_path, capsys):
    run = shutil.copytree(trained / "run", tmp_path / "sweep" / "one")
    with pytest.raises(FileNotFoundError, match="no finished and evaluated run below it"):
        read_run_folders(tmp_path / "sweep")
    report = evaluate(run, trained / "data", progress=False)
    runs = read_run_folders(tmp_path)
    (row,) = runs.rows
    assert runs.source == f"1 of your runs, preset {row['preset']} on {row['dataset']}"
    assert float(row["P1_epe_mm"]) == pytest.approx(report["protocols"]["P1"]["epe_mm"], rel=1e-4)
    assert runs.errors[row["data"], row["config"]].mean() == pytest.approx(float(row["P1_epe_mm"]), rel=1e-3)
    page = tmp_path / "page.md"
    commands.findings(tmp_path / "figures", page, tmp_path / "sweep")
    assert runs.source in page.read_text(encoding="utf-8") and str(page) in capsys.readouterr().out
    with pytest.raises(ValueError, match="--runs needs --out and --results"):
        commands.findings(runs=tmp_path / "sweep")


def test_runs_of_two_kinds_are_not_mixed(trained, tmp_path):
    for name in ("one", "two"):
        run = shutil.copytree(trained / "run", tmp_path / name)
        evaluate(run, trained / "data", progress=False)
    path = tmp_path / "two" / "metrics.json"
    report = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(report | {"dataset": "rhd"}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"runs of 2 kinds of dataset \(rhd, synthhand\)"):
        read_run_folders(tmp_path)
