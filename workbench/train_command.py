"""``workbench train``: text to activations to dictionaries, measured on text held out and saved.

One forward pass gives the rows of every site, and one stream of them trains every dictionary. Both are kept in
``DIRECTORY/unfinished`` until all is done, so that the same command goes on.
"""

import argparse
import difflib
import hashlib
import json
import shlex
import shutil
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from workbench.activations import ActivationStore
from workbench.activations.sources import pieces_of
from workbench.dictionaries import TopK, fidelity, load_dictionary, save, splice_kl
from workbench.language import Documents, Language
from workbench.models import Site, Stream, TransformerBridge, load_model
from workbench.models.forward import device_of
from workbench.models.text import encode
from workbench.training import TrainConfig, progress, train_many
from workbench.training.bar import Bar

Draw = Callable[[], Documents | list[str]]

TRANSCODER = "transcoder"
"""In the place of a stream: what reads ``mlp_in`` and rebuilds ``mlp_out``."""

ROWS = {"model", "text", "documents", "seed", "layer", "stream", "half"}
"""The options that decide which activations are harvested."""

SPLICED = 300
"""Texts held out on which dictionaries are spliced into the model."""


def train(given: argparse.Namespace) -> int:
    """Train dictionaries on the activations of a model, measure them on held-out text, and save them."""
    _check(given)
    config = TrainConfig(steps=given.steps, lr=given.lr, dead_tokens=given.dead_tokens)
    texts = _texts(given)
    model = load_model(given.model)
    if given.text is not None:
        _check_words(model, given.text)
    if given.text is None and (model.tokenizer is None or model.tokenizer.get_vocab() != Language.vocabulary):
        raise ValueError(
            f"'{given.model}' does not speak the built-in language, whose documents a dictionary is trained on where "
            "nothing else is given; give --text FILE."
        )
    pairs = _pairs(given, model.cfg.n_layers)
    places = {name: given.directory / (name if len(pairs) > 1 else "") for name in pairs}
    unfinished = given.directory / "unfinished"
    asked = [word for word in given.words[1:] if word != "--replace" and Path(word) != given.directory]
    command = shlex.join(["workbench", "train", "DIRECTORY", *asked])
    for place in places.values():
        if (place / "dictionary.json").exists() and not given.replace:
            # This very command may have been stopped between saving one and another, and then goes on.
            if not unfinished.exists() or load_dictionary(place).provenance.get("command") != command:
                raise ValueError(f"'{place}' holds a finished dictionary; give --replace, or another directory.")
    _begin(unfinished, given)
    sites = sorted({site for pair in pairs.values() for site in pair})
    store = _harvest(model, sites, "training", *texts["train"], unfinished / "rows", given.half)
    unseen = _harvest(model, sites, "held-out", *texts["test"], unfinished / "held_out", given.half)
    few = 10 * given.features
    if len(store) < few:
        print(f"{len(store):,} rows are few for {given.features:,} features, which want {few:,}: give more text.")
    batch = given.batch or min(2048, len(store))
    width = {site: acts.shape[1] for site, acts in unseen.rows([0]).acts.items()}
    seeds, device = range(given.seed, given.seed + given.seeds), device_of(model)
    trained = {
        (name, seed): TopK(
            width[read], given.features, k=given.k, d_out=width[write], sites_in=read, sites_out=write, seed=seed
        ).to(device)
        for name, (read, write) in pairs.items()
        for seed in seeds
    }
    titled = {name if len(seeds) == 1 else f"{name} seed {seed}": one for (name, seed), one in trained.items()}
    training = train_many(titled, store.batches(sites, batch, given.seed), config, checkpoint=unfinished)
    with closing(training):
        for _ in progress(training):
            pass
    tokens, kept = _tokens(model, texts["test"][1]())
    with Bar("dictionaries") as bar:
        task = bar.add_task("measuring", total=len(trained), told="")
        for (name, seed), dictionary in trained.items():
            found = fidelity(dictionary, unseen.rows(slice(None), pairs[name]).acts)
            kl = float(splice_kl(model, dictionary, tokens, where=kept)[kept].mean())
            figures = {"fvu": found.fvu, "l0": found.l0, "dead": found.dead, "kl": kl}
            told = trained[name, given.seed].provenance.setdefault("held_out", [])
            told.append({"seed": seed} | {key: float(f"{value:.4g}") for key, value in figures.items()})
            bar.update(task, advance=1)
    for name, place in places.items():
        dictionary = trained[name, given.seed]
        dictionary.provenance |= {
            "command": command,
            "rows": {"train": len(store), "held_out": len(unseen), "spliced": int(kept.sum())},
            "training": config.recipe() | {"batch": batch},
        }
        save(dictionary, place, dtype=torch.float16 if given.half else torch.float32)
        first = dictionary.provenance["held_out"][0]
        print(
            f"{place} holds {given.features} features at {name}. On text held out, {first['l0']:.0f} features a token "
            f"leave {first['fvu']:.1%} of the variance unexplained, {first['dead']:.1%} of the features never fire, "
            f"and reconstructions in their place cost the model {first['kl']:.2g} nats a token."
        )
    shutil.rmtree(unfinished)
    one = "it" if len(places) == 1 else "the last"
    print(f'Load {one} with load_dictionary("{place}"), or name it DICTIONARY in the tour\'s parameters.')
    return 0


