"""Messages of the command line: unknown choices, limited terminal encodings, missing libraries."""

import ast
import importlib
import inspect
import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest

import davae
from davae.data.readers import READERS
from davae.pipeline import cli, options
from synthhand.dataset.forms import FORMS
from synthhand.render.raycast import load_open3d

LATIN = {"PYTHONIOENCODING": "latin-1"}
PLAIN_C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def python(*arguments, check=True, **environment):
    """Run Python in another environment; return what it printed as bytes."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        env=environ | environment,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture
def refused(capsys, monkeypatch):
    """What the command line says of arguments that it refuses, lines and frame joined to one sentence."""

    def say(*arguments):
        monkeypatch.setattr(sys, "argv", ["davae", *arguments])
        monkeypatch.setenv("PYTHONIOENCODING", "utf-8")  # which a command changes, put back afterwards
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        said = capsys.readouterr()
        return " ".join((said.out + said.err).replace("│", " ").split())

    return say


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("predict", "x.jpg", "--out", "y", "--side", "rigth"),
            "--side: unknown choice 'rigth'; choose one of left, right (did you mean right?)",
        ),
        (
            ("train", "--data", "x", "--run", "y", "--preset", "Labtop"),
            "--preset: unknown choice 'Labtop'; choose one of smoke, laptop, sweep, gpu, paper "
            "(did you mean laptop?)",
        ),
        (
            ("summary", "--model", "vae"),
            "--model: unknown choice 'vae'; choose one of da, na, se",
        ),
        (
            ("reproduce", "--mask", "net"),
            "--mask: unknown choice 'net'; choose one of none, truth, network",
        ),
        (
            ("prepare", "--dataset", "freihnd", "--root", "x", "--out", "y"),
            "--dataset: unknown choice 'freihnd'; choose one of synthhand, rhd, stb, freihand "
            "(did you mean freihand?)",
        ),
        (
            ("prepare", "--dataset", "stb", "--root", "x", "--out", "y", "--wrist", "None"),
            "--wrist: unknown choice 'None'; choose one of ring, middle, knuckles, palm",
        ),
        (("app", "--port", "8o"), "--port: expected a whole number, found '8o'"),
        (
            ("predict", "x.jpg", "--out", "y", "--bone-mm", "long"),
            "--bone-mm: expected a number, found 'long'",
        ),
    ],
)
def test_a_value_that_cannot_be_read_is_told_with_what_may_be_meant(refused, arguments, words):
    said = refused(*arguments)
    assert words in said
    assert f"For full helptext, see davae {arguments[0]} --help" in said


def test_capitals_do_not_matter():
    assert options.choose("Right", ("left", "right")) == "right"
    assert options.choose("SMOKE", ("smoke", "laptop")) == "smoke"


def test_a_mistyped_command_is_answered_with_the_nearest_one(refused):
    said = refused("trian", "--preset", "smoke")
    assert said.startswith("davae: unknown command 'trian'; choose one of render, check-data, ")
    assert "(did you mean train?); `davae --help`" in said


def test_commands_may_be_typed_with_underscores(refused):
    assert "davae check-data --help" in refused("check_data")


def test_every_command_is_listed_with_what_it_does(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["davae"])
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert f"• {name} " in said and command.__doc__.split()[0] in said


def test_datasets_can_be_rendered_in_every_form_that_can_be_read():
    assert FORMS.keys() == READERS.keys()


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_finds_what_it_imports(name):
    source = ast.parse(textwrap.dedent(inspect.getsource(cli.COMMANDS[name])))
    for line in (node for node in ast.walk(source) if isinstance(node, ast.ImportFrom)):
        found = importlib.import_module(line.module)
        for alias in line.names:
            assert hasattr(found, alias.name) or importlib.import_module(f"{line.module}.{alias.name}")


def test_help_needs_no_torch():
    code = (
        "import sys; from davae.pipeline import cli\n"
        "sys.argv = ['davae', *sys.argv[1:]]\n"
        "try: cli.main()\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    for arguments in (("--help",), ("train", "--help")):
        assert python("-c", code, *arguments).stdout.endswith(b"False\n")


def test_a_reader_that_ends_early_ends_no_command_with_a_traceback():
    """As in `davae summary | head -1`: the other end of the pipe is closed before anything is written."""
    code = (
        "import sys; from davae.pipeline import cli\n"
        "def summary():\n    print('line\\n' * 100_000)\n"
        "cli.COMMANDS['summary'] = summary; sys.argv = ['davae', 'summary']; cli.main()"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_broken_pipe_that_is_not_the_output_is_reported():
    code = (
        "import sys; from davae.pipeline import cli\n"
        "def summary():\n    raise BrokenPipeError(32, 'a worker ended')\n"
        "cli.COMMANDS['summary'] = summary; sys.argv = ['davae', 'summary']; cli.main()"
    )
    done = python("-c", code, check=False)
    assert done.returncode == 1 and b"davae: [Errno 32] a worker ended" in done.stderr


def test_a_terminal_without_greek_letters_ends_no_command(tmp_path):
    code = (  # figures, which take seconds, are left out
        "import sys; from davae.pipeline import cli; from davae.studies import record_figures; "
        "record_figures.draw = lambda *_: ['the figures']; "
        f"sys.argv = ['davae', 'findings', '--results', {str(tmp_path / 'results.md')!r}]; cli.main()"
    )
    done = python("-c", code, **PLAIN_C)
    assert b"\\u03b2 itself, at the paper's \\u03b1" in done.stdout
    assert done.stdout.endswith(b"the figures\n")


@pytest.mark.skipif(os.name == "nt", reason="there names are text")
def test_a_name_that_is_no_text_ends_no_command(tmp_path):
    root = tmp_path / os.fsdecode(b"\xff-set")
    try:
        root.mkdir()
    except OSError:
        pytest.skip("this file system wants names that are text")
    done = python("-m", "davae", "check-data", "--dataset", "rhd", "--root", root, check=False)
    assert done.returncode == 1 and b"\\udcff-set" in done.stdout and b"not usable as it is" in done.stdout


def test_processes_that_a_command_starts_print_as_it_does():
    code = (
        "import subprocess, sys; from davae.pipeline.streams import escape_unprintable; "
        "escape_unprintable(); subprocess.run([sys.executable, '-c', 'print(chr(946))'], check=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=os.environ | LATIN, check=True
    )
    assert done.stdout.strip() == b"\\u03b2"


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        ("ImportError('libGL.so.1: {}')", "libGL.so.1 is missing.*`apt-get install libgl1`"),
        ("OSError('libgomp.so.1: {}')", "libgomp.so.1 is missing.*`apt-get install libgomp1`"),
        ("ImportError('libX11.so.6: {}')", "libX11.so.6 is missing.*`apt-get install libx11-6`"),
        ("ImportError('libodd.so: {}')", "libodd.so is missing.*the package of your system that holds it"),
    ],
)
def test_a_missing_library_of_the_system_is_named_with_its_package(tmp_path, monkeypatch, raised, words):
    """As the dynamic loader says it, of which Open3D passes on the words."""
    said = "cannot open shared object file: No such file or directory"
    (tmp_path / "open3d.py").write_text(f"raise {raised.format(said)}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "open3d", raising=False)
    with pytest.raises(OSError, match=words):
        load_open3d()


def test_render_says_which_library_is_missing(tmp_path):
    said = "libGL.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "open3d.py").write_text(f"raise ImportError({said!r})\n", encoding="utf-8")
    counts = ("--train", 1, "--val", 1, "--test", 1, "--workers", 2)
    arguments = ("-m", "davae", "render", "--out", tmp_path / "set", *counts)
    done = python(*arguments, check=False, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert b"davae: libGL.so.1 is missing" in done.stderr and b"apt-get install libgl1" in done.stderr


def test_another_fault_of_open3d_is_passed_on(tmp_path, monkeypatch):
    (tmp_path / "open3d.py").write_text("raise ImportError('built for another Python')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "open3d", raising=False)
    with pytest.raises(ImportError, match="built for another Python"):
        load_open3d()


@pytest.fixture
def own_signals(monkeypatch):
    """Put back what a command changes in its process; a shell's background jobs ignore Ctrl-C."""
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_is_told_in_words_and_by_the_exit_code(monkeypatch, capsys, sent, code):
    def work(arguments):
        os.kill(os.getpid(), sent)
        time.sleep(60)

    monkeypatch.setattr(cli, "_run", work)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert "davae: interrupted; what was completed is kept. Run the command again" in capsys.readouterr().err


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (cli.Terminated(), 143)])
def test_an_interruption_of_an_import_is_one(monkeypatch, capsys, stop, code):
    """A library written with pybind11, as Open3D, makes an ImportError of it, and is then half imported."""

    def work(arguments):
        raise ImportError("initialization failed") from stop

    ended = []
    monkeypatch.setattr(cli, "_run", work)
    monkeypatch.setattr(os, "_exit", ended.append)
    cli.main()
    assert ended == [code]
    assert "davae: interrupted; what was completed is kept. Run the command again" in capsys.readouterr().err


