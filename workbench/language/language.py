"""The language itself: documents, the exact oracle, counterfactuals and tasks, all from the same programs."""

from collections.abc import Iterable, Sequence
from functools import cache
from random import Random
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.language.documents import Column, Documents
from workbench.language.engine import Choice, Recorder, Sampler, State, Symbols
from workbench.language.families import Family, families
from workbench.language.labels import LABELS
from workbench.language.lexicon import TOPICS
from workbench.language.oracle import Oracle
from workbench.language.splits import Split, check_split
from workbench.language.tasks import Task, collect
from workbench.language.vocabulary import BOS, EOS, PAD, VOCABULARY


def _few(words: Iterable[str]) -> str:
    """Return the first different ones of ``words``."""
    first = list(dict.fromkeys(words))
    return " ".join(first[:12]) + (" …" if len(first) > 12 else "")


def _one_document(ids: Tensor) -> list[int]:
    """Return the ids of one document or of the beginning of one, or say why they are not that."""
    if not isinstance(ids, Tensor):
        raise TypeError(f"ids must be an integer [pos] tensor, got {type(ids).__name__}; write torch.tensor(ids).")
    if ids.ndim != 1 or ids.dtype == torch.bool or ids.is_floating_point():
        raise ValueError(
            f"ids must be one document, an integer [pos] tensor, got {ids.dtype} {tuple(ids.shape)}; of several give "
            "one, such as documents.tokens[0, : documents.lengths[0]]."
        )
    listed = ids.tolist()
    if listed[:1] != [BOS]:
        raise ValueError("ids must begin with BOS; language.documents and the tokenizer put it there.")
    wrong = next((at for at, token in enumerate(listed) if not 0 <= token < len(VOCABULARY)), None)
    if wrong is not None:
        raise ValueError(
            f"ids must lie in 0..{len(VOCABULARY) - 1}, the vocabulary of the language, got {listed[wrong]} at "
            f"position {wrong}; give tokens of its own tokenizer."
        )
    return listed


class Topics(dict[str, tuple[str, ...]]):
    """Topic of a story → the words by which it shows, in every form."""

    def __missing__(self, name: str) -> tuple[str, ...]:
        raise KeyError(f"there is no topic {name!r}; the topics are {', '.join(self)}.")


NAMES = {column: ("", *values) for column, values in LABELS.items()}


