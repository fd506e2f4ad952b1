"""Docstrings of the two packages as reStructuredText, which Sphinx reads.

They are written for a reader of the code: names in single backticks, tables as indented blocks, and letters
such as `|` and `*` that mean themselves. Sections (Args, Returns, Raises) are left for napoleon.
"""

import re

CODE = re.compile(r"`([^`]+)`")
NOTEBOOK = re.compile(r"(notebooks/\w+)\.ipynb")
NAME = re.compile(r"[A-Za-z_][\w.]*(\(\))?")
LIST = re.compile(r"\s*([-*]|\d+\.)\s")
SPECIAL = re.compile(r"([*|\\])|(?<=\w)(_)(?!\w)")  # the last would make a reference


def to_rst(lines: list[str]) -> list[str]:
    """Return the lines of a docstring as reStructuredText.

    An indented block behind an empty line becomes a literal block, unless it continues a list or a section.
    """
    shown: list[str] = []
    block: int | None = None  # indentation of the literal block that we are in
    owner = ""  # the last line with text outside such blocks
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            shown.append("")
            continue
        if block is not None and indent >= block:
            shown.append(line)
            continue
        block = None
        opens = number > 0 and not lines[number - 1].strip() and indent > len(owner) - len(owner.lstrip())
        if opens and owner and not LIST.match(owner):
            block = indent
            shown += [" " * (len(owner) - len(owner.lstrip())) + "::", "", line]
            continue
        shown.append(convert_line(line))
        owner = line
    return shown


def convert_line(line: str) -> str:
    """Return a line whose code is code, whose names are links where they can be, whose letters are text."""
    pieces = CODE.split(line)
    for place, piece in enumerate(pieces):
        if place % 2 == 0:
            pieces[place] = SPECIAL.sub(r"\\\g<0>", piece) if not LIST.match(piece) else _escape_item(piece)
            continue
        if notebook := NOTEBOOK.fullmatch(piece):
            code = f":doc:`{piece} </{notebook[1]}>`"
        else:
            code = f"`{piece}`" if NAME.fullmatch(piece) else f"``{piece}``"
        # A letter at the end of code, as in `StandIn`s, needs an empty separator.
        before, after = pieces[place - 1][-1:], pieces[place + 1][:1]
        pieces[place] = (r"\ " if before.isalnum() else "") + code + (r"\ " if after.isalnum() else "")
    return "".join(pieces)


def _escape_item(piece: str) -> str:
    bullet = LIST.match(piece).end()
    return piece[:bullet] + SPECIAL.sub(r"\\\g<0>", piece[bullet:])
