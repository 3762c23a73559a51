"""Loggers for ``train`` that write elsewhere. Their packages are extras, and are imported when they are asked for.

A logger is any callable that takes a ``Step``. These write the numbers of every so many steps, and of the last, as
``name/quantity``, where the name is that of the dictionary.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from workbench.training.step import Step


def tensorboard(directory: str | Path, *, every: int = 10) -> Callable[[Step], None]:
    """Return a logger that writes into ``directory``, for TensorBoard to show."""
    writer = _needed("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(directory))

    def write(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()  # nobody will close it

    return _logger(write, every)


def wandb(*, every: int = 10, **init: Any) -> Callable[[Step], None]:
    """Return a logger that sends to a run of Weights & Biases; ``init`` goes to ``wandb.init``."""
    return _logger(_needed("wandb", "wandb").init(**init).log, every)


def _logger(write: Callable[[dict[str, float], int], None], every: int) -> Callable[[Step], None]:
    def log(step: Step) -> None:
        if step.step % every == 0 or step.step == step.steps:
            write({f"{step.name}/{name}": value for name, value in step.numbers().items()}, step.step)

    return log


def _needed(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise ImportError(
            f"This logger needs the package {package}, which is not installed: python -m pip install {package}; or "
            "give train a logger of your own, any callable that takes a Step."
        ) from None
