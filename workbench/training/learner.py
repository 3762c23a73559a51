"""One dictionary in training: its optimiser, and what it has to remember of the activations it has seen."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from workbench.dictionaries import Dictionary
from workbench.dictionaries.inputs import Batch
from workbench.training.config import Precision, TrainConfig

COUNT_EVERY = 10
"""Steps between two counts of the dead: how many there are is asked of the device, and asking holds it up."""

CHECK_EVERY = 100
"""Steps between two looks at the loss elsewhere than on a CPU, for the same reason."""


class Learner:
    """Moves one dictionary by one batch at a time.

    Everything that the next step depends on is in ``state``, beside the batches and the number of the step.
    """

    def __init__(self, name: str, dictionary: Dictionary, config: TrainConfig) -> None:
        self.name = name
        self.dictionary = dictionary.requires_grad_(True)
        self.config = config
        self.device = dictionary.W_dec.device
        # The gradients of rare features are tiny; the usual eps of 1e-8 would hold them back (Gao et al. 2024).
        self._adam = torch.optim.Adam(dictionary.parameters(), eps=6.25e-10, fused=True)
        self._silent = torch.zeros(dictionary.n_features, dtype=torch.long, device=self.device)
        self._dead = self._silent[:0]
        self._longest: Tensor | None = None
        """The norms beyond which an activation is an outlier, one for each site; None before the first activations."""

    def begin(self, sample: Batch) -> None:
        """Initialise the dictionary on ``sample``, without its outliers."""
        instead, _ = self._outliers(*self.dictionary.pair(sample))
        self.dictionary.initialise(sample if instead is None else self._taken(sample, instead))

    def learn(self, batch: Batch, step: int) -> tuple[int, dict[str, Tensor]]:
        """Take optimiser step ``step``, counted from 0; return the number of activations and what was measured."""
        x, y = self.dictionary.pair(batch)
        if not len(x):
            raise ValueError(f"The batch of step {step + 1} holds no activations.")
        instead, outliers = self._outliers(x, y)
        if instead is not None:
            x, y = (x[instead],) * 2 if y is x else (x[instead], y[instead])
        dead = self._silent >= (self.config.dead_tokens or 64 * self.dictionary.n_features)
        if step % COUNT_EVERY == 0:
            self._dead = self.dictionary.neglected(dead).nonzero().squeeze(1)
        self._adam.param_groups[0]["lr"] = self.config.lr_at(step, self.dictionary.n_features)
        with arithmetic(self.config.precision, self.device) as forward:
            with forward:
                loss = self.dictionary.loss(x, y, dead=self._dead)
            self._refuse_nonfinite(loss.total, x, y, step)
            self._adam.zero_grad()
            loss.total.backward()
        self._adam.step()
        self.dictionary.after_step(step)
        self._silent.add_(len(x)).masked_fill_(loss.fired, 0)
        share = dead.float().mean()
        told = {"loss": loss.total, "fvu": loss.fvu, "l0": loss.codes.l0, "dead": share, "outliers": outliers}
        return len(x), {name: value.detach() for name, value in (loss.parts | told).items()}

    def _outliers(self, x: Tensor, y: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return which rows to take, others in the places of outliers, or None for all as they are; and their share.

        Shapes stay, and nothing is asked of the device. Which rows count twice instead is as random as the batch.
        """
        if self.config.outliers is None:
            return None, x.new_zeros(())
        sides = (x,) if y is x else (x, y)
        norms = torch.cat([torch.linalg.vector_norm(side, dim=-1).view(len(x), -1) for side in sides], dim=1)
        if self._longest is None:
            median = norms.median(0).values
            self._longest = torch.where(median > 0, self.config.outliers * median, torch.inf)
        far = ((norms > self._longest) & norms.isfinite()).any(1)  # what is not finite is an error, not an outlier
        if self.device.type == "cpu" and not far.any():
            return None, x.new_zeros(())
        near_first = far.int().argsort(stable=True)
        nth = (far.cumsum(0) - 1) % (~far).sum().clamp_min(1)
        return torch.where(far, near_first[nth], torch.arange(len(x), device=x.device)), far.float().mean()

    def _taken(self, batch: Batch, rows: Tensor) -> Batch:
        if isinstance(batch, Tensor):
            return batch[rows.to(batch.device)]
        sites = {*self.dictionary.sites_in, *self.dictionary.sites_out}
        return {site: batch[site][rows.to(batch[site].device)] for site in sites}

    def _refuse_nonfinite(self, total: Tensor, x: Tensor, y: Tensor, step: int) -> None:
        if (self.device.type != "cpu" and step % CHECK_EVERY) or torch.isfinite(total):
            return
        bad = len(x) - int((x.isfinite().flatten(1).all(1) & y.isfinite().flatten(1).all(1)).sum())
        cause = f"{bad} of its {len(x)} activations hold NaN or infinity; leave them out." if bad else self.remedy
        raise FloatingPointError(f"The loss of step {step + 1} is {float(total.detach())}: {cause}")

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return self._adam.param_groups[0]["lr"]

    @property
    def remedy(self) -> str:
        """What to try where weights run away."""
        peak = self.config.peak_lr(self.dictionary.n_features)
        return f"the learning rate, {peak:.2g}, is likely too high; lower it."

    @property
    def finite(self) -> bool:
        """Whether all weights are numbers."""
        return all(bool(torch.isfinite(parameter).all()) for parameter in self.dictionary.parameters())

    def state(self) -> dict[str, Tensor]:
        """Return the weights, the optimiser, and what is remembered of the activations."""
        tensors = {f"weights.{name}": tensor for name, tensor in self.dictionary.state_dict().items()}
        for name, parameter in self.dictionary.named_parameters():
            tensors |= {f"adam.{name}.{key}": value for key, value in self._adam.state[parameter].items()}
        seen = {} if self._longest is None else {"longest": self._longest}
        return tensors | {"silent": self._silent, "dead": self._dead, **seen}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a ``state``."""
        self.dictionary.load_state_dict(under("weights", tensors))
        moments = [under(f"adam.{name}", tensors) for name, _ in self.dictionary.named_parameters()]
        state = {i: of_parameter for i, of_parameter in enumerate(moments) if of_parameter}
        self._adam.load_state_dict(self._adam.state_dict() | {"state": state})
        self._silent.copy_(tensors["silent"])
        self._dead = tensors["dead"].to(self.device)
        self._longest = tensors["longest"].to(self.device) if "longest" in tensors else None

    def close(self) -> None:
        """Free the optimiser."""
        self._adam.zero_grad()
        self._adam.state.clear()


@contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[AbstractContextManager]:
    """Let float32 products in this block be as exact as ``precision`` says; yield the block for the loss alone."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    if device.type == "cuda":
        matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
    finally:
        matmul.fp32_precision = before


def under(prefix: str, tensors: dict[str, Any]) -> dict[str, Any]:
    """Return what is named ``prefix``, a dot and more, by the rest of the name."""
    return {key[len(prefix) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{prefix}.")}
