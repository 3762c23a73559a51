"""Tasks: prompts that ask for one token, with the answer, a wrong answer, and a minimally different prompt."""

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.language.documents import Documents
from workbench.language.families import Family
from workbench.language.splits import Split
from workbench.language.vocabulary import PAD, VOCABULARY

if TYPE_CHECKING:
    from workbench.language.language import Language

TRIES = 50
"""Documents looked at for each prompt before a task is said to be impossible in a split."""


@dataclass(frozen=True)
class Task:
    """Prompts and what they ask for. Prompt and counterfactual are token by token aligned."""

    name: str

    prompts: Int[Tensor, "prompt pos"]
    """BOS first, right-padded."""

    lengths: Int[Tensor, " prompt"]
    """Length of each prompt: its answer stands at this position of the document."""

    answers: Int[Tensor, " prompt"]
    """The true answer's token, also where the document states something else."""

    foils: Int[Tensor, " prompt"]
    """The counterfactual prompt's answer, which is wrong here."""

    counterfactuals: Int[Tensor, "prompt pos"]
    """The prompts with one choice changed, so that ``foils`` are their answers."""

    def logit_difference(self, logits: Float[Tensor, "prompt pos d_vocab"]) -> Float[Tensor, " prompt"]:
        """Return logit(answer) − logit(foil) at the end of each prompt; positive is right."""
        last = logits[torch.arange(len(logits)), self.lengths.to(logits.device) - 1]
        answers, foils = self.answers.to(logits.device), self.foils.to(logits.device)
        return (last.gather(1, answers[:, None]) - last.gather(1, foils[:, None]))[:, 0]


def collect(language: "Language", family: Family, name: str, n: int, split: Split, seed: int) -> Task:
    """Draw documents until ``n`` of them have a counterfactual whose answer differs at the same position."""
    rng = Random(seed)
    found: list[tuple[list[int], int, int, list[int]]] = []
    documents = language.documents(n * TRIES, split=split, seed=seed, families=[family.name]) if n else None
    for i in range(n * TRIES):
        assert documents is not None
        if len(found) == n:
            break
        pair = _pair(language, family, name, documents[i], rng)
        if pair is not None:
            found.append(pair)
    if len(found) < n:
        raise ValueError(f"only {len(found)} of {n} prompts of {name!r} exist in the split {split!r}; ask for fewer.")
    lengths = torch.tensor([len(prompt) for prompt, *_ in found])
    rows = torch.full((2, n, int(lengths.max())), PAD)
    for i, (prompt, _, _, other) in enumerate(found):
        rows[0, i, : len(prompt)] = torch.tensor(prompt)
        rows[1, i, : len(other)] = torch.tensor(other)
    answers, foils = (torch.tensor([pair[k] for pair in found]) for k in (1, 2))
    return Task(name, rows[0], lengths, answers, foils, rows[1])


def _answer(document: Documents, position: int) -> int:
    """Return the true answer at ``position``: the written token, unless a label says what is true."""
    truth = document.labels["truth"]
    code = int(truth.codes[0, position])
    return VOCABULARY[truth.names[code]] if code else int(document.tokens[0, position])


def _pair(
    language: "Language", family: Family, name: str, document: Documents, rng: Random
) -> tuple[list[int], int, int, list[int]] | None:
    """Return (prompt, answer, foil, counterfactual prompt) from one document, or None if it has none."""
    spec = family.tasks[name]
    asked = document.labels["slot"].equals(spec.slot)[0]
    positions = asked.nonzero()[:, 0].tolist()
    changeable = [c for c in language.choices(document) if c.name == spec.change]
    tries = [(p, k) for p in positions for k, c in enumerate(changeable) if c.position <= p]
    rng.shuffle(tries)
    for position, occurrence in tries:
        choice = changeable[occurrence]
        value = rng.choice([option for option in choice.options if option != choice.value])
        other = language.counterfactual(document, spec.change, value, occurrence=occurrence)
        if other.tokens.shape[1] <= position or not bool(other.labels["slot"].equals(spec.slot)[0, position]):
            continue
        answer, foil = _answer(document, position), _answer(other, position)
        prompt, changed = document.tokens[0, :position].tolist(), other.tokens[0, :position].tolist()
        if spec.several and not _likelier(language, prompt, answer, foil):
            # Where both may come here, one of them may still be wrong in the other prompt.
            prompt, answer, foil, changed = changed, foil, answer, prompt
            if not _likelier(language, prompt, answer, foil):
                continue
        if answer != foil and prompt != changed:
            return prompt, answer, foil, changed
    return None


def _likelier(language: "Language", prompt: list[int], answer: int, foil: int) -> bool:
    exact = language.next_token(torch.tensor(prompt))[-1]
    return bool(exact[answer] > exact[foil])
