"""What one training step reports."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Step:
    """One finished optimiser step of one dictionary.

    The measurements stay on the device until they are read, so a step that nobody reads costs no
    synchronisation.
    """

    name: str
    """Which dictionary, among those that ``train_many`` was given."""

    step: int
    """How many steps are done, this one included."""

    steps: int
    """How many there will be."""

    tokens: int
    """How many activations have been trained on."""

    tokens_per_second: float
    """Activations per second since this loop began."""

    lr: float
    """Learning rate of this step."""

    measured: Mapping[str, Tensor]
    """Scalar tensors: "loss", "fvu", "l0", "dead", "outliers", and each part of the loss under its own name."""

    @property
    def loss(self) -> float:
        """What was minimised, on this batch."""
        return float(self.measured["loss"])

    @property
    def fvu(self) -> float:
        """Fraction of the variance of this batch left unexplained, before the step."""
        return float(self.measured["fvu"])

    @property
    def l0(self) -> float:
        """Mean number of active features."""
        return float(self.measured["l0"])

    @property
    def dead(self) -> float:
        """Share of features silent for ``TrainConfig.dead_tokens`` activations."""
        return float(self.measured["dead"])

    @property
    def outliers(self) -> float:
        """Share of this batch that was left out for its norm, see ``TrainConfig.outliers``."""
        return float(self.measured["outliers"])

    @property
    def seconds_left(self) -> float:
        """How long the steps to come will take if they are as fast as those of this loop."""
        return (self.steps - self.step) * self.tokens / self.step / self.tokens_per_second

    def numbers(self) -> dict[str, float]:
        """Return all that was measured, the learning rate and the speed as numbers."""
        measured = {name: float(value) for name, value in self.measured.items()}
        return measured | {"lr": self.lr, "tokens_per_second": self.tokens_per_second}

    def __str__(self) -> str:
        return (
            f"step {self.step}: fvu {self.fvu:.4f}, l0 {self.l0:.1f}, dead {self.dead:.1%}, "
            f"{self.tokens_per_second:,.0f} tokens/s"
        )
