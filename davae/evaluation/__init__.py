"""Measure finished runs: predictions on a split, the report on them, and its text table."""

from davae.evaluation.masks import evaluate_masks, format_masks, mask_ious, predict_masks
from davae.evaluation.measure import evaluate, predict
from davae.evaluation.predictions import Predictions, load_predictions, save_predictions
from davae.evaluation.report import format_table, protocol_scores, report, report_json
from davae.evaluation.skin_tone import format_skin_tone, skin_tone_report

__all__ = [
    "Predictions", "evaluate", "evaluate_masks", "format_masks", "format_skin_tone", "format_table",
    "load_predictions", "mask_ious", "predict", "predict_masks", "protocol_scores", "report", "report_json",
    "save_predictions", "skin_tone_report",
]  # fmt: skip
