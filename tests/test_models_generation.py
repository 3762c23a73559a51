"""Streaming: cached and uncached agree, the model is clean between tokens, and everything can be stopped."""

import gc
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import N_CTX, N_LAYERS, hooks_on
from scipy.stats import chisquare
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from workbench.models import Site, edited, generate, record, tokenize
from workbench.models.text import Decoder

PROMPT = torch.tensor([[1, 5, 9, 4, 12, 7]])


def from_position(first: int):
    """An edit that acts from an absolute position on, and differently at each."""

    def edit(acts, context):
        push = torch.linspace(-1, 1, acts.shape[-1]) * context.positions[..., None]
        return torch.where((context.positions >= first)[..., None], acts + 0.3 * push, acts)

    return edit


# In the prompt, from its last token on (which writes the first new one), and among the new tokens only.
@pytest.mark.parametrize("first", [2, 5, 9])
def test_cached_generation_is_the_uncached_forward(model, first):
    edits = {Site(0): from_position(first), Site(1, "resid_pre"): from_position(first), Site(1, "z", head=1): halve}
    point, seen = model.get_hook_point("unembed.hook_out"), []
    handle = point.add_hook(lambda acts, hook: seen.append(acts[0, -1]))
    try:
        # Longer than Gemma's window of eight.
        written = list(generate(model, PROMPT, edits=edits, max_new_tokens=14, seed=first))
        cached, text = list(seen), PROMPT
        for step, token in enumerate(written):
            with edited(model, edits), torch.no_grad():
                logits = model(text)[0, -1]
            torch.testing.assert_close(cached[step], seen[-1], rtol=1e-5, atol=1e-5 * float(seen[-1].abs().max()))
            assert token.logprob == pytest.approx(float(logits.log_softmax(-1)[token.id]), rel=1e-4)
            assert token.position == text.shape[1]
            text = torch.cat([text, torch.tensor([[token.id]])], dim=1)
    finally:
        handle.hook.remove()
        point.fwd_hooks.clear()
    assert len(written) > 1


def halve(acts, context):
    return acts * 0.5


def test_an_edit_among_new_tokens_changes_them_and_only_them(model):
    edits = {Site(1): from_position(PROMPT.shape[1] + 3)}
    for seed in range(20):  # the first that does not end at once
        plain = [token.id for token in generate(model, PROMPT, max_new_tokens=16, seed=seed)]
        if len(plain) == 16:
            break
    steered = [token.id for token in generate(model, PROMPT, edits=edits, max_new_tokens=16, seed=seed)]
    assert steered[:4] == plain[:4]
    assert steered != plain


def test_no_edits_is_bitwise_the_base(model):
    base = list(generate(model, PROMPT, seed=3))
    assert list(generate(model, PROMPT, seed=3, edits={})) == base
    assert [token.id for token in generate(model, PROMPT, seed=4)] != [token.id for token in base]


def test_temperature_zero_is_greedy(model):
    text = PROMPT
    for token in generate(model, PROMPT, temperature=0, max_new_tokens=5):
        assert token.id == int(model(text)[0, -1].argmax())
        text = torch.cat([text, torch.tensor([[token.id]])], dim=1)
    greedy = [token.id for token in generate(model, PROMPT, temperature=0)]
    assert greedy == [token.id for token in generate(model, PROMPT, temperature=1e-6, seed=5)]


def test_samples_follow_the_model(tiny_model):
    probabilities = tiny_model(PROMPT)[0, -1].softmax(-1).detach().double()
    counts = torch.zeros_like(probabilities)
    for seed in range(400):
        counts[next(generate(tiny_model, PROMPT, seed=seed, max_new_tokens=1)).id] += 1
    assert chisquare(counts, probabilities / probabilities.sum() * 400).pvalue > 1e-3


def test_generation_stops_at_the_end_of_text_and_of_the_context(tiny_model):
    end = tiny_model.W_U[:, 2]

    def say_end(acts, context):
        return torch.where((context.positions >= 8)[..., None], 1e3 * (end - tiny_model.W_U.mean(1)), acts)

    written = list(generate(tiny_model, PROMPT, edits={Site(N_LAYERS - 1): say_end}, temperature=0))
    assert written[-1].id == 2
    assert written[-1].text == ""
    assert [token.id for token in written].count(2) == 1

    def never_end(acts, context):
        return acts - 1e3 * (end - tiny_model.W_U.mean(1))

    written = list(generate(tiny_model, PROMPT, edits={Site(N_LAYERS - 1): never_end}, max_new_tokens=1000))
    assert written[-1].position == N_CTX - 1


def test_pieces_join_to_the_text(tiny_model):
    prompt = tokenize(tiny_model, "the cat sees")
    written = list(generate(tiny_model, prompt, max_new_tokens=10, seed=2))
    ids = prompt[0].tolist() + [token.id for token in written]
    whole = tiny_model.tokenizer.decode(ids, skip_special_tokens=True)
    assert "the cat sees" + "".join(token.text for token in written) == whole


