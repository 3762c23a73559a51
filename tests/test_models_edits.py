"""Editing and resuming, on every shape of model that the workbench promises."""

import threading

import pytest
import torch
from conftest import N_LAYERS, hooks_on, layers_run, streams_of, tokens_of, write_model

from workbench.models import Context, Site, edited, load_model, record, resume

TOKENS = tokens_of(2, 12)

# TransformerLens says that a norm with an edited scale rounds differently; the tests allow for it.
pytestmark = pytest.mark.filterwarnings("ignore:A forward hook edited hook_scale")


def shift(acts, context):
    """An edit that no norm undoes."""
    return acts + torch.linspace(0.2, 1.5, acts[0, 0].numel()).view(acts[0, 0].shape)


# Writing.


def test_an_edit_that_changes_nothing_changes_nothing(model):
    before = model(TOKENS)
    for stream in streams_of(model):
        with edited(model, {Site(1, stream): lambda acts, context: acts}):
            after = model(TOKENS)
        if "scale" in stream:  # the norm is computed anew from an edited scale, with other roundings
            torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(after, before), stream


def test_an_edit_acts_at_every_site_and_is_seen_there(model):
    before = model(TOKENS)
    for stream in streams_of(model):
        site = Site(1, stream)
        clean = record(model, TOKENS, [site])[site]
        with edited(model, {site: shift}):
            changed = record(model, TOKENS, [site])[site]
            assert (model(TOKENS) - before).abs().max() > 1e-3, stream
        torch.testing.assert_close(changed, shift(clean, None))
    assert torch.equal(model(TOKENS), before)


@pytest.mark.parametrize("stream", ["resid_pre", "resid_mid", "resid_post"])
def test_an_edit_of_the_residual_stream_stays_in_the_stream(model, stream):
    if stream not in streams_of(model):
        pytest.skip("a parallel block has no residual stream between attention and MLP")
    sites = {name: Site(1, name) for name in ("attn_out", "mlp_out", "resid_pre", "resid_post")}
    clean = record(model, TOKENS, list(sites.values()))
    with edited(model, {Site(1, stream): shift}):
        acts = record(model, TOKENS, list(sites.values()))
    parts = acts[sites["resid_pre"]] + acts[sites["attn_out"]] + acts[sites["mlp_out"]]
    pushed = shift(parts, None) if stream != "resid_pre" else parts
    torch.testing.assert_close(acts[sites["resid_post"]], pushed, rtol=1e-5, atol=1e-5)
    if stream == "resid_mid":
        assert not torch.allclose(acts[sites["mlp_out"]], clean[sites["mlp_out"]], atol=1e-3)


def test_an_edit_of_one_head_leaves_the_others(model):
    site = Site(1, "z", head=2)
    clean = record(model, TOKENS, [Site(1, "z")])[Site(1, "z")]
    with edited(model, {site: lambda acts, context: torch.zeros_like(acts)}):
        acts = record(model, TOKENS, [Site(1, "z")])[Site(1, "z")]
    assert acts[:, :, 2].abs().max() == 0
    others = [0, 1, 3]
    assert torch.equal(acts[:, :, others], clean[:, :, others])


def test_edits_nest_the_outer_first(tiny_model):
    site = Site(1)
    clean = record(tiny_model, TOKENS, [site])[site]
    with edited(tiny_model, {site: lambda acts, context: acts + 1}):
        with edited(tiny_model, {site: lambda acts, context: acts * 2}):
            both = record(tiny_model, TOKENS, [site])[site]
        outer = record(tiny_model, TOKENS, [site])[site]
    torch.testing.assert_close(both, (clean + 1) * 2)
    torch.testing.assert_close(outer, clean + 1)


def test_an_edit_in_place_does_not_reach_what_was_recorded_before(tiny_model):
    def in_place(acts, context):
        return acts.mul_(0)

    clean = record(tiny_model, TOKENS, [Site(0)])[Site(0)]
    with edited(tiny_model, {Site(1, "resid_pre"): in_place}):
        acts = record(tiny_model, TOKENS, [Site(0), Site(1)])
    assert torch.equal(acts[Site(0)], clean)


