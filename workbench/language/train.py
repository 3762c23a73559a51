"""Train a small transformer on the language: ``python -m workbench.language.train DIRECTORY``.

The model is an ordinary Hugging Face directory (GPT-NeoX with sequential residual), with the tokenizer and a card
``card.json`` of its figures beside the weights. A run that is stopped, by whatever means, goes on from its last
checkpoint when the same command is given again, over the same documents in the same order.
"""

import argparse
import json
import math
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import Progress
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from workbench.language.exam import Exam, examine, peculiarities
from workbench.language.language import Language
from workbench.language.tokenizer import build_tokenizer
from workbench.language.vocabulary import BOS, EOS, PAD, VOCABULARY
from workbench.stopping import one_sentence

COMMAND = "python -m workbench.language.train"
CHUNK = 4096
"""Documents drawn at once and sorted by length, so that little of a batch is padding."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the trained weights."""

    steps: int = 5000
    """Optimiser steps."""

    tokens: int = 4096
    """Tokens in a batch, padding included."""

    lr: float = 3e-3
    """Peak learning rate of both optimisers; warmed up over 100 steps, then a cosine to zero."""

    seed: int = 0
    """Of the initial weights and of the documents."""

    language: int = 0
    """Seed of the language."""

    precision: str = "float32"
    """Of the matrix products of training: ``"bfloat16"`` is faster where the processor has it."""

    layers: int = 5
    """Blocks."""

    width: int = 128
    """Size of the residual stream."""

    heads: int = 4
    """Attention heads in a block."""


def build_model(recipe: Recipe) -> Any:
    """Return the untrained model."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(recipe.seed)
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=recipe.width,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            intermediate_size=4 * recipe.width,
            max_position_embeddings=256,
            use_parallel_residual=False,
            attention_dropout=0.0,
            hidden_dropout=0.0,
            bos_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=PAD,
            tie_word_embeddings=False,
        )
    )
    # The fused attention of half precision on CPU takes longer than all the rest, so there it goes step by step.
    model.set_attn_implementation("eager" if recipe.precision == "bfloat16" else "sdpa")
    return model


def batches(recipe: Recipe, start: int) -> Iterator[Tensor]:
    """Yield the training batches from number ``start`` on: rows of similar length, padded."""
    language = Language(recipe.language)
    number, chunk = 0, 0
    while True:
        documents = language.documents(CHUNK, split="train", seed=recipe.seed * 1_000_003 + chunk)
        order = documents.lengths.argsort(stable=True)
        groups, rows = [], []
        for row in order.tolist():
            if rows and (len(rows) + 1) * int(documents.lengths[row]) > recipe.tokens:
                groups.append(rows)
                rows = []
            rows.append(row)
        groups.append(rows)
        shuffle = torch.Generator().manual_seed(chunk)
        for g in torch.randperm(len(groups), generator=shuffle).tolist():
            if number >= start:
                yield documents[torch.tensor(groups[g])].tokens
            number += 1
        chunk += 1


def kept(recipe: Recipe) -> list[int]:
    """Return the steps whose weights are kept: the untrained model, then ever wider apart up to half of the run."""
    return [0, *(step for n in range(32) if (step := 50 * 2**n) <= recipe.steps // 2)]


def lr_at(step: int, recipe: Recipe) -> float:
    """Return the learning rate of ``step``."""
    warm = min(100, recipe.steps // 10 + 1)
    if step < warm:
        return recipe.lr * (step + 1) / warm
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, recipe.steps - warm)))


def settle(tensors: dict[str, Tensor], path: Path, about: dict[str, str]) -> None:
    """Write a file so that a reader meets the old one or the new, whatever stops this."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, partial, about)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


