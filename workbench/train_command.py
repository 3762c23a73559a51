"""``workbench train``: text to activations to a dictionary, measured on text held out and saved.

Rows and training are kept in ``DIRECTORY/unfinished`` until all is done, so that the same command goes on.
"""

import argparse
import shlex
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import torch

from workbench.activations import ActivationStore
from workbench.dictionaries import TopK, fidelity, save
from workbench.language import Documents, Language
from workbench.models import Site, TransformerBridge, load_model
from workbench.training import TrainConfig, progress
from workbench.training import train as start
from workbench.training.bar import bar_of

Draw = Callable[[], Documents | list[str]]


def train(given: argparse.Namespace) -> int:
    """Train a dictionary on the activations of a model, measure it on held-out text, and save it."""
    _check(given)
    config = TrainConfig(steps=given.steps, lr=given.lr, dead_tokens=given.dead_tokens)
    texts = _texts(given)
    model = load_model(given.model)
    if given.text is None and (model.tokenizer is None or model.tokenizer.get_vocab() != Language.vocabulary):
        raise ValueError(
            f"'{given.model}' does not speak the built-in language, whose documents a dictionary is trained on where "
            "nothing else is given; give --text FILE."
        )
    site = Site(model.cfg.n_layers // 2 if given.layer is None else given.layer, given.stream)
    unfinished = given.directory / "unfinished"
    store = _harvest(model, site, "training", *texts["train"], unfinished / "rows")
    unseen = _harvest(model, site, "held-out", *texts["test"], unfinished / "held_out")
    few = 10 * given.features
    if len(store) < few:
        print(f"{len(store):,} rows are few for {given.features:,} features, which want {few:,}: give more text.")
    batch = given.batch or min(2048, len(store))
    held_out = unseen.rows(slice(None)).acts
    dictionary = TopK(held_out[site].shape[1], given.features, k=given.k, sites_in=site, seed=given.seed)
    training = start(dictionary, store.batches([site], batch, given.seed), config, checkpoint=unfinished)
    with closing(training):
        for _ in progress(training):
            pass
    found = fidelity(dictionary, held_out)
    asked = [word for word in given.words[1:] if word != "--replace" and Path(word) != given.directory]
    dictionary.provenance |= {
        "command": shlex.join(["workbench", "train", "DIRECTORY", *asked]),
        "rows": {"train": len(store), "held_out": len(unseen)},
        "training": config.recipe() | {"batch": batch},
        "held_out": {key: round(value, 4) for key, value in asdict(found).items()},
    }
    save(dictionary, given.directory, dtype=torch.float16 if given.half else torch.float32)
    shutil.rmtree(unfinished)
    print(
        f"{given.directory} holds {given.features} features at {site}. On text held out, {found.l0:.0f} features "
        f"a token leave {found.fvu:.1%} of the variance unexplained, and {found.dead:.1%} of the features never fire.\n"
        f'Load it with load_dictionary("{given.directory}"), or name it DICTIONARY in the tour\'s parameters.'
    )
    return 0


def _check(given: argparse.Namespace) -> None:
    """Say what cannot be, before anything takes time."""
    if (given.directory / "dictionary.json").exists() and not given.replace:
        raise ValueError(f"'{given.directory}' holds a finished dictionary; give --replace, or another directory.")
    for name in ("documents", "features", "batch"):
        if (number := getattr(given, name)) is not None and number < 1:
            raise ValueError(f"--{name} must be at least 1, got {number}.")
    if not 0 < given.k <= given.features:
        raise ValueError(f"--k must lie in 1..{given.features} (--features), got {given.k}.")
    if Site(given.layer or 0, given.stream).stream == "pattern":
        raise ValueError("--stream pattern has a row per pair of tokens, and a dictionary reads one per token.")


def _texts(given: argparse.Namespace) -> dict[str, tuple[int, Draw]]:
    """Return how many texts there are to train on and to hold out, and how to draw them."""
    if given.text is None:
        language, n, few = Language(0), given.documents, max(100, given.documents // 10)
        return {
            "train": (n, lambda: language.documents(n, split="train", seed=given.seed)),
            "test": (few, lambda: language.documents(few, split="test", seed=given.seed)),
        }
    if not given.text.is_file():
        raise ValueError(f"'{given.text}' is not a file; --text names a file with one text per line.")
    try:
        lines = [line for line in given.text.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"'{given.text}' is not text in UTF-8 ({error}); save it as such.") from None
    if len(lines) < 2:
        raise ValueError(f"'{given.text}' holds {len(lines)} texts; it takes two, one per line, as some are held out.")
    cut = max(1, len(lines) // 10)
    return {"train": (len(lines) - cut, lambda: lines[cut:]), "test": (cut, lambda: lines[:cut])}


def _harvest(
    model: TransformerBridge, site: Site, what: str, count: int, draw: Draw, directory: Path
) -> ActivationStore:
    with bar_of("texts") as bar:
        task = bar.add_task(f"{what} text", total=count, told="")
        # A text longer than the context counts as often as it is cut.
        store = ActivationStore.collect(
            model,
            draw(),
            [site],
            directory=directory,
            progress=lambda done, rows: bar.update(task, completed=min(done, count)),
        )
        bar.update(task, completed=count)
    return store
