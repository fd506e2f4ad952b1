"""The house rules: import direction, a small core, a pinned environment, clean notebooks and files."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import davae

REPOSITORY = Path(__file__).parents[1]
PACKAGES = [REPOSITORY / name for name in ("synthhand", "davae")]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))

# Rooms of both packages from the ground up: each may import only from those before it. `synthhand` comes
# first, so that it never imports `davae`.
ORDER = {
    "synthhand": ("__init__", "skeleton", "pinhole", "storage", "model", "render", "formats", "dataset"),
    "davae": (
        *("__init__", "config", "networks", "losses", "metrics", "data", "training", "rivals", "evaluation"),
        *("latent", "figures", "studies", "photo", "pipeline", "__main__", "predict", "workspace"),
    ),
}
DEPRECATED = ("predict", "workspace")  # old paths that version 0.1 taught, each a re-export until 0.3.0
ROOMS = 13  # of davae at most, beside the two files that Python wants; one of them for the paper's rivals
CORE = (  # what a student must read: the paper, without the camera head, which it lacks, and what speeds up
    *("synthhand.skeleton", "synthhand.pinhole", "davae.config.schema", "davae.config.presets"),
    *("davae.losses", "davae.metrics", "davae.networks.blocks", "davae.networks.encoder"),
    *("davae.networks.decoders", "davae.networks.davae", "davae.networks.handmask"),
)
CORE_IMPORTS = {"torch", "numpy", "davae", "synthhand"}
CORE_LINES = 1250  # lines that hold something: blank ones cost a reader nothing
# Heavy packages that only these files, or all files of these folders, may know: the rest runs without them.
ONLY_IN = {
    "torch": ("davae",),
    "open3d": ("synthhand/render/raycast.py", "davae/figures"),
    "matplotlib": ("davae/figures",),
    "seaborn": ("davae/figures",),
    "plotly": ("davae/figures",),
    "ipywidgets": ("davae/photo/explorer.py", "davae/photo/app"),
    "anywidget": ("davae/photo/app",),
    "voila": ("davae/photo/app",),
    "papermill": ("davae/pipeline/notebooks.py",),
    "pydantic": ("davae/config/reading.py",),
    "tyro": ("davae/pipeline",),
    "rich": ("davae/studies/board.py", "davae/evaluation/text_table.py"),
    "distributed": ("davae/studies/executors.py",),
    "submitit": ("davae/studies/executors.py",),
    "onnx": ("davae/photo/graph.py", "davae/photo/export.py"),
    "onnxruntime": ("davae/photo/graph.py", "davae/photo/engine.py"),
}


def modules() -> dict[str, Path]:
    """Dotted name -> file, of every module of both packages; a folder's name stands for its __init__.py."""
    found = {}
    for path in sorted(path for package in PACKAGES for path in package.rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Dotted names that the file of module `name` imports, at any depth of its code."""
    found = set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            names = {f"{source}.{alias.name}" for alias in node.names}
            found.update(names & known.keys())
            if not names <= known.keys():
                found.add(source)
    return found


IMPORTS = {name: imports(name, path, MODULES) for name, path in MODULES.items()}


def group(module: str) -> tuple[str, str]:
    """Package and room that a module belongs to."""
    package, *rest = module.split(".")
    return package, [*rest, "__init__"][0]


def upward(graph: dict[str, set[str]]) -> list[str]:
    """Imports that lead from a room to a later one."""
    places = ((package, room) for package, rooms in ORDER.items() for room in rooms)
    rank = {room: place for place, room in enumerate(places)}
    return [
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in sorted(others)
        if other.split(".")[0] in ORDER and rank[group(other)] > rank[group(name)]
    ]


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that no reading order can place: what is left once all that can come first is taken away."""
    left = {name: others & graph.keys() for name, others in graph.items()}
    while ready := [name for name, others in left.items() if not others & left.keys()]:
        for name in ready:
            del left[name]
    return sorted(left)


def test_every_module_has_its_place_in_the_order():
    homeless = sorted(name for name in MODULES if group(name)[1] not in ORDER[group(name)[0]])
    assert not homeless, f"{homeless}: not in ORDER; say where in the import order they stand"


def test_davae_has_few_rooms():
    assert len(ORDER["davae"]) - len(["__init__", "__main__", *DEPRECATED]) <= ROOMS
    assert {path.name for path in (REPOSITORY / "davae").glob("*.py")} == {
        *("__init__.py", "__main__.py", "losses.py", "metrics.py"),
        *(f"{name}.py" for name in DEPRECATED),
    }


@pytest.mark.parametrize(
    ("name", "new", "offered"),
    [
        ("predict", "davae.photo", "HandPredictor"),
        ("workspace", "davae.pipeline", "Workspace"),
    ],
)
def test_old_paths_work_until_0_3_and_name_the_new_ones(name, new, offered):
    assert Version(davae.__version__) < Version("0.3.0"), f"delete davae/{name}.py and its mention here"
    sys.modules.pop(f"davae.{name}", None)
    with pytest.warns(DeprecationWarning, match=f"from {new} import {offered}`; this path ends with 0.3.0"):
        old = importlib.import_module(f"davae.{name}")
    assert getattr(old, offered) is getattr(importlib.import_module(new), offered)


def test_imports_go_upward_only():
    assert not upward(IMPORTS)


def test_files_of_one_group_have_a_reading_order():
    assert not cycle(IMPORTS)


def test_the_import_tests_see_what_they_look_for(tmp_path):
    source = (
        "from davae.pipeline import cli\n"
        "def f():\n    from ..training import loop, Thing\n"
        "import torch.nn as nn\n"
    )
    path = tmp_path / "readers.py"
    path.write_text(source)
    known = dict.fromkeys(("davae", "davae.pipeline.cli", "davae.training", "davae.training.loop"), path)
    found = imports("davae.data.readers", path, known)
    assert found == {"davae.pipeline.cli", "davae.training", "davae.training.loop", "torch.nn"}
    assert len(upward({"synthhand.formats.rhd": found, "davae.pipeline.cli": {"synthhand.formats.rhd"}})) == 3
    assert cycle({"a": {"b"}, "b": {"a"}, "c": {"a"}, "d": set()}) == ["a", "b", "c"]


@pytest.mark.parametrize("name", CORE)
def test_core_needs_torch_and_numpy_alone(name):
    outside = {other.split(".")[0] for other in IMPORTS[name]} - CORE_IMPORTS - sys.stdlib_module_names
    assert not outside


def test_core_imports_where_nothing_else_is_installed():
    names = list(CORE)
    absent = [
        "open3d",
        "matplotlib",
        "scipy",
        "skimage",
        "PIL",
        "pandas",
        "IPython",
        "ipywidgets",
        "tqdm",
        "tyro",
    ]
    code = f"import sys, importlib\nsys.modules.update(dict.fromkeys({absent}))\n"  # None: importing it fails
    run_python(code + f"for name in {names}: importlib.import_module(name)")


def test_core_can_be_read_in_an_evening():
    texts = {name: MODULES[name].read_text(encoding="utf-8") for name in CORE}
    lines = {name: sum(bool(line.strip()) for line in text.splitlines()) for name, text in texts.items()}
    assert sum(lines.values()) <= CORE_LINES, lines


@pytest.mark.parametrize("package", ONLY_IN)
def test_heavy_packages_are_known_to_few_files(package):
    users = {
        MODULES[name].relative_to(REPOSITORY).as_posix()
        for name, others in IMPORTS.items()
        if package in {other.split(".")[0] for other in others}
    }
    assert {file for file in users if not file.startswith(ONLY_IN[package])} == set()


def test_import_davae_is_light():
    heavy = {
        "torch",
        "numpy",
        "scipy",
        "open3d",
        "matplotlib",
        "pandas",
        "PIL",
        "IPython",
        "tyro",
        "papermill",
    }
    loaded = run_python(
        "import sys, davae.pipeline; print(*{name.split('.')[0] for name in sys.modules})"
    ).split()
    assert not heavy & set(loaded)


def run_python(code: str) -> str:
    """What a fresh interpreter prints; a failure shows its error output."""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


# The environment


def project() -> dict:
    """pyproject.toml's [project]."""
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def lock() -> list[Requirement]:
    """The lines of requirements.lock."""
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def pins() -> dict[tuple[str, str], str]:
    """(name, marker) -> version pinned by the lock."""
    return {(canonicalize_name(r.name), str(r.marker or "")): next(iter(r.specifier)).version for r in lock()}


def wanted() -> list[Requirement]:
    """What pyproject.toml asks for to run and to test."""
    return [
        Requirement(r) for r in [*project()["dependencies"], *project()["optional-dependencies"]["tests"]]
    ]


def test_lock_holds_plain_versions_only():
    for requirement in lock():
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), f"{requirement}: not one plain version"
        assert requirement.url is None and not requirement.extras, requirement
        assert not re.match(r"(nvidia|cuda)-|triton$|davae$", requirement.name), (
            f"{requirement}: not for the lock"
        )
    assert len(pins()) == len(lock()), "a package is pinned twice"


