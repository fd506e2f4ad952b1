"""Hostile input: every reader of davae on files that hypothesis damages, watched from another process.

A case is a valid file with a few changes. A reader must return something or raise a named error: a
`ValueError` or `OSError` that says which file it is about. It must not end the process, take more than
`LIMIT_S` of a processor or `LIMIT_BYTES`, run anything in the file, or open a file elsewhere: the marks of
`payloads`.
"""

import json
import multiprocessing
import pickle
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tqdm.auto import tqdm

LIMIT_S = 5.0  # of a processor: a busy machine is no fault of a reader
WAIT_S = 120.0  # by the clock, until a reader counts as hanging
LIMIT_BYTES = 10**9
START_S = 120.0  # until the watched process has imported everything
Change = tuple[str, int, int, bytes]
NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
TOKENS = (b"[", b"{", b"null", b"-1", b"1e999", b"NaN", b'""', b"\0", b"\xff" * 8, b"[" * 3000)
ODD = (None, -1, 10**30, 0.5, "", "../x", [], {}, [[]], True, "remove")  # values in the place of others
changes = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.integers(0, 2**24), st.integers(1, 255), st.just(b"")),
        st.tuples(st.just("cut"), st.integers(0, 2**24), st.just(0), st.just(b"")),
        st.tuples(st.just("drop"), st.integers(0, 2**24), st.integers(1, 64), st.just(b"")),
        st.tuples(st.just("number"), st.integers(0, 2**24), st.sampled_from(NUMBERS), st.just(b"")),
        st.tuples(
            st.just("insert"),
            st.integers(0, 2**24),
            st.just(0),
            st.one_of(st.sampled_from(TOKENS), st.binary(max_size=16)),
        ),
        st.tuples(st.just("node"), st.integers(0, 2**24), st.integers(0, len(ODD) - 1), st.just(b"")),
        st.tuples(st.just("copy"), st.integers(0, 2**24), st.integers(1, 512), st.just(b"")),
    ),
    min_size=1,
    max_size=4,
)


def apply_changes(content: bytes, wanted: list[Change]) -> bytes:
    """Change a file's content; places are taken modulo its length, half of them near its head."""
    data = bytearray(content)
    for kind, place, size, piece in wanted:
        reach = min(len(data), 256) if place % 2 else len(data)
        at = (place // 2) % reach if reach else 0
        if kind == "flip" and data:
            data[at] ^= size
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + size]
        elif kind == "number" and at + 4 <= len(data):
            struct.pack_into("<I" if place % 3 else ">I", data, at, size)
        elif kind == "insert":
            data[at:at] = piece
        elif kind == "node":
            data[:] = _replace_node(bytes(data), place, ODD[size])
        elif kind == "copy":
            data[at:at] = data[at : at + size]
    return bytes(data)


def _replace_node(content: bytes, place: int, value: object) -> bytes:
    """Replace, or remove, one value of a JSON file; other files stay as they are."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return content
    nodes: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        if isinstance(node, dict | list):
            keys = list(node) if isinstance(node, dict) else range(min(len(node), 8))
            for key in keys:
                nodes.append((node, key))
                visit(node[key])

    visit(tree)
    if not nodes:
        return json.dumps(value).encode()
    parent, key = nodes[place % len(nodes)]
    if value == "remove":
        del parent[key]
    else:
        parent[key] = value
    return json.dumps(tree).encode()


def mend(reader: str, content: bytes) -> bytes:
    """Make the checksums of a PNG's chunks right again, so that damage reaches what is behind them."""
    if reader != "PNG":
        return content
    data, at = bytearray(content), 8
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        end = at + 8 + size
        if end + 4 > len(data):
            break
        struct.pack_into(">I", data, end, zlib.crc32(bytes(data[at + 4 : end])))
        at = end + 4
    return bytes(data)


@dataclass(frozen=True)
class Reader:
    """A reader, and valid files for it."""

    name: str
    read: Callable[[Path], Any]  # gets the damaged file
    seeds: list[Path]  # valid files, each in a folder with all that it needs


