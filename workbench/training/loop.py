"""The one training loop, for every architecture, on activations from anywhere.

A step draws a batch, takes loss and gradients, moves Adam, lets the dictionary restore its constraints, and
counts for how long each feature has been silent. Ctrl-C waits until the step is whole, so what is saved is
always a state between two steps, and going on from it gives the weights that never stopping would have given.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import Tensor

from workbench.dictionaries import Dictionary, files
from workbench.dictionaries.inputs import Batch
from workbench.training.config import TrainConfig
from workbench.training.feed import Feed
from workbench.training.interrupt import held_back
from workbench.training.step import Step

NAME = "checkpoint"

log = logging.getLogger(__name__)


def train(
    dictionary: Dictionary,
    batches: Iterable[Batch],
    config: TrainConfig,
    *,
    checkpoint: str | Path | None = None,
    logger: Callable[[Step], object] | None = None,
) -> "Training":
    """Return a training of ``dictionary``, in place; each iteration takes one step and reports it.

    Args:
        dictionary: What to train, on the device it is on. If it is not initialised, the first batch does it.
        batches: Tensors [batch, d], of several sites [batch, site, d], or mappings from sites to tensors [batch, d].
            Their position is saved if they have ``state_dict`` and ``load_state_dict``; others are replayed from
            their beginning. If they have the ``fingerprint`` of a model, as a store's do, the dictionary's provenance
            takes it over, and one that knows another model is refused.
        config: How to take steps.
        checkpoint: A directory to save to at the start, every ``config.save_every`` steps, at the end, and when
            the loop is left early. If it already holds this training, the training goes on from there.
        logger: Called with every step.
    """
    return Training(dictionary, batches, config, checkpoint, logger)


class Training:
    """A training under way: loop over it to run it.

    Leaving the loop early, by ``break``, by an exception or by Ctrl-C, saves if there is a checkpoint
    directory. Another loop over the same training goes on where the last one was left.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        batches: Iterable[Batch],
        config: TrainConfig,
        checkpoint: str | Path | None,
        logger: Callable[[Step], object] | None,
    ) -> None:
        self.dictionary = dictionary.requires_grad_(True)
        self.config = config
        self.step = 0
        """How many steps are done."""
        self.tokens = 0
        """How many activations have been trained on."""
        self._directory = None if checkpoint is None else Path(checkpoint)
        self._logger = logger
        self._feed = Feed(batches)
        known, given = dictionary.provenance.get("model"), self._feed.fingerprint
        if known and given and known != given:
            raise ValueError(
                f"This dictionary was trained on a model with fingerprint {known}, and these batches come from "
                f"another, {given}; harvest from that model, or train a new dictionary."
            )
        # The gradients of rare features are tiny; the usual eps of 1e-8 would hold them back (Gao et al. 2024).
        self._adam = torch.optim.Adam(dictionary.parameters(), eps=6.25e-10, fused=True)
        self._silent = torch.zeros(dictionary.n_features, dtype=torch.long, device=dictionary.W_dec.device)
        self._rate = (0, 0.0)  # activations and seconds of this run
        self._torn = False  # whether something stopped inside a step
        self._saved: int | None = None  # the step that the directory holds
        self._stop = Event()
        self._closed = False
        if self._directory is not None and (self._directory / f"{NAME}.json").exists():
            self._load(self._directory)
            if self.finished:
                log.warning("'%s' holds this training, finished; its weights are loaded.", self._directory)

    def __iter__(self) -> Iterator[Step]:
        # A generator for each loop: however the loop is left, Python closes its generator, and it shows here.
        try:
            while (step := self._take()) is not None:
                yield step
        except GeneratorExit:
            if self._directory is not None and not self.finished:
                log.warning(self._leave())
            raise
        if self._directory is not None:
            self.save()

    def __next__(self) -> Step:
        step = self._take()
        if step is None:
            raise StopIteration
        return step

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.config.steps

    def pause(self) -> None:
        """End the loop after the step under way; may be called from any thread."""
        self._stop.set()

    def resume(self) -> "Training":
        """Let a new loop go on after ``pause``: ``for step in training.resume()``."""
        if self._closed:
            raise ValueError("This training is closed; call train again with the same checkpoint directory.")
        self._stop.clear()
        return self

    def close(self) -> None:
        """Save, if there is a checkpoint directory, and free the optimiser; a closed training is over."""
        if self._directory is not None and not self._torn:
            self.save()
        self.pause()
        self._closed = True
        self._adam.zero_grad()
        self._adam.state.clear()

    def save(self) -> None:
        """Write all it takes to go on into the checkpoint directory, in place of what was there."""
        if self._directory is None:
            raise ValueError("This training has nowhere to save to; give train a checkpoint directory.")
        if self._torn:
            raise ValueError(self._farewell())
        if self._saved == self.step:
            return
        if not all(torch.isfinite(parameter).all() for parameter in self.dictionary.parameters()):
            raise ValueError(f"The weights after step {self.step} are not finite: {self._remedy()}{self._kept()}")
        tensors = {f"weights.{name}": tensor for name, tensor in self.dictionary.state_dict().items()}
        for name, parameter in self.dictionary.named_parameters():
            tensors |= {f"adam.{name}.{key}": value for key, value in self._adam.state[parameter].items()}
        tensors |= {"silent": self._silent, "rng": torch.get_rng_state()}
        manifest = self._identity() | {
            "step": self.step,
            "tokens": self.tokens,
            "position": self._feed.position(),
        }
        files.write(self._directory, NAME, manifest, tensors)
        self._saved = self.step

    def _load(self, directory: Path) -> None:
        manifest, tensors = files.read(directory, NAME)
        for part, ours in self._identity().items():
            theirs = manifest[part]
            differ = [key for key in ours if key != "save_every" and ours[key] != theirs.get(key)]
            if differ:
                raise ValueError(
                    f"'{directory}' holds a training whose {part} has "
                    f"{', '.join(f'{key}={theirs.get(key)!r}' for key in differ)}; this one has "
                    f"{', '.join(f'{key}={ours[key]!r}' for key in differ)}. "
                    "Give the same to go on with it, or another directory to start anew."
                )
        self.step = self._saved = manifest["step"]
        self.tokens = manifest["tokens"]
        self._silent.copy_(tensors["silent"])
        self.dictionary.load_state_dict(_under("weights", tensors))
        moments = [_under(f"adam.{name}", tensors) for name, _ in self.dictionary.named_parameters()]
        state = {i: of_parameter for i, of_parameter in enumerate(moments) if of_parameter}
        self._adam.load_state_dict(self._adam.state_dict() | {"state": state})
        self._feed.restore(manifest["position"], self.step, tensors["rng"])
        self._sign()

    def _identity(self) -> dict[str, dict[str, Any]]:
        """What must agree for one training to go on with another's checkpoint."""
        return {"dictionary": self.dictionary.describe(), "config": asdict(self.config)}

    def _take(self) -> Step | None:
        """Take one step and do what follows it, or return None when there is none to take."""
        if self.finished or self._stop.is_set():
            return None
        if self._torn:
            raise ValueError(self._farewell())
        try:
            with held_back():
                if self._saved is None and self._directory is not None:
                    self.save()  # what cannot be saved should show now, not at the first interrupt
                step = self._advance()
                if self._directory is not None and (self.finished or self.step % self.config.save_every == 0):
                    self.save()
                if self._logger is not None:
                    self._logger(step)
            return step
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self._leave()) from None
        except Exception:
            if self._directory is not None and not self._torn and self.step != self._saved:
                log.warning(self._leave())
            raise

    @torch.enable_grad()
    def _advance(self) -> Step:
        start = time.perf_counter()
        self._torn = True
        batch = self._feed.draw()
        if batch is None:
            self._torn = False
            raise ValueError(
                f"The batches ended after step {self.step} of {self.config.steps}; give batches that go round, "
                "or a TrainConfig with fewer steps."
            )
        x, y = self.dictionary.pair(batch)
        if not self.dictionary.initialised:
            self.dictionary.initialise(batch)
        lr = self.config.lr_at(self.step, self.dictionary.n_features)
        self._adam.param_groups[0]["lr"] = lr
        dead = self._silent >= (self.config.dead_tokens or 64 * self.dictionary.n_features)
        loss = self.dictionary.loss(x, y, dead=dead)
        self._refuse_nonfinite(loss.total, x, y)
        self._adam.zero_grad()
        loss.total.backward()
        self._adam.step()
        self.dictionary.after_step(self.step)
        self._silent.add_(len(x)).masked_fill_(loss.fired, 0)
        self.step += 1
        self.tokens += len(x)
        self._torn = False
        self._rate = (self._rate[0] + len(x), self._rate[1] + time.perf_counter() - start)
        self._sign()
        measured = {"loss": loss.total, "fvu": loss.fvu, "l0": loss.codes.l0, "dead": dead.float().mean()}
        return Step(
            step=self.step,
            tokens=self.tokens,
            tokens_per_second=self._rate[0] / self._rate[1],
            lr=lr,
            measured={name: value.detach() for name, value in (loss.parts | measured).items()},
        )

    def _sign(self) -> None:
        """Let the dictionary say what it was trained on, and how."""
        told = {"config": asdict(self.config), "steps": self.step, "tokens": self.tokens}
        self.dictionary.provenance["training"] = told
        if self._feed.fingerprint is not None:
            self.dictionary.provenance["model"] = self._feed.fingerprint

    def _refuse_nonfinite(self, total: Tensor, x: Tensor, y: Tensor) -> None:
        # Elsewhere than on a CPU the question would hold up the device, so it is asked now and then.
        if (total.device.type != "cpu" and self.step % 100) or torch.isfinite(total):
            return
        bad = int((~(torch.isfinite(x).flatten(1).all(1) & torch.isfinite(y).flatten(1).all(1))).sum())
        cause = f"{bad} of its {len(x)} activations hold NaN or infinity; leave them out." if bad else self._remedy()
        raise ValueError(f"The loss of step {self.step + 1} is {float(total.detach())}: {cause}{self._kept()}")

    def _remedy(self) -> str:
        peak = self.config.lr_at(self.step, self.dictionary.n_features)
        return f"the learning rate, {peak:.2g}, is likely too high; lower it."

    def _kept(self) -> str:
        if self._saved is None:
            return ""
        return f" '{self._directory}' still holds step {self._saved}."

    def _leave(self) -> str:
        if self._directory is not None and not self._torn:
            self.save()
        return self._farewell()

    def _farewell(self) -> str:
        """Say where the training stopped, what is kept, and how to go on."""
        stopped = f"Training stopped after step {self.step} of {self.config.steps}"
        if self._torn:
            kept = self._kept() or " Its weights may be half updated."
            return f"{stopped}, inside the next one, which cannot be saved.{kept} Call train again to go on from there."
        if self._directory is None:
            return f"{stopped}. Loop over it again to go on; a checkpoint directory would outlast this process."
        return f"{stopped}. All is saved in '{self._directory}': call train again with the same arguments to go on."


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix`` and a dot, by the rest of the name."""
    return {key[len(prefix) + 1 :]: tensor for key, tensor in tensors.items() if key.startswith(f"{prefix}.")}
