"""From nothing to figures: the stages of a reproduction, the notebooks and the command line.

`Workspace` and `reproduce` are imported on first use, since they need torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from davae.pipeline.reproduction import reproduce
    from davae.pipeline.workspace import Workspace

__all__ = ["Workspace", "reproduce"]


def __getattr__(name: str) -> Any:
    if name == "Workspace":
        from davae.pipeline.workspace import Workspace

        return Workspace
    if name == "reproduce":
        from davae.pipeline.reproduction import reproduce

        return reproduce
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
