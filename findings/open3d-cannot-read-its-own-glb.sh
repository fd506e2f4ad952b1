#!/usr/bin/env bash
# Belief: Open3D reads the GLB files that it writes. If it does not, the glTF that it writes is no better.
# Seen instead: It writes a GLB whose numbers stand as a base64 text within the JSON part, without the binary part
#   that makes a GLB one. Its own reader then warns that a buffer view is out of range and returns an empty mesh;
#   trimesh reads the same file. As .gltf, the same mesh can be read by both.
# Seen with: open3d-cpu 0.19.0, trimesh 4.12.2, NumPy 2.4.6, Python 3.11, 2026-11-29.
# Why it matters: GLB is how hands reach viewers and Blender. A pipeline that saves its meshes so cannot open them
#   again, and the reader raises no error: the hand is merely gone.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check open3d-cpu==0.19.0 numpy==2.4.6 trimesh==4.12.2
cat > "$work/look.py" <<'PY'
import json
import struct
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import open3d as o3d
import trimesh

print("open3d-cpu", version("open3d-cpu"), "trimesh", trimesh.__version__, "NumPy", np.__version__)
ball = o3d.geometry.TriangleMesh.create_sphere(1, 10)
found = {}
for kind in ("gltf", "glb"):
    path = Path(sys.argv[1]) / f"ball.{kind}"
    assert o3d.io.write_triangle_mesh(str(path), ball)
    own, other = o3d.io.read_triangle_mesh(str(path)), trimesh.load(path, force="mesh", process=False)
    found[kind] = len(own.vertices), len(other.vertices)
    print(f"{kind:4}: Open3D reads {found[kind][0]} of {len(ball.vertices)} vertices, trimesh {found[kind][1]}")
content = (Path(sys.argv[1]) / "ball.glb").read_bytes()
length = struct.unpack("<I", content[12:16])[0]
buffer = json.loads(content[20 : 20 + length])["buffers"][0]
binary = len(content) - 20 - length
print(f"the GLB: {binary} bytes of binary part; its buffer begins with {buffer.get('uri', '')[:28]!r}")
whole = len(ball.vertices)
if binary or not buffer.get("uri", "").startswith("data:") or found != {"gltf": (whole, whole), "glb": (0, whole)}:
    raise SystemExit("Open3D's GLB files are no longer as described.")
PY
"$work/venv/bin/python" "$work/look.py" "$work"
