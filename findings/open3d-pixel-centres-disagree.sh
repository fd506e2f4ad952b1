#!/usr/bin/env bash
# Belief: Open3D agrees with itself: depth that is rendered by RaycastingScene.create_rays_pinhole and turned back
#   into points by PointCloud.create_from_depth_image, both with one intrinsic matrix, gives the points that the
#   rays met.
# Seen instead: The points come back half a pixel to the upper left: rays leave through the middle of a pixel at
#   u + 0.5, while back-projection takes the middle to be at u. Shifting the principal point by half a pixel in one
#   of the two makes them agree.
# Seen with: open3d-cpu 0.19.0, NumPy 2.4.6, Python 3.11, 2026-11-28.
# Why it matters: Cameras of hand datasets count pixel centres from whole numbers. Who renders a mesh with a
#   dataset's K by these rays gets labels half a pixel off the picture: 0.8 mm at half a metre and f = 300 pixels.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check open3d-cpu==0.19.0 numpy==2.4.6
cat > "$work/look.py" <<'PY'
from importlib.metadata import version

import numpy as np
import open3d as o3d

print("open3d-cpu", version("open3d-cpu"), "NumPy", np.__version__)
WIDTH, HEIGHT, FOCAL = 320, 240, 300.0
K = np.array([[FOCAL, 0, 160], [0, FOCAL, 120], [0, 0, 1]])
ball = o3d.geometry.TriangleMesh.create_sphere(0.2, 60).translate((0.05, 0.02, 0.6))
scene = o3d.t.geometry.RaycastingScene()
scene.add_triangles(o3d.t.geometry.TriangleMesh.from_legacy(ball))


def shift_px(moved):
    """Mean shift of points, in pixels, between rays of K (its centre moved by so much) and back-projection by K."""
    camera = K.copy()
    camera[:2, 2] += moved
    rays = scene.create_rays_pinhole(o3d.core.Tensor(camera), o3d.core.Tensor(np.eye(4)), WIDTH, HEIGHT)
    far = scene.cast_rays(rays)["t_hit"].numpy()[..., None]
    origin, along = np.split(rays.numpy(), 2, axis=2)
    met = np.where(np.isfinite(far), origin + np.where(np.isfinite(far), far, 0) * along, 0)
    depth = o3d.geometry.Image(np.ascontiguousarray(met[..., 2], np.float32))
    lens = o3d.camera.PinholeCameraIntrinsic(WIDTH, HEIGHT, K)
    cloud = o3d.geometry.PointCloud.create_from_depth_image(depth, lens, depth_scale=1.0, depth_trunc=10.0)
    points, truth = np.asarray(cloud.points), met[met[..., 2] > 0]
    assert len(points) == len(truth) > 10_000, (len(points), len(truth))
    return (FOCAL * (points - truth)[:, :2] / truth[:, 2:]).mean(0)


same, moved = shift_px(0.0), shift_px(0.5)
print("one K for both: points come back shifted by", same.round(3), "pixels")
print("the rays' principal point half a pixel further: shifted by", moved.round(3), "pixels")
if not (np.allclose(same, -0.5, atol=0.01) and np.allclose(moved, 0, atol=0.01)):
    raise SystemExit("Open3D's rays and its back-projection no longer differ by half a pixel.")
PY
"$work/venv/bin/python" "$work/look.py"
