"""The paper's claims on loss weights (4.3) and attention (4.4), judged by our runs of record.

Notebooks 03 and 04 compute the same from runs of their own.
"""

from dataclasses import dataclass

import numpy as np

from davae.config import BLOCKS, VARIANTS
from davae.evaluation.compare import MIN_PAIRS, Difference, verdict
from davae.studies.records import Record, mean_over_seeds

UNTESTED = "cannot be tested here"  # the verdict where there is no run
MIN_SEEDS = 3  # for claims on weights, whose effects are large; attention needs `MIN_PAIRS`


@dataclass(frozen=True)
class Claim:
    """The claim that a study's values from `low` to `high` have a smaller error than its other values."""

    text: str
    study: str
    low: float
    high: float


CLAIMS = (
    Claim("r = β/α₃ from 3 to 30", "beta_ratio", 3, 30),
    Claim("α₁/α₃ ≥ 1000", "alpha_pose", 1000, np.inf),
    Claim("α₂/α₃ ≥ 100", "alpha_cloud", 100, np.inf),
)


def format_report(records: dict[str, Record]) -> str:
    """Return verdicts, and the numbers behind them, as Markdown."""
    return "\n".join(
        [
            *("### Loss weights (paper 4.3), under sums", "", *_judge_weights(records), ""),
            *("### β itself, at the paper's α", "", *_show_collapse(records["beta"]), ""),
            *("### Attention (paper 4.4, Tables 1 and 2)", "", *_judge_attention(records["attention"]), ""),
        ]
    )


def _judge_weights(records: dict[str, Record]) -> list[str]:
    lines = [
        "| claim | best inside, mm | best outside, mm | inside minus outside, mm (95 %) | seeds | verdict |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for claim in CLAIMS:
        record = records[claim.study]
        means = dict(zip(record.study.values, record.means("P1_epe_mm"), strict=True))
        is_inside = {value: claim.low <= float(value) <= claim.high for value in record.study.numbers}
        inside, outside = (
            record.best([value for value, within in is_inside.items() if within == asked])
            for asked in (True, False)
        )
        difference = None if inside is None or outside is None else record.compare(inside, outside)
        ends = ["–" if value is None else f"{means[value]:.2f} at {value:g}" for value in (inside, outside)]
        lines.append(f"| {claim.text} | {' | '.join(ends)} | {_format_verdict(difference, MIN_SEEDS)} |")
    return lines


def _show_collapse(record: Record) -> list[str]:
    lines = [
        "| β | EPE P1, mm | " + " | ".join(f"{block}: nats, active" for block in BLOCKS) + " | seeds |",
        "|---:|---:|" + "---:|" * len(BLOCKS) + "---:|",
    ]
    error, seeds = record.means("P1_epe_mm"), np.isfinite(record.table("P1_epe_mm")).sum(0)
    for column, value in enumerate(record.study.values):
        if not seeds[column]:
            continue
        cells = []
        for block in BLOCKS:
            nats, active = (record.means(f"{what}_{block}")[column] for what in ("kl", "active"))
            cells.append(f"{nats:.1f}, {active:.1f}")
        lines.append(f"| {value:g} | {error[column]:.2f} | {' | '.join(cells)} | {seeds[column]} |")
    return lines


def _judge_attention(record: Record) -> list[str]:
    lines = [
        "| claim | da-VAE | the other | da-VAE minus the other (95 %) | seeds | verdict |",
        "|---|---:|---:|---:|---:|---|",
    ]
    made = {value for _, value in record.rows}
    for other in [name for name in VARIANTS if name != "da" and name in made]:
        measures = {"a lower EPE P1, mm": "P1_epe_mm"}
        measures |= {f"a lower KL of {block}, nats": f"kl_{block}" for block in BLOCKS}
        measures["a lower negative ELBO"] = "elbo"
        for text, column in measures.items():
            sign = -1 if column == "elbo" else 1
            values = sign * record.table(column)
            pair = values[:, [record.study.values.index(name) for name in ("da", other)]]
            if column == "P1_epe_mm":
                difference = record.compare("da", other)
            else:
                difference = record.compare_column(column, *(("da", other)[::sign]))
            ends = [
                "–" if np.isnan(value) else f"{value:.2f}"
                for value in mean_over_seeds(pair[np.isfinite(pair).all(1)])
            ]
            judged = _format_verdict(difference, MIN_PAIRS)
            lines.append(f"| {text}, than {other}-VAE | {' | '.join(ends)} | {judged} |")
    return lines


def _format_verdict(difference: Difference | None, min_seeds: int) -> str:
    """Return cells of a table: the difference, the number of seeds, the verdict."""
    if difference is None:
        return f"– | 0 | {UNTESTED}"
    return f"{difference} | {len(difference.per_seed)} | {verdict(difference, min_pairs=min_seeds)}"
