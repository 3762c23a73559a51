"""The one training loop, for every architecture and any number of dictionaries, on activations from anywhere.

A step draws a batch; each dictionary takes loss and gradients on it, moves its Adam, restores its constraints, and
counts for how long each feature has been silent. Ctrl-C waits until the step is whole, so what is saved is
always a state between two steps, and going on from it gives the weights that never stopping would have given.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any, Generic, TypeVar

import torch

from workbench.dictionaries import Dictionary, files
from workbench.dictionaries.inputs import Batch
from workbench.training.config import TrainConfig
from workbench.training.feed import Feed
from workbench.training.interrupt import held_back
from workbench.training.learner import Learner, under
from workbench.training.step import Step

NAME = "checkpoint"

SAMPLE = 2048
"""How many activations, at least, dictionaries are initialised on."""

ALONE = "dictionary"
"""What the dictionary of ``train`` is called."""

Report = TypeVar("Report", Step, dict[str, Step])
"""What an iteration gives: a ``Step``, or one for each dictionary by name."""

Logger = Callable[[Step], object]

log = logging.getLogger(__name__)


def train(
    dictionary: Dictionary,
    batches: Iterable[Batch],
    config: TrainConfig,
    *,
    checkpoint: str | Path | None = None,
    logger: Logger | None = None,
) -> "Training[Step]":
    """Return a training of ``dictionary``, in place; each iteration takes one step and reports it.

    Args:
        dictionary: What to train, on the device it is on. If it is not initialised, the first 2,048 activations do it.
        batches: Tensors [batch, d], of several sites [batch, site, d], or mappings from sites to tensors [batch, d].
            Their position is saved if they have ``state_dict`` and ``load_state_dict``; others are replayed from
            their beginning. If they have the ``fingerprint`` of a model, as a store's do, the dictionary's provenance
            takes it over, and one that knows another model is refused.
        config: How to take steps.
        checkpoint: A directory to save to at the start, as often as ``config.save_every`` says, at the end, and
            when the loop is left early. If it already holds this training, the training goes on from there.
        logger: Called with every step.
    """
    return Training({ALONE: dictionary}, batches, {ALONE: config}, checkpoint, logger, lambda steps: steps[ALONE])


def train_many(
    dictionaries: Mapping[str, Dictionary] | Sequence[Dictionary],
    batches: Iterable[Batch],
    config: TrainConfig | Mapping[str, TrainConfig],
    *,
    checkpoint: str | Path | None = None,
    logger: Logger | None = None,
) -> "Training[dict[str, Step]]":
    """Return a training of several dictionaries on one stream; each iteration takes a step of every one of them.

    They may differ in site, width, sparsity and architecture, and each ends in the weights that ``train`` would have
    given it. One forward pass of the language model serves all: of a mapping, the sites that they name are asked for
    and no others. One checkpoint holds all.

    Args:
        dictionaries: By name, or in a list, where the names are "0", "1", …; all on one device.
        batches: As for ``train``.
        config: As for ``train``, for all or one for each; a default learning rate follows each one's width.
        checkpoint: As for ``train``.
        logger: Called with every step of every dictionary, which its ``name`` tells apart.
    """
    if isinstance(dictionaries, Dictionary):
        raise TypeError("train_many takes several dictionaries, by name or in a list, and this is one; call train.")
    if not isinstance(dictionaries, Mapping):
        dictionaries = {str(i): dictionary for i, dictionary in enumerate(dictionaries)}
    if not dictionaries:
        raise ValueError("train_many needs at least one dictionary, got none.")
    if len({id(dictionary) for dictionary in dictionaries.values()}) < len(dictionaries):
        raise ValueError("train_many was given the same dictionary twice; give a deepcopy of it to train two.")
    configs = config if isinstance(config, Mapping) else dict.fromkeys(dictionaries, config)
    if configs.keys() != dictionaries.keys():
        named = f"{_names(configs)}, the dictionaries {_names(dictionaries)}"
        raise ValueError(f"A config for each dictionary has its name, but the configs are {named}.")
    if len({(one.steps, one.save_every) for one in configs.values()}) > 1:
        raise ValueError("Dictionaries on one stream have steps and save_every in common, but these configs differ.")
    return Training(dictionaries, batches, configs, checkpoint, logger, lambda steps: steps)


class Training(Generic[Report]):
    """A training under way: loop over it to run it.

    Leaving the loop early, by ``break``, by an exception or by Ctrl-C, saves if there is a checkpoint
    directory. Another loop over the same training goes on where the last one was left.
    """

    def __init__(
        self,
        dictionaries: Mapping[str, Dictionary],
        batches: Iterable[Batch],
        configs: Mapping[str, TrainConfig],
        checkpoint: str | Path | None,
        logger: Logger | None,
        report: Callable[[dict[str, Step]], Report],
    ) -> None:
        self.dictionaries = dict(dictionaries)
        """What is trained, by name."""
        self.config = next(iter(configs.values()))
        """How; of several, the first one's, with which the others agree on steps and saving."""
        self.step = 0
        """How many steps are done."""
        self.tokens = 0
        """How many activations have been trained on."""
        with held_back():  # torch loads parts of itself with its first optimiser, and no second time if interrupted
            self._learners = {name: Learner(name, one, configs[name]) for name, one in dictionaries.items()}
        devices = {str(learner.device) for learner in self._learners.values()}
        if len(devices) > 1:
            raise ValueError(f"Dictionaries trained on one stream lie on one device, got {', '.join(sorted(devices))}.")
        self.directory = None if checkpoint is None else Path(checkpoint)
        """Where it saves to."""
        self.device = torch.device(*devices)
        """Where it happens."""
        self._logger, self._report = logger, report
        sites = {site for one in dictionaries.values() for site in (*one.sites_in, *one.sites_out)}
        self._feed = Feed(batches, sites, self.device)
        for dictionary in dictionaries.values():
            dictionary.prepare(self.config.steps)
            known, given = dictionary.provenance.get("model"), self._feed.fingerprint
            if known and given and known != given:
                raise ValueError(
                    f"This dictionary was trained on a model with fingerprint {known}, and these batches come from "
                    f"another, {given}; harvest from that model, or train a new dictionary."
                )
        self._began: tuple[int, float] | None = None  # activations and time when this loop began
        self._torn = False  # whether something stopped inside a step
        self._saved: int | None = None  # the step that the directory holds
        self._saved_at = time.monotonic()
        self._stop = Event()
        self._closed = self._initialised = False
        if self.directory is not None and (self.directory / f"{NAME}.json").exists():
            self._load(self.directory)
            if self.finished:
                log.warning("'%s' holds this training, finished; its weights are loaded.", self.directory)

    @property
    def dictionary(self) -> Dictionary:
        """The dictionary that ``train`` was given."""
        (dictionary,) = self.dictionaries.values()
        return dictionary

    def __iter__(self) -> Iterator[Report]:
        # A generator for each loop: however the loop is left, Python closes its generator, and it shows here.
        self._began = None
        try:
            while (report := self._take()) is not None:
                yield report
        except GeneratorExit:
            if self.directory is not None and not self.finished:
                log.warning(self._leave())
            raise
        if self.directory is not None:
            self.save()

    def __next__(self) -> Report:
        report = self._take()
        if report is None:
            raise StopIteration
        return report

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.config.steps

    def pause(self) -> None:
        """End the loop after the step under way; may be called from any thread."""
        self._stop.set()

    def resume(self) -> "Training[Report]":
        """Let a new loop go on after ``pause``: ``for step in training.resume()``."""
        if self._closed:
            raise ValueError("This training is closed; call train again with the same checkpoint directory.")
        self._stop.clear()
        return self

    def close(self) -> None:
        """Save, if there is a checkpoint directory, and free the optimisers; a closed training is over."""
        if self.directory is not None and not self._torn:
            self.save()
        self.pause()
        self._closed = True
        for learner in self._learners.values():
            learner.close()

    def save(self) -> None:
        """Write all it takes to go on into the checkpoint directory, in place of what was there."""
        if self.directory is None:
            raise ValueError("This training has nowhere to save to; give train a checkpoint directory.")
        if self._torn:
            raise ValueError(self._farewell())
        if self._saved == self.step:
            return
        position, tensors = self._feed.place
        tensors = dict(tensors)
        for name, learner in self._learners.items():
            if not learner.finite:
                words = f"The weights after step {self.step} are not finite"
                raise ValueError(f"{words}: {learner.remedy}{self._kept()}")
            tensors |= {f"{name}.{key}": tensor for key, tensor in learner.state().items()}
        place = {"step": self.step, "tokens": self.tokens, "position": position}
        files.write(self.directory, NAME, {**place, "dictionaries": self._identity()}, tensors)
        self._saved, self._saved_at = self.step, time.monotonic()

    def _load(self, directory: Path) -> None:
        manifest, tensors = files.read(directory, NAME)
        try:
            self._refuse_others(directory, manifest["dictionaries"])
            self.step = self._saved = manifest["step"]
            self.tokens = manifest["tokens"]
            for name, learner in self._learners.items():
                learner.restore(under(name, tensors))
            self._feed.restore(manifest["position"], self.step, tensors)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"'{directory / NAME}.json' does not describe a checkpoint ({error!r}); begin anew elsewhere."
            ) from None
        self._sign()

    def _refuse_others(self, directory: Path, theirs: dict[str, Any]) -> None:
        """Raise unless the checkpoint in ``directory`` is of this training."""
        ways_out = "Give the same to go on with it, or another directory to start anew."
        if theirs.keys() != self._learners.keys():
            held, asked = _names(theirs), _names(self._learners)
            raise ValueError(f"'{directory}' holds a training of {held}; this one is of {asked}. {ways_out}")
        for name, ours in self._identity().items():
            for part, told in ours.items():
                differ = [key for key in told if told[key] != theirs[name][part].get(key)]
                if differ:
                    raise ValueError(
                        f"'{directory}' holds a training whose {part} has "
                        f"{', '.join(f'{key}={theirs[name][part].get(key)!r}' for key in differ)}; this one has "
                        f"{', '.join(f'{key}={told[key]!r}' for key in differ)}. {ways_out}"
                    )

    def _identity(self) -> dict[str, dict[str, Any]]:
        """What must agree for one training to go on with another's checkpoint."""
        return {
            name: {"dictionary": learner.dictionary.describe(), "config": learner.config.recipe()}
            for name, learner in self._learners.items()
        }

    def _due(self) -> bool:
        """Whether it is time for a checkpoint."""
        every = self.config.save_every
        if isinstance(every, timedelta):
            return self.finished or time.monotonic() - self._saved_at >= every.total_seconds()
        return self.finished or self.step % every == 0

    def _take(self) -> Report | None:
        """Take one step and do what follows it, or return None when there is none to take."""
        if self.finished or self._stop.is_set():
            return None
        if self._torn:
            raise ValueError(self._farewell())
        try:
            with held_back():
                if self._saved is None and self.directory is not None:
                    self.save()  # what cannot be saved should show now, not at the first interrupt
                steps = self._advance()
                if self.directory is not None and self._due():
                    self.save()
                if self._logger is not None:
                    for step in steps.values():
                        self._logger(step)
                if self.finished:
                    self._judge(steps)
            return self._report(steps)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self._leave()) from None
        except FloatingPointError as error:
            raise ValueError(f"{error}{self._kept()}") from None
        except Exception as error:
            if _out_of_memory(error):
                raise MemoryError(
                    f"Step {self.step + 1} needs more memory than there is: take smaller batches or fewer features, "
                    f'train fewer dictionaries at a time, or with precision="bf16".{self._kept()}'
                ) from error
            if self.directory is not None and not self._torn and self.step != self._saved:
                log.warning(self._leave())
            raise

    @torch.enable_grad()
    def _advance(self) -> dict[str, Step]:
        self._began = self._began or (self.tokens, time.perf_counter())
        self._torn = True
        if not self._initialised:
            self._initialise()
        batch = self._feed.draw()
        if batch is None:
            self._torn = False
            raise ValueError(
                f"The batches ended after step {self.step} of {self.config.steps}; give batches that go round, "
                "or a TrainConfig with fewer steps."
            )
        learnt = [(learner, *learner.learn(batch, self.step)) for learner in self._learners.values()]
        self.step += 1
        self.tokens += learnt[0][1]
        self._torn = False
        self._sign()
        speed = (self.tokens - self._began[0]) / (time.perf_counter() - self._began[1])
        return {
            learner.name: Step(learner.name, self.step, self.config.steps, self.tokens, speed, learner.lr, measured)
            for learner, _, measured in learnt
        }

    def _initialise(self) -> None:
        """Initialise what is not yet; whether it is lies on the device, and is asked only once."""
        fresh = [learner for learner in self._learners.values() if not learner.dictionary.initialised]
        if fresh and (sample := self._feed.sample(SAMPLE)) is not None:
            for learner in fresh:
                learner.begin(sample)
        self._initialised = True

    def _sign(self) -> None:
        """Let the dictionaries say what they were trained on, and how."""
        for learner in self._learners.values():
            told = {"config": learner.config.recipe(), "steps": self.step, "tokens": self.tokens}
            learner.dictionary.provenance["training"] = told
            if self._feed.fingerprint is not None:
                learner.dictionary.provenance["model"] = self._feed.fingerprint

    def _judge(self, steps: dict[str, Step]) -> None:
        """Say which dictionaries are no use."""
        for name, step in steps.items():
            if not step.fvu <= 1:
                words = "'%s' ended with an FVU of %.3g, worse than the mean of the activations alone: %s"
                log.warning(words, name, step.fvu, self._learners[name].remedy)

    def _kept(self) -> str:
        if self._saved is None:
            return ""
        return f" '{self.directory}' still holds step {self._saved}."

    def _leave(self) -> str:
        if self.directory is not None and not self._torn:
            self.save()
        return self._farewell()

    def _farewell(self) -> str:
        """Say where the training stopped, what is kept, and how to go on."""
        stopped = f"Training stopped after step {self.step} of {self.config.steps}"
        if self._torn:
            kept = self._kept() or " Its weights may be half updated."
            return f"{stopped}, inside the next one, which cannot be saved.{kept} Call train again to go on from there."
        if self.directory is None:
            return f"{stopped}. Loop over it again to go on; a checkpoint directory would outlast this process."
        return f"{stopped}. All is saved in '{self.directory}': call train again with the same arguments to go on."


def _out_of_memory(error: Exception) -> bool:
    """Whether ``error`` is what an allocator says on any device; on a CPU it has no type of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
