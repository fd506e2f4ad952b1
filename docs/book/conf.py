"""Sphinx's settings for the book. `make book` lays out the sources (docs/book/stage.py), then runs Sphinx.

Nothing that a reader's browser needs comes from another host: the theme brings no web font, formulas are
MathML, plotly is copied from its own package, and search runs in the page.
"""

import re
import sys
from pathlib import Path
from typing import Any

import math_core

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path.insert(0, str(HERE))

from docstrings import to_rst  # noqa: E402
from stage import API, ORIGINALS, PACKAGES, PLAIN  # noqa: E402

project = "davae"
author = "the davae contributors"
copyright = "the davae contributors, MIT licence"
release = re.search(r'__version__ = "(.+)"', (REPOSITORY / "davae/__init__.py").read_text(encoding="utf-8"))[
    1
]
html_title = f"davae {release}"

extensions = ["myst_nb", "autoapi.extension", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = [f"{ORIGINALS}/**", f"{PLAIN}/**", "_parts/**"]
html_math_renderer = "mathml"

# Pages and notebooks
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_dmath_double_inline = True  # $$ within a paragraph, as notebooks have it
myst_heading_anchors = 4  # links to headings, as code hosts make them
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js: dict[str, dict] = {}  # by default from another host; stage.py leaves no widget
suppress_warnings = [
    "myst.header",  # a notebook may leave out a level of headings
    "autoapi.python_import_resolution",  # constants that are unpacked from tuples, which stay text
]

# The reference, from docstrings, without importing anything
autoapi_dirs = [str(REPOSITORY / package) for package in PACKAGES]
autoapi_root = API
autoapi_add_toctree_entry = False
autoapi_options = ["members", "show-inheritance", "show-module-summary"]
autoapi_member_order = "bysource"
autoapi_own_page_level = "module"
autoapi_python_class_content = "class"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
default_role = "py:obj"  # names in single backticks: links to what they name, where it is in the reference

# Look
html_theme = "furo"
html_static_path = [str(HERE / "static")]  # and what docs/book/record.py made, which `setup` adds
html_css_files = ["book.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    "footer_icons": [],
    "light_css_variables": {"color-brand-primary": "#00578a", "color-brand-content": "#00578a"},
    "dark_css_variables": {"color-brand-primary": "#7cc4ee", "color-brand-content": "#7cc4ee"},
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
copybutton_exclude = ".linenos, .gp, .go"


def write_mathml(translator: Any, node: Any, block: bool) -> None:
    """Write a formula as MathML Core, which every current browser draws without a script."""
    from docutils.nodes import SkipNode
    from sphinx.util import logging

    converter = math_core.LatexToMathML()
    try:
        found = converter.convert_with_local_state(node.astext(), displaystyle=block)
    except math_core.LatexError as error:
        logging.getLogger(__name__).warning("formula %r: %s", node.astext(), error, location=node)
        found = f"<code>{translator.encode(node.astext())}</code>"
    translator.body.append(f'<div class="math-block">{found}</div>' if block else found)
    raise SkipNode


def prune_contents(app: Any, pagename: str, templatename: str, context: dict, doctree: Any) -> None:
    """Leave out of a page's contents what other modules hold: the whole of it is larger than most pages."""
    from bs4 import BeautifulSoup

    contents = BeautifulSoup(context.get("furo_navigation_tree", ""), "html.parser")
    for item in contents.select("li.has-children:not(.current)"):
        for part in item.find_all(["ul", "input", "label"], recursive=False):
            part.decompose()
    context["furo_navigation_tree"] = str(contents)


def add_scripts(app: Any, pagename: str, templatename: str, context: dict, doctree: Any) -> None:
    """Load scripts on the pages that use them."""
    body = context.get("body", "")
    if "davae-plotly" in body:
        app.add_js_file("plotly.min.js", loading_method="defer")
        app.add_js_file("figures.js", loading_method="defer")
    if pagename == "search":
        # Excerpts of the pages found are fetched, which a browser refuses to pages opened from a folder.
        app.add_js_file(
            None,
            body="if (location.protocol === 'file:') DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;",
            priority=300,
        )
    if "davae-recorded" in body:
        app.add_js_file("frames.js", loading_method="defer")
        app.add_js_file("recorded.js", loading_method="defer")


def convert_docstring(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Make a docstring reStructuredText, in place, before napoleon reads its sections."""
    lines[:] = to_rst(lines)


def skip_private(app: Any, what: str, name: str, item: Any, skip: bool, options: Any) -> bool:
    """Leave out names that begin with an underscore."""
    return skip or any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def setup(app: Any) -> None:
    """Register what this file adds to Sphinx."""
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(lambda self, node: write_mathml(self, node, False), None),
        block_renderers=(lambda self, node: write_mathml(self, node, True), None),
    )
    app.connect("config-inited", lambda app, config: config.html_static_path.append(f"{app.srcdir}/_parts"))
    app.connect("html-page-context", add_scripts)
    app.connect("html-page-context", prune_contents, priority=900)  # behind the theme
    app.connect("autodoc-process-docstring", convert_docstring, priority=400)  # napoleon has 500
    app.connect("autoapi-skip-member", skip_private)