def test_an_edit_may_run_the_model_itself(model):
    """A patch from another text, read within the edit: the edits are off meanwhile, and the context stays."""
    other = tokens_of(2, 12, seed=1)
    for stream in ("resid_mid", "pattern", "resid_post"):
        if stream not in streams_of(model):
            continue
        site, seen = Site(1, stream), []

        def patch(acts, context, site=site, seen=seen):
            seen.append(context.tokens)
            return record(model, other, [site])[site]

        with edited(
            model, {site: patch, Site(2): lambda acts, context, seen=seen: seen.append(context.tokens) or acts}
        ):
            logits = model(TOKENS)
            assert torch.equal(model(TOKENS), logits)
        assert len(seen) == 4
        assert all(torch.equal(tokens, TOKENS) for tokens in seen)
        patched = resume(model, site, record(model, other, [site])[site], tokens=TOKENS)
        torch.testing.assert_close(logits, patched, rtol=1e-5, atol=1e-5)


def fail(acts, context):
    raise RuntimeError("boom")


def test_a_failing_edit_leaves_the_model_clean(model):
    clean = model(TOKENS)
    for stream in streams_of(model):
        with pytest.raises(RuntimeError, match="boom"), edited(model, {Site(1, stream): fail, Site(0): shift}):
            model(TOKENS)
    with pytest.raises(RuntimeError, match="boom"), edited(model, {Site(1): fail}):
        record(model, TOKENS, [Site(2)])
    assert hooks_on(model) == []
    assert torch.equal(model(TOKENS), clean)


def test_a_failure_while_installing_leaves_the_model_clean(tiny_model, monkeypatch):
    with pytest.raises(ValueError, match="does not exist"), edited(tiny_model, {Site(0): shift, Site(9): shift}):
        pass
    assert hooks_on(tiny_model) == []

    def refuse(*args, **kwargs):
        raise MemoryError

    monkeypatch.setitem(tiny_model.get_hook_point(Site(1).hook).__dict__, "add_hook", refuse)
    with pytest.raises(MemoryError), edited(tiny_model, {Site(0): shift, Site(1): shift}):
        pass
    assert hooks_on(tiny_model) == []


def test_other_peoples_hooks_are_left_alone(tiny_model):
    point, calls = tiny_model.get_hook_point(Site(1).hook), []
    handle = point.add_hook(lambda acts, hook: calls.append("theirs"))
    with edited(tiny_model, {Site(1): lambda acts, context: calls.append("ours") or acts}):
        record(tiny_model, TOKENS, [Site(1)])
    record(tiny_model, TOKENS, [Site(2)])
    with pytest.raises(RuntimeError, match="boom"), edited(tiny_model, {Site(1): fail}):
        tiny_model(TOKENS)
    assert calls == ["theirs", "ours", "theirs", "theirs"]
    assert point.fwd_hooks == [handle]
    tiny_model.reset_hooks()


def test_hooks_act_only_in_their_own_thread(tiny_model):
    clean = tiny_model(TOKENS)
    results = {}

    def work():
        results["theirs"] = tiny_model(TOKENS)
        results["record"] = record(tiny_model, TOKENS, [Site(2)])[Site(2)]

    expected = record(tiny_model, TOKENS, [Site(2)])[Site(2)]
    with edited(tiny_model, {Site(1): shift}):
        worker = threading.Thread(target=work)
        worker.start()
        worker.join()
        assert not torch.equal(tiny_model(TOKENS), clean)
    assert torch.equal(results["theirs"], clean)
    assert torch.equal(results["record"], expected)


def test_the_context_knows_positions_tokens_mask_and_site(model):
    seen: list[Context] = []

    def look(acts, context):
        seen.append(context)
        return acts

    tokens = tokens_of(2, 7)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, :3] = False
    with edited(model, {Site(0, "z"): look, Site(2): look}):
        model(tokens)
    assert [context.site for context in seen] == [Site(0, "z"), Site(2)]
    seen.clear()
    with edited(model, {Site(1): look}):
        model(tokens)
        model(tokens, attention_mask=mask.long())
        _, cache = model(
            tokens[:, :5], attention_mask=mask[:, :5].long(), return_type="logits_and_cache", use_cache=True
        )
        model(tokens[:, 5:], attention_mask=mask.long(), past_key_values=cache)
    assert seen[0].positions.tolist() == [list(range(7))] * 2
    assert seen[0].mask.all()
    assert seen[1].positions[1, 3:].tolist() == [0, 1, 2, 3]
    assert torch.equal(seen[1].mask, mask)
    assert torch.equal(seen[3].positions, seen[1].positions[:, 5:])
    assert torch.equal(seen[3].tokens, tokens[:, 5:])
    assert torch.equal(seen[3].mask, mask[:, 5:])