class Run:
    """A training run that lives in a directory and survives being killed."""

    def __init__(self, directory: Path, recipe: Recipe, device: str, *, compiled: bool = False) -> None:
        self.directory, self.recipe, self.device = directory, recipe, device
        self.model = build_model(recipe).to(device)
        self.model.train()
        # Orthogonal updates learn to look values up in a third of the steps that AdamW needs, or where it never does.
        # Their scale is set to AdamW's, so that one learning rate serves both.
        matrices = [p for name, p in self.model.named_parameters() if p.ndim == 2 and "embed" not in name]
        words = [p for name, p in self.model.named_parameters() if p.ndim == 2 and "embed" in name]
        vectors = [p for p in self.model.parameters() if p.ndim < 2]
        groups = [{"params": words, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        self.optimisers = (
            torch.optim.Muon(matrices, lr=recipe.lr, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), fused=True),
        )
        self.loss_of = torch.compile(self._loss, dynamic=True) if compiled else self._loss
        self.step = 0

    @property
    def parameters(self) -> list[Tensor]:
        """Every trained tensor, in the order of the optimisers' groups."""
        return [p for optimiser in self.optimisers for group in optimiser.param_groups for p in group["params"]]

    @property
    def checkpoint(self) -> Path:
        """Where the state of the unfinished run is kept."""
        return self.directory / "unfinished.safetensors"

    def save(self) -> None:
        """Write weights and optimiser in one atomic file."""
        held = {p: state for optimiser in self.optimisers for p, state in optimiser.state.items()}
        state = {f"weight.{i}": p.detach() for i, p in enumerate(self.parameters)}
        for i, p in enumerate(self.parameters):
            state |= {f"{key}.{i}": value for key, value in held.get(p, {}).items()}
        about = {"step": str(self.step), "recipe": json.dumps(asdict(self.recipe), sort_keys=True)}
        settle(state, self.checkpoint, about)

    def saved(self) -> dict[str, str]:
        """Return what the checkpoint says of itself; nothing where there is none."""
        if not self.checkpoint.exists():
            return {}
        with safe_open(self.checkpoint, "pt") as file:
            return file.metadata() or {}

    def resume(self) -> None:
        """Go back to the checkpoint, if there is one."""
        if (self.directory / "card.json").exists():
            raise ValueError(
                f"'{self.directory}' holds a finished model; to train anew, give another directory or remove that one."
            )
        if not self.checkpoint.exists():
            return
        try:
            about = self.saved()
            recipe, step = json.loads(about["recipe"]), int(about["step"])
            if recipe == asdict(self.recipe):
                self._restore(load_file(self.checkpoint, self.device))
        except (SafetensorError, LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"'{self.checkpoint}' is broken or of another version of workbench ({error}), so its run cannot go on; "
                "remove that file to begin anew, or give another directory."
            ) from error
        if recipe != asdict(self.recipe):
            raise ValueError(
                f"'{self.directory}' holds an unfinished run of another recipe ({about['recipe']}); "
                "give the same options to go on with it, or another directory."
            )
        self.step = step

    def _restore(self, state: dict[str, Tensor]) -> None:
        for i, p in enumerate(self.parameters):
            weight = state.pop(f"weight.{i}")
            if weight.shape != p.shape:
                raise ValueError(f"it holds {tuple(weight.shape)} where the model has {tuple(p.shape)}")
            p.data.copy_(weight)
        owner = {p: optimiser for optimiser in self.optimisers for g in optimiser.param_groups for p in g["params"]}
        for name, value in state.items():
            key, i = name.rsplit(".", 1)
            owner[self.parameters[int(i)]].state[self.parameters[int(i)]][key] = value

    def keep(self) -> None:
        """Write the weights of this step, in half precision, to look back on how the model learnt."""
        weights = {name: value.half() for name, value in self.model.state_dict().items()}
        settle(weights, self.directory / "checkpoints" / f"{self.step:06}.safetensors", {"format": "pt"})

    def _loss(self, tokens: Tensor) -> Tensor:
        """Return the mean loss of the next token, in nats."""
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            logits = self.model(input_ids=tokens).logits[:, :-1]
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), ignore_index=PAD)

    def losses(self) -> Iterator[float]:
        """Take the steps that are left and yield each one's loss, in nats per token."""
        for tokens in islice(batches(self.recipe, self.step), self.recipe.steps - self.step):
            loss = self.loss_of(tokens.to(self.device))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            for optimiser in self.optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = lr_at(self.step, self.recipe)
                optimiser.step()
                optimiser.zero_grad()
            self.step += 1
            yield float(loss.detach())


