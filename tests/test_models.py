"""Sites and reading, on every shape of model that the workbench promises."""

import pytest
import torch
from conftest import D_MODEL, N_CTX, N_HEADS, N_LAYERS, layers_run, streams_of, tokens_of

from workbench.models import Site, edited, generate, record, resume

TOKENS = tokens_of(2, 12)

# Sites are values.


@pytest.mark.parametrize("site", [Site(3), Site(0, "mlp_in"), Site(11, "z", head=2), Site(1, "pattern", head=0)])
def test_a_site_survives_being_written(site):
    assert Site.parse(str(site)) == site
    assert eval(repr(site)) == site


def test_sites_sort_as_a_forward_computes_them():
    sites = [
        Site(1, "resid_pre"),
        Site(0),
        Site(0, "z", head=1),
        Site(0, "z"),
        Site(0, "resid_pre"),
        Site(0, "z", head=0),
    ]
    assert [str(site) for site in sorted(sites)] == [
        "0.resid_pre",
        "0.z",
        "0.z.0",
        "0.z.1",
        "0.resid_post",
        "1.resid_pre",
    ]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Site(0, "resid_pst"), "'resid_pst' is not a stream; the nearest is 'resid_post'"),
        (lambda: Site(-1), "Layers count from 0"),
        (lambda: Site(0, "z", head=-1), r"Heads count from 0, got Site\(layer=0, stream='z', head=-1\)"),
        (lambda: Site(2.5), r"The layer of a site is a whole number, got 2\.5; write Site\(2\)"),
        (lambda: Site("2"), r"The layer of a site is a whole number, got '2'; .* of a name Site\.parse"),
        (lambda: Site(None), "The layer of a site is a whole number, got None"),
        (lambda: Site(0, "z", head=1.0), r"The head of a site is a whole number, got 1\.0"),
        (lambda: Site(0, "resid_pre", head=1), "Only z and pattern have heads"),
        (lambda: Site.parse("resid_post"), "A site reads like '3.resid_post'"),
        (lambda: Site.parse("3.z.x"), "A site reads like '3.resid_post'"),
    ],
)
def test_a_wrong_site_is_met_by_a_sentence(as_user, make, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make()


# Reading.


def test_the_parts_of_a_block_add_up(model):
    for layer in range(N_LAYERS):
        sites = {stream: Site(layer, stream) for stream in ("resid_pre", "attn_out", "mlp_out", "resid_post")}
        acts = record(model, TOKENS, list(sites.values()))
        total = acts[sites["resid_pre"]] + acts[sites["attn_out"]] + acts[sites["mlp_out"]]
        torch.testing.assert_close(total, acts[sites["resid_post"]], rtol=1e-5, atol=1e-5)


def test_every_site_has_its_shape_and_means_what_it_says(model):
    rows, length = TOKENS.shape
    acts = record(model, TOKENS, [Site(1, stream) for stream in streams_of(model)])
    acts = {site.stream: value for site, value in acts.items()}
    for stream in set(acts) - {"z", "pattern", "ln1_scale", "ln2_scale"}:
        assert acts[stream].shape == (rows, length, D_MODEL)
    assert acts["z"].shape == (rows, length, N_HEADS, D_MODEL // N_HEADS)
    torch.testing.assert_close(acts["pattern"].sum(-1), torch.ones(rows, N_HEADS, length))
    for scale, stream in (
        ("ln1_scale", "resid_pre"),
        ("ln2_scale", "resid_mid" if "resid_mid" in acts else "resid_pre"),
    ):
        read = acts[stream]
        if not model.cfg.uses_rms_norm:
            read = read - read.mean(-1, keepdim=True)
        torch.testing.assert_close(acts[scale], (read.pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt())
    # mlp_in is what the MLP reads: run on it alone, the MLP gives what its hook gave.
    mlp = model.blocks[1].mlp
    seen = []
    handle = mlp.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    record(model, TOKENS, [Site(1)])
    handle.remove()
    assert torch.equal(seen[0][0], acts["mlp_in"])


def test_a_head_is_its_slice(model):
    whole = record(model, TOKENS, [Site(1, "z"), Site(1, "pattern")])
    heads = record(model, TOKENS, [Site(1, "z", head=2), Site(1, "pattern", head=2)])
    assert torch.equal(heads[Site(1, "z", head=2)], whole[Site(1, "z")][:, :, 2])
    assert torch.equal(heads[Site(1, "pattern", head=2)], whole[Site(1, "pattern")][:, 2])


def test_recording_gives_what_the_forward_computes_and_leaves_it_unchanged(model):
    before = model(TOKENS)
    sites = [Site(layer, stream) for layer in range(N_LAYERS) for stream in streams_of(model)]
    acts = record(model, TOKENS, [*sites, sites[0]])
    assert list(acts) == sites
    assert torch.equal(model(TOKENS), before)
    with torch.no_grad():
        logits, cache = model.run_with_cache(TOKENS)
    assert torch.equal(logits, before)
    for site in sites:
        assert torch.equal(acts[site], cache[site.hook]), site


def test_recording_stops_after_the_last_site(model):
    with layers_run(model) as ran:
        record(model, TOKENS, [Site(1, "attn_out"), Site(0)])
    assert ran == [0]


def test_records_are_detached_unless_asked(model):
    early, late = Site(0), Site(2)
    with torch.enable_grad():
        plain = record(model, TOKENS, [early, late])
    assert not plain[late].requires_grad
    with torch.no_grad():
        acts = record(model, TOKENS, [early, late], grad=True)
    (gradient,) = torch.autograd.grad(acts[late][0, -1].sum(), acts[early])
    assert torch.equal(acts[late].detach(), plain[late])
    # Against a finite difference through an edit at the early site; central, so the error is of second order.
    direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0))

    def late_sum(step: float) -> torch.Tensor:
        with edited(model, {early: lambda acts, context: acts + step * direction}):
            return record(model, TOKENS, [late])[late][0, -1].double().sum()

    numeric = (late_sum(1e-2) - late_sum(-1e-2)) / 2e-2
    torch.testing.assert_close((gradient * direction).sum().double(), numeric, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_at_real_tokens(model, side):
    texts = [tokens_of(1, length, seed=length) for length in (5, 12, 9)]
    tokens, mask = torch.zeros(3, 12, dtype=torch.long), torch.zeros(3, 12, dtype=torch.bool)
    for row, text in enumerate(texts):
        here = slice(12 - text.shape[1], None) if side == "left" else slice(text.shape[1])
        tokens[row, here], mask[row, here] = text, True
    sites = [Site(2), Site(1, "mlp_in"), Site(1, "z")]
    padded = record(model, tokens, sites, mask=mask)
    unmasked = record(model, tokens, sites)
    for row, text in enumerate(texts):
        alone = record(model, text, sites)
        for site in sites:
            torch.testing.assert_close(padded[site][row][mask[row]], alone[site][0], rtol=1e-5, atol=1e-5)
            if side == "right":
                torch.testing.assert_close(unmasked[site][row][mask[row]], alone[site][0], rtol=1e-5, atol=1e-5)


# Errors.


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: record(m, TOKENS, [Site(3)]), r"which has 3 layers \(0 to 2\). The nearest is Site\(layer=2"),
        (lambda m: record(m, TOKENS, [Site(1, "z", head=4)]), r"which has 4 heads \(0 to 3\). The nearest .*head=3"),
        (lambda m: record(m, TOKENS, []), "at least one site"),
        (lambda m: record(m, TOKENS[0], [Site(0)]), r"\[batch, pos\] tensor, got shape \(12,\)"),
        (lambda m: record(m, TOKENS + 50, [Site(0)]), "must lie in 0..22, the vocabulary of this model, got"),
        (lambda m: record(m, tokens_of(1, N_CTX + 1), [Site(0)]), f"has {N_CTX + 1} tokens, .* at most {N_CTX}"),
        (lambda m: resume(m, Site(0), torch.zeros(2, 3, D_MODEL), tokens=TOKENS), r"must have shape \(2, 12, 32\)"),
        (lambda m: resume(m, Site(0), torch.zeros(3, 12, D_MODEL), tokens=TOKENS), r"one row or as many as acts \(3\)"),
    ],
)
def test_wrong_requests_are_met_by_a_sentence(as_user, tiny_model, call, words):
    with pytest.raises(ValueError, match=words):
        call(tiny_model)


