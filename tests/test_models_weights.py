"""Models from plain tensors: they have those weights, they run like any other, and what does not fit is said."""

import pytest
import torch

from workbench.models import Site, from_weights, generate, record, tokenize

WORDS = "<bos> a b c d".split()


def weights(mlp: bool = True) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    shapes = {"W_E": (5, 8), "W_pos": (6, 8), "W_U": (8, 5), "W_O": (2, 3, 4, 8), "b_K": (2, 3, 4), "b_V": (2, 3, 4)}
    shapes |= {f"W_{letter}": (2, 3, 8, 4) for letter in "QKV"}
    shapes |= {"W_in": (2, 8, 7), "W_out": (2, 7, 8), "b_in": (2, 7)} if mlp else {}
    return {name: torch.randn(shape) / 2 for name, shape in shapes.items()}


@pytest.mark.parametrize("mlp", [True, False])
def test_a_model_has_the_weights_it_was_given_and_no_others(mlp):
    model = from_weights(weights(mlp), WORDS)
    for name, tensor in weights(mlp).items():
        assert torch.equal(getattr(model, name), tensor), name
    for name in ("b_Q", "b_O", "b_U", *(["b_out"] if mlp else [])):
        assert getattr(model, name).abs().max() == 0, name
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_model_computes_what_its_weights_say():
    W, model, tokens = weights(), from_weights(weights(), WORDS), torch.tensor([[0, 3, 1, 2]])
    x = W["W_E"][tokens] + W["W_pos"][:4]
    for layer in range(2):
        heads = []
        for h in range(3):
            q = x @ W["W_Q"][layer, h]
            k, v = (x @ W[f"W_{c}"][layer, h] + W[f"b_{c}"][layer, h] for c in "KV")
            scores = (q @ k.mT / 2).masked_fill(torch.ones(4, 4).triu(1) > 0, -torch.inf)
            heads.append(scores.softmax(-1) @ v @ W["W_O"][layer, h])
        x = x + sum(heads)
        x = x + (x @ W["W_in"][layer] + W["b_in"][layer]).relu() @ W["W_out"][layer]
        torch.testing.assert_close(record(model, tokens, [Site(layer)])[Site(layer)], x)
    torch.testing.assert_close(model(tokens), x @ W["W_U"])


def test_a_model_reads_and_writes_words():
    model = from_weights(weights(), WORDS)
    tokens = tokenize(model, ["a b c", "d"])
    assert tokens.tolist() == [[0, 1, 2, 3], [0, 4, 0, 0]]
    for token in generate(model, tokens[:1], max_new_tokens=2):
        assert token.text.strip() == WORDS[token.id] or token.id == 0
    with pytest.raises(ValueError, match=r"'zebra' \(word 2 of the text\) is not in the vocabulary"):
        tokenize(model, "a zebra")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W_Q": None}, "missing or unknown: W_Q"),
        ({"W_in": None}, "missing or unknown: W_in"),
        ({"b_O": torch.zeros(2, 8)}, "missing or unknown: b_O"),
        (
            {"W_V": torch.zeros(2, 3, 8, 5)},
            r"W_V must be \[n_layers, n_heads, d_model, d_head\] .* got \(2, 3, 8, 5\)",
        ),
        ({"W_U": torch.zeros(8)}, r"W_U must be \[d_model, d_vocab\]"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, message, as_user):
    given = {name: tensor for name, tensor in {**weights(), **change}.items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        from_weights(given, WORDS)


def test_a_vocabulary_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"W_E must be \[d_vocab, d_model\] with {'d_vocab': 4.* got \(5, 8\)"):
        from_weights(weights(), WORDS[:4])
    with pytest.raises(ValueError, match="words of a vocabulary must differ, got c more than once"):
        from_weights(weights(), ["<bos>", "a", "b", "c", "c"])
