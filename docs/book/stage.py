"""Lay out the book's sources: pages, executed notebooks and what they link to, as the repository has them.

    python docs/book/stage.py --notebooks EXECUTED --parts PARTS --out SOURCES

Links between pages then hold as they are written. What a page of the site cannot hold is changed in the
copies: outputs that would need a kernel or a library from another host, and links to files that are no pages.
`make book` calls this.
"""

import argparse
import copy
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from davae.pipeline.exercises import fold_answers

REPOSITORY = Path(__file__).resolve().parents[2]
# Pages beside the notebooks. Other Markdown files can be linked to and are then shown as text.
PAGES = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md", "findings/README.md"),
    *("davae/photo/weights/README.md", "docs/*.md", "docs/results/*.md"),
)
HOME_FOLDER = "docs/book"
OWN_PAGES = ("index.md", "recorded.md", "reference.md")  # of that folder, laid at the top of the site
NOTEBOOKS = "notebooks"
ORIGINALS = f"{NOTEBOOKS}/unexecuted"  # which readers can download
PLAIN = "files"  # copies of linked files that are no pages
PARTS = ("frames.webp", "frames.js", "plotly.min.js", "book-math.ttf")  # what docs/book/record.py writes
PACKAGES = ("davae", "synthhand")
API = "reference"  # folder of the pages made from docstrings

PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
NEEDS_KERNEL = (
    '<em>Sliders that need a kernel stand here. <a href="../recorded.html">Some are recorded</a>.</em>'
)
INJECTED = "injected-parameters"  # tag of the cell that papermill adds
# What a reader of the book must ask for: tag of the cell -> what the button says.
FOLDED = {
    "solution": "Solution",
    "mistakes": "Mistakes the check catches",
    INJECTED: "Parameters of this run",
}
HOME = re.compile(r"^home = .*\n?", re.MULTILINE)

LINK = re.compile(r"(?P<before>\]\()(?P<target>[^)\s#]+)(?P<rest>#[^)\s]*)?(?P<title>\s[^)]*)?\)")
FENCE = re.compile(r"(^```.*?^```[^\n]*$)", re.MULTILINE | re.DOTALL)
STEM = re.compile(r"(?<![\[`\w])`(\d\d_\w+)`(?![\]`])")


def stage(notebooks: Path, parts: Path, out: Path, repository: Path = REPOSITORY) -> dict[str, int]:
    """Write the book's sources to a folder, which is emptied first.

    Args:
        notebooks: folder of executed copies.
        parts: folder that `docs/book/record.py` has filled.
        out: folder to write, which this function made before or which does not exist.
        repository: the clone.

    Returns:
        Number of pages and of notebooks.

    Raises:
        FileNotFoundError: a notebook lacks its executed copy, `parts` lacks a file, or a link is broken.
        ValueError: a copy was never executed.
        FileExistsError: `out` holds something else.
    """
    sources = sorted((repository / NOTEBOOKS).glob("*.ipynb"))
    if missing := [source.name for source in sources if not (notebooks / source.name).is_file()]:
        raise FileNotFoundError(
            f"{notebooks}: no executed copy of {', '.join(missing)}; run `make notebooks`"
        )
    executed = {
        path.name: json.loads((notebooks / path.name).read_text(encoding="utf-8")) for path in sources
    }
    if idle := [name for name, found in executed.items() if not _was_executed(found)]:
        raise ValueError(f"{notebooks}: {', '.join(idle)} was never executed; run `make notebooks`")
    if absent := [name for name in PARTS if not (parts / name).is_file()]:
        raise FileNotFoundError(f"{parts}: no {', '.join(absent)}; run docs/book/record.py")
    _empty(out)
    paths = [path for pattern in PAGES for path in sorted(repository.glob(pattern))]
    names = {path.relative_to(repository).as_posix() for path in [*paths, *sources]}
    linked: set[str] = set()

    def link(page: str) -> Callable[[str], str]:
        return lambda text: rewrite_links(text, page, names, linked, repository)

    for path in paths:
        name = path.relative_to(repository).as_posix()
        _write(out / name, link(name)(path.read_text(encoding="utf-8")))
    for name in OWN_PAGES:
        text = (repository / HOME_FOLDER / name).read_text(encoding="utf-8")
        others = list_others(text, names) if name == "index.md" else ""
        _write(out / name, link(f"{HOME_FOLDER}/{name}")(text) + others)
    for source in sources:
        name = f"{NOTEBOOKS}/{source.name}"
        _write(
            out / name, json.dumps(prepare_notebook(executed[source.name], link(name)), ensure_ascii=False)
        )
        _copy(source, out / ORIGINALS / source.name)
    for name in linked:
        _copy(repository / name, out / (name if _is_picture(name) else as_plain(name)))
    shutil.copytree(parts, out / "_parts")
    return {"pages": len(paths) + len(OWN_PAGES), "notebooks": len(sources)}


