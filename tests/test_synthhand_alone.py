"""synthhand without torch and davae: imports, rendering, and meshes from joints."""

import subprocess
import sys

CODE = """
import dataclasses, importlib, importlib.abc, pkgutil, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "davae"):
            raise ModuleNotFoundError(f"{name} was imported", name=name)

sys.meta_path.insert(0, Absent())

import numpy as np
import synthhand

names = [module.name for module in pkgutil.walk_packages(synthhand.__path__, "synthhand.")]
for name in names:
    importlib.import_module(name)

from synthhand.dataset.scene import build_hand
from synthhand.dataset.writer import render, sample_factors
from synthhand.model.kinematics import fit_mesh
from synthhand.model.procedural import procedural_rig

samples = [sample_factors(0, "train", index) for index in range(10)]
for factors in samples:
    found = render(factors, size=48)
    assert found.image.shape == (48, 48, 3)
    assert len(np.unique(found.part_mask)) > 5  # several parts of a hand
rig = procedural_rig()
right = [dataclasses.replace(f, scene=dataclasses.replace(f.scene, left=0, size=1.0)) for f in samples]
joints = np.stack([build_hand(factors).joints_mm for factors in right])
vertices, posed = fit_mesh(rig, joints, rig.reference_bone_mm)
assert vertices.shape == (10, len(rig.vertices_mm), 3) and np.isfinite(vertices).all()
print(len(names), np.linalg.norm(posed - joints, axis=2).mean())
"""


def test_synthhand_works_without_torch_and_davae():
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    modules, distance_mm = run.stdout.split()
    assert int(modules) > 30
    assert float(distance_mm) < 3.0
