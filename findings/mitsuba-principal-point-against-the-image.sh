#!/usr/bin/env bash
# Belief: Mitsuba's camera is given a dataset's principal point by principal_point_offset_x = cx / width - 1/2 and
#   principal_point_offset_y = cy / height - 1/2, as the names say: a point on the optical axis is then drawn at
#   (cx, cy).
# Seen instead: That point is drawn at (width - cx, height - cy). Both offsets are counted along the camera's own
#   axes, to the left and up, against the image's. With 1/2 - cx / width and 1/2 - cy / height, every point is drawn
#   where K projects it.
# Seen with: mitsuba 3.6.4, NumPy 2.4.6, Python 3.11, 2026-11-29.
# Why it matters: Where cx and cy are near the middle, as in whole frames, a hand rendered with the wrong signs looks
#   right, and its labels are off by twice the distance of (cx, cy) from the middle; in a crop, tens of pixels.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check mitsuba==3.6.4 numpy==2.4.6
cat > "$work/look.py" <<'PY'
import mitsuba as mi
import numpy as np

print("mitsuba", mi.__version__, "NumPy", np.__version__)
mi.set_variant("scalar_rgb")
WIDTH, HEIGHT, FOCAL, CX, CY = 96, 64, 120.0, 57.0, 22.0


def draw(point, offset_x, offset_y):
    """Return where, in pixels from the upper left corner, a small ball at a point (x right, y down) is drawn."""
    x, y, z = point
    film = {"type": "hdrfilm", "width": WIDTH, "height": HEIGHT, "rfilter": {"type": "box"}}
    camera = {
        "type": "perspective", "fov_axis": "x", "fov": float(2 * np.degrees(np.arctan(WIDTH / 2 / FOCAL))),
        "principal_point_offset_x": offset_x, "principal_point_offset_y": offset_y,
        "film": film, "sampler": {"type": "independent", "sample_count": 64},
    }  # without to_world it looks along z, with x to the left and y up
    light = {"type": "area", "radiance": {"type": "rgb", "value": 1.0}}
    ball = {"type": "sphere", "center": [-x, -y, z], "radius": 0.02, "emitter": light}
    scene = mi.load_dict(
        {"type": "scene", "integrator": {"type": "direct"}, "sensor": camera, "ball": ball}
    )
    picture = np.array(mi.render(scene))[..., 0]
    v, u = np.indices(picture.shape) + 0.5
    return np.array([(u * picture).sum(), (v * picture).sum()]) / picture.sum()


right, wrong = [], []
for point in ((0.0, 0.0, 1.0), (0.1, -0.05, 1.0), (-0.15, 0.1, 1.2)):
    K = np.array([FOCAL * point[0] / point[2] + CX, FOCAL * point[1] / point[2] + CY])
    believed = draw(point, CX / WIDTH - 0.5, CY / HEIGHT - 0.5)
    negated = draw(point, 0.5 - CX / WIDTH, 0.5 - CY / HEIGHT)
    print("by K at", K.round(1), "drawn at", believed.round(1), "with the signs negated at", negated.round(1))
    wrong.append(believed - K)
    right.append(negated - K)
twice = 2 * np.array([WIDTH / 2 - CX, HEIGHT / 2 - CY])
if not (np.allclose(wrong, twice, atol=0.2) and np.allclose(right, 0, atol=0.2)):
    raise SystemExit("Mitsuba's principal_point_offset no longer runs against the image's axes.")
PY
"$work/venv/bin/python" "$work/look.py"