def figures(exam: Exam, shown: pd.DataFrame) -> dict[str, Any]:
    """Return what a card says of an exam, and of what was planted."""
    return {
        "documents": "Language.documents(n, split='test') of fresh seeds; see tests/test_pretrained.py",
        "kl_nats_per_token": round(exam.kl, 4),
        "kl_standard_error": round(exam.kl_error, 5),
        "entropy_nats_per_token": round(exam.entropy, 4),
        "grammatical_mass": round(exam.grammatical_mass, 4),
        "families": {
            row["family"]: {
                "kl": round(row["kl"], 5),
                "kl_standard_error": round(row["kl_error"], 5),
                "grammatical_mass": round(row["grammatical_mass"], 4),
            }
            for row in exam.families.to_dict("records")
        },
        "slots": {
            f"{row['family']}: {row['slot']}" + ("" if row["certain"] else ", not certain"): {
                key: row[key] if key == "count" else round(row[key], 4)
                for key in ("count", "accuracy", "expected", "mass")
            }
            for row in exam.slots.to_dict("records")
        },
        "planted": {
            row["what"]: {"count": row["count"], "model": round(row["model"], 4), "exact": round(row["exact"], 4)}
            for row in shown.to_dict("records")
        },
    }


def write(run: Run, exam: Exam, shown: pd.DataFrame, seconds: float) -> None:
    """Write the finished model, its tokenizer and its card."""
    model = run.model.eval().half()
    model.save_pretrained(run.directory)
    build_tokenizer().save_pretrained(run.directory)
    options = " ".join(
        f"--{f.name} {getattr(run.recipe, f.name)}" for f in fields(Recipe) if getattr(run.recipe, f.name) != f.default
    )
    card = {
        "what": "a small transformer trained on the built-in language of workbench, in half precision",
        "command": f"{COMMAND} DIRECTORY {options}".strip(),
        "recipe": asdict(run.recipe),
        "parameters": sum(p.numel() for p in model.parameters()),
        "minutes": round(seconds / 60, 1),
        "exam": figures(exam, shown),
    }
    partial = run.directory / "card.partial"
    partial.write_text(json.dumps(card, indent=1) + "\n")
    os.replace(partial, run.directory / "card.json")
    run.checkpoint.unlink(missing_ok=True)


def take_steps(run: Run, every: int) -> None:
    """Take the steps that are left and save; Ctrl-C waits for the end of a step and is raised once that is saved."""
    stop = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        with Progress() as bar:
            task = bar.add_task("training", total=run.recipe.steps, completed=run.step)
            if run.step == 0:
                run.keep()
            for loss in run.losses():
                bar.advance(task)
                if run.step in kept(run.recipe):
                    run.keep()
                if run.step % 20 == 0:
                    bar.update(task, description=f"loss {loss:.3f}")
                if run.step % every == 0 or run.step == run.recipe.steps or stop.is_set():
                    run.save()
                if stop.is_set():
                    break
    finally:
        signal.signal(signal.SIGINT, before)
    if stop.is_set():
        raise KeyboardInterrupt


def finish(run: Run, documents: int, started: float) -> None:
    """Examine the trained model on so many test documents, and write it with its card."""
    language = Language(run.recipe.language)
    model = run.model.eval().half().float()  # the exam is of the weights as they are written

    def predict(ids: Tensor) -> Tensor:
        return model(input_ids=ids.to(run.device)).logits

    exam = examine(predict, language, language.documents(documents, split="test", seed=12345))
    shown = peculiarities(predict, language, seed=12345)
    write(run, exam, shown, time.monotonic() - started)
    tables = (table.to_string(index=False) for table in (exam.families, exam.slots, shown))
    told = f"KL(oracle ‖ model) = {exam.kl:.4f} nats per token; entropy {exam.entropy:.3f}"
    Console().out(told, *tables, sep="\n")


def main(arguments: list[str] | None = None) -> None:
    """Train, or go on training, and write the finished model."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=str(__doc__).split("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="compile the step: a third faster, needs a compiler")
    parser.add_argument("--every", type=int, default=500, help="steps between checkpoints")
    parser.add_argument("--exam", type=int, default=1500, help="test documents on which the card's figures are taken")
    for f in fields(Recipe):
        parser.add_argument(f"--{f.name}", type=f.type, default=f.default)  # pyright: ignore[reportArgumentType]
    words = sys.argv[1:] if arguments is None else arguments
    given = parser.parse_args(words)
    recipe = Recipe(**{f.name: getattr(given, f.name) for f in fields(Recipe)})
    started = time.monotonic()
    run = Run(given.directory, recipe, given.device, compiled=given.compile)

    def going_on() -> str:
        step = run.saved().get("step")
        left = f"step {step} is kept in '{run.directory}'" if step else "nothing is kept yet"
        return f"{left}. Go on with:  {COMMAND} {shlex.join(words)}"

    with one_sentence(COMMAND, going_on):
        run.resume()
        take_steps(run, given.every)
        finish(run, given.exam, started)


if __name__ == "__main__":
    main()
