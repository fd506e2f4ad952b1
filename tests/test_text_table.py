"""Text tables: every cell is printed complete and unchanged."""

import rich.console

from davae.evaluation.text_table import format_rows


def test_cells_stand_below_their_titles():
    rows = [("da-VAE", "41.57\n[35.46, 47.75]", "r-1"), ("mean", "-", "run-22")]
    assert format_rows(("", "P1", "folder"), rows, left=["folder"]).splitlines() == [
        "                    P1  folder",
        "da-VAE           41.57  r-1",
        "        [35.46, 47.75]",
        "mean                 -  run-22",
    ]


def test_no_cell_is_cut_coloured_or_interpreted(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    cells = ("[bold]", ":smile:", "x" * 300)
    assert format_rows(("a", "b", "c"), [cells]).splitlines()[1].split() == list(cells)
