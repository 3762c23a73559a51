"""How to take training steps."""

from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Literal, get_args

Precision = Literal["float32", "tf32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to take steps; what to train and on what are arguments of ``train``.

    Args:
        steps: Number of optimiser steps, one batch each.
        lr: Peak learning rate of Adam; None is 2e-4 / sqrt(n_features / 2**14), as Gao et al. (2024) scale it. Short
            runs bear, and need, several times more.
        warmup: Share of the steps in which the learning rate rises linearly from zero: Adam's second moments are not to
            be trusted before (Ma and Yarats 2021, arXiv 1910.04209).
        decay: Share of the steps, the last ones, in which it falls linearly to zero (Conerly et al. 2024).
        dead_tokens: A feature silent for this many activations counts as dead and is revived; None is 64 times
            n_features, which meets the usual ten million (Gao et al. 2024) at some 150,000 features.
        outliers: An activation whose norm exceeds this multiple of its site's median is left out; None keeps all.
            Attention sinks, such as the first token, are a hundred times as long as the others (Xiao et al. 2023, arXiv
            2309.17453; Sun et al. 2024, arXiv 2402.17762): left in, a handful sets the unit of length and most of the
            loss.
        precision: Of products. "tf32" rounds their factors to 10 bits on a GPU that has the unit for it, and changes
            nothing elsewhere; "bf16" to 7 bits anywhere, in half the memory. Weights, sums and Adam stay in float32.
        save_every: Steps or time between checkpoints, where a directory for them is given.
    """

    steps: int
    lr: float | None = None
    warmup: float = 0.05
    decay: float = 0.2
    dead_tokens: int | None = None
    outliers: float | int | None = 10.0
    precision: Precision = "tf32"
    save_every: int | timedelta = timedelta(minutes=5)

    def __post_init__(self) -> None:
        every = self.save_every
        seconds = every.total_seconds() if isinstance(every, timedelta) else every
        for name, number in (("steps", self.steps), ("dead_tokens", self.dead_tokens), ("save_every", seconds)):
            if number is not None and number < 1:
                unit = " s" if name == "save_every" and isinstance(every, timedelta) else ""
                raise ValueError(f"{name} must be at least 1{unit}, got {number:g}{unit}.")
        if self.lr is not None and not self.lr > 0:
            raise ValueError(f"lr must be positive, or None for the default, got {self.lr}.")
        if min(self.warmup, self.decay) < 0 or self.warmup + self.decay > 1:
            raise ValueError(
                "warmup and decay are shares of the steps, at least 0 and together at most 1, "
                f"got {self.warmup} and {self.decay}."
            )
        if self.outliers is not None and not self.outliers > 1:
            raise ValueError(f"outliers is a multiple of the median, above 1, or None, got {self.outliers}.")
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {self.precision!r}.")

    def recipe(self) -> dict[str, Any]:
        """Return all that the weights depend on, as JSON holds it: everything but when to save."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "save_every"}

    def peak_lr(self, n_features: int) -> float:
        """Return the highest learning rate."""
        return 2e-4 / (n_features / 2**14) ** 0.5 if self.lr is None else self.lr

    def lr_at(self, step: int, n_features: int) -> float:
        """Return the learning rate of ``step``, counted from 0."""
        up = (step + 1) / max(1.0, self.warmup * self.steps)
        down = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.peak_lr(n_features) * min(1.0, up, down)
