"""Deprecated path of `HandPredictor`, which moved to `davae.photo`. Removed in 0.3.0."""

import warnings

from davae.photo import HandPredictor as HandPredictor

warnings.warn(
    "davae.predict moved: use `from davae.photo import HandPredictor`; this path ends with 0.3.0",
    DeprecationWarning,
    stacklevel=2,
)