@dataclass
class Result:
    """What became of the cases of a reader."""

    cases: int = 0
    named: int = 0
    valid: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    most_bytes: int = 0

    def add(self, what: str, outcome: str, seconds: float, peak: int) -> None:
        """Count a case, as `judge` returns it; a failure is told with `what` it was."""
        self.cases += 1
        self.slowest_s, self.most_bytes = max(self.slowest_s, seconds), max(self.most_bytes, peak)
        if outcome in ("valid", "named"):
            setattr(self, outcome, getattr(self, outcome) + 1)
        else:
            self.failures.append(f"{what}: {outcome}")
        if seconds > LIMIT_S:
            self.failures.append(f"{what}: {seconds:.1f} s")
        if peak > LIMIT_BYTES:
            self.failures.append(f"{what}: {peak / 1e9:.1f} GB")


def make_readers(home: Path) -> list[Reader]:
    """Write a valid file for each reader below `home`; return the readers."""
    import dataclasses

    import numpy as np
    import torch
    from hand_file_fixture import gltf_tree, mano_model, write_gltf, write_mano
    from PIL import Image
    from rhd_fixture import write_dataset
    from safetensors.numpy import save_file
    from stb_fixture import left_hand_mm, save_mat

    from davae.config import mask_preset, preset
    from davae.data.predicted import write_predicted
    from davae.data.prepared import PreparedSplit, prepare
    from davae.networks import HandMaskNet
    from davae.photo.packed import FORMAT, PARTS, read_packed
    from davae.photo.reading import read_photo
    from davae.training import runs
    from davae.training.identity import Identity
    from synthhand.formats import freihand, rhd
    from synthhand.formats.hand_models import load_gltf, load_mano
    from synthhand.formats.pictures import read_picture
    from synthhand.formats.stb_labels import load_labels

    home.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.png", "a.jpg"):
        Image.fromarray(pixels).save(home / name)
    for name in ("photo.jpg", "photo.png", "photo.webp", "photo.tif"):
        Image.fromarray(pixels).save(home / name, exif=exif)
    root = write_dataset(home / "hands", train=3, val=1, test=1)
    config = preset("smoke")
    data = prepare("synthhand", root, home / "data", config.data, progress=False)
    masks = {s: [np.zeros_like(PreparedSplit.open(data, s).masks)] for s in ("train", "val", "test")}
    write_predicted(data, {"network": "x", "config": {}, "run": "r", "iou": None}, masks)
    labels = next(p for p in root.rglob("*.pickle"))
    mano = write_mano(home / "mano.pkl", mano_model())
    # A few bytes of each hand model are structure, the rest numbers: the structure alone is worth damaging.
    tree, buffer = gltf_tree()
    gltf, glb = write_gltf(home / "hand.gltf", tree, buffer), write_gltf(home / "hand.glb", tree, buffer)
    save_mat(home / "labels.mat", [left_hand_mm(0), left_hand_mm(1)])
    (home / "xyz.json").write_text(json.dumps([[[1.5, 2.0, 3.0]] * 21] * 2))
    ties = json.dumps({"norms": {}, "inputs": {"mask": ["mask.a"]}})
    metadata = {"about": json.dumps({"format": FORMAT}), "graphs": ties} | {
        f"{p}.config": "{}" for p in PARTS
    }
    tensors = {"mask.a": np.zeros(3, np.float32), "graph.mask": np.zeros(3, np.uint8)}
    save_file(tensors, home / "packed.safetensors", metadata)
    run = home / "run"
    run.mkdir()
    small = dataclasses.replace(mask_preset("smoke"), width=4, decoder=4, depths=(1, 1, 1, 1))
    runs.write_text(run / "config.json", small.to_json())
    identity = Identity("data", {"losses.py": "0"})
    runs.write_text(run / "identity.json", json.dumps(dataclasses.asdict(identity)))
    runs.save_model(run, HandMaskNet(small))
    runs.save_resume_point(run, {"step": 3, "model": {"a": torch.zeros(3)}, "names": ["x"]})
    return [
        Reader("PNG", lambda p: read_picture(p, "RGB"), [home / "a.png"]),
        Reader("JPEG", lambda p: read_picture(p, "RGB"), [home / "a.jpg"]),
        Reader(
            "uploaded photo",
            lambda p: read_photo(p.read_bytes(), p.name),
            [home / f"photo.{end}" for end in ("jpg", "png", "webp", "tif")],
        ),
        Reader("annotation pickle", rhd.load_annotations, [labels]),
        Reader("hand-model pickle", load_mano, [mano]),
        Reader(".mat labels", load_labels, [home / "labels.mat"]),
        Reader("JSON labels", lambda p: freihand.load_labels(p, (21, 3)), [home / "xyz.json"]),
        Reader("glTF", load_gltf, [gltf, glb]),
        Reader("packed weights", read_packed, [home / "packed.safetensors"]),
        Reader("run: config, weights", lambda p: runs.load_mask_network(p.parent),
               [run / "config.json", run / "model.safetensors"]),
        Reader("run: identity", lambda p: runs.identity_of(p.parent), [run / "identity.json"]),
        Reader("resume file", lambda p: runs.load_resume_point(p.parent), [run / "resume.pt"]),
        Reader("prepared: JSON", lambda p: PreparedSplit.open(data, "val"),
               [data / "manifest.json", data / "predicted_masks.json"]),
        Reader("prepared: arrays", lambda p: PreparedSplit.open(data, "val"),
               [data / "val" / f"{name}.npy" for name in ("joints", "images", "predicted_masks")]),
        Reader("prepared: factors", lambda p: dict(PreparedSplit.open(data, "val").factors),
               [data / "val" / "factors.npz"]),
    ]  # fmt: skip