class Language:
    """A language whose features are known.

    Args:
        seed: Decides what is held out and what is mistaken, not the words: languages of different seeds share
            vocabulary and programs.
        shortcut: How often the gender of a profession keeps to its stereotype; 0.5 is the balanced language.

    >>> language = Language(0)
    >>> documents = language.documents(2, split="test", seed=1)
    >>> language.first_violation(documents.tokens[0, : documents.lengths[0]]) is None
    True
    """

    vocabulary = VOCABULARY
    """Word → token id."""

    topics: ClassVar[Topics] = Topics({name: topic.words for name, topic in TOPICS.items()})
    """Topic of a story → the words by which it shows, in every form."""

    def __init__(self, seed: int = 0, *, shortcut: float = 0.9) -> None:
        if not 0 < shortcut < 1:
            raise ValueError(f"shortcut is a probability between 0 and 1, got {shortcut}.")
        self.seed = seed
        self.families: dict[str, Family] = {family.name: family for family in families(seed, shortcut)}
        self._symbols = Symbols(VOCABULARY)
        self._samplers: dict[tuple[str, Split], Sampler] = {}
        self._oracle = cache(self._build_oracle)

    def _build_oracle(self, split: Split) -> Oracle:
        starts = {State(family.start, ()): (family.name, family.weight) for family in self.families.values()}
        return Oracle(starts, VOCABULARY, split)

    def _chosen(self, names: Sequence[str] | None) -> list[Family]:
        for name in names or ():
            if name not in self.families:
                raise ValueError(f"there is no family {name!r}; the families are {', '.join(self.families)}.")
        return [f for f in self.families.values() if names is None or f.name in names]

    def documents(
        self, n: int, *, split: Split = "train", seed: int = 0, families: Sequence[str] | None = None
    ) -> Documents:
        """Generate ``n`` documents of ``split``; the same arguments give the same documents.

        Args:
            n: How many.
            split: ``"train"``, ``"test"`` or ``"all"``.
            seed: Of this sample; documents of different seeds are independent.
            families: Only these, in the proportions of the language; all by default.
        """
        check_split(split)
        if n < 1:
            raise ValueError(f"n must be at least 1 document, got {n}.")
        chosen = self._chosen(families)
        generator = torch.Generator().manual_seed(seed)
        seeds = torch.randint(2**62, (n,), generator=generator)
        shares = torch.tensor([family.weight for family in chosen])
        which = torch.multinomial(shares, n, replacement=True, generator=generator)
        rows = [self._play(chosen[f], split, s) for f, s in zip(which.tolist(), seeds.tolist(), strict=True)]
        return self._table(rows, split, seeds)

    def _play(self, family: Family, split: Split, seed: int) -> list[int]:
        """Draw one document of ``family``; everything in it depends on ``seed`` alone."""
        sampler = self._samplers.get((family.name, split))
        if sampler is None:
            sampler = Sampler(self._symbols, split, Random(), {"family": family.name})
            self._samplers[family.name, split] = sampler
        sampler.rng.seed(seed)
        sampler.out = []
        sampler.run(family.start)
        return sampler.out

    def _table(self, rows: list[list[int]], split: Split, seeds: Tensor | None) -> Documents:
        """Turn rows of symbols into padded tokens and label columns."""
        lengths = torch.tensor([len(row) + 2 for row in rows])
        width = int(lengths.max())
        symbols = torch.zeros(len(rows), width, dtype=torch.long)
        inside = torch.arange(width) < lengths[:, None] - 2
        symbols[inside] = torch.tensor([s for row in rows for s in row])
        tokens = torch.full((len(rows), width), PAD)
        tokens[:, 0] = BOS
        tokens[:, 1:][inside[:, :-1]] = torch.tensor(self._symbols.tokens)[symbols[inside]]
        tokens[torch.arange(len(rows)), lengths - 1] = EOS
        labels = {}
        for name, names in NAMES.items():
            code = {value: i for i, value in enumerate(names)}
            of_symbol = torch.tensor([code[found.get(name, "")] for found in self._symbols.labels])
            codes = torch.zeros(len(rows), width, dtype=torch.long)
            codes[:, 1:][inside[:, :-1]] = of_symbol[symbols[inside]]
            labels[name] = Column(codes, names)
        return Documents(tokens, lengths, labels, split, seeds)

    def show(self, *, seed: int = 0, split: Split = "train", families: Sequence[str] | None = None) -> None:
        """Print one document of every family, with the words that carry each of its labels."""
        total = sum(family.weight for family in self.families.values())
        for family in self._chosen(families):
            documents = self.documents(1, split=split, seed=seed, families=[family.name])
            print(f"{family.name} ({family.weight / total:.0%} of the documents)")  # noqa: T201  it is what this is for
            print(f"  {documents.text(0)}")  # noqa: T201
            frame = documents.to_frame()
            for name in list(NAMES)[1:]:
                said = frame[frame[name] != ""].groupby(name, observed=True, sort=False)["token"]
                carried = "; ".join(f"{value}: {_few(words)}" for value, words in said)
                if carried:
                    print(f"    {name:10} {carried}")  # noqa: T201
            print()  # noqa: T201

    def next_token(self, ids: Int[Tensor, " pos"], *, split: Split = "all") -> Float[Tensor, "pos d_vocab"]:
        """Return the exact P(next token | ids so far) after every position, in float64.

        Args:
            ids: One document or the beginning of one, BOS first.
            split: Whose distribution: ``"train"`` is what a perfect memory of the training text would predict.

        Rows after a token that the language does not allow there are zero.
        """
        check_split(split)
        return self._oracle(split).next_token(_one_document(ids))

    def posterior(
        self, ids: Int[Tensor, " pos"], labels: Sequence[str], *, ahead: int = 0, split: Split = "all"
    ) -> dict[str, Float[Tensor, "_pos _value"]]:
        """Return the exact P(label | ids so far) at every position: the best that any causal reader can know.

        Args:
            ids: One document or the beginning of one, BOS first.
            labels: Columns of labels; the values are in the order of ``Documents.labels[column].names``.
            ahead: 0 for the label of the token at the position, 1 for that of the token after it; then there is no
                row for the last position.
            split: Whose distribution.
        """
        check_split(split)
        for name in labels:
            if name not in NAMES:
                raise ValueError(f"there is no label {name!r}; the labels are {', '.join(NAMES)}.")
        if ahead not in (0, 1):
            raise ValueError(f"ahead must be 0 (the token just read) or 1 (the next), got {ahead}.")
        found = self._oracle(split).labels(_one_document(ids), labels, ahead=bool(ahead))
        out = {}
        for name in labels:
            code = {value: i for i, value in enumerate(NAMES[name])}
            out[name] = torch.zeros(len(ids) - ahead, len(code), dtype=torch.float64)
            for position, shares in enumerate(found[name]):
                for value, share in shares.items():
                    out[name][position, code[value]] = share
        return out

    def valid(self, ids: Int[Tensor, " pos"]) -> Bool[Tensor, "pos d_vocab"]:
        """Return which tokens the language allows next, after every position."""
        return self.next_token(ids) > 0

    def first_violation(self, ids: Int[Tensor, " pos"]) -> int | None:
        """Return the position of the first token that the language does not allow, or None."""
        following = torch.tensor(_one_document(ids)[1:], dtype=torch.long)
        allowed = self.valid(ids)[:-1].gather(1, following[:, None])[:, 0]
        return None if bool(allowed.all()) else int((~allowed).nonzero()[0]) + 1

    def choices(self, document: Documents) -> list[Choice]:
        """Return every choice behind one document of :meth:`documents`, in order."""
        return self._replay(document, lambda name, options: None).choices

    def counterfactual(self, document: Documents, name: str, value: Any, *, occurrence: int = 0) -> Documents:
        """Return the document with one choice changed and all else fixed.

        Every other choice keeps its value; where the change leaves it without that value (another topic has
        other things) it keeps its place among the options. Choices that only the change brings about are drawn
        from the document's own seed.

        Args:
            document: One document of :meth:`documents`.
            name: Which choice, as :meth:`choices` names it.
            value: What it shall be.
            occurrence: Which of the choices with that name, counting from 0.
        """
        made: dict[tuple[str, int], Choice] = {}
        seen: dict[str, int] = {}
        for choice in self.choices(document):
            made[choice.name, seen.setdefault(choice.name, 0)] = choice
            seen[choice.name] += 1
        if (name, occurrence) not in made:
            known = ", ".join(f"{key} ({count})" if count > 1 else key for key, count in seen.items())
            raise ValueError(
                f"this document makes no choice {name!r} with occurrence {occurrence}; its choices are {known}."
            )
        met: dict[str, int] = {}

        def decide(at: str, options: Sequence[Any]) -> int | None:
            count = met.get(at, 0)
            met[at] = count + 1
            if (at, count) == (name, occurrence):
                if value not in options:
                    raise ValueError(f"{name} cannot be {value!r}; it can be {', '.join(map(str, options))}.")
                return options.index(value)
            if (at, count) not in made:
                return None
            choice = made[at, count]
            return options.index(choice.value) if choice.value in options else choice.index % len(options)

        return self._table([self._replay(document, decide, split="all").out], "all", None)

    def _replay(self, document: Documents, decide, split: Split | None = None) -> Recorder:
        """Run the program of one document again from its seed, with ``decide`` making the choices."""
        if len(document) != 1 or document.seeds is None:
            raise ValueError(
                "give one document that language.documents made, such as documents[0]; "
                f"got {len(document)}{'' if document.seeds is not None else ' without the seeds they were drawn from'}."
            )
        column = document.labels["family"]
        family = self.families[column.names[int(column.codes[0, 1])]]
        rng = Random(int(document.seeds[0]))
        recorder = Recorder(self._symbols, split or document.split, rng, {"family": family.name}, decide)
        recorder.run(family.start)
        return recorder

    def task(self, name: str, n: int, *, split: Split = "test", seed: int = 0) -> Task:
        """Return ``n`` prompts of a task with their answers, foils and counterfactual prompts.

        Args:
            name: One of :attr:`tasks`.
            n: How many prompts.
            split: Where the prompts come from.
            seed: Of this sample.
        """
        check_split(split)
        for family in self.families.values():
            if name in family.tasks:
                return collect(self, family, name, n, split, seed)
        raise ValueError(f"there is no task {name!r}; the tasks are {', '.join(self.tasks)}.")

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of all tasks."""
        return tuple(name for family in self.families.values() for name in family.tasks)
