"""Deprecated path of `Workspace`, which moved to `davae.pipeline`. Removed in 0.3.0."""

import warnings

from davae.pipeline import Workspace as Workspace

warnings.warn(
    "davae.workspace moved: use `from davae.pipeline import Workspace`; this path ends with 0.3.0",
    DeprecationWarning,
    stacklevel=2,
)
