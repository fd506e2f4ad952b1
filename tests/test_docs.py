"""Documentation: every command line parses, and every Python snippet runs."""

import functools
import re
import shlex
from pathlib import Path

import pytest
import tyro
from PIL import Image

from davae.pipeline import cli, workspace
from davae.pipeline.options import REGISTRY
from synthhand.dataset.factors import sample_factors
from synthhand.dataset.scene import render

REPOSITORY = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "data/README.md", "davae/photo/weights/README.md", "docs/*.md")
COMMAND = re.compile(r"^(?:.*[ /])?(?:-m |-- )?davae (?=[a-z])(.*)$")


def pages() -> list[Path]:
    return sorted(path for pattern in PAGES for path in REPOSITORY.glob(pattern))


CODE = re.compile(
    r"^```bash\n(.*?)^```|((?:^    [^\n]*\n)+)|`((?:python -m )?davae [a-z][^`\n]* --[^`\n]*)`", re.M | re.S
)


def command_lines(text: str) -> list[list[str]]:
    """Arguments of each davae command in the code of a page; one with "..." is an outline and left out."""
    blocks = CODE.findall(text)
    lines = re.sub(r"\\\n\s*", " ", "\n".join(max(block) for block in blocks)).splitlines()
    arrays = {name: words for line in lines for name, words in re.findall(r"^\s*(\w+)=\((.*)\)$", line)}
    found = []
    for line in lines:
        for name, words in arrays.items():
            line = line.replace(f'"${{{name}[@]}}"', words)
        if (match := COMMAND.match(line.partition("  #")[0])) and "..." not in line:
            found.append(shlex.split(match[1]))
    return found


LINES = [(path, line) for path in pages() for line in command_lines(path.read_text(encoding="utf-8"))]


def test_command_lines_are_found():
    page = '    A=(x=1 y=2)\n    python -m davae train --run R \\\n        --set "${A[@]}"  # why\n    ls\n'
    assert command_lines(page) == [["train", "--run", "R", "--set", "x=1", "y=2"]]
    assert command_lines("    davae sweep ... --jobs 2\n\nUse `davae train --x`.\n") == [["train", "--x"]]
    assert {line[0] for _, line in LINES} >= {"reproduce", "predict", "pack", "train-camera", "sweep"}


@pytest.mark.parametrize(("path", "line"), LINES, ids=lambda value: str(value)[-60:])
def test_a_page_names_commands_and_options_that_exist(path, line):
    name, *arguments = line
    called = []

    @functools.wraps(cli.COMMANDS[name])
    def command(**options):
        called.append(options)

    tyro.cli(command, args=arguments, registry=REGISTRY)
    assert len(called) == 1


SNIPPETS = [
    (path, snippet)
    for path in pages()
    for snippet in re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder in which `make reproduce PRESET=smoke` has trained."""
    home = tmp_path_factory.mktemp("home")
    workspace.Workspace.of("smoke", home=str(home)).ensure_trained()
    return home


@pytest.mark.parametrize(("path", "snippet"), SNIPPETS, ids=lambda value: str(value)[-40:])
def test_snippets_run(path, snippet, tmp_path, monkeypatch, request, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("photo.jpg", "hand.jpg"):
        Image.fromarray(render(sample_factors(7, "test", 22, "frontal")).image).save(name)
    if "Workspace" in snippet:
        home = request.getfixturevalue("trained")
        monkeypatch.setattr(workspace, "project_folder", lambda: home)
    exec(compile(snippet, str(path), "exec"), {})
    assert capsys.readouterr().out or "print" not in snippet


def test_there_are_snippets():
    assert {path.name for path, _ in SNIPPETS} >= {"README.md", "photos.md", "architecture.md"}


def rows_of_glossary() -> list[tuple[str, Path]]:
    """Each name in the second column of the glossary, with the file in the fourth."""
    page = REPOSITORY / "docs" / "glossary.md"
    found = []
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        if len(cells) == 4 and (place := re.search(r"\]\((.*?)\)", cells[3])):
            found += [(name, page.parent / place[1]) for name in re.findall(r"`([^`]+)`", cells[1])]
    return found


def test_names_of_the_glossary_occur_where_it_says():
    rows = rows_of_glossary()
    assert len(rows) > 60
    astray = [
        (name, file.name)
        for name, file in rows
        if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", file.read_text(encoding="utf-8"))
    ]
    assert not astray
