"""Text to tokens and back, with a sentence for words that a vocabulary lacks."""

import difflib
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.models.forward import device_of
from workbench.models.sites import TransformerBridge


def tokenize(model: TransformerBridge, text: str | list[str]) -> Int[Tensor, "batch pos"]:
    """Return the tokens of ``text``, the beginning-of-text token first, one row per string.

    Shorter rows are padded on the right, where padding changes nothing before it: attention is causal, so
    ``record`` needs no mask. No end-of-text token is added, so that a prompt can be continued.
    """
    rows = [encode(model, one) for one in ([text] if isinstance(text, str) else text)]
    if not rows:
        raise ValueError("tokenize needs at least one text, got an empty list.")
    longest, limit = max(len(row) for row in rows), model.cfg.n_ctx
    if longest > limit:
        number = next(i for i, row in enumerate(rows) if len(row) == longest)
        which = "The text" if isinstance(text, str) else f"Text {number} of {len(rows)} (counted from 0)"
        raise ValueError(
            f"{which} has {longest} tokens, but this model reads at most {limit}; leave out at least {longest - limit}."
        )
    pad = tokenizer_of(model).pad_token_id
    return torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=device_of(model))


def encode(model: TransformerBridge, text: str) -> list[int]:
    """Return the tokens of one text of any length, the beginning-of-text token first."""
    tokenizer = tokenizer_of(model)
    try:
        ids = tokenizer.encode(text, add_special_tokens=False)
    except Exception:  # the Rust tokenizers raise a bare Exception
        _refuse_unknown_words(tokenizer, text)
        raise
    if tokenizer.unk_token_id in ids:
        _refuse_unknown_words(tokenizer, text)
    return ids if ids[:1] == [tokenizer.bos_token_id] else [tokenizer.bos_token_id, *ids]


def tokenizer_of(model: TransformerBridge) -> Any:
    """Return the tokenizer of ``model``, or say that it has none."""
    if model.tokenizer is None:
        raise ValueError("This model has no tokenizer: pass tensors of token ids instead of text.")
    return model.tokenizer


def _refuse_unknown_words(tokenizer: Any, text: str) -> None:
    """Raise with the first word that the vocabulary lacks, where the tokenizer shows its words."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.pre_tokenizer is None:
        return
    plain = backend.normalizer.normalize_str(text) if backend.normalizer is not None else text
    vocabulary = tokenizer.get_vocab()
    for word, (start, _) in backend.pre_tokenizer.pre_tokenize_str(plain):
        try:
            known = tokenizer.unk_token_id not in [token.id for token in backend.model.tokenize(word)]
        except Exception:  # the Rust tokenizers raise a bare Exception
            known = False
        if not known and word not in vocabulary:
            words = [other for other in vocabulary if other not in tokenizer.all_special_tokens]
            near = difflib.get_close_matches(word, words) or difflib.get_close_matches(word, words, cutoff=0.0)
            raise ValueError(
                f"{word!r} (word {len(plain[: start + 1].split())} of the text) is not in the vocabulary of this "
                f"model ({len(words)} words); the nearest words are {', '.join(map(repr, near))}."
            )


class Decoder:
    """Turns tokens that arrive one by one into the pieces of text that they add.

    What a token adds depends on its neighbours (spaces, characters of several tokens), so it is decoded together
    with the last few.
    """

    NEIGHBOURS = 8

    def __init__(self, tokenizer: Any | None, prompt: list[int]) -> None:
        self._tokenizer = tokenizer
        self._keep(prompt)

    def add(self, token: int) -> str:
        """Return what ``token`` adds; nothing while a character is still incomplete."""
        self._ids.append(token)
        text = self._text()
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        piece = text[len(self._written) :]
        self._keep(self._ids)
        return piece

    def _keep(self, ids: list[int]) -> None:
        self._ids = ids[-self.NEIGHBOURS :]
        self._written = self._text()

    def _text(self) -> str:
        if self._tokenizer is None:
            return ""
        return self._tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
