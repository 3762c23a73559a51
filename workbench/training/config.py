"""How to take training steps."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to take steps; what to train and on what are arguments of ``train``."""

    steps: int
    """Number of optimiser steps, one batch each."""

    lr: float | None = None
    """Peak learning rate of Adam; None is 2e-4 / sqrt(n_features / 2**14), as Gao et al. (2024) scale it. Short
    runs bear, and need, several times more."""

    warmup: float = 0.05
    """Share of the steps in which the learning rate rises linearly from zero."""

    decay: float = 0.2
    """Share of the steps, the last ones, in which it falls linearly to zero."""

    dead_tokens: int | None = None
    """A feature silent for this many activations counts as dead and is revived; None is 64 times n_features,
    which meets the usual ten million (Gao et al. 2024) at some 150,000 features."""

    save_every: int = 500
    """Steps between checkpoints, where a directory for them is given."""

    def __post_init__(self) -> None:
        for name in ("steps", "dead_tokens", "save_every"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}.")
        if self.lr is not None and not self.lr > 0:
            raise ValueError(f"lr must be positive, or None for the default, got {self.lr}.")
        if min(self.warmup, self.decay) < 0 or self.warmup + self.decay > 1:
            raise ValueError(
                "warmup and decay are shares of the steps, at least 0 and together at most 1, "
                f"got {self.warmup} and {self.decay}."
            )

    def lr_at(self, step: int, n_features: int) -> float:
        """Return the learning rate of ``step``, counted from 0."""
        peak = 2e-4 / (n_features / 2**14) ** 0.5 if self.lr is None else self.lr
        up = (step + 1) / max(1.0, self.warmup * self.steps)
        down = (self.steps - step) / max(1.0, self.decay * self.steps)
        return peak * min(1.0, up, down)
