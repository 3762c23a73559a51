"""A language model as explainer and judge: anything that continues a text, or a model from a directory."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from workbench.features.contexts import Shown
from workbench.features.explanation import Judge
from workbench.features.feature import Example
from workbench.models import TransformerBridge, generate, load_model, tokenize

SHOWN = 10
"""Contexts in a prompt, half of them the strongest."""

EXPLAIN = """\
A feature of a language model is active on the tokens between << and >> of these texts:

{active}

and on no token of these:

{silent}

What is it that makes the feature active? Answer with one short phrase.
"""

JUDGE = """\
A feature of a language model is active on: {text}

These are the tokens of a text, each with its number:

{words}

On which of them is the feature active? Answer with their numbers, separated by commas, or with "none".
"""


def asked(
    writer: Callable[[str], str] | TransformerBridge | str | Path, *, max_new_tokens: int = 40
) -> tuple[Callable[[Shown], str], Judge]:
    """Return an explainer and a judge for ``explain`` that ask a language model.

    >>> explainer, judge = asked(lambda prompt: "none")
    >>> judge("weather", ["rain", " falls"])
    array([0., 0.])

    Args:
        writer: Takes a prompt and returns the answer; or a model, or what ``load_model`` loads, which answers with its
            likeliest tokens, in its chat format where its tokenizer has one.
        max_new_tokens: Of a model's answer, at most.
    """
    if isinstance(writer, str | Path) or hasattr(writer, "cfg"):  # a bridge can be called too, with tokens
        write = _model(load_model(writer), max_new_tokens)  # type: ignore[arg-type]
    elif callable(writer):
        write = writer
    else:
        raise TypeError(f"asked takes a function from prompt to answer, or a model, got {type(writer).__name__}.")

    def explainer(feature: Shown) -> str:
        active = feature.top[: SHOWN // 2]
        active += feature.sample[: SHOWN - len(active)]
        silent = feature.silent[:SHOWN]
        return write(EXPLAIN.format(active=_lines(active), silent=_lines(silent))).strip()

    def judge(text: str, words: list[str]) -> np.ndarray:
        numbered = "\n".join(f"{i}: {word.strip()}" for i, word in enumerate(words, 1))
        return _numbers(write(JUDGE.format(text=text, words=numbered)), len(words))

    return explainer, judge


def _lines(contexts: list[Example]) -> str:
    return "\n".join(
        "".join(f"<<{word}>>" if act > 0 else word for word, act in zip(one.words, one.acts, strict=True)).strip()
        for one in contexts
    )


def _numbers(answer: str, n: int) -> np.ndarray:
    """Return 1 where an answer names a token by its number, else 0."""
    named = [int(number) for number in re.findall(r"\d+", answer)]
    if any(not 1 <= number <= n for number in named) or not (named or "none" in answer.casefold()):
        raise ValueError(f'asked for numbers from 1 to {n} or "none", it wrote {answer[:80]!r}')
    scores = np.zeros(n)
    scores[np.array(named, dtype=int) - 1] = 1
    return scores


def _model(model: TransformerBridge, max_new_tokens: int) -> Callable[[str], str]:
    """Return a function that continues a prompt by a model's likeliest tokens."""

    def write(prompt: str) -> str:
        if getattr(model.tokenizer, "chat_template", None):
            turn = [{"role": "user", "content": prompt}]
            prompt = model.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        tokens = tokenize(model, prompt)
        written = generate(model, tokens, temperature=0, max_new_tokens=max_new_tokens)
        return model.tokenizer.decode([token.id for token in written], skip_special_tokens=True)

    return write
