#!/usr/bin/env bash
# Belief: of librealsense's two functions on a camera's intrinsics, rs2_deproject_pixel_to_point undoes
#   rs2_project_point_to_pixel, to a hundredth of a pixel, for every distortion model that it has.
# Seen instead: it does for four of six. With modified_brown_conrady it leaves the lens's distortion out, without a word:
#   with the coefficients below, pixels near the corners come back 5 px away: a joint at half a metre, 5 mm. With
#   ftheta even the middle is scaled: it divides by atan(2 tan(c/2)) where 2 tan(c/2) undoes the projection, so that a
#   fisheye of 0.92 rad comes back 1.27 times as wide.
# Seen with: pyrealsense2 2.59.1.11053, numpy 2.4.6, Python 3.11, 2026-11-30. No camera is needed.
# Why it matters: joints of depth cameras are made by this function, from a pixel and its depth; STB was recorded with a
#   RealSense F200. Check the model in the stream's intrinsics, and undistort by OpenCV where it is one of these two.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyrealsense2==2.59.1.11053 numpy==2.4.6
cat > "$work/look.py" <<'PY'
import math

import numpy as np
import pyrealsense2 as rs

FOCAL, DEPTH = 475.0, 0.5
print("pyrealsense2", rs.__version__)
grid = [(u, v) for u in (-0.6, -0.3, 0.0, 0.3, 0.6) for v in (-0.45, 0.0, 0.45)]  # x / z and y / z
off, wide = {}, {}
for name, model in rs.distortion.__members__.items():
    camera = rs.intrinsics()
    camera.width, camera.height, camera.ppx, camera.ppy, camera.fx, camera.fy = 640, 480, 320, 240, FOCAL, FOCAL
    camera.model = model
    camera.coeffs = [0.92, 0, 0, 0, 0] if name == "ftheta" else [0.12, -0.25, 0.001, -0.001, 0.08]
    missed, scales = [], []
    for u, v in grid:
        pixel = rs.rs2_project_point_to_pixel(camera, [u * DEPTH, v * DEPTH, DEPTH])
        point = rs.rs2_deproject_pixel_to_point(camera, pixel, DEPTH)
        missed.append(math.hypot(point[0] / DEPTH - u, point[1] / DEPTH - v) * FOCAL)
        if u or v:
            scales.append(math.hypot(*point[:2]) / math.hypot(u, v) / DEPTH)
    off[name], wide[name] = max(missed), scales
    print(f"{name:24} misses by up to {max(missed):8.4f} px, {1000 * max(missed) / FOCAL * DEPTH:6.2f} mm at {DEPTH} m")

kept = {name for name, pixels in off.items() if pixels < 0.01}
if kept != {"none", "inverse_brown_conrady", "brown_conrady", "kannala_brandt4"}:
    raise SystemExit(f"The models that come back are now {sorted(kept)}.")
if not 4 < off["modified_brown_conrady"] < 6:
    raise SystemExit("modified_brown_conrady no longer misses by 5 px.")
ratio = 2 * math.tan(0.46) / math.atan(2 * math.tan(0.46))
print(f"ftheta comes back wider by {np.mean(wide['ftheta']):.4f}, atan explains {ratio:.4f}")
if not np.allclose(wide["ftheta"], ratio, rtol=1e-4):
    raise SystemExit("ftheta is no longer scaled by the atan.")
PY
"$work/venv/bin/python" "$work/look.py"
