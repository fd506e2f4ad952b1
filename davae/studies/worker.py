"""Train and evaluate one point of a sweep, on any machine.

The name of a point's folder is a digest of config, data and the sources that shape a result. So a point that
was run before, by this sweep or another, is found and not run again, and an interrupted one is resumed.
"""

import dataclasses
import hashlib
import json
import os
import socket
import time
import traceback
from pathlib import Path

import torch

from davae.config import Config
from davae.config.rivals import read_experiment
from davae.data.prepared import PreparedSplit
from davae.evaluation import evaluate
from davae.rivals import kind_of, train
from davae.training import runs

STARTED = "started.json"  # in the folder of a point that a worker has started
ERROR = "error.txt"  # in the folder of a point that failed
LOCKED_S = 1.0  # between looks at a point that another process is running


def name_folder(config: Config, data: Path) -> str:
    """Return the name of a point's folder: the preset and a digest of everything its result depends on."""
    split = PreparedSplit.open(data, "train").seen_through(config.data.mask)
    masks = split.mask_network if config.data.mask == "network" else None
    identity = dataclasses.asdict(
        runs.Identity.of(split.manifest["digest"], network=kind_of(config), masks=masks)
    )
    del identity["masks"]  # predicted masks may differ in bits by machine; their network's digest stays
    text = json.dumps([json.loads(config.to_json()), identity], sort_keys=True)
    return f"{config.preset}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def run_point(config: str, data: str, folder: str, threads: int) -> None:
    """Train and evaluate one point; its result, or its error, is left in its folder.

    Args:
        config: as JSON.
        data: the prepared data.
        folder: of the point.
        threads: number of torch threads.
    """
    run, asked = Path(folder), read_experiment(config)
    torch.set_num_threads(threads)
    about = {"host": socket.gethostname(), "process": os.getpid(), "time": time.time()}
    runs.write_text(run / STARTED, json.dumps(about) + "\n")
    try:
        while not runs.is_evaluated(run):
            try:
                train(asked, data, run, progress=False, threads=threads)
                if not runs.is_evaluated(run):
                    evaluate(run, data, progress=False)
            except BlockingIOError:  # another sweep is running this point: use its result
                time.sleep(LOCKED_S)
    except Exception:
        runs.write_text(run / ERROR, traceback.format_exc())
        raise
