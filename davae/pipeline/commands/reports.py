"""Commands that produce the reproduction's results: all stages, notebooks, verdicts, sizes."""

from pathlib import Path

from davae.pipeline.notebooks import CELL_TIMEOUT_S
from davae.pipeline.options import Dataset, Mask, Model, Preset, Rig


def notebooks(
    preset: Preset | None = None,
    out: Path | None = None,
    student: Path | None = None,
    grade: Path | None = None,
    seed: int = 0,
    model: Model = "da",
    dataset: Dataset = "synthhand",
    root: str = "",
    rig: Rig = "sk",
    mask: Mask = None,
    only: str = "",
    weights: str = "",
    home: str = "",
    timeout_s: int = CELL_TIMEOUT_S,
) -> None:
    """Execute the notebooks with papermill, after making the data and the run that they need (00 needs none).

    Failures are reported at the end; other notebooks continue. The exit status is 1 if one failed.
    With --student, nothing is executed; with --grade, students' copies are executed instead.

    Args:
        preset: Size and schedule; needed unless --student is given.
        out: Folder of the executed copies; needed unless --student is given.
        student: Folder for copies without the solutions of the exercises, to hand out in a course.
        grade: Folder of such copies with students' answers, or of a folder for each student. They are run
            with your rights on this machine. OUT gets the executed copies and `grades.csv`.
        seed: Training seed.
        dataset: SynthHand, which is rendered, or a dataset on disk.
        root: Folder of a dataset other than SynthHand.
        rig: For STB only. sk: colour pictures with a cloud. bb: stereo pictures.
        only: Execute only the notebooks with this text in their names.
        weights: Model that notebooks 05 and 07 look at instead of a run, so that nothing is trained:
            `shipped` for the model that comes with davae, or a file of `pack`. Needs `--only 05` or `07`.
        home: Folder that holds data and outputs; the default is the clone.
        timeout_s: Time limit of one cell, seconds; 0 for none, since sweeps in 03 and 04 can take hours.
    """
    from davae.evaluation.text_table import format_rows
    from davae.pipeline import grading
    from davae.pipeline.exercises import write_student_copies
    from davae.pipeline.notebooks import execute, find_notebooks, needs_run, select
    from davae.pipeline.workspace import Workspace

    if student is not None:
        given = {
            "grade": grade,
            "preset": preset,
            "out": out,
            "weights": weights,
            "mask": mask,
            "root": root,
            "home": home,
        }
        if unused := [f"--{name}" for name, value in given.items() if value]:
            raise ValueError(f"--student executes nothing, so leave out {', '.join(unused)}")
        for path in write_student_copies(find_notebooks(only), student):
            print(path)
        return
    if preset is None or out is None:
        raise ValueError("--preset and --out are needed, or --student for copies without solutions")
    space = Workspace.of(
        preset,
        seed=seed,
        model=model,
        dataset=dataset,
        root=root,
        rig=rig,
        mask=mask or "",
        home=home,
        weights=weights,
    )
    parameters = space.notebook_parameters
    # Refuse wrong requests before any training.
    known = select(out, parameters, only=only, timeout_s=timeout_s)
    copies = {} if grade is None else grading.find_copies(grade, only)
    if not weights and any(map(needs_run, known.values())):
        space.ensure_trained()
    if grade is not None:
        rows = grading.grade(copies, out, parameters, timeout_s=timeout_s)
        print(format_rows(("copy", "right", "others"), grading.summarise(rows), left=("others",)))
        return
    for path in execute(out, parameters, only=only, timeout_s=timeout_s):
        print(path)


def reproduce(
    preset: Preset = "laptop",
    seed: int = 0,
    model: Model = "da",
    dataset: Dataset = "synthhand",
    root: str = "",
    rig: Rig = "sk",
    mask: Mask = None,
    home: str = "",
) -> None:
    """Render, prepare, train, evaluate and run all notebooks; finished work is reused.

    Args:
        preset: smoke for a first look (minutes), laptop for results (40 minutes on two idle cores with bf16).
        seed: Training seed.
        dataset: SynthHand, which is rendered, or a dataset on disk.
        root: Folder of a dataset other than SynthHand.
        rig: For STB only. sk: colour pictures with a cloud. bb: stereo pictures.
        home: Folder that holds data and outputs; the default is the clone.
    """
    from davae.pipeline.reproduction import reproduce as run_all_stages
    from davae.pipeline.workspace import Workspace

    space = Workspace.of(
        preset, seed=seed, model=model, dataset=dataset, root=root, rig=rig, mask=mask or "", home=home
    )
    print(run_all_stages(space))


_FIGURES, _RESULTS = Path("docs/figures"), Path("docs/results.md")


def findings(
    out: Path = _FIGURES,
    results: Path = _RESULTS,
    runs: Path | None = None,
) -> None:
    """Judge every claim of the paper by the committed runs of record and draw Figs. 2 and 3; trains nothing.

    Args:
        out: Folder for the figures.
        results: File for the table of all claims, as Markdown.
        runs: Folder whose finished and evaluated runs, at any depth, are judged instead of those of record:
            of one preset, on one dataset. Needs `--out` and `--results`, lest they replace our own.
    """
    from davae.studies.claims import write_page
    from davae.studies.findings import format_report
    from davae.studies.record_figures import draw
    from davae.studies.records import read_run_folders, read_runs_of_record

    if runs is not None and (out == _FIGURES or results == _RESULTS):
        raise ValueError("--runs needs --out and --results: those of our runs of record are docs/figures "
                         "and docs/results.md")  # fmt: skip
    found = read_runs_of_record() if runs is None else read_run_folders(runs)
    print(format_report(found.records))
    write_page(results, found)
    for path in (results, *draw(found.records, out)):
        print(path)


def summary(preset: Preset = "paper", model: Model = "da") -> None:
    """Print parameters and FLOPs of each part of the network.

    Args:
        preset: Size of the network.
    """
    from davae.config.settings import experiment
    from davae.evaluation.summary import format_summary, summarise

    print(format_summary(summarise(experiment(preset, model=model).model)))
