"""Hostile input that a coverage-guided fuzzer makes: atheris, which is libFuzzer for Python.

    PYTHONPATH=tests:.venv/fuzz python -m drill.guided --runs 20000

damages the valid files of each reader (`drill.hostile`), too. But it keeps those that reach code not reached
before, in davae and synthhand and in the Python parts of Pillow and SciPy, and damages them further. So it
passes checks that drawn damage hardly ever passes. `make drill` runs it where atheris installs. Files depend
on the code that those before have reached, so a seed does not always make the same: those that fail are kept.
"""

import argparse
import contextlib
import io
import mmap
import os
import re
import shutil
import struct
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from drill import hostile

INSTRUMENTED = ["davae", "synthhand", "PIL", "scipy.io"]
COUNTS = struct.Struct("<qqqdq")  # of `hostile.Result`: cases, named, valid, slowest_s, most_bytes
MOST_FAILURES = 10  # of a reader's file that are kept and told


class Guided(hostile.Result):
    """What became of the files of a reader, and how much code they reached."""

    edges: tuple[int, int] = (0, 0)  # reached by the valid files, and in the end

    def include(self, other: "Guided") -> None:
        """Count what became of another file of the same reader."""
        self.cases, self.named, self.valid = (
            getattr(self, name) + getattr(other, name) for name in ("cases", "named", "valid")
        )
        self.failures += other.failures
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.most_bytes = max(self.most_bytes, other.most_bytes)
        self.edges = self.edges[0] + other.edges[0], self.edges[1] + other.edges[1]


def fuzz(reader: hostile.Reader, path: Path, runs: int, number: int, work: Path) -> Guided:
    """Let a forked process fuzz one of a reader's files; return what became of it.

    Args:
        reader: of the file.
        path: of the valid file, which is damaged in place and whole again afterwards.
        runs: number of files to make.
        number: seed.
        work: a new folder for the fuzzer's own files, which keeps those that failed.
    """
    whole, shared = path.read_bytes(), mmap.mmap(-1, COUNTS.size)
    corpus, log, failed = work / "corpus", work / "log", work / "failed"
    corpus.mkdir(parents=True)
    failed.mkdir()
    (corpus / "whole").write_bytes(whole)
    pid = os.fork()
    if pid == 0:
        try:
            hostile.protect()
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
            words = [f"-runs={runs}", f"-seed={number + 1}"]  # libFuzzer takes 0 for any seed
            words += [f"-timeout={hostile.WAIT_S:.0f}", "-rss_limit_mb=8000", f"-artifact_prefix={failed}/"]
            words.append(str(corpus))
            _let_atheris_work(reader, path, failed, shared, words)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)  # atheris ends the process itself, with 0
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    result = Guided(*_read_counts(shared))
    result.failures = [
        f"{told.read_text(encoding='utf-8')} ({told.with_suffix('')})"
        for told in sorted(failed.glob("*.txt"))
    ]
    if (more := result.cases - result.named - result.valid - len(result.failures)) > 0:
        result.failures.append(f"{path.name}: {more} more")
    said = log.read_text(encoding="utf-8", errors="replace")
    if code != 0:
        if path.exists():
            shutil.copy(path, failed / "last")
        last = " / ".join(said.splitlines()[-3:])[-300:]
        result.failures.append(f"{path.name}: ends the process with {code}: {last} ({failed / 'last'})")
    if reached := re.findall(r"\bcov: (\d+)", said):
        result.edges = int(reached[0]), int(reached[-1])
    path.write_bytes(whole)
    return result


def _let_atheris_work(
    reader: hostile.Reader, path: Path, failed: Path, shared: mmap.mmap, words: Sequence[str]
) -> None:
    """Judge the files that atheris makes, until it ends this process; count them in memory that is shared."""
    import atheris

    def judge(content: bytes) -> None:
        content = hostile.mend(reader.name, content)
        path.write_bytes(content)
        outcome, seconds, peak = hostile.judge(reader, path)
        counted = hostile.Result(*_read_counts(shared))
        counted.add(path.name, outcome, seconds, peak)
        if counted.failures and (kept := len(list(failed.glob("*.txt")))) < MOST_FAILURES:
            (failed / f"{kept:02}").write_bytes(content)
            (failed / f"{kept:02}.txt").write_text("; ".join(counted.failures), encoding="utf-8")
        COUNTS.pack_into(
            *(shared, 0, counted.cases, counted.named, counted.valid),
            *(counted.slowest_s, counted.most_bytes),
        )

    atheris.Setup([sys.argv[0], *words], judge)
    atheris.Fuzz()


def _read_counts(shared: mmap.mmap) -> tuple[int, int, int, list[str], float, int]:
    cases, named, valid, slowest_s, most_bytes = COUNTS.unpack_from(shared)
    return cases, named, valid, [], slowest_s, most_bytes


def make_instrumented_readers(home: Path) -> list[hostile.Reader]:
    """Return the readers of `hostile.make_readers`, made so that atheris sees what they reach."""
    import atheris

    quiet = contextlib.redirect_stderr(io.StringIO())  # it tells each module's name
    with quiet, atheris.instrument_imports(include=INSTRUMENTED):
        return hostile.make_readers(home)


def format_table(results: dict[str, Guided]) -> str:
    """Return the table of all readers."""
    lines = hostile.format_table(results).splitlines()
    edges = [
        "branches reached: at first, at last",
        *(f"{r.edges[0]:18,} {r.edges[1]:9,}" for r in results.values()),
    ]
    return "\n".join(f"{line} {more:>37}" for line, more in zip(lines, edges, strict=True))


def main() -> int:
    """Fuzz all readers; print a table of them and what failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000, help="files to make, over all readers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only readers whose names contain this")
    parser.add_argument("--keep", type=Path, help="new folder to work in, which keeps the files that failed")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="davae fuzz ") as name:
        home = chosen.keep or Path(name)
        readers = make_instrumented_readers(home / "readers")
        each, results = -(-chosen.runs // len(readers)), {}
        for reader in tqdm([r for r in readers if chosen.only in r.name], unit="reader"):
            results[reader.name] = Guided()
            for path in reader.seeds:
                runs = -(-each // len(reader.seeds))
                work = home / "fuzz" / f"{reader.name}-{path.name}"
                results[reader.name].include(fuzz(reader, path, runs, chosen.seed, work))
    print("\nreaders, of files that the fuzzer makes", format_table(results), sep="\n")
    failures = [f"{name}: {told}" for name, result in results.items() for told in result.failures]
    print(*failures, f"the fuzzer: {len(failures)} failed; seed {chosen.seed}", sep="\n", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
