"""Loggers for ``train`` that write elsewhere. Their packages are extras, and are imported when they are asked for.

A logger is any callable that takes a ``Step``; what is shown as ``name/quantity`` here is the dictionary's name and
each number of the step.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from workbench.training.step import Step


def tensorboard(directory: str | Path, *, every: int = 10) -> Callable[[Step], None]:
    """Return a logger that writes every so many steps into ``directory``, for TensorBoard to show."""
    writer = _needed("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(directory))

    def log(step: Step) -> None:
        if step.step % every == 0:
            for name, value in step.numbers().items():
                writer.add_scalar(f"{step.name}/{name}", value, step.step)

    return log


def wandb(*, every: int = 10, **init: Any) -> Callable[[Step], None]:
    """Return a logger that sends every so many steps to a run of Weights & Biases; ``init`` goes to ``wandb.init``."""
    run = _needed("wandb", "wandb").init(**init)

    def log(step: Step) -> None:
        if step.step % every == 0:
            run.log({f"{step.name}/{name}": value for name, value in step.numbers().items()}, step=step.step)

    return log


def _needed(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise ImportError(
            f"This logger needs the package {extra}, which is not installed: python -m pip install {extra}; or give "
            "train a logger of your own, any callable that takes a Step."
        ) from None
