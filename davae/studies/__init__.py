"""Many runs of one experiment: what varies, where they run, what came of them (paper 4.3, 4.4)."""

from davae.config.settings import VARIABLES
from davae.studies.points import Point, parse_choices, parse_seeds, vary
from davae.studies.sweep import Outcome, format_outcomes, sweep

__all__ = [
    "VARIABLES",
    "Outcome",
    "Point",
    "format_outcomes",
    "parse_choices",
    "parse_seeds",
    "sweep",
    "vary",
]
