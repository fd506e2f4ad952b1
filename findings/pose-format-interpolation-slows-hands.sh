#!/usr/bin/env bash
# Belief: pose-format's Pose.interpolate(fps), of a recording of hands, returns where the hands were at times n / fps; so
#   speeds stay the same, and a recording of 11 frames at 10 fps, which lasts from 0 to 1 s, has 21 frames at 20 fps.
# Seen instead: it returns 22 frames, spread evenly from the first to the last, and calls them 20 fps: hands move 4.8
#   per cent slower, and 6.3 at 30 fps. The shorter the recording, the worse: 16 frames of 15 fps are 3.2 per cent slower
#   at 30 fps, 101 frames of 10 fps 0.5 per cent at 20.
# Seen with: pose-format 0.15.0, numpy 2.4.6, Python 3.11, 2026-11-30.
# Why it matters: .pose files hold the hands (MediaPipe's 21 landmarks each) of sign-language recordings, whose signs last
#   about a second. Brought to one rate by this function, recordings of several rates differ in speed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pose-format==0.15.0 numpy==2.4.6 scipy==1.17.1
cat > "$work/look.py" <<'PY'
from importlib.metadata import version

import numpy as np
from pose_format import Pose
from pose_format.numpy import NumPyPoseBody
from pose_format.pose_header import PoseHeader, PoseHeaderComponent, PoseHeaderDimensions

print("pose-format", version("pose-format"), "numpy", np.__version__)
SPEED = 120.0  # pixels a second, of every landmark


def record(frames, fps):
    """A hand that moves evenly to the right."""
    points = [f"landmark {n}" for n in range(21)]
    hand = PoseHeaderComponent("RIGHT_HAND", points, [(0, 1)], [(0, 0, 0)], "XYZC")
    header = PoseHeader(version=0.2, dimensions=PoseHeaderDimensions(640, 480, 100), components=[hand])
    data = np.zeros((frames, 1, 21, 3), np.float32)
    data[..., 0] = SPEED * np.arange(frames)[:, None, None] / fps + np.arange(21)
    return Pose(header, NumPyPoseBody(fps=fps, data=np.ma.masked_array(data), confidence=np.ones(data.shape[:3], np.float32)))


def speed(pose):
    """Pixels a second of the first landmark, by the recording's own rate, and how much that varies."""
    steps = np.diff(np.asarray(pose.body.data.data)[:, 0, 0, 0].astype(float)) * pose.body.fps
    return steps.mean(), np.ptp(steps)


EXPECTED = {(11, 10, 20): 4.76, (11, 10, 30): 6.25, (16, 15, 30): 3.23, (101, 10, 20): 0.50}
for (frames, before, after), expected in EXPECTED.items():
    changed = record(frames, before).interpolate(after)
    mean, spread = speed(changed)
    slower = 100 * (1 - mean / SPEED)
    print(f"{frames} frames of {before} fps: {len(changed.body.data)} of {changed.body.fps}, {slower:.2f} % slower")
    if abs(slower - expected) > 0.02 or spread > 0.01:
        raise SystemExit(f"It was {expected} % slower, evenly.")
PY
"$work/venv/bin/python" "$work/look.py"
