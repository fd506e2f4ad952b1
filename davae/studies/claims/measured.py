"""Claims that runs can decide: loss weights, attention, blocks of the code, and errors on RHD and STB."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from davae.config import BLOCKS
from davae.config.rivals import UNDIVIDED
from davae.config.settings import Value
from davae.evaluation.compare import MIN_PAIRS, Difference, paired_difference
from davae.latent.disentanglement import FRACTION
from davae.studies.claims.result import UNTESTED, Result, judge
from davae.studies.findings import CLAIMS, MIN_SEEDS
from davae.studies.methods import PRINTED, best_rival, read_methods, read_printed
from davae.studies.records import Record, Runs
from davae.studies.results.measured import FOLDER
from davae.studies.results.tables import parse_number, read_reported

REPORTS = FOLDER.parents[2] / "docs" / "results"  # of this clone; not part of an installed package
_WORDS = {"pose": "KL_pose", "shape": "KL_cloud", "appearance": "KL_RGB"}  # block -> its name in Table 2


def judge_measured(runs: Runs, reports: Path | str = REPORTS) -> list[Result]:
    """Return the claims that runs decide, in the paper's order.

    Args:
        runs: from `davae.studies.records`.
        reports: folder of the committed reports (docs/results); a claim whose report is absent is untested.
    """
    records = runs.records
    return [
        _judge_separation(runs, reports),
        _judge_mask(runs),
        *_judge_weights(records),
        *_judge_attention(records["attention"]),
        _judge_kl(records["beta"]),
        *_judge_interpolation(reports),
        *_judge_methods(runs),
        *(_judge_error(runs, table, dataset) for table, dataset in ((3, "rhd"), (4, "stb"))),
    ]


def _judge_weights(records: Mapping[str, Record]) -> list[Result]:
    """Judge Figs. 2 and 3: the best value inside the claimed range against the best outside."""
    found = []
    for claim in CLAIMS:
        record, place = records[claim.study], "4.3, Fig. 2" if claim.study == "beta_ratio" else "4.3, Fig. 3"
        sides = {"": (lambda n, c=claim: not c.low <= n <= c.high)}
        if np.isfinite(claim.high):  # where a range fails, its two ends tell why
            sides |= {
                " (compared with values below)": lambda n, c=claim: n < c.low,
                " (compared with values above)": lambda n, c=claim: n > c.high,
            }
        for words, is_other in sides.items():
            inside = record.best([n for n in record.study.numbers if claim.low <= n <= claim.high])
            outside = record.best([n for n in record.study.numbers if is_other(n)])
            difference = None if inside is None or outside is None else record.compare(inside, outside)
            verdict, note = judge(difference, MIN_SEEDS)
            what = f"{difference} mm, {inside:g} minus {outside:g}" if difference else ""
            text = f"{claim.text} has the smallest error{words}"
            found.append(_make(place, text, verdict, what, note, difference, record, claim.study))
    return found


def _make(
    place: str,
    claim: str,
    verdict: str,
    found: str,
    note: str,
    difference: Difference | None,
    record: Record,
    command: str,
    runs: int | None = None,
) -> Result:
    seeds = 0 if difference is None else len(difference.per_seed)
    count = len(record.rows) if runs is None else runs
    return Result(place, claim, verdict, found, note, seeds, count if seeds else 0, command)


def _judge_attention(record: Record) -> list[Result]:
    """Judge Tables 1 and 2: da-VAE against na-VAE, over pairs of seeds."""
    claims = {
        "P1_epe_mm": ("4.4, Table 1", "attention lowers the error (by 1.60 mm)", "mm", 1),
        "P1_auc_20_50": ("4.4, Table 1, Fig. 4", "attention raises the AUC (by 0.018)", "", -1),
        **{
            f"kl_{block}": ("4.4, Table 2", f"attention lowers {name}", f"nats of {block}", 1)
            for block, name in _WORDS.items()
        },
        "elbo": ("4.4, Table 2", "attention raises the ELBO", "", -1),
    }
    found = []
    for column, (place, text, unit, sign) in claims.items():
        if column == "P1_epe_mm":
            difference = record.compare("da", "na")
        else:  # one number a run; what should rise is compared the other way round
            difference = record.compare_column(column, *(("da", "na")[::sign]))
        verdict, note = judge(difference, MIN_PAIRS)
        what = ""
        if difference is not None:
            low, mean, high = sorted(sign * value for value in difference[:3])  # da-VAE minus na-VAE again
            digits = 3 if column.startswith("P1_auc") else 2
            what = f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}] {unit}".strip()
        pairs = 0 if difference is None else 2 * len(difference.per_seed)
        found.append(_make(place, text, verdict, what, note, difference, record, "attention", pairs))
    return found


def _judge_kl(record: Record) -> Result:
    """Judge "the smaller the KL, the better" where the KL is smallest: at the largest beta."""
    last, usual = record.study.numbers[-1], 10.0
    difference = record.compare(last, usual) if usual in record.study.values else None
    verdict, note = judge(difference, MIN_SEEDS)
    what = ""
    if difference is not None:
        kl = [_sum_kl(record, value) for value in (last, usual)]
        what = f"error {difference} mm, β {last:g} minus β {usual:g}; KL {kl[0]:.0f} and {kl[1]:.0f} nats"
    text = "a smaller KL means a better code"
    return _make("4.4", text, verdict, what, note, difference, record, "beta")


def _sum_kl(record: Record, value: Value) -> float:
    column = record.study.values.index(value)
    return sum(float(record.means(f"kl_{block}")[column]) for block in BLOCKS)


def _select(runs: Runs, **wanted: str) -> dict[str, dict[str, str]]:
    """Return seed -> the last row that has these values."""
    return {row["seed"]: row for row in runs.rows if all(row[name] == wanted[name] for name in wanted)}


def _judge_mask(runs: Runs) -> Result:
    """Judge the mask network by the runs of `laptop` that differ in the mask alone and share test images."""
    same = {"preset": "laptop", "model": "da-VAE", "crop": "plain"}
    shared = ("n", "mean_pose_P1_epe_mm", "mean_hand_P5_epe_mm", "steps")  # test images and schedule
    pairs: dict[str, list[float]] = {}
    for masked in runs.rows:
        if any(masked[name] != value for name, value in (same | {"mask": "network"}).items()):
            continue
        others = _select(runs, **same, mask="none", **{name: masked[name] for name in shared})
        if (plain := others.get(masked["seed"])) is not None:
            pairs[masked["seed"]] = [float(row["P1_epe_mm"]) for row in (masked, plain)]
    place, text = "3.2", "masking the hand first relieves the network of cluttered backgrounds"
    if not pairs:
        return Result(place, text, UNTESTED, note="no pair of runs with and without masks")
    errors = np.array(list(pairs.values())).T[:, :, None]  # (with masks, without; seeds; one number a run)
    difference = paired_difference(*errors)
    verdict, note = judge(difference, MIN_SEEDS)
    note = f"{note}, of an earlier `laptop`".removeprefix(", ")
    what = f"{difference.mean:+.2f} mm, masked minus not ({errors[0].mean():.2f}, {errors[1].mean():.2f})"
    return Result(place, text, verdict, what, note, len(pairs), 2 * len(pairs), "mask")


def _read_report(reports: Path | str, name: str) -> dict[str, Any] | None:
    path = Path(reports) / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _judge_separation(runs: Runs, reports: Path | str) -> Result:
    """Judge "separated factors give a more accurate pose" beside a network without a latent space."""
    place, text = "3.2", "separating the pose from other factors makes it more accurate"
    needs = "`--set model.divided=false` on at least 6 seeds, beside the same of da-VAE"
    plain = _read_report(reports, "plain_regressor_laptop_masked.json")
    ours = _select(runs, preset="laptop", mask="network", model="da-VAE", dataset="synthhand")
    ours = {seed: row for seed, row in ours.items() if row["steps"]}
    if plain is None or not ours:
        return Result(place, text, UNTESTED, note=needs)
    low, mean, high = (
        np.mean([float(r[f"P1_epe_{e}mm"]) for r in ours.values()]) for e in ("low_", "", "high_")
    )
    other = plain["protocols"]["P1"]
    ends = other["epe_interval_mm"]
    what = f"{mean:.2f} mm [{low:.2f}, {high:.2f}]; a plain regressor, equally long: "
    what += f"{other['epe_mm']:.2f} [{ends[0]:.2f}, {ends[1]:.2f}]"
    undivided = read_methods(runs).compare("da", UNDIVIDED)
    if undivided is not None:
        seeds = len(undivided.per_seed)
        what += f"; da-VAE minus an undivided code, at `{runs.preset}`: {undivided} mm, {seeds} seeds"
    note = f"one run of the regressor, which has no code at all; to decide: {needs}"
    return Result(place, text, "not confirmed", what, note, len(ours), len(ours) + 1, "regressor")


def _judge_interpolation(reports: Path | str) -> list[Result]:
    """Judge Figs. 5 and 6 by what a block changes of what another is responsible for."""
    report = _read_report(reports, "photo_interpolation.json")
    effects = {} if report is None else report["effects"]
    found = []
    for place, what_moves, changes, measure, responsible in (
        ("4.5, Fig. 5", "pose", "colour", "colour", "appearance"),
        ("4.5, Fig. 6", "appearance", "the hand's shape, seen as its outline", "silhouette", "pose"),
        ("4.5, Fig. 6", "appearance", "pose, as the joints seen again", "joints_mm", "pose"),
        ("4.5", "shape", "pose, as the joints seen again", "joints_mm", "pose"),
        ("4.5", "shape", "colour", "colour", "appearance"),
    ):
        text = f"changing the {what_moves} block has no significant impact on {changes}"
        if report is None:
            found.append(Result(place, text, UNTESTED, note="the report of `benchmarks/interpolation.py`"))
            continue
        ratio = effects[what_moves][measure] / effects[responsible][measure]
        what = f"{ratio:.2f} of what {responsible} changes (at most {FRACTION:g} counts as nothing)"
        what += f"; median of {report['pairs']} pairs of images"
        note = f"1 of {MIN_SEEDS} seeds: the shipped model, whose loss weights are not the paper's"
        found.append(Result(place, text, "not confirmed", what, note, 1, 1, "interpolation"))
    return found


def _judge_methods(runs: Runs) -> list[Result]:
    """Judge da-VAE against what the paper compares it with, all trained on the same hands."""
    record, printed = read_methods(runs), read_printed()
    pairs = {"is superior to the other three VAEs": best_rival(record)}
    pairs |= {f"errs less than {PRINTED[other]} (by {printed[other] - printed['da']:.2f} mm)": other
              for other in PRINTED if other != "da"}  # fmt: skip
    found = []
    for text, other in pairs.items():
        difference = record.compare("da", other) if other else None
        verdict, note = judge(difference, MIN_SEEDS)
        what = f"{difference} mm, da-VAE minus {PRINTED[other]}" if difference else ""
        count = 0 if difference is None else 2 * len(difference.per_seed)
        claim = f"da-VAE {text}"
        found.append(_make("4.6, Table 3", claim, verdict, what, note, difference, record, "methods", count))
    return found


def _judge_error(runs: Runs, table: int, dataset: str) -> Result:
    """Judge the printed error of da-VAE: is ours at most that?"""
    (row,) = (row for row in read_reported(table) if not row["reference"])
    printed, name = parse_number(row["epe_mm"]), dataset.upper()
    place, text = f"4.6, Table {table}", f"da-VAE errs by at most {printed} mm on {name} (AUC {row['auc']})"
    ours = _select(
        runs, dataset=dataset, preset="paper", model="da-VAE", split="test", mask="network"
    ).values()
    errors = [runs.errors[key] for one in ours if (key := (one["data"], one["config"])) in runs.errors]
    if not errors or printed is None:
        return Result(
            place,
            text,
            UNTESTED,
            note=f"a copy of {name}, and {MIN_SEEDS} runs of full size",
            command=dataset,
        )
    difference = paired_difference(np.stack(errors), np.full((len(errors), len(errors[0])), printed))
    verdict, note = judge(difference, MIN_SEEDS)
    mean, low, high = (printed + end for end in difference[:3])
    found = f"{mean:.2f} mm [{low:.2f}, {high:.2f}], under P1; the paper does not state its protocol"
    return Result(place, text, verdict, found, note, len(errors), len(errors), dataset)
