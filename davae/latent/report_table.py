"""The report of `davae latent-report` as Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

from davae.config import BLOCKS
from davae.latent.pictures import REACH, TOLERANCE
from davae.latent.prediction import KERNELS

CODES = ("means", "samples")


def format_latent(measured: dict[str, Any]) -> str:
    """Return the tables of a report of `davae.latent.report.measure_latent`, as `to_plain` returns it."""
    parts = (_blocks, _prediction, _importance, _dependence, _interventions, _pictures, _swaps)
    head = (
        f"# What the latent code holds\n\n{measured['n']} images of {measured['dataset']}, split "
        f"{measured['split']}; input mask: {measured['mask']}; seed {measured['seed']}. Brackets are 95 % "
        "bootstrap intervals over images.\n"
    )
    if not measured.get("divided", True):  # reports of before do not say
        head += (
            "\nThis code is not divided: every decoder reads all of it. Its blocks are the dimensions that a "
            "divided code of these sizes would give to each, and mean nothing more.\n"
        )
    return "\n".join([head, *(part(measured) for part in parts)])


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _interval(score: Sequence[float | None], digits: int = 2) -> str:
    value, low, high = (_number(one, digits) for one in score)
    return value if value == "–" else f"{value} [{low}, {high}]"


def _blocks(measured: dict[str, Any]) -> str:
    rows = [
        (name, str(b["dimensions"]), str(b["active_units"]), _number(b["kl"], 1))
        for name, b in measured["blocks"].items()
    ]
    return (
        "## Blocks\n\nA dimension is active if the variance of its posterior mean exceeds 0.01 "
        "(arXiv:1509.00519).\n\n" + _table(("block", "dimensions", "active", "rate, nats (KL)"), rows)
    )


def _prediction(measured: dict[str, Any]) -> str:
    text = (
        "## What can be read from a block\n\nR² on held-out images: ridge / kernel ridge, with the interval "
        "of the latter. 0 is the mean. Control: the largest kernel ridge R² of any block for the truth of "
        "other images.\n"
    )
    for code in CODES:
        found = measured["prediction"][code]
        straight, curved = (found[kernel] for kernel in KERNELS)
        rows = []
        for group in curved["all"]:
            cells = [
                f"{_number(straight[block][group]['r2'][0])} / {_interval(curved[block][group]['r2'])}"
                for block in curved
            ]
            chance = [block[group]["shuffled"] for block in curved.values()]
            known = [value for value in chance if value is not None]
            rows.append((group, *cells, _number(max(known)) if known else "–"))
        text += f"\nPosterior {code}:\n\n" + _table(("", *curved, "control"), rows)
    return text


def _importance(measured: dict[str, Any]) -> str:
    rows, names = [], {"linear": "ridge", "rbf": "kernel ridge"}
    for code in CODES:
        for kernel, found in measured["importance"][code].items():
            scores = [
                f"{_number(found[score])} ({_number(found[f'{score}_floor'])})"
                for score in ("disentanglement", "completeness")
            ]
            shares = (
                " ".join(
                    f"{group} {_number(value)}" for group, value in zip(found["groups"], line, strict=True)
                )
                for line in found["matrix"]
            )
            rows.append((code, names[kernel], *scores, *shares))
    return (
        "## Disentanglement and completeness (DCI) of blocks\n\nImportance: R² lost when a block is "
        "exchanged between images, in one regressor on the whole code. In parentheses the floor: the same "
        "code, rotated as a whole and divided into blocks again.\n\n"
        + _table(("", "regressor", "disentanglement", "completeness", *BLOCKS), rows)
    )


def _dependence(measured: dict[str, Any]) -> str:
    rows = []
    titles = {"hsic": "HSIC", "total_correlation": "total correlation, nats"}
    for code in CODES:
        for name, pairs in measured["dependence"][code].items():
            for pair, one in pairs.items():
                value = "∞" if name != "hsic" and one["value"] is None else _number(one["value"], 3)
                rows.append(
                    (code, titles[name], pair, value, _number(one["shuffled"], 3), _number(one["p"], 3))
                )
    return (
        "## Dependence between blocks\n\nHSIC: normalised, unbiased, Gaussian kernels of the median "
        "distance; 1 for equal blocks. Total correlation: as if Gaussian. p: permutation test.\n\n"
        + _table(("", "measure", "blocks", "value", "shuffled", "p"), rows)
    )


def _interventions(measured: dict[str, Any]) -> str:
    title = "## Interventions\n\n"
    if "absent" in measured["interventions"]:
        return title + f"Not measured: {measured['interventions']['absent']}.\n"
    rows = []
    for code in CODES:
        found = measured["interventions"][code]
        for block, votes, robust in zip(BLOCKS, found["votes"], found["robustness"], strict=True):
            cells = (f"{v} / {_number(r)}" for v, r in zip(votes, robust, strict=True))
            rows.append((code, block, *cells, f"{_number(found['accuracy'])} ({_number(found['chance'])})"))
    groups = (f"{group} held" for group in measured["interventions"]["means"]["groups"])
    return (
        f"{title}One group of factors is held, everything else is another hand's. In each cell: how "
        "often the block varied least (a vote of the FactorVAE metric) / interventional robustness (IRS), 1 "
        "where the group alone decides the block.\n\n"
        + _table(("", "block", *groups, "FactorVAE accuracy (chance)"), rows)
    )


def _pictures(measured: dict[str, Any]) -> str:
    found, title = measured["pictures"], "## Decoded pictures\n\n"
    if "absent" in found:
        return title + f"Not measured: {found['absent']}.\n"
    names = {
        "outline_f": (f"outline F-score within {TOLERANCE * 128:g} px of 128", 2),
        "gaps_filled": ("share of the gaps between fingers painted as hand", 2),
        "iou": ("IoU of the silhouette", 2),
        "laplacian_ratio": ("variance of the Laplacian, over the target's", 3),
        "psnr_db": ("PSNR, dB", 1),
    }
    rows = [
        (label, _interval(found[name], digits), _interval(found["other"][name], digits))
        for name, (label, digits) in names.items()
    ]
    return (
        f"{title}Decoded from posterior means, against the hand over grey. Gaps: background within the "
        f"closing of the true mask by a disc of {REACH * 128:g} px of 128.\n\n"
        + _table(("", "own picture", "against another hand's"), rows)
    )


def _swaps(measured: dict[str, Any]) -> str:
    title = "## Swaps\n\n"
    if "absent" in measured["swaps"]:
        return title + f"Not measured: {measured['swaps']['absent']}.\n"
    labels = {
        "joints_mm": ("joints seen again, mm", 1),
        "colour": ("colour, of 255", 1),
        "outline": ("outline, 1 - IoU", 3),
        "chamfer_mm": ("cloud, Chamfer, mm", 2),
    }
    rows = []
    for block, measures in measured["swaps"].items():
        for name, (label, digits) in labels.items():
            found = measures[name]
            error, floor = found["errors"][0], found["floor"][0]
            ratio = None if error is None or not floor else error / floor
            cells = (_interval(found[kind], digits) for kind in ("errors", "floor", "ceiling"))
            rows.append((block, label, *cells, _number(ratio)))
    return (
        f"{title}One block of the code is another hand's; truth: the rendered hand with that group of "
        "factors. Floor: plain reconstruction. Ceiling: against the opposite exchange, where all has the "
        "wrong owner. Decoded from posterior means.\n\n"
        + _table(("exchanged", "measure", "error", "floor", "ceiling", "error / floor"), rows)
    )
