#!/usr/bin/env bash
# Belief: the left and the right hand of the WebXR input profiles, whose meshes are mirror images of each
#   other, have mirrored skeletons too, joint by joint, in the same order.
# Seen instead: the meshes are mirror images within a micrometre, but two joints are not. The knuckle of the
#   index finger lies 3.4 mm, and its metacarpal 7.4 mm, from the mirror image of the other hand's. The left
#   hand also lists its joints backwards, from the tip of the little finger to the wrist.
# Seen with: npm @webxr-input-profiles/assets 1.0.20 (profile generic-hand), numpy 2.4.6, 2026-11-28.
# Why it matters: this hand stands for "a rigged hand with known joint names" in web demos and as test data.
#   Whoever mirrors the joints of one side to get those of the other, or copies poses or bone lengths from
#   left to right by the number of a joint, gets another hand than the file of the other side has: the bone
#   from the index knuckle differs by millimetres, which is the size of the errors that hand pose papers
#   report. Joints must be matched by name, and each side must keep its own rest pose.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6
(cd "$work" && npm pack --silent @webxr-input-profiles/assets@1.0.20 >/dev/null && tar -xzf ./*.tgz)
"$work/venv/bin/python" - "$work/package/dist/profiles/generic-hand" <<'PYTHON'
import json
import struct
import sys
from pathlib import Path

import numpy as np


def read(path):
    """Vertices (v, 3) in metres, and the place of each joint, in the order of the skin."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<I", data, 12)
    tree, body = json.loads(data[20 : 20 + size]), data[28 + size :]
    accessor = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    start = tree["bufferViews"][accessor["bufferView"]].get("byteOffset", 0)
    points = np.frombuffer(body, "<f4", 3 * accessor["count"], start).reshape(-1, 3).astype(float)
    nodes = [tree["nodes"][index] for index in tree["skins"][0]["joints"]]
    return points, {node["name"]: np.array(node["translation"]) for node in nodes}


folder = Path(sys.argv[1])
(right_mesh, right), (left_mesh, left) = read(folder / "right.glb"), read(folder / "left.glb")
print("numpy", np.__version__, "| @webxr-input-profiles/assets 1.0.20")
mirror = np.array([-1.0, 1.0, 1.0])
a = right_mesh - right["wrist"]
b = (left_mesh - left["wrist"]) * mirror
mesh_mm = 1000 * np.linalg.norm(a[:, None] - b[None], axis=2).min(1).max()
print(f"mesh, mirrored and laid wrist on wrist: no vertex is more than {mesh_mm:.4f} mm from the other's")
apart = {
    name: 1000 * np.linalg.norm((place - right["wrist"]) - mirror * (left[name] - left["wrist"]))
    for name, place in right.items()
}
for name, distance in apart.items():
    print(f"{name:36s}{distance:7.2f} mm" + ("   <-- no mirror image" if distance > 1 else ""))
print("first joints of the right hand:", ", ".join(list(right)[:3]))
print("first joints of the left hand: ", ", ".join(list(left)[:3]))
odd = {name for name, distance in apart.items() if distance > 1}
as_described = (
    mesh_mm < 0.01
    and odd == {"index-finger-metacarpal", "index-finger-phalanx-proximal"}
    and list(left) != list(right)
)
sys.exit(None if as_described else "The two hands no longer differ as described.")
PYTHON
