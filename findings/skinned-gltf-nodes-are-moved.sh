#!/usr/bin/env bash
# Belief: Loaders of glTF leave out the transform of a node that has a skin, as the glTF 2.0 specification demands
#   (its joints alone say where a skinned mesh is), so trimesh and Open3D put such a mesh where Blender and web
#   viewers do.
# Seen instead: Both apply the node's transform to the vertices and ignore skin and joints: a triangle bound to a
#   joint at the origin, whose mesh node is moved by 5 m, comes out 5 m away.
# Seen with: trimesh 4.6.8, open3d-cpu 0.19.0, NumPy 2.4.6, Python 3.11, 2026-11-28.
# Why it matters: Hands exported as skinned GLB often have a transform left on the mesh node. Measured by these
#   libraries they lie elsewhere, or have another size, than where they are drawn.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check trimesh==4.6.8 open3d-cpu==0.19.0 numpy==2.4.6
cat > "$work/look.py" <<'PY'
import json
import struct
import sys
from importlib.metadata import version

import numpy as np
import open3d as o3d
import trimesh

print(*(f"{name} {version(name)}" for name in ("trimesh", "open3d-cpu", "numpy")))
MOVED = 5.0
triangle = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")
parts = [  # what an accessor says of each part of the buffer: numbers, how many, of which kind
    (triangle, {"componentType": 5126, "count": 3, "type": "VEC3", "min": [0, 0, 0], "max": [1, 1, 0]}),
    (np.array([0, 1, 2, 0], "<u2"), {"componentType": 5123, "count": 3, "type": "SCALAR"}),
    (np.zeros((3, 4), "u1"), {"componentType": 5121, "count": 3, "type": "VEC4"}),
    (np.tile(np.array([1, 0, 0, 0], "<f4"), (3, 1)), {"componentType": 5126, "count": 3, "type": "VEC4"}),
    (np.eye(4, dtype="<f4"), {"componentType": 5126, "count": 1, "type": "MAT4"}),
]
buffer, views = b"", []
for numbers, _ in parts:
    views.append({"buffer": 0, "byteOffset": len(buffer), "byteLength": numbers.nbytes})
    buffer += numbers.tobytes()
attributes = {"POSITION": 0, "JOINTS_0": 2, "WEIGHTS_0": 3}
tree = {
    "asset": {"version": "2.0"},
    "scene": 0,
    "scenes": [{"nodes": [0, 1]}],
    "nodes": [{"name": "bone"}, {"name": "hand", "mesh": 0, "skin": 0, "translation": [MOVED, 0, 0]}],
    "meshes": [{"primitives": [{"attributes": attributes, "indices": 1}]}],
    "skins": [{"joints": [0], "inverseBindMatrices": 4}],
    "accessors": [{"bufferView": place, **about} for place, (_, about) in enumerate(parts)],
    "bufferViews": views,
    "buffers": [{"byteLength": len(buffer)}],
}
text = json.dumps(tree).encode()
text += b" " * (-len(text) % 4)
chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(buffer), b"BIN\0") + buffer
file = f"{sys.argv[1]}/hand.glb"
with open(file, "wb") as out:
    out.write(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)

least = {
    "trimesh": float(trimesh.load(file).bounds[0, 0]),
    "Open3D": float(np.asarray(o3d.io.read_triangle_mesh(file).vertices)[:, 0].min()),
}
for name, x in least.items():
    print(f"{name}: the triangle begins at x = {x:g}; the specification puts it at 0")
if any(abs(x - MOVED) > 1e-6 for x in least.values()):
    raise SystemExit("One of them no longer moves a skinned mesh by its node's transform.")
PY
"$work/venv/bin/python" "$work/look.py" "$work"
