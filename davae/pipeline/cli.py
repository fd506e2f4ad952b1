"""The command line: find the command, let tyro read its options, report errors. `python -m davae --help`."""

import os
import platform
import signal
import sys
import threading
from types import FrameType

import tyro

from davae import __version__
from davae.pipeline.commands import data, latent, photos, reports, training
from davae.pipeline.notebooks import NotebookError
from davae.pipeline.options import REGISTRY, choose
from davae.pipeline.streams import discard_unread_output, escape_unprintable

ABOUT = (
    "da-VAE: 3D hand pose, shape and appearance from one RGB image. Start with `reproduce --preset smoke`."
)
COMMANDS = {
    function.__name__.replace("_", "-"): function
    for function in (
        data.render, data.check_data, data.prepare, data.join_data, training.train_mask,
        training.predict_masks, training.train, training.sweep, training.evaluate, latent.latent_report,
        training.train_camera, photos.pack, photos.unpack, photos.predict, photos.app, photos.export,
        reports.notebooks, reports.reproduce, reports.findings, reports.summary,
    )
}  # fmt: skip


class Terminated(KeyboardInterrupt):
    """Somebody asked this process to end, by SIGTERM."""


def main() -> None:
    """Run the command line; expected errors are printed without a traceback (DAVAE_DEBUG=1 shows it).

    Exit codes: 1 for an error, 2 for words that make no command, 130 after Ctrl-C and 143 after SIGTERM.
    """
    escape_unprintable()
    # Under torchrun a process waits for others in compiled code and could not heed it.
    if threading.current_thread() is threading.main_thread() and "TORCHELASTIC_RUN_ID" not in os.environ:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        try:
            _run(sys.argv[1:])
        finally:
            if sys.stdout is not None:  # it is None if the caller closed it
                sys.stdout.flush()
    except (ValueError, OSError, FloatingPointError, NotebookError) as error:
        if isinstance(error, BrokenPipeError) and discard_unread_output():
            sys.exit(1)
        if os.environ.get("DAVAE_DEBUG"):
            raise
        if "TORCHELASTIC_RUN_ID" in os.environ:  # under torchrun, most errors occur in every process
            from davae.training.distributed import tell_once

            tell_once(f"davae: {error}")
            sys.exit(1)
        sys.exit(f"davae: {error}")
    except KeyboardInterrupt as stop:
        sys.exit(_report_interruption(stop))
    except ImportError as error:  # pybind11 raises it if Ctrl-C comes while it loads an extension (Open3D's)
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        code = _report_interruption(error.__cause__)
        os._exit(code)  # `sys.exit` lets Open3D see tensors that it has not freed, and end the process with 1


def _report_interruption(stop: KeyboardInterrupt) -> int:
    """Say what to do; return the exit code."""
    said = "davae: interrupted; what was completed is kept. Run the command again: rendering, preparing and "
    print(f"{said}training continue from there", file=sys.stderr, flush=True)
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


def _terminate(number: int, frame: FrameType | None) -> None:
    """End as after Ctrl-C, so that what is open is closed and what is done is written."""
    raise Terminated


def _run(arguments: list[str]) -> None:
    """Run the command that the first argument names, or print the list of commands."""
    arguments = arguments or ["--help"]
    if arguments == ["--version"]:
        print(f"davae {__version__}, Python {platform.python_version()}, {platform.platform()}")
        return
    name = arguments[0].replace("_", "-")
    if name.startswith("-"):
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="davae", description=ABOUT, args=arguments, registry=REGISTRY
        )
        return
    try:
        name = choose(name, COMMANDS, "command")
    except ValueError as error:
        print(f"davae: {error}; `davae --help` explains them", file=sys.stderr)
        sys.exit(2)
    # Read on its own, a command's error messages point to its own --help.
    tyro.cli(COMMANDS[name], prog=f"davae {name}", args=arguments[1:], registry=REGISTRY)
