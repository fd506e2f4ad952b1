"""How far SynthHand's hands differ in build: named ranges of flesh and of bone proportions.

`realistic` is the spread of adults. A picture hardly shows it: the standard deviation of a finger's breadth,
1.5 mm, is less than a pixel of a crop of 128 px. `wide` is made to be seen and learnt. A hand's *stoutness*,
uniform from thin to stout, moves all shape fields together; each field varies on its own besides, and so do
the palm and the length of the fingers. `data/README.md` compares the two.

Coefficients stay where the surface is sound: no triangle turns over, no finger grows into the next at rest
(tested). Flesh and pose are drawn independently, so a pose has to suit any flesh: poses of `wide` keep
fingers apart as if they were thicker than the mean hand's.
"""

from dataclasses import dataclass

import numpy as np

from synthhand.model.pose import sample_articulation
from synthhand.model.procedural import SHAPE_NAMES, flesh_radii, procedural_rig
from synthhand.model.rig import PHALANGES, resize_joints

FINGER_MM = (0.55, 0.6, 0.7)  # by which a unit of the first three fields thickens a finger at its root


@dataclass(frozen=True)
class Build:
    """A range of builds. Lengths vary log-normally; their deviations are of the logarithm.

    Attributes:
        palm: (2,) deviation of the palm's width and length.
        fingers: deviation that all fingers of a hand share.
        finger, bone: deviation of each finger, and of each phalanx, besides.
        farthest: no length is farther from its mean than so many deviations.
        stoutness: (2,) bounds of the stoutness, which is uniform.
        common: (10,) coefficient of each of `SHAPE_NAMES` in a hand of stoutness 1.
        own: (10,) deviation of the coefficients besides, none farther than 2.5 deviations.
        growth_mm: the taper gives way where flesh at a finger's root would grow, or at its tip shrink, by
            more than that.
        room: the contact of fingers is judged as if flesh were so many times as thick as the mean hand's.
    """

    palm: tuple[float, float]
    fingers: float
    finger: float
    bone: float
    farthest: float = np.inf
    stoutness: tuple[float, float] = (0.0, 0.0)
    common: tuple[float, ...] = (0.0,) * len(SHAPE_NAMES)
    own: tuple[float, ...] = (1.0,) * len(SHAPE_NAMES)
    growth_mm: float = np.inf
    room: float = 1.0

    def sample_bones(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Sample the factors of the palm (2,) and of the phalanges (15,), as `resize_joints` takes them."""

        def deviate(deviation, size=None):
            return deviation * np.clip(rng.normal(size=size), -self.farthest, self.farthest)

        palm = np.exp(deviate(np.array(self.palm), 2))
        fingers = np.exp(deviate(self.fingers) + deviate(self.finger, 5))
        return palm, np.repeat(fingers, 3) * np.exp(deviate(self.bone, len(PHALANGES)))

    def sample_articulation(self, rng: np.random.Generator, palm, bones) -> tuple[np.ndarray, int]:
        """Sample the angles (22,), radians, of a hand with such bones, and the gesture that they vary."""
        joints, _ = resize_joints(procedural_rig(), palm, bones)
        return sample_articulation(rng, procedural_rig(), joints, self.room * flesh_radii())

    def sample_coefficients(self, rng: np.random.Generator) -> np.ndarray:
        """Sample the coefficients (10,) of the shape fields."""
        own = np.array(self.own) * rng.normal(size=len(SHAPE_NAMES)).clip(-2.5, 2.5)
        coefficients = own + np.array(self.common) * rng.uniform(*self.stoutness)
        # The surface folds first in the webs of stout fingers, and thin fingers lose their tips first.
        finger_mm = abs(FINGER_MM[0] * coefficients[0] + FINGER_MM[1] * coefficients[1])
        coefficients[2] = min(coefficients[2], (self.growth_mm - finger_mm) / FINGER_MM[2])
        return coefficients


# Realistic: phalanx lengths of adults have a standard deviation of 7 to 16 % of their mean, overall size
# included: Buryanov and Kotiuk, "Proportions of Hand Segments", doi:10.4067/S0717-95022010000300015. Overall
# size belongs to the scene, so less is left for proportions.
BUILDS = {
    "realistic": Build(palm=(0.045, 0.04), fingers=0.04, finger=0.028, bone=0.02),
    "wide": Build(
        palm=(0.1, 0.08), fingers=0.1, finger=0.05, bone=0.03, farthest=2.0,
        stoutness=(-1.0, 0.7),
        common=(4.5, 1.5, 0.0, -0.8, 0.8, 1.0, 1.5, 0.8, 0.8, 1.0),
        own=(0.0, 0.8, 1.0, 1.5, 1.2, 1.6, 1.2, 1.5, 1.5, 1.2),
        growth_mm=2.6,
        room=1.08,
    ),
}  # fmt: skip
