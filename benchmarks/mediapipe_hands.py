"""Read hands with MediaPipe. `photos.py --peer mediapipe` starts it with the Python of another environment.

Pictures come one after another on the standard input: a line with height and width, then h x w x 3 bytes. The
answer to each is a line of JSON on the standard output: `ms` (of the clock) and `core_ms` (of the processor)
that it took and, if there is a hand, `joints_px` (21, 2), pixel centres at integers, `joints_m` (21, 3), x
right, y down, z away from the camera, and `side`.

Landmarks are in davae's order. MediaPipe names the side as if the picture were a mirror image, as those of
front cameras are; here, it is of a picture that is none.
"""

import json
import os
import sys
import time

import mediapipe
import numpy as np

# The defaults but for static_image_mode, which is what its documentation tells for photos that are unrelated.
OPTIONS = {"static_image_mode": True, "max_num_hands": 1, "model_complexity": 1}
TO_SIDE = {"Left": "right", "Right": "left"}


def answer(hands, pixels):
    """Return the answer to one picture (h, w, 3)."""
    began, began_core = time.perf_counter(), time.process_time()
    found = hands.process(pixels)
    said = {
        "ms": 1000 * (time.perf_counter() - began),
        "core_ms": 1000 * (time.process_time() - began_core),
    }
    if not found.multi_hand_landmarks:
        return said
    size = np.array(pixels.shape[1::-1])
    seen = np.array([(one.x, one.y) for one in found.multi_hand_landmarks[0].landmark])
    world = [(one.x, one.y, one.z) for one in found.multi_hand_world_landmarks[0].landmark]
    label = found.multi_handedness[0].classification[0].label
    return {**said, "joints_px": (seen * size - 0.5).tolist(), "joints_m": world, "side": TO_SIDE[label]}


def main():
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else is printed is no answer
    with mediapipe.solutions.hands.Hands(**OPTIONS) as hands:
        for line in iter(sys.stdin.buffer.readline, b""):
            height, width = map(int, line.split())
            pixels = np.frombuffer(sys.stdin.buffer.read(height * width * 3), np.uint8)
            print(json.dumps(answer(hands, pixels.reshape(height, width, 3))), file=answers, flush=True)


if __name__ == "__main__":
    main()