def _check(given: argparse.Namespace) -> None:
    """Say what cannot be, before anything takes time."""
    for name in ("documents", "features", "batch", "seeds"):
        if (number := getattr(given, name)) is not None and number < 1:
            raise ValueError(f"--{name} must be at least 1, got {number}.")
    if not 0 < given.k <= given.features:
        raise ValueError(f"--k must lie in 1..{given.features} (--features), got {given.k}.")
    known = (*get_args(Stream), TRANSCODER)
    for stream in given.stream:
        if stream not in known:
            near = difflib.get_close_matches(stream, known, n=1, cutoff=0.0)[0]
            raise ValueError(f"--stream '{stream}' is unknown; the nearest is '{near}', all are {', '.join(known)}.")
        if stream == "pattern":
            raise ValueError("--stream pattern has a row per pair of tokens, and a dictionary reads one per token.")
    _pairs(given, 1)


def _pairs(given: argparse.Namespace, n_layers: int) -> dict[str, tuple[Site, Site]]:
    """Return what each dictionary reads and rebuilds, by its name."""
    asked = given.layer or [n_layers // 2]
    pairs = {}
    for layer in range(n_layers) if "all" in asked else asked:
        for stream in given.stream:
            ends = ("mlp_in", "mlp_out") if stream == TRANSCODER else (stream, stream)
            pairs[f"{layer}.{stream}"] = Site(layer, ends[0]), Site(layer, ends[1])
    return pairs


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
    held_out, rest = lines[::10], [line for i, line in enumerate(lines) if i % 10]
    return {"train": (len(rest), lambda: rest), "test": (len(held_out), lambda: held_out)}


def _check_words(model: TransformerBridge, file: Path) -> None:
    """Raise, with the number that an editor shows, where a line has a word that the model does not know."""
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            encode(model, line)
        except ValueError as error:
            raise ValueError(f"Line {number} of '{file}': {error}") from None


def _begin(unfinished: Path, given: argparse.Namespace) -> None:
    """Make the place of a training, or go on with what is kept there of one that was asked for in the same words."""
    file = unfinished / "asked.json"
    asked = {name: str(value) for name, value in vars(given).items() if name not in ("directory", "replace", "words")}
    if given.text is not None:
        asked["text"] += f" ({hashlib.sha256(given.text.read_bytes()).hexdigest()[:8]})"
    before = json.loads(file.read_text()) if file.exists() else asked
    differ = [name for name in asked if before.get(name) != asked[name]]
    other_rows = not ROWS.isdisjoint(differ) and (unfinished / "rows").exists()
    if differ and (other_rows or (unfinished / "checkpoint.json").exists()):
        if not given.replace:
            there, here = (", ".join(f"--{name} {told.get(name)}" for name in differ) for told in (before, asked))
            raise ValueError(
                f"'{unfinished}' holds a training that was stopped, with {there} where this has {here}; give the same "
                "to go on with it, --replace to begin anew, or another directory."
            )
        for path in [unfinished] if other_rows else unfinished.glob("checkpoint*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    unfinished.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asked))


def _harvest(
    model: TransformerBridge, sites: list[Site], what: str, count: int, draw: Draw, directory: Path, half: bool
) -> ActivationStore:
    with Bar("texts") as bar:
        task = bar.add_task(f"{what} text", total=count, told="")
        # A text longer than the context counts as often as it is cut.
        store = ActivationStore.collect(
            model,
            draw(),
            sites,
            directory=directory,
            dtype=torch.float16 if half else None,
            progress=lambda done, rows: bar.update(task, completed=min(done, count)),
        )
        bar.update(task, completed=count)
    return store


def _tokens(model: TransformerBridge, texts: Documents | list[str]) -> tuple[Tensor, Tensor]:
    """Return the tokens of the first texts, padded on the right, and which of them a store has rows of."""
    rows = [piece.tokens for piece in islice(pieces_of(model, texts), SPLICED)]
    tokens = pad_sequence(rows, batch_first=True)
    real = pad_sequence([torch.ones_like(row, dtype=torch.bool) for row in rows], batch_first=True)
    return tokens, real & (tokens != model.tokenizer.bos_token_id)