def _was_executed(notebook: dict[str, Any]) -> bool:
    return any(cell.get("execution_count") for cell in notebook["cells"])


def list_others(index: str, names: set[str]) -> str:
    """Return the part of the contents that lists pages which the rest of it does not name."""
    pages = {name.removesuffix(".md") for name in names if name.endswith(".md")}
    named = {re.sub(r"^.* <(.+)>$", r"\1", line) for line in index.splitlines()}
    others = sorted(pages - named)
    return (
        "\n".join(["", "```{toctree}", ":caption: More", ":hidden:", "", *others, "```", ""])
        if others
        else ""
    )


def prepare_notebook(executed: dict[str, Any], rewrite: Callable[[str], str]) -> dict[str, Any]:
    """Return a copy of an executed notebook that a page without a kernel can show.

    Args:
        executed: a notebook, as JSON; it is not changed.
        rewrite: called with the text of each Markdown cell; returns the text to show.
    """
    notebook = copy.deepcopy(executed)
    parameters = notebook["metadata"].get("papermill", {}).get("parameters", {})
    home = str(parameters.get("home", ""))
    notebook["metadata"].pop("widgets", None)  # states that only a kernel and a library can show
    for cell in notebook["cells"]:
        tags = set(cell["metadata"].get("tags", []))
        cell["source"] = _join(cell["source"])
        if cell["cell_type"] == "markdown":
            cell["source"] = fold_answers(rewrite(cell["source"]))
            continue
        if INJECTED in tags:
            cell["source"] = HOME.sub("", cell["source"])
        for tag, name in FOLDED.items():
            if tag in tags:
                cell["metadata"]["tags"] = sorted(tags | {"hide-cell"})
                cell["metadata"]["mystnb"] = {"code_prompt_show": name, "code_prompt_hide": f"{name}: hide"}
        shown = [prepare_output(output, home) for output in cell.get("outputs", [])]
        cell["outputs"] = [output for output in shown if output is not None]
    if note := describe_run(parameters):
        # After the title's cell, so that a page still begins with its title.
        notebook["cells"].insert(1, _markdown_cell("book-run", note))
    return notebook


def prepare_output(output: dict[str, Any], home: str) -> dict[str, Any] | None:
    """Return an output as a page can show it, or None if it should not be shown.

    Progress bars and warnings (stderr) go. A plotly figure becomes an element for `static/figures.js`,
    widgets a sentence. Paths lose the folder of the machine that ran the notebook.
    """
    if output.get("name") == "stderr":
        return None
    output = _without_home(output, home)
    data = output.get("data")
    if data is None:
        return output
    if PLOTLY in data:
        data = {"text/html": embed_plotly(data[PLOTLY])}
    elif WIDGET in data:
        data = {"text/html": NEEDS_KERNEL}
    return output | {"data": data}


def embed_plotly(figure: dict[str, Any]) -> str:
    """Return an element that `static/figures.js` fills with a plotly figure."""
    text = json.dumps(
        {key: figure[key] for key in ("data", "layout") if key in figure}, separators=(",", ":")
    )
    text = text.replace("</", "<\\/")  # else a string could end the script element
    return (
        '<div class="davae-plotly" role="img" aria-label="a figure that turns when it is dragged">'
        f'<script type="application/json">{text}</script>'
        "<noscript>This figure needs JavaScript.</noscript></div>"
    )


