#!/usr/bin/env bash
# Belief: RoMa's rotvec_to_rotmat is differentiable at the rotation vector 0, where its first derivative is exact; so is
#   its second, and a curvature that is right in float32 at 0.1 rad is right at 0.0001 rad, too.
# Seen instead: at 0 the Hessian of an entry of the matrix is nan; of a hand of 16 joints, the one at rest turns its own
#   gradient of a gradient penalty to nan. At 1e-7 rad it is 0 where -1 is true. At 1e-5 and 1e-4 rad float32
#   gives -1.56 and 0.28 where -1 and 0 are true; float64 is right from 1e-5 on. Value and first derivative are right
#   throughout. kornia's axis_angle_to_rotation_matrix has all of these second derivatives right.
# Seen with: roma 1.8.0, kornia 0.9.0, torch 2.13.0 (CPU), Python 3.11, 2026-11-29.
# Why it matters: MANO's flat hand is all rotation vectors 0, and fits of a hand begin there. A Newton step, a
#   gradient penalty or a Laplace approximation of the fit needs second derivatives.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 roma==1.8.0 kornia==0.9.0
cat > "$work/look.py" <<'PY'
import kornia
import roma
import torch
from kornia.geometry.conversions import axis_angle_to_rotation_matrix
from torch.autograd.functional import hessian, jacobian

print("roma", roma.__version__, "kornia", kornia.__version__, "torch", torch.__version__)
READERS = {"roma": roma.rotvec_to_rotmat, "kornia": lambda w: axis_angle_to_rotation_matrix(w[None])[0]}
TRUE = torch.tensor([0.0, -1.0, -1.0], dtype=torch.float64)  # of R[0, 0] by each component, squared, near 0
SPINS = [[0, -1.0, 0], [1.0, 0, 0], [0, 0, 0]]  # of R by its third component at 0
off = {}
for name, read in READERS.items():
    for kind in (torch.float32, torch.float64):
        for angle in (0.0, 1e-7, 1e-5, 1e-4, 0.1):
            w = torch.tensor([0.6, 0.8, 0.0], dtype=kind) * angle
            curvature = hessian(lambda x, read=read: read(x)[0, 0], w).diag()
            off[name, kind, angle] = (curvature.double() - TRUE).abs().max().item()
            print(f"{name:6} {str(kind)[6:]} at {angle:g} rad: second derivatives {curvature.tolist()}")
        first = jacobian(read, torch.zeros(3, dtype=kind))[..., 2]
        if not torch.equal(first.double(), torch.tensor(SPINS, dtype=torch.float64)):
            raise SystemExit(f"The first derivative of {name} at 0 is no longer exact.")

hand = torch.full((16, 3), 0.3, dtype=torch.float64)
hand[0] = 0
hand.requires_grad_()
(gradient,) = torch.autograd.grad(roma.rotvec_to_rotmat(hand)[:, 0, 1].sum(), hand, create_graph=True)
(penalty,) = torch.autograd.grad(gradient.square().sum(), hand)
lost = penalty.isnan().any(1).tolist()
print("joints of 16 whose gradient of a penalty is nan:", [n for n, nan in enumerate(lost) if nan])

float32, float64 = torch.float32, torch.float64
if not all(torch.tensor(off["roma", kind, 0.0]).isnan() for kind in (float32, float64)) or sum(lost) != 1:
    raise SystemExit("RoMa's second derivative at 0 is no longer nan.")
if off["roma", float64, 1e-7] != 1 or off["roma", float32, 1e-7] != 1:
    raise SystemExit("RoMa's second derivative at 1e-7 is no longer 0.")
if min(off["roma", float32, 1e-5], off["roma", float32, 1e-4]) < 0.2 or off["roma", float64, 1e-5] > 1e-3:
    raise SystemExit("RoMa's second derivatives at 1e-5 and 1e-4 are no longer as described.")
if not all(value < 1e-3 for (name, _, angle), value in off.items() if name == "kornia" and angle < 0.1):
    raise SystemExit("kornia's second derivatives are no longer right.")
PY
"$work/venv/bin/python" "$work/look.py"
