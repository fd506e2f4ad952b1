"""Every claim of the paper, each with our verdict: measured, counted in the paper's tables, or untested."""

from davae.studies.claims.page import judge_claims, write_page
from davae.studies.claims.result import Result

__all__ = ["Result", "judge_claims", "write_page"]
