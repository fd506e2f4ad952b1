"""A plain regressor: an image to 63 numbers, by squared error. What any method must beat.

    L = alpha_pose sum_j |p_j - q_j|^2

No code, no other decoder, no attention. Chosen: da-VAE's whole encoder, all three heads of it, so that it
spends as much arithmetic on the image. (`benchmarks/plain_regressor.py` trains one with a single head for a
run's wall time instead of its steps.)
"""

from torch import Tensor, nn

from davae.config import RivalConfig
from davae.losses import pose_loss
from davae.networks.blocks import initialise
from davae.rivals.rival import ImageEncoder, Rival, RivalTask, as_joints, weigh
from davae.training.task import Examples, Loss
from synthhand.skeleton import JOINTS


class Regressor(Rival):
    """Images (b, 3, h, w) to joints (b, 21, 3)."""

    def __init__(self, config: RivalConfig):
        super().__init__()
        self.encoder = ImageEncoder(config.model, JOINTS * 3)
        initialise(self)
        nn.init.normal_(self.encoder.fc.weight, std=0.01)

    def forward(self, image: Tensor) -> Tensor:
        """Estimate joints."""
        return as_joints(self.encoder(image))

    def predict(self, image: Tensor, lines: Tensor) -> Tensor:
        """As `Rival.predict`."""
        joints: Tensor = self(image)
        return joints


class RegressorTask(RivalTask):
    """Training on joints alone."""

    kind, network, shown = "regressor", Regressor, ("pose",)

    def forward(self, network: nn.Module, examples: Examples) -> Tensor:
        """Return joints."""
        return network(self.image(examples))

    def loss(self, output: Tensor, examples: Examples) -> Loss:
        """Return the weighted pose term."""
        terms = {"pose": pose_loss(output, examples.batch.joints).mean()}
        return weigh(terms, {"pose": self.config.loss.alpha_pose})
