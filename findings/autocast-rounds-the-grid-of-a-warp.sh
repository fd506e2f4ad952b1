#!/usr/bin/env bash
# Belief: A picture may be warped inside an autocast block. grid_sample is on autocast's list of operations that run
#   in float32, so the warp is as exact as outside of it.
# Seen instead: grid_sample does run in float32, but affine_grid, which says where it reads, is a matrix product and
#   returns bfloat16 on a CPU. A picture of 512 pixels that is warped by the identity moves by up to 0.7 pixels, and a
#   fourth of its columns is shown twice or not at all; up to 256 pixels the identity is exact, so a small test finds
#   nothing. A turn by 30 degrees moves single pixels of a picture of 128 by a third of a pixel, of 512 by two.
# Seen with: torch 2.13.0 (CPU), NumPy 2.4.6, Python 3.11, 2026-11-29.
# Why it matters: Hands are turned and cropped by such warps while joints are turned in float32 beside them; half a
#   pixel at the fingertips is what sub-pixel heat maps hope to gain.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$work/look.py" <<'PY'
import math

import torch
import torch.nn.functional as F

print("torch", torch.__version__)
turn = math.radians(30)
warps = {
    "identity": torch.eye(2, 3),
    "30 degrees": torch.tensor([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0]]),
}
farthest = {}
for name, matrix in warps.items():
    for px in (128, 256, 512):
        shape = (1, 1, px, px)
        exact = F.affine_grid(matrix[None].double(), shape, align_corners=False)
        plain = F.affine_grid(matrix[None], shape, align_corners=False)
        with torch.autocast("cpu", torch.bfloat16):
            inside = F.affine_grid(matrix[None], shape, align_corners=False)
            picture = F.grid_sample(torch.rand(shape), inside, align_corners=False)
        off = [((grid.double() - exact) * px / 2).norm(dim=-1).max().item() for grid in (plain, inside)]
        farthest[name, px] = off[1]
        kinds = f"grid {inside.dtype}, picture {picture.dtype}"
        print(f"{name:10} of {px} px: off by up to {off[0]:.4f} px outside, {off[1]:.2f} px inside; {kinds}")
        if off[0] > 0.001 or inside.dtype != torch.bfloat16 or picture.dtype != torch.float32:
            raise SystemExit("Warps inside of autocast are no longer as described.")
if farthest["identity", 256] > 0.001 or not 0.6 < farthest["identity", 512] < 0.8:
    raise SystemExit("The identity inside of autocast is no longer as described.")
if not (0.2 < farthest["30 degrees", 128] < 0.5 and 1.5 < farthest["30 degrees", 512] < 2.7):
    raise SystemExit("A turn inside of autocast is no longer as described.")
PY
"$work/venv/bin/python" "$work/look.py"
