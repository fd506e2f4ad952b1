"""From a finished run to numbers: predictions on a split, the report of them, and its table."""

from davae.evaluation.measure import evaluate, predict
from davae.evaluation.predictions import Predictions, load_predictions, save_predictions
from davae.evaluation.report import format_table, protocol_scores, report, report_json

__all__ = [
    "Predictions", "evaluate", "format_table", "load_predictions", "predict", "protocol_scores", "report",
    "report_json", "save_predictions",
]  # fmt: skip
