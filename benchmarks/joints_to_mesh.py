"""Measure the distance of fitted hands from given joints, and hands per second.

    python benchmarks/joints_to_mesh.py
    python benchmarks/joints_to_mesh.py --run RUN        # joints as a run predicted them on its test split

The joints are SynthHand's, exact and with noise, or a run's estimates. All hands are solved in one batch. The
speed is compared with SciPy's bounded least squares, which solves one hand at a time with the same residuals.
"""

import time
from pathlib import Path

import numpy as np
import tyro
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from davae.evaluation import load_predictions
from synthhand.dataset.writer import sample_factors
from synthhand.model.kinematics import VALUES, Solver, make_meshes, solve
from synthhand.model.pose import segment_rotations
from synthhand.model.procedural import procedural_rig
from synthhand.model.rig import resize_joints, segment_motion

NOISE_MM = 8.0


def sample_joints(count: int) -> np.ndarray:
    """Return joints (count, 21, 3), mm, of SynthHand's poses and proportions."""
    rig, found = procedural_rig(), []
    for index in range(count):
        pose = sample_factors(0, "test", index).pose
        rest, _ = resize_joints(rig, pose.palm_scale, pose.bone_scale)
        rotations = segment_rotations(rig, pose.articulation, pose.orientation)
        found.append(segment_motion(rest, rotations)[2])
    return np.stack(found)


def solve_with_scipy(solver: Solver, target: np.ndarray) -> np.ndarray:
    """Return joints (1, 21, 3) of the best pose for one hand (1, 21, 3), by a trust-region solver."""
    guess = solver.first_guess(target)

    def pose_hand(x: np.ndarray):
        values, turn, wrist = np.split(x[None], [VALUES, VALUES + 3], axis=1)
        return solver.pose(values, Rotation.from_rotvec(turn).as_matrix() @ guess.orientation, wrist)

    def residuals(x: np.ndarray) -> np.ndarray:
        pose = pose_hand(x)
        return np.concatenate([(pose.joints_mm - target).ravel(), solver.priors(pose).ravel()])

    inside = solver.values(guess)[0].clip(solver.low + 1e-6, solver.high - 1e-6)
    start = np.concatenate([inside, np.zeros(3), guess.wrist_mm[0]])
    free = np.full(6, np.inf)
    bounds = np.concatenate([solver.low, -free]), np.concatenate([solver.high, free])
    return pose_hand(least_squares(residuals, start, bounds=bounds).x).joints_mm


def main(count: int = 1000, oracle: int = 5, run: Path | None = None) -> None:
    """Print distances and rates.

    Args:
        count: Number of SynthHand hands.
        oracle: Number of hands that SciPy solves as well, in about a second each.
        run: Evaluated run; its estimates replace SynthHand's joints.
    """
    rig = procedural_rig()
    if run is None:
        exact = sample_joints(count)
        noise = np.random.default_rng(0).normal(size=exact.shape)
        sets = {"SynthHand": exact, f"SynthHand and noise of {NOISE_MM:g} mm": exact + NOISE_MM * noise}
    else:
        sets = {run.name: load_predictions(run / "predictions.npz").pose_mm}
    solve(rig, next(iter(sets.values()))[:1])  # builds and caches rig and solver
    for name, joints in sets.items():
        began = time.perf_counter()
        pose = solve(rig, joints)
        solving = time.perf_counter() - began
        make_meshes(rig, pose)
        both = time.perf_counter() - began
        apart = np.linalg.norm(pose.joints_mm - joints, axis=2).mean(1)
        few = joints[:oracle]
        began = time.perf_counter()
        theirs = np.concatenate([solve_with_scipy(Solver.of(rig), hand[None]) for hand in few])
        rate = len(few) / (time.perf_counter() - began)
        best = np.linalg.norm(theirs - few, axis=2).mean()
        ours = len(joints) / solving
        print(
            f"{name}: mean {apart.mean():.2f} mm, worst hand {apart.max():.2f} mm; {ours:.0f} hands/s "
            f"solved, {len(joints) / both:.0f} hands/s with mesh\n"
            f"  SciPy on {len(few)} of them: mean {best:.2f} mm (ours "
            f"{apart[:oracle].mean():.2f}), {rate:.2f} hands/s, ours {ours / rate:.0f} times that"
        )


if __name__ == "__main__":
    tyro.cli(main)