def payloads(home: Path) -> list[tuple[str, Path, Path]]:
    """Write files that would leave a mark if they were run or followed: (reader, file, mark).

    All are harmless: a pickle that would touch a file, also as weights of torch, and a glTF whose buffers are
    elsewhere, by path and by address.
    """
    import torch

    class Mark:
        def __init__(self, mark: Path):
            self.mark = mark

        def __reduce__(self) -> tuple:
            return Path.touch, (self.mark,)

    home.mkdir(parents=True, exist_ok=True)
    planted = []
    for reader in ("annotation pickle", "hand-model pickle"):
        mark, path = home / f"mark of {reader}", home / f"{reader}.pickle"
        path.write_bytes(pickle.dumps({0: Mark(mark)}))
        planted.append((reader, path, mark))
    run, mark = home / "run", home / "mark of resume file"
    run.mkdir(exist_ok=True)
    torch.save({"step": Mark(mark)}, run / "resume.pt")
    planted.append(("resume file", run / "resume.pt", mark))
    outside = home / "outside.bin"
    outside.write_bytes(b"secret of another folder")
    for number, uri in enumerate(("../outside.bin", str(outside), outside.as_uri(), "%2e%2e/outside.bin")):
        path = home / "models" / f"{number}.gltf"
        path.parent.mkdir(exist_ok=True)
        tree = {"asset": {"version": "2.0"}, "buffers": [{"uri": uri, "byteLength": 24}]}
        path.write_text(json.dumps(tree))
        planted.append(("glTF", path, home / "mark of glTF"))
    return planted


@lru_cache(maxsize=1)
def draw_cases(number: int, count: int) -> list[tuple[int, list[Change]]]:
    """Let hypothesis draw cases of seed `number`: (a number that chooses the valid file, its changes)."""
    found: list[tuple[int, list[Change]]] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        derandomize=False,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**16), changes)
    def draw(chosen: int, wanted: list[Change]) -> None:
        found.append((chosen, wanted))

    draw()
    return found[:count]


def _names_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _serve(home: Path, pipe: Connection) -> None:
    """Read what the parent asks for: (reader, file's path); answer (outcome, seconds, bytes)."""
    protect()
    tqdm.set_lock(threading.RLock())  # one shared between processes would outlive this one, which is killed
    readers = {reader.name: reader for reader in make_readers(home)}
    pipe.send({name: [str(p) for p in reader.seeds] for name, reader in readers.items()})
    while True:
        name, path = pipe.recv()
        pipe.send(judge(readers[name], Path(path)))