def test_a_missing_stream_names_the_nearest(loaded):
    with pytest.raises(ValueError, match=r"stream='resid_mid'.* does not exist .* nearest is .*stream='resid_pre'"):
        record(loaded["neox_parallel"], TOKENS, [Site(1, "resid_mid")])


def test_a_wrong_edit_is_met_by_a_sentence(as_user, tiny_model):
    with pytest.raises(TypeError, match=r"edit at 1\.resid_post must be a function"), edited(tiny_model, {Site(1): 3}):
        pass
    with pytest.raises(ValueError, match=r"must return a tensor .* got NoneType"):
        with edited(tiny_model, {Site(1): lambda acts, context: None}):
            tiny_model(TOKENS)
    with pytest.raises(ValueError, match=r"shape it was given, \(2, 12, 32\), got shape \(2, 12\)"):
        with edited(tiny_model, {Site(1): lambda acts, context: acts[..., 0]}):
            tiny_model(TOKENS)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, t: record(m, t, ["2.resid_post"]), r"A site is a Site, such as Site\(2\), got '2.resid_post'"),
        (lambda m, t: record(m, t, Site(0)), "record takes a list of sites, got one"),
        (lambda m, t: record(m, "the cat", [Site(0)]), r"token ids, got str; of text, give tokenize\(model, text\)"),
        (
            lambda m, t: record(m, t.float(), [Site(0)]),
            r"Token ids are integers, got torch\.float32; .*tokens\.long\(\)",
        ),
        (lambda m, t: generate(m, t > 3), r"Token ids are integers, got torch\.bool"),
    ],
)
def test_a_wrong_kind_of_thing_is_met_by_a_sentence(as_user, tiny_model, call, words):
    with pytest.raises(TypeError, match=words):
        call(tiny_model, tokens_of(1, 4))