def test_pieces_wait_for_whole_characters():
    alphabet = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(alphabet, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    ids = tokenizer.encode("é→🙂!")
    decoder = Decoder(tokenizer, ids[:0])
    pieces = [decoder.add(token) for token in ids]
    assert [piece for piece in pieces if piece] == ["é", "→", "🙂", "!"]
    assert len(pieces) == 10
    long = "é→🙂! " * 20
    decoder = Decoder(tokenizer, tokenizer.encode("→ "))
    assert "".join(decoder.add(token) for token in tokenizer.encode(long)) == long


def test_the_model_is_clean_between_tokens(model):
    clean = model(PROMPT)
    stream = generate(model, PROMPT, edits={Site(1): from_position(0)}, max_new_tokens=4)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            next(stream)
            assert torch.is_grad_enabled() == grad
            assert hooks_on(model) == []
            assert torch.equal(model(PROMPT), clean)
    stream.close()
    abandoned = generate(model, PROMPT, edits={Site(1): from_position(0)})
    next(abandoned)
    del abandoned
    gc.collect()
    assert hooks_on(model) == []


def test_a_failing_edit_ends_the_stream_and_leaves_the_model_clean(tiny_model):
    def fail_later(acts, context):
        if context.positions.max() > 7:
            raise RuntimeError("boom")
        return acts

    stream = generate(tiny_model, PROMPT, edits={Site(1): fail_later})
    with pytest.raises(RuntimeError, match="boom"):
        list(stream)
    assert hooks_on(tiny_model) == []
    assert torch.is_grad_enabled()


def test_generation_cancels_before_the_first_token_and_between_any_two(tiny_model):
    ran = []
    handle = tiny_model.blocks[0].register_forward_hook(lambda module, args, output: ran.append(1))
    cancel = threading.Event()
    cancel.set()
    assert list(generate(tiny_model, PROMPT, cancel=cancel)) == []
    assert ran == []
    cancel.clear()
    stream = generate(tiny_model, PROMPT, cancel=cancel, seed=1)
    assert len([next(stream), next(stream)]) == 2
    cancel.set()
    assert list(stream) == []
    assert len(ran) == 2
    cancel.clear()

    def cancel_now(acts, context):
        cancel.set()
        return acts

    assert list(generate(tiny_model, PROMPT, cancel=cancel, edits={Site(0): cancel_now})) == []
    assert len(ran) == 3
    handle.remove()


def test_a_worker_streams_while_the_notebook_computes(loaded):
    # GPT-2 of all, since its bridge keeps the batch size of the current call on a module.
    model = loaded["gpt2"]
    batch = PROMPT.repeat(5, 1)
    clean = record(model, batch, [Site(2)])[Site(2)]
    edits = {Site(0): from_position(0)}
    alone = list(generate(model, PROMPT, edits=edits, max_new_tokens=30, seed=7))
    streamed = []
    worker = threading.Thread(
        target=lambda: streamed.extend(generate(model, PROMPT, edits=edits, max_new_tokens=30, seed=7))
    )
    worker.start()
    rounds = 0
    while worker.is_alive() or rounds < 3:
        assert torch.equal(record(model, batch, [Site(2)])[Site(2)], clean)
        rounds += 1
    worker.join()
    assert streamed == alone
    assert torch.is_grad_enabled()
    assert hooks_on(model) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tokens": PROMPT.repeat(2, 1)}, r"continues one prompt, a \[1, pos\] tensor, got shape \(2, 6\)"),
        ({"tokens": PROMPT[0]}, r"continues one prompt"),
        ({"tokens": PROMPT, "temperature": -1.0}, "temperature must be 0 .* or more"),
        ({"tokens": PROMPT, "max_new_tokens": -1}, "max_new_tokens must be 0 or more"),
        ({"tokens": PROMPT, "edits": {Site(7): halve}}, "which has 3 layers"),
        ({"tokens": PROMPT.repeat(1, 8)[:, :N_CTX]}, f"fills the model's {N_CTX} positions"),
    ],
)
def test_wrong_requests_are_met_by_a_sentence_at_the_call(as_user, tiny_model, arguments, words):
    with pytest.raises(ValueError, match=words):
        generate(tiny_model, **arguments)


def test_two_threads_may_stream_edited_text_at_once(tiny_model):
    # Taking one thread's hooks away while the other is inside a forward must disturb neither.
    edits = {Site(0): lambda acts, context: acts + 3 * (context.positions > 0).unsqueeze(-1)}

    def stream():
        return [token.id for token in generate(tiny_model, PROMPT, edits=edits, seed=0, max_new_tokens=8)]

    alone = stream()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(2) as pool:
            assert all(texts == alone for texts in pool.map(lambda _: stream(), range(60)))
    finally:
        sys.setswitchinterval(before)


def test_a_model_that_answers_nan_says_so(tiny_model):
    tokens = tokenize(tiny_model, "the cat")
    broken = {Site(1): lambda acts, context: acts * float("nan")}
    with pytest.raises(ValueError, match="answer at position 3 is not a number; its weights or an edit hold NaN"):
        list(generate(tiny_model, tokens, edits=broken))