def protect() -> None:
    """Let a fault of this process stay its own: bound its memory, and let it say nothing."""
    import resource
    import warnings

    warnings.simplefilter("ignore")
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (32 * 10**9, hard))


def judge(reader: Reader, path: Path) -> tuple[str, float, int]:
    """Let a reader read a file in this process; return the outcome, seconds of the processor and bytes.

    The outcome is "valid", "named" or, of a failure, what it was.
    """
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")
    before, began = _peak_bytes(), time.process_time()
    try:
        reader.read(path)
        outcome = "valid"
    except (ValueError, OSError) as error:
        # Of files that belong together, it may name another of the folder.
        named = path.name in str(error) or str(path.parent) in str(error)
        outcome = "named" if named else f"names no file: {type(error).__name__}: {error}"
        if _names_memory(error):
            outcome = f"asks for all memory: {error}"
    except BaseException as error:  # what no reader may raise
        outcome = f"{type(error).__name__}: {error}"
    return outcome[:300], time.process_time() - began, max(0, _peak_bytes() - before)


class Watched:
    """A process that reads files for this one, and is started anew when it ends or hangs."""

    def __init__(self, home: Path):
        self.home, self.starts = home, 0
        self._start()

    def _start(self) -> None:
        self.starts += 1
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(self.home / str(self.starts), other), daemon=True)
        self.process.start()
        other.close()
        if not self.pipe.poll(START_S):
            raise RuntimeError("the watched process does not start")
        self.seeds: dict[str, list[str]] = self.pipe.recv()

    def read(self, reader: str, path: str) -> tuple[str, float, int]:
        """Let a reader read a file; return its outcome, seconds and bytes."""
        try:
            self.pipe.send((reader, path))
            if self.pipe.poll(WAIT_S):
                return self.pipe.recv()
            outcome = f"hangs: no answer for {WAIT_S:g} s"
        except (EOFError, BrokenPipeError):
            outcome = "ends the process"
        self.stop()
        self._start()
        return outcome, 0.0, 0

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()


def run_cases(watched: Watched, each: int, number: int, progress: bool = False) -> dict[str, Result]:
    """Give every reader `each` damaged files, of seed `number`."""
    results = {}
    for name in tqdm(watched.seeds, unit="reader", disable=not progress):
        result = results[name] = Result()
        for case, (chosen, wanted) in enumerate(draw_cases(number, each)):
            path = Path(watched.seeds[name][chosen % len(watched.seeds[name])])
            whole = path.read_bytes()
            if case == 0 and (sound := watched.read(name, str(path))[0]) != "valid":
                result.failures.append(f"{path.name} without damage: {sound}")
            path.write_bytes(mend(name, apply_changes(whole, wanted)))
            judged = watched.read(name, str(path))
            if path.exists():
                path.write_bytes(whole)
            result.add(f"seed {number}, case {case}, {path.name}", *judged)
    return results


def plant(watched: Watched, home: Path) -> list[str]:
    """Let readers read the payloads; return what is wrong: a mark, or no refusal."""
    wrong = []
    for reader, path, mark in payloads(home):
        outcome, *_ = watched.read(reader, str(path))
        if mark.exists():
            wrong.append(f"{reader}: {path.name} was run")
        if outcome != "named":
            wrong.append(f"{reader}: {path.name} was not refused by name: {outcome}")
    return wrong


def format_table(results: dict[str, Result]) -> str:
    """Return the table of all readers."""
    lines = [
        f"{'reader':22} {'cases':>6} {'valid':>6} {'named':>6} {'failed':>6} {'slowest s':>9} {'most MB':>8}"
    ]
    for name, r in results.items():
        lines.append(
            f"{name:22} {r.cases:6} {r.valid:6} {r.named:6} {len(r.failures):6} {r.slowest_s:9.2f} "
            f"{r.most_bytes / 1e6:8.0f}"
        )
    return "\n".join(lines)