@pytest.mark.usefixtures("own_signals")
def test_a_library_that_cannot_be_imported_is_no_interruption(monkeypatch):
    def work(arguments):
        raise ImportError("initialization failed") from OSError("no such file")

    monkeypatch.setattr(cli, "_run", work)
    with pytest.raises(ImportError, match="initialization failed"):
        cli.main()


def test_a_closed_stdout_hides_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(
        sys,
        "argv",
        ["davae", "render", "--out", f"{tmp_path / 'set'}", "--train", "-1", "--val", "0", "--test", "1"],
    )
    with pytest.raises(SystemExit, match="davae: train is -1, expected 0 or more"):
        cli.main()


def test_version_names_what_a_report_needs():
    answer = python("-m", "davae", "--version").stdout.decode()
    assert answer.startswith(f"davae {davae.__version__}, Python 3.")


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        ("KeyboardInterrupt", 130, "^davae: interrupted$"),
        (
            "ModuleNotFoundError('no', name='tyro')",
            1,
            r"^davae: tyro is not installed for .*run `make install`",
        ),
    ],
)
def test_what_goes_wrong_before_the_command_line_is_there_is_told_in_words(tmp_path, raised, code, words):
    (tmp_path / "tyro.py").write_text(f"raise {raised}")
    done = subprocess.run(
        [sys.executable, "-m", "davae", "predict"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code and re.search(words, done.stderr.strip()), done.stderr