@pytest.mark.parametrize("requirement", wanted(), ids=str)
def test_lock_pins_what_the_project_asks_for(requirement):
    version = pins().get((canonicalize_name(requirement.name), str(requirement.marker or "")))
    assert version is not None, f"{requirement} is not in requirements.lock; run `make lock`"
    assert version in requirement.specifier, f"lock has {version}, pyproject.toml asks for {requirement}"


def test_installed_versions_are_the_locked_ones(require):
    other = {}
    for requirement in lock():
        if requirement.marker is None or requirement.marker.evaluate():
            version = next(iter(requirement.specifier)).version
            installed = installed_version(requirement.name)
            if installed != version:
                other[requirement.name] = f"{installed}, not {version}"
    require(not other, f"this environment is not requirements.lock's: {other}")


def test_what_make_runs_keeps_its_bytecode(require):
    """The environment is installed uncompiled: else every process would compile torch anew."""
    require(shutil.which("make"), "make is not installed")
    told = subprocess.run(
        ["make", "--no-print-directory", "-f", "-", "told"],
        input='include Makefile\ntold: ; @echo "[$$PYTHONDONTWRITEBYTECODE]"\n',
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert told.stdout == "[]\n", told.stderr


def installed_version(name: str) -> str | None:
    """A package's version without its build tag (2.13.0+cpu is 2.13.0), or None where it is absent."""
    try:
        return metadata.version(name).split("+")[0]
    except metadata.PackageNotFoundError:
        return None


@pytest.fixture
def beside_a_clone(tmp_path) -> Path:
    """A folder in which a clone named davae lies: Python may take that for a namespace package."""
    (tmp_path / "davae" / "davae").mkdir(parents=True)
    (tmp_path / "davae" / "davae" / "__init__.py").touch()
    (tmp_path / "davae" / "notebooks").mkdir()
    (tmp_path / "script.py").write_text("import davae.config\nprint(davae.__file__)\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("place", [".", "davae/notebooks"])
@pytest.mark.parametrize(
    "arguments",
    [["-c", "import davae.config; print(davae.__file__)"], ["script.py"], ["-m", "davae", "-h"]],
)
def test_the_package_is_found_beside_its_clone(beside_a_clone, place, arguments):
    if arguments[0] == "script.py":
        arguments = [str(beside_a_clone / "script.py")]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=beside_a_clone / place,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr}\nAn older editable install? `pip install -e .` renews it."
    assert (
        "reproduce" in done.stdout if "-m" in arguments else Path(done.stdout.strip()) == Path(davae.__file__)
    )


def test_a_kernel_beside_the_clone_finds_the_package(beside_a_clone):
    import papermill

    cell = nbformat.v4.new_code_cell("import davae.config\nprint(davae.__file__)")
    source, executed = beside_a_clone / "source.ipynb", beside_a_clone / "executed.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), source)
    papermill.execute_notebook(
        source, executed, kernel_name="python3", cwd=beside_a_clone, progress_bar=False, execution_timeout=120
    )
    said = nbformat.read(executed, as_version=4).cells[-1].outputs[0].text
    assert Path(said.strip()) == Path(davae.__file__)


def test_conda_environment_is_the_lock():
    conda = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    assert conda["channels"] == ["conda-forge", "nodefaults"]
    python, pip, lock_file = conda["dependencies"]
    assert (
        re.match(r"\d+\.\d+", python.removeprefix("python="))[0]
        in Requirement(f"python{project()['requires-python']}").specifier
    )
    assert pip == "pip"
    assert lock_file == {"pip": ["-r requirements.lock", "-e ."]}


def test_binder_gets_the_same_python_and_the_lock():
    """It reads `.binder/` alone: torch from conda-forge, without CUDA, then the lock, which keeps it."""
    folder = REPOSITORY / ".binder"
    conda, binder = (
        yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in (REPOSITORY / "environment.yml", folder / "environment.yml")
    )
    assert binder["channels"] == conda["channels"]
    *same, torch = binder["dependencies"]
    assert same == conda["dependencies"][:2]
    assert torch == f"pytorch-cpu<={pins()[('torch', '')]}"
    build = folder / "postBuild"
    assert build.stat().st_mode & 0o111, "Binder runs postBuild; it must be executable"
    assert "pip install --no-cache-dir -r requirements.lock" in build.read_text(encoding="utf-8")


def test_this_python_is_supported():
    assert (
        default_environment()["python_version"] in Requirement(f"p{project()['requires-python']}").specifier
    )


# Notebooks


def notebook_faults(notebook: dict) -> list[str]:
    """Everything that a committed notebook must not have."""
    faults = []
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        faults.append("its kernel is not named python3")
    ids = [cell.get("id") for cell in notebook["cells"]]
    if None in ids or len(set(ids)) < len(ids):
        faults.append("cells without an id of their own")
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for cell in code:
        first = (cell["source"].splitlines() or [""])[0]
        if cell["outputs"] or cell["execution_count"] is not None:
            faults.append(f"stored output in the cell {first!r}; `make format` strips it")
        if (lines := len(cell["source"].splitlines())) > 30:
            faults.append(f"{lines} lines, more than 30, in the cell {first!r}")
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        faults.append(f"{len(tagged)} cells tagged parameters, not 1")
    faults += [f"not a literal: {line}" for cell in tagged for line in not_literals(cell["source"])]
    return faults


def not_literals(source: str) -> list[str]:
    """Statements of a parameters cell that are not `name = literal`."""
    wrong = []
    for statement in ast.parse(source).body:
        try:
            if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
                raise ValueError
            ast.literal_eval(statement.value)
        except ValueError:
            wrong.append(ast.unparse(statement))
    return wrong


def test_notebooks_are_numbered_without_a_gap_but_for_those_that_the_readme_calls_planned():
    numbers = [path.name.split("_")[0] for path in NOTEBOOKS]
    readme = (REPOSITORY / "README.md").read_text()
    planned = re.findall(r"^\| `(\d\d)\w*` \|.*\| planned \|$", readme, re.MULTILINE)
    assert sorted(numbers + planned) == [f"{n:02d}" for n in range(len(numbers + planned))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_clean(path):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)  # the first format with cell ids
    nbformat.validate(notebook)
    assert not notebook_faults(notebook)


def test_notebook_faults_are_found():
    def cell(source, **other):
        tags = {"tags": ["parameters"]} if "preset" in source else {}
        base = {
            "cell_type": "code",
            "source": source,
            "metadata": tags,
            "outputs": [],
            "execution_count": None,
        }
        return base | {"id": source} | other

    def faults(*cells, kernel="python3"):
        return notebook_faults({"metadata": {"kernelspec": {"name": kernel}}, "cells": list(cells)})

    good = cell('preset = "smoke"  # or "laptop"\nseed = -1')
    assert faults(good, cell("x = 1\n" * 30)) == []
    for bad in (
        [good, cell("x", outputs=[{}])],
        [good, cell("x", execution_count=1)],
        [good, cell("x = 1\n" * 31)],
        [good, cell("x", id="same"), cell("y", id="same")],
        [cell("x")],
        [good, cell("preset = 1")],
        [cell("preset = str(1)")],
        [cell("import os\npreset = 1")],
    ):
        assert len(faults(*bad)) == 1, bad
    assert faults(good, kernel="venv") == ["its kernel is not named python3"]


# Files

# Written in pieces, so that this file does not hold what it forbids.
FORBIDDEN = {
    "a path of one machine": r"(?<![\w.:/-])/(?:home|root|Users|work|opt|mnt|tmp)/[\w.]|\b[A-Z]:\\\\?Users",
    "a package registry": r"(pypi|pythonhosted|anaconda)\.(org|com)|download\.pytorch|--[a-z-]*index[-]url",
}
# These decide what a run trains to: a changed line parts every finished run from its continuation. They write
# digits alone.
BINARY = {".png", ".jpg", ".npz", ".safetensors"}
LARGEST_BYTES = 1_000_000


@pytest.fixture(scope="module")
def tracked(require) -> list[Path]:
    """Every file under version control."""
    git = ["git", "-c", "safe.directory=*", "ls-files", "-z"]  # a clone may belong to another user
    try:
        listing = subprocess.run(git, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        require(False, f"git cannot list the files: {error}")
    paths = [REPOSITORY / name for name in listing.split("\0") if name]
    return [path for path in paths if path.is_file()]  # a file may be deleted and not yet committed


def forbidden(text: str) -> dict[str, str]:
    """What of FORBIDDEN a text holds: what it is -> the first such piece."""
    found = {what: re.search(pattern, text) for what, pattern in FORBIDDEN.items()}
    return {what: match[0] for what, match in found.items() if match}


def test_files_name_no_machine_and_no_registry(tracked):
    texts = {path: path.read_bytes() for path in tracked if path.suffix not in BINARY}
    found = {path: forbidden(data.decode("utf-8")) for path, data in texts.items()}
    assert not {path.relative_to(REPOSITORY).as_posix(): what for path, what in found.items() if what}


@pytest.mark.parametrize(
    "pieces", [("see /ho", "me/ann"), ("=/tm", "p/x"), ("https://py", "pi.org"), ("--index", "-url x")]
)
def test_forbidden_pieces_are_found(pieces):
    assert forbidden("".join(pieces))


def unsaid_encodings(source: str) -> list[str]:
    """Calls that read or write text in whatever encoding the user's locale has."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        method = isinstance(call.func, ast.Attribute)
        name = call.func.attr if method else getattr(call.func, "id", "")
        said = {word.arg for word in call.keywords}
        whose = ast.unparse(call.func.value) if method else ""
        mode = [ast.unparse(word.value) for word in call.keywords if word.arg == "mode"]
        mode += [ast.unparse(argument) for argument in call.args[0 if method else 1 :]][:1]
        texts = {
            "read_text": method and not call.args,
            "write_text": method and len(call.args) == 1,
            "open": (method or call.args) and whose not in NO_TEXT and (not mode or mode[0] in TEXT_MODES),
        }
        if "encoding" not in said and (texts.get(name) or said & {"text", "universal_newlines"}):
            found.append(ast.unparse(call))
    return found


NO_TEXT = {"Image", "Pages", "os"}  # things with an `open` of another kind
TEXT_MODES = {repr(mode + more) for mode in "rwax" for more in ("", "t", "+")}


def test_text_files_are_utf_8_whatever_the_locale(tracked):
    found = {}
    for path in tracked:
        name = path.relative_to(REPOSITORY).as_posix()
        if name.endswith(".py") and name.startswith(("davae/", "synthhand/", "benchmarks/")):
            found[name] = unsaid_encodings(path.read_text(encoding="utf-8"))
    assert not {name: calls for name, calls in found.items() if calls}


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("p.read_text(); p.write_text(x); open(p); p.open(); p.open('w'); open(p, mode='a')", 6),
        ("run(c, text=True)", 1),
        ("p.read_text('utf-8', 'replace'); p.open('rb'); open(p, 'wb'); p.open(encoding='utf-8')", 0),
        ("Image.open(p); runs.write_text(p, x); run(c, encoding='utf-8'); A.open(root, 'test')", 0),
    ],
)
def test_unsaid_encodings_are_found(source, count):
    assert len(unsaid_encodings(source)) == count


def test_no_large_file_outside_the_figures(tracked):
    figures = REPOSITORY / "docs" / "figures"
    free = (figures, REPOSITORY / "davae/photo/weights")  # whose own limit tests/test_weights.py knows
    sizes = {path: path.stat().st_size for path in tracked if not {*free} & {*path.parents}}
    assert not {path.name: size for path, size in sizes.items() if size > LARGEST_BYTES}


def test_data_and_outputs_are_not_tracked(tracked):
    names = {path.relative_to(REPOSITORY).as_posix() for path in tracked}
    assert {name for name in names if name.startswith(("data/", "outputs/"))} == {"data/README.md"}


def test_documents_link_to_files_that_exist(tracked):
    broken = []
    for document in (path for path in tracked if path.suffix == ".md"):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8")):
            if "://" not in target and not (document.parent / target).exists():
                broken.append(f"{document.relative_to(REPOSITORY)}: {target}")
    assert not broken


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_link_to_files_that_exist(path):
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in target]
    assert not [target for target in targets if not (path.parent / target).exists()]
    if path.name.startswith("00"):  # its map names every other notebook
        assert {other.name for other in NOTEBOOKS} - {path.name} <= {*targets}


def test_licence_and_citation():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert (REPOSITORY / "LICENSE").read_text().startswith("MIT License\n")
    assert citation["license"] == project()["license"] == "MIT"
    assert citation["version"] == davae.__version__
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["references"][0]["doi"].startswith("10.1007/")


@pytest.mark.parametrize("folder", ["studies/results", "photo/app"])
def test_what_is_no_code_is_shipped_with_the_package(folder):
    patterns = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]
    files = REPOSITORY / "davae" / folder
    found = {path.name for path in files.glob("*.*") if path.suffix not in {".py", ".pyc"}}
    assert found == {
        path.name for pattern in patterns[f"davae.{folder.replace('/', '.')}"] for path in files.glob(pattern)
    }
    assert found


def test_readme_can_be_read_in_minutes():
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
