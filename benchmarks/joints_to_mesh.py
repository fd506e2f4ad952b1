"""How near a posed hand comes to given joints, and how many hands a second.

    python benchmarks/joints_to_mesh.py
    python benchmarks/joints_to_mesh.py --run RUN        # joints as a run predicted them on its test split

SynthHand's own joints, exact and with noise, or a run's estimates, are solved for in one batch; SciPy's
bounded least squares, hand after hand on the same residuals, is what the speed is compared with.
"""

import time
from pathlib import Path

import numpy as np
import torch
import tyro
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from torch import Tensor

from davae.evaluation import load_predictions
from synthhand.dataset.writer import sample_factors
from synthhand.model.kinematics import Skeleton, solve
from synthhand.model.pose import segment_rotations
from synthhand.model.procedural import procedural_rig
from synthhand.model.rig import resize_joints, segment_motion
from synthhand.model.skinning import skinned

NOISE_MM = 8.0


def synthhand_joints(count: int) -> Tensor:
    """Joints (count, 21, 3), mm, of SynthHand's poses and proportions."""
    rig, found = procedural_rig(), []
    for index in range(count):
        pose = sample_factors(0, "test", index).pose
        rest, _ = resize_joints(rig, pose.palm_scale, pose.bone_scale)
        rotations = segment_rotations(rig, pose.articulation, pose.orientation, np.zeros(2))
        found.append(segment_motion(rest, rotations)[2])
    return torch.from_numpy(np.stack(found))


def by_scipy(skeleton: Skeleton, target: Tensor) -> Tensor:
    """Joints (1, 21, 3) of the best pose for one hand (1, 21, 3), by a trust-region solver."""
    low, high = (bound.numpy() for bound in skeleton.bounds())
    angles, orientation, wrist, bones, palm = skeleton.first_guess(target)

    def posed(x: np.ndarray):
        turn = torch.from_numpy(Rotation.from_rotvec(x[39:42]).as_matrix())[None] @ orientation
        parts = torch.from_numpy(x[:39])[None].split((22, 15, 2), dim=1)
        return skeleton.pose(parts[0], turn, torch.from_numpy(x[42:])[None], *parts[1:])

    def residuals(x: np.ndarray) -> np.ndarray:
        pose = posed(x)
        return torch.cat([(pose.joints_mm - target).flatten(), skeleton.priors(pose).flatten()]).numpy()

    inside = torch.cat([angles, bones, palm], dim=1)[0].numpy().clip(low + 1e-6, high - 1e-6)
    start = np.concatenate([inside, np.zeros(3), wrist[0].numpy()])
    free = np.full(6, np.inf)
    bounds = np.concatenate([low, -free]), np.concatenate([high, free])
    return posed(least_squares(residuals, start, bounds=bounds).x).joints_mm


def main(count: int = 1000, oracle: int = 5, run: Path | None = None) -> None:
    """Print distances and rates.

    Args:
        count: Hands of SynthHand.
        oracle: Of them, for SciPy, which takes seconds each.
        run: Finished and evaluated run, whose estimates are solved for instead.
    """
    rig = procedural_rig()
    if run is None:
        exact = synthhand_joints(count)
        noise = torch.randn(exact.shape, generator=torch.Generator().manual_seed(0), dtype=exact.dtype)
        sets = {"SynthHand": exact, f"SynthHand and noise of {NOISE_MM:g} mm": exact + NOISE_MM * noise}
    else:
        sets = {run.name: torch.from_numpy(load_predictions(run / "predictions.npz").pose_mm).double()}
    solve(rig, next(iter(sets.values()))[:1])  # rig and skeleton are made once
    for name, joints in sets.items():
        began = time.perf_counter()
        pose = solve(rig, joints)
        solving = time.perf_counter() - began
        skinned(rig, pose)
        both = time.perf_counter() - began
        apart = torch.linalg.vector_norm(pose.joints_mm - joints, dim=2).mean(1)
        few = joints[:oracle].split(1)
        began = time.perf_counter()
        theirs = torch.cat([by_scipy(Skeleton.of(rig), hand) for hand in few])
        rate = len(few) / (time.perf_counter() - began)
        best = torch.linalg.vector_norm(theirs - joints[:oracle], dim=2).mean()
        ours = len(joints) / solving
        print(
            f"{name}: mean {apart.mean():.2f} mm, worst hand {apart.max():.2f} mm; {ours:.0f} hands/s "
            f"solved, {len(joints) / both:.0f} hands/s with mesh\n"
            f"  SciPy on {len(few)} of them: mean {best:.2f} mm (ours "
            f"{apart[:oracle].mean():.2f}), {rate:.2f} hands/s, ours {ours / rate:.0f} times that"
        )


if __name__ == "__main__":
    tyro.cli(main)