def test_an_edit_under_left_padding_is_the_edit_without(model):
    def at_three(acts, context):
        return torch.where((context.positions == 3)[..., None], shift(acts, context), acts)

    text = tokens_of(1, 8)
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), text], dim=1)
    mask = torch.cat([torch.zeros(1, 4, dtype=torch.bool), torch.ones(1, 8, dtype=torch.bool)], dim=1)
    with edited(model, {Site(0): at_three}):
        alone = record(model, text, [Site(2)])[Site(2)]
        acts = record(model, padded, [Site(2)], mask=mask)[Site(2)]
    torch.testing.assert_close(acts[:, 4:], alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(alone, record(model, text, [Site(2)])[Site(2)], atol=1e-3)


# Resuming.


def test_resuming_from_what_was_recorded_gives_the_same_logits(model):
    logits = model(TOKENS)
    sites = [Site(layer, stream) for layer in range(N_LAYERS) for stream in streams_of(model)]
    acts = record(model, TOKENS, [*sites, Site(1, "z", head=1)])
    for site, there in acts.items():
        torch.testing.assert_close(resume(model, site, there, tokens=TOKENS), logits, rtol=1e-5, atol=1e-5)


def test_resuming_is_editing(model):
    for stream in streams_of(model):
        site = Site(1, stream)
        acts = record(model, TOKENS, [site])[site]
        with edited(model, {site: shift}):
            expected = model(TOKENS)
        torch.testing.assert_close(
            resume(model, site, shift(acts, None), tokens=TOKENS), expected, rtol=1e-5, atol=1e-5
        )
        with edited(model, {site: shift}):  # an open edit acts on what is resumed from
            torch.testing.assert_close(resume(model, site, acts, tokens=TOKENS), expected, rtol=1e-5, atol=1e-5)


def test_resuming_from_the_stream_skips_the_blocks_before(model):
    acts = record(model, TOKENS, [Site(1), Site(2, "resid_pre")])
    resume(model, Site(1), acts[Site(1)], tokens=TOKENS)  # the first time looks at how blocks answer
    for site, there in acts.items():
        with layers_run(model) as ran:
            resume(model, site, there, tokens=TOKENS)
        assert ran == [2]


def test_resuming_takes_masks_batches_and_gradients(model):
    mask = torch.ones_like(TOKENS, dtype=torch.bool)
    mask[:, :4] = False
    site = Site(1)
    acts = record(model, TOKENS, [site], mask=mask)[site]
    torch.testing.assert_close(
        resume(model, site, acts, tokens=TOKENS, mask=mask),
        model(TOKENS, attention_mask=mask.long()),
        rtol=1e-5,
        atol=1e-5,
    )
    one = record(model, TOKENS[:1], [site])[site]
    many = torch.cat([one, 2 * one]).requires_grad_()
    logits = resume(model, site, many, tokens=TOKENS[:1])
    torch.testing.assert_close(logits[:1], model(TOKENS[:1]), rtol=1e-5, atol=1e-5)
    logits[1, -1, 5].backward()
    assert many.grad[0].abs().max() == 0
    assert many.grad[1, 8].abs().max() > 0


def test_resuming_serves_blocks_that_answer_in_tuples(tmp_path):
    model = load_model(write_model(tmp_path / "gptj", "gptj"))
    acts = record(model, TOKENS, [Site(1), Site(2, "resid_pre")])
    for _ in range(2):  # the second time knows the form of the answers
        for site, there in acts.items():
            torch.testing.assert_close(resume(model, site, there, tokens=TOKENS), model(TOKENS), rtol=1e-5, atol=1e-5)
    # This model shows its patterns after it has used them.
    with edited(model, {Site(1, "pattern", head=2): shift}):
        with pytest.raises(ValueError, match=r"can be read but not edited .* edit Site\(layer=1, stream='z', head=2\)"):
            model(TOKENS)
    assert hooks_on(model) == []
