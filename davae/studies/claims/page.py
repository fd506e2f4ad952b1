"""The page of all claims (docs/results.md), as Markdown."""

from collections.abc import Sequence
from pathlib import Path

from davae.evaluation.compare import MIN_PAIRS
from davae.studies.claims.measured import REPORTS, judge_measured
from davae.studies.claims.printed import judge_printed
from davae.studies.claims.result import UNTESTED, VERDICTS, Result
from davae.studies.claims.untested import list_untested
from davae.studies.findings import MIN_SEEDS
from davae.studies.records import Runs
from synthhand.storage import write_atomically

_COMMANDS = {
    "mask": (
        "python -m davae train --preset laptop --data DIR --run RUN --mask network",
        "python -m davae train --preset laptop --data DIR --run RUN --mask none",
    ),
    "regressor": (
        "python -m davae reproduce --preset laptop --seed 0",
        "python benchmarks/plain_regressor.py --data DIR --like RUN --seconds 1300 --out FILE.json",
    ),
    "interpolation": ("python benchmarks/interpolation.py --run RUN --data DIR --out FILE.json",),
    "methods": (
        "python benchmarks/rivals.py tune --data DIR",
        "python benchmarks/rivals.py compare --data DIR --record",
    ),
    "rhd": ("python -m davae reproduce --preset paper --dataset rhd --root data/RHD_published_v2",),
    "stb": ("python -m davae reproduce --preset paper --dataset stb --root data/STB",),
}


def judge_claims(runs: Runs, reports: Path | str = REPORTS) -> dict[str, list[Result]]:
    """Return every claim of the paper with its verdict: "measured", "printed" and "untested".

    Args:
        runs: from `davae.studies.records`: our runs of record, or yours.
        reports: folder of the committed reports (docs/results).
    """
    measured = judge_measured(runs, reports)
    return {
        "measured": [result for result in measured if result.verdict != UNTESTED],
        "printed": judge_printed(),
        "untested": [result for result in measured if result.verdict == UNTESTED] + list_untested(),
    }


def format_page(runs: Runs, reports: Path | str = REPORTS) -> str:
    """Return the page; see `judge_claims`."""
    found = judge_claims(runs, reports)
    every = [result for results in found.values() for result in results]
    lines = [
        "# The paper's claims, one by one",
        "",
        *_introduce(runs),
        "",
        *_count(found),
        "",
        *_explain_rule(),
        "",
        "## Measured here",
        "",
        f"From {runs.source}. Errors are P1 ([protocols](paper.md#protocols)).",
        "The reports in `docs/results`, of the rows on 3.2 (in part) and 4.5, are on SynthHand.",
        "",
        *_lay_out(
            ("where", "the paper's claim", "verdict", "our number [95 %]", "seeds", "runs", "made by"),
            [(r.place, r.claim, _join(f"**{r.verdict}**", r.note), r.found, str(r.seeds), str(r.runs),
              f"[{r.command}](#commands)") for r in found["measured"]],
        ),
        "",
        "## Counted in the paper's own tables",
        "",
        "Arithmetic on what is printed (`davae/studies/results/reported.csv`): no run, hence no interval.",
        "It does not compare the methods: rows of Tables 3 and 4 mix protocols, worth several millimetres.",
        "",
        *_lay_out(
            ("where", "the paper's claim", "verdict", "the printed numbers"),
            [(r.place, r.claim, f"**{r.verdict}**", _join(r.found, r.note)) for r in found["printed"]],
        ),
        "",
        "## Cannot be tested here",
        "",
        *_lay_out(
            ("where", "the paper's claim", "what a test needs"),
            [(r.place, r.claim, _join(r.note, f"[{r.command}](#commands)" if r.command else ""))
             for r in found["untested"]],
        ),
        "",
        "Sentences that define, cite other papers or describe a choice are no claims and have no row.",
        "",
        "## Commands",
        "",
        "`DIR` is a folder of `prepare`, with masks by `predict-masks`.",
        "`davae findings --runs FOLDER --out FIGURES --results FILE.md` judges runs of yours instead,",
        "all that lie below a folder; `sweep --record` adds runs to those of record.",
        "",
        *_list_commands(runs, every),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def write_page(path: Path | str, runs: Runs, reports: Path | str = REPORTS) -> None:
    """Write the page; see `judge_claims`."""
    text = format_page(runs, reports)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _introduce(runs: Runs) -> list[str]:
    return [
        "Written by `python -m davae findings`; do not edit.",
        f"Runs: {runs.source}. [findings.md](findings.md) discusses those on loss weights and attention,",
        "[paper.md](paper.md) what differs from the paper.",
    ]


def _count(found: dict[str, list[Result]]) -> list[str]:
    titles = {"measured": "measured here", "printed": "counted in its tables", "untested": "untested"}
    rows = [
        (titles[kind], *(str(sum(r.verdict == verdict for r in results)) for verdict in VERDICTS))
        for kind, results in found.items()
    ]
    return _lay_out(("claims", *VERDICTS), rows)


def _explain_rule() -> list[str]:
    return [
        "## The rule",
        "",
        "- **Confirmed**: a bootstrap interval over seeds and test images (95 %, in pairs) excludes zero,",
        "  on the claim's side. **Contradicted**: it excludes zero on the other side.",
        f"- A claim on loss weights, or on one model, needs {MIN_SEEDS} seeds; one on attention {MIN_PAIRS},",
        "  since its effects are small.",
        "- **Not confirmed**: the interval contains zero, or seeds are too few; the row says which.",
        "  Such a claim may be true; our runs cannot tell.",
        f"- **{UNTESTED.capitalize()}**: no run here can decide; the row says what could.",
        "- A claim about weights is one under our reductions (`davae/losses.py`); the paper states none.",
        "- The best values inside and outside a range were selected on the runs that judge them,",
        "  which favours the side with more values. No interval includes that.",
        "- Other methods are our own implementations of them, trained as da-VAE is ([rivals.md](rivals.md)).",
        "  The best of the other VAEs was selected on the runs that judge it, too, which favours it.",
        "- Of KL, ELBO and AUC a run has one number, so their intervals are over seeds alone.",
        "- KL and ELBO are in nats, natural units of information ([glossary](glossary.md)).",
    ]


def _join(first: str, second: str) -> str:
    return f"{first}; {second}" if second else first


def _lay_out(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows),
    ]


def _list_commands(runs: Runs, every: Sequence[Result]) -> list[str]:
    lines = []
    for key in dict.fromkeys(result.command for result in every if result.command):
        record = runs.records.get(key)
        texts = _COMMANDS[key] if record is None else (
            f"python -m {record.study.command(runs.preset, 'DIR')}",
        )  # fmt: skip
        lines += [f"**{key}**", "", *(f"    {text}" for text in texts), ""]
    return lines
