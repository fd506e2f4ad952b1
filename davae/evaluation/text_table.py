"""Plain text tables, laid out by rich."""

import io
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.table import Table

WIDTH = 10_000  # characters; wider than any table, so that no cell is cut or wrapped


def format_rows(columns: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[str] = ()) -> str:
    """Return rows under their column titles, without colours, trailing blanks or a final line break.

    The first column is aligned to the left, the others to the right.

    Args:
        columns: titles.
        rows: the cells of each row, one for each column; a cell may have several lines.
        left: titles of further columns to align to the left.
    """
    table = Table(box=None, pad_edge=False)
    for index, title in enumerate(columns):
        table.add_column(title, justify="left" if index == 0 or title in left else "right")
    for row in rows:
        table.add_row(*row)
    text = io.StringIO()
    # A notebook or a terminal that is detected must change nothing, nor may "[...]" in a cell become a style.
    console = Console(
        file=text,
        width=WIDTH,
        color_system=None,
        force_jupyter=False,
        markup=False,
        emoji=False,
        highlight=False,
    )
    console.print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
