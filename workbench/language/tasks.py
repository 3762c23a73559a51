"""Tasks: prompts that ask for one token, with the answer, a wrong answer, and a minimally different prompt."""

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.language.documents import WORDS, Documents, join
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

    documents: Documents
    """The documents that the prompts begin, one for each: their labels tell the prompts apart."""

    def __repr__(self) -> str:
        """Return the name, how many prompts there are, and the first with its answer and its foil."""
        prompt = join(WORDS[i] for i in self.prompts[0, 1 : self.lengths[0]].tolist())
        answer, foil = WORDS[self.answers[0]], WORDS[self.foils[0]]
        return f"Task({self.name!r}, {len(self.prompts)} prompts: {prompt!r} → {answer!r}, not {foil!r})"

    def logit_difference(self, logits: Float[Tensor, "prompt pos d_vocab"]) -> Float[Tensor, " prompt"]:
        """Return logit(answer) − logit(foil) at the end of each prompt; positive is right."""
        last = logits[torch.arange(len(logits)), self.lengths.to(logits.device) - 1]
        answers, foils = self.answers.to(logits.device), self.foils.to(logits.device)
        return (last.gather(1, answers[:, None]) - last.gather(1, foils[:, None]))[:, 0]


def collect(language: "Language", family: Family, name: str, n: int, split: Split, seed: int) -> Task:
    """Draw documents until ``n`` of them have a counterfactual whose answer differs at the same position."""
    rng = Random(seed)
    found: list[tuple[Documents, Documents, int]] = []
    drawn = language.documents(n * TRIES, split=split, seed=seed, families=[family.name])
    for i in range(len(drawn)):
        if len(found) == n:
            break
        pair = _pair(language, family, name, drawn[i], rng)
        if pair is not None:
            found.append(pair)
    if len(found) < n:
        raise ValueError(f"only {len(found)} of {n} prompts of {name!r} exist in the split {split!r}; ask for fewer.")
    documents, others, positions = zip(*found, strict=True)
    lengths = torch.tensor(positions)
    inside = torch.arange(int(lengths.max())) < lengths[:, None]

    def prompts(of: Documents) -> Tensor:
        return torch.where(inside, of.tokens[:, : inside.shape[1]], PAD)

    answers, foils = (torch.tensor([*map(_answer, side, positions)]) for side in (documents, others))
    asked = Documents.cat(documents)
    return Task(name, prompts(asked), lengths, answers, foils, prompts(Documents.cat(others)), asked)


def _answer(document: Documents, position: int) -> int:
    """Return the true answer at ``position``: the written token, unless a label says what is true."""
    truth = document.labels["truth"]
    code = int(truth.codes[0, position])
    return VOCABULARY[truth.names[code]] if code else int(document.tokens[0, position])


def _pair(
    language: "Language", family: Family, name: str, document: Documents, rng: Random
) -> tuple[Documents, Documents, int] | None:
    """Return a document, its counterfactual and the position that is asked for, or None if it has none."""
    spec = family.tasks[name]
    asked = document.labels["slot"].equals(spec.slot)[0]
    positions = asked.nonzero()[:, 0].tolist()
    changeable = [c for c in language.choices(document) if c.name == spec.change]
    tries = [(p, k) for p in positions for k, c in enumerate(changeable) if c.position <= p]
    rng.shuffle(tries)
    for position, occurrence in tries:
        choice = changeable[occurrence]
        values = [o for o in choice.possible if o != choice.value and spec.pairs(choice.value, o)]
        if not values:
            continue
        other = language.counterfactual(document, spec.change, rng.choice(values), occurrence=occurrence)
        if other.tokens.shape[1] <= position or not bool(other.labels["slot"].equals(spec.slot)[0, position]):
            continue
        pair = document, other
        # Where both answers may come in both, one of them is less likely than the other at least in one.
        if spec.several and not _likelier(language, *pair, position):
            pair = other, document
            if not _likelier(language, *pair, position):
                continue
        same = torch.equal(document.tokens[0, :position], other.tokens[0, :position])
        if _answer(document, position) != _answer(other, position) and not same:
            return *pair, position
    return None


def _likelier(language: "Language", document: Documents, other: Documents, position: int) -> bool:
    """Return whether the answer of ``document`` is likelier in it than that of ``other``."""
    exact = language.next_token(document.tokens[0, :position])[-1]
    return bool(exact[_answer(document, position)] > exact[_answer(other, position)])
