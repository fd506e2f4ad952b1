"""A claim with its verdict, and the rule that gives the verdict."""

from dataclasses import dataclass

from davae.evaluation.compare import Difference, verdict
from davae.studies.findings import UNTESTED

VERDICTS = ("confirmed", "not confirmed", "contradicted", UNTESTED)


@dataclass(frozen=True)
class Result:
    """A claim of the paper and what we know of it.

    Attributes:
        place: where the paper states it: section, table, figure.
        claim: what it states.
        verdict: one of `VERDICTS`.
        found: our number, with its interval if there is one.
        note: why the claim is not confirmed, or what a test of it needs.
        seeds: number of seeds behind the number.
        runs: number of trainings behind it.
        command: key of the command, in the page's last section, that makes these runs.

    Raises:
        ValueError: unknown verdict.
    """

    place: str
    claim: str
    verdict: str
    found: str = ""
    note: str = ""
    seeds: int = 0
    runs: int = 0
    command: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"{self.verdict!r} is no verdict; choose one of {', '.join(VERDICTS)}")


def judge(difference: Difference | None, min_seeds: int) -> tuple[str, str]:
    """Return the verdict on "the first errs less than the second", and why it is not confirmed.

    Args:
        difference: first minus second over seeds and images; None if there is no run of both.
        min_seeds: with fewer, nothing is decided.
    """
    if difference is None:
        return UNTESTED, "no run of both"
    word, seeds = verdict(difference, min_pairs=min_seeds), len(difference.per_seed)
    if word != "not confirmed":
        return word, ""
    if seeds < min_seeds:
        return word, f"{seeds} of {min_seeds} seeds"
    return word, "the interval contains zero"