def describe_run(parameters: dict[str, Any]) -> str:
    """Return a note that says with which parameters a notebook ran, or "" where that is unknown."""
    if "preset" not in parameters:
        return ""
    preset, dataset = parameters["preset"], parameters.get("dataset", "synthhand")
    lines = [f"```{{note}}\nThis page was executed at preset `{preset}` on dataset `{dataset}`."]
    if preset == "smoke":
        lines.append(
            "At `smoke` every step runs but nothing is learnt: the figures show how, not how well. "
            "`make book PRESET=laptop` makes the book with a trained model."
        )
    return "\n".join([*lines, "```"])


def rewrite_links(text: str, page: str, pages: set[str], linked: set[str], repository: Path) -> str:
    """Return Markdown whose links to files work in the site.

    Args:
        text: of the page.
        page: its path in the repository.
        pages: paths of all pages; links to them stay.
        linked: gets the paths of other files that are linked to and must be copied.
        repository: the clone.

    Raises:
        FileNotFoundError: a link leads to nothing.
    """

    def rewrite(match: re.Match[str]) -> str:
        target, rest, title = match["target"], match["rest"] or "", match["title"] or ""
        if re.match(r"[a-z]+:", target):
            return match[0]
        name = _normalise(PurePosixPath(page).parent / target)
        path = repository / name
        if not path.exists():
            raise FileNotFoundError(f"{page} links to {target}, which does not exist")
        if path.is_dir() and f"{name}/README.md" in pages:
            name = f"{name}/README.md"
        elif name == NOTEBOOKS:
            name = min(one for one in pages if one.startswith(f"{NOTEBOOKS}/"))
        if name in pages or place_of(name) != name:
            found = place_of(name) + rest
        elif path.suffix == ".py" and PurePosixPath(name).parts[0] in PACKAGES:
            found = api_page(name)
        elif path.is_dir():
            found = "docs/README.md"
        else:
            linked.add(name)
            found = name if _is_picture(name) else as_plain(name)
        return f"{match['before']}{_relative(found, place_of(page))}{title})"

    def name_notebook(match: re.Match[str]) -> str:
        name = f"{NOTEBOOKS}/{match[1]}.ipynb"
        return (
            f"[`{match[1]}`]({_relative(name, place_of(page))})"
            if name in pages and name != page
            else match[0]
        )

    pieces = FENCE.split(text)
    pieces[::2] = [STEM.sub(name_notebook, LINK.sub(rewrite, piece)) for piece in pieces[::2]]
    return "".join(pieces)


def place_of(page: str) -> str:
    """Return where a page of the repository lies in the site."""
    name = page.removeprefix(f"{HOME_FOLDER}/")
    return name if name in OWN_PAGES else page


def api_page(name: str) -> str:
    """Return the source of the page that documents a module, given the module's file."""
    parts = PurePosixPath(name).with_suffix("").parts
    return "/".join([API, *(parts[:-1] if parts[-1] == "__init__" else parts), "index.rst"])


def as_plain(name: str) -> str:
    """Return where the copy of a linked file lies."""
    return (
        f"{PLAIN}/{name}" if PurePosixPath(name).suffix not in {"", ".py", ".md"} else f"{PLAIN}/{name}.txt"
    )


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix in {".png", ".jpg", ".svg"}


def _normalise(path: PurePosixPath) -> str:
    return os.path.normpath(path).replace(os.sep, "/")


def _relative(name: str, page: str) -> str:
    return os.path.relpath(name, PurePosixPath(page).parent).replace(os.sep, "/")


def _join(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)


def _without_home(value: Any, home: str) -> Any:
    """Return an output whose texts name no folder of the machine that made it."""
    if isinstance(value, dict):
        return {key: _without_home(one, home) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_home(one, home) for one in value]
    if isinstance(value, str) and len(home) > 1:
        return value.replace(f"{home}/", "").replace(home, ".")
    return value


def _markdown_cell(name: str, source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _empty(out: Path) -> None:
    """Make an empty folder, and remove only one that this file made."""
    mark = out / ".staged"
    if out.exists() and not mark.exists():
        raise FileExistsError(f"{out}: was not made by docs/book/stage.py; name another folder, or remove it")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    mark.touch()


def main() -> None:
    """Lay out the book's sources."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("notebooks", "parts", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    found = stage(**vars(parser.parse_args()))
    print(f"{found['pages']} pages and {found['notebooks']} notebooks")


if __name__ == "__main__":
    main()
