"""Ablating units: against what wired weights say, against a naive version, and where a probe has found them."""

import math
import secrets

import pytest
import torch
from conftest import tokens_of
from torch import Generator

from workbench.activations import ActivationStore
from workbench.circuits.known import gating
from workbench.dictionaries import ReLU, TopK, load_dictionary
from workbench.evaluation import ablate, ablation, sparse_probe
from workbench.language import Language
from workbench.models import Site, load_model, record, resume


@pytest.fixture(params=[secrets.randbelow(2**40) for _ in range(3)])
def seed(request) -> int:
    return request.param


def neurons(model, layer: int) -> ReLU:
    """The MLP of a wired model as the transcoder that it is."""
    d, n = model.W_in[layer].shape
    dictionary = ReLU(d, n, sites_in=Site(layer, "mlp_in"), sites_out=Site(layer, "mlp_out"))
    dictionary.W_enc.data, dictionary.W_dec.data = model.W_in[layer].T.clone(), model.W_out[layer].clone()
    dictionary.b_enc.data = model.blocks[layer].mlp.get_submodule("in").bias.detach().clone()
    return dictionary


def told(known):
    """Its prompts with their answers, and where an answer is "opens"."""
    tokens = torch.cat([known.prompts, known.answers[:, None]], 1)
    where = torch.zeros_like(tokens, dtype=torch.bool)
    where[:, -2:] = True
    opens = known.model.tokenizer.convert_tokens_to_ids("opens")
    label = where & (known.answers == opens)[:, None]
    return tokens, label, where


def test_the_neuron_that_the_answer_goes_through_is_worth_what_its_weights_say():
    known = gating()
    tokens, label, where = told(known)
    dictionary, words = neurons(known.model, 1), known.model.cfg.d_vocab
    # At the last word the logit of "opens" is twice the neuron, that of "stays" 1, and all others are 0; the neuron
    # is 1 where something opens, and 0 elsewhere, the answers that follow included.
    mean = float(label[:, -2].float().mean()) / 2

    def loss(neuron: float, opens: bool) -> float:
        return math.log(math.exp(2 * neuron) + math.e + words - 2) - (2 * neuron if opens else 1)

    gate = ablate(known.model, dictionary, torch.tensor([2]), tokens, label, where=where, draws=4)
    for side, opens in ((gate.labelled, True), (gate.others, False)):
        assert side.tokens == int((label[:, -2] == opens).sum())
        assert side.loss == pytest.approx(loss(float(opens), opens), abs=1e-5)
        assert side.change == pytest.approx(loss(mean, opens) - loss(float(opens), opens), abs=1e-5)
        # The other two are as busy, and nobody reads them.
        assert side.random.tolist() == [0] * 4
    idle = ablate(known.model, dictionary, torch.tensor([1]), tokens, label, where=where, draws=16)
    assert idle.labelled.change == idle.others.change == 0
    assert {round(change, 4) for change in idle.labelled.random.tolist()} == {0, round(gate.labelled.change, 4)}


@torch.no_grad()
def naive(model, site: Site, tokens, label, where, change):
    """The rise of the loss text by text, where ``change`` makes new activations of those at a site, [row, d]."""
    acts = record(model, tokens, [site])[site]
    new = acts.clone()
    new[where] = change(acts[where].flatten(1)).view_as(acts[where])
    nats: dict[bool, list[float]] = {True: [], False: []}
    for text, one, other, labelled, counts in zip(tokens, acts, new, label, where, strict=True):
        before, after = (resume(model, site, x[None], tokens=text[None])[0].log_softmax(-1) for x in (one, other))
        for p in range(len(text) - 1):
            if counts[p] and counts[p + 1]:
                nats[bool(labelled[p])].append(float((before - after)[p, text[p + 1]]))
    return [sum(nats[side]) / len(nats[side]) for side in (True, False)]


def texts(seed: int):
    """Tokens, a label, and some padding and the beginnings left out."""
    generator = Generator().manual_seed(seed)
    tokens = tokens_of(6, 14, seed)
    lengths = torch.randint(8, 15, (6, 1), generator=generator)
    where = (torch.arange(14) < lengths) & (torch.arange(14) > 0)
    return tokens, torch.rand(6, 14, generator=generator) < 0.4, where, generator


@pytest.mark.parametrize("stream", ["resid_pre", "mlp_out", "z"])
def test_axes_of_a_stream_take_their_means(tiny_model, stream, seed, monkeypatch):
    monkeypatch.setattr(ablation, "FORWARD", 28)
    tokens, label, where, generator = texts(seed)
    units = torch.randperm(32, generator=generator)[:5]

    def change(acts):
        acts[:, units] = acts[:, units].mean(0)
        return acts

    found = ablate(tiny_model, Site(1, stream), units, tokens, label, where=where, draws=2)
    expected = naive(tiny_model, Site(1, stream), tokens, label, where, change)
    assert [found.labelled.change, found.others.change] == pytest.approx(expected, abs=1e-5)


def test_features_take_their_means_and_all_else_stays(tiny_model, seed, monkeypatch):
    monkeypatch.setattr(ablation, "FORWARD", 28)
    tokens, label, where, generator = texts(seed)
    dictionary = TopK(32, 64, k=6, sites_in=Site(1), seed=seed)
    codes = dictionary.encode(record(tiny_model, tokens, [Site(1)])[Site(1)][where]).dense()
    units = (codes != 0).any(0).nonzero()[:, 0]
    units = units[torch.randperm(len(units), generator=generator)[:5]]

    def change(acts):
        return acts + (codes.mean(0) - codes)[:, units] @ dictionary.W_dec.detach()[units]

    found = ablate(tiny_model, dictionary, units, tokens, label, where=where, draws=2)
    expected = naive(tiny_model, Site(1), tokens, label, where, change)
    assert [found.labelled.change, found.others.change] == pytest.approx(expected, abs=1e-5)


def test_the_control_is_drawn_from_other_units_that_are_active_and_by_its_seed(tiny_model, seed):
    tokens, label, where, _ = texts(seed)
    dictionary = TopK(32, 64, k=6, sites_in=Site(1), seed=seed)
    active = (dictionary.encode(record(tiny_model, tokens, [Site(1)])[Site(1)][where]).dense() != 0).any(0)
    # With all active units but one given in turn, that one is what can be drawn.
    one, other = active.nonzero()[:2, 0]
    dictionary.b_enc.data[~active] = -1e6
    dictionary.b_enc.data[active.nonzero()[2:, 0]] = -1e6
    found, turned = (
        ablate(tiny_model, dictionary, unit[None], tokens, label, where=where, draws=3) for unit in (one, other)
    )
    assert found.labelled.random.tolist() == pytest.approx([turned.labelled.change] * 3, abs=1e-7)
    assert turned.others.random.tolist() == pytest.approx([found.others.change] * 3, abs=1e-7)
    site = Site(1)
    first, again, differently = (
        ablate(tiny_model, site, torch.tensor([0, 1]), tokens, label, draws=8, seed=s).labelled.random
        for s in (seed, seed, seed + 1)
    )
    assert first.equal(again)
    assert not first.equal(differently)
    assert first.std() > 0


def test_latents_that_a_probe_found_are_used_where_the_label_holds():
    model, dictionary = load_model("tiny", device="cpu"), load_dictionary("tiny")
    language, number = Language(0), secrets.randbelow(2**30)
    learn, judge = (language.documents(n, split="train", seed=number + i) for i, n in enumerate((600, 150)))
    rows = ActivationStore.collect(model, learn, dictionary.sites_in).rows(slice(None))
    code = learn.labels["family"].names.index("code")
    codes = dictionary.encode(rows.acts[dictionary.sites_in[0]])
    probe = sparse_probe(codes, rows.labels["family"] == code, ks=[8]).by_k[8]
    width = 48
    label = judge.labels["family"].codes[:, :width] == code
    places = torch.arange(width)
    where = (places < judge.lengths[:, None]) & (places > 0)
    found = ablate(model, dictionary, probe.units, judge.tokens[:, :width], label, where=where, draws=6)
    # Over 8 draws of the texts it was .155 ± .025, without the label .0002 at most, and of random units .03 at most.
    assert found.labelled.change > found.labelled.random.max()
    assert found.labelled.change > found.others.change
    frame = found.to_frame()
    assert list(frame["label"]) == [True, False]
    assert list(frame["change"]) == [found.labelled.change, found.others.change]
    assert frame["tokens"].sum() == int((where[:, :-1] & where[:, 1:]).sum())
    assert frame["random sd"][0] == pytest.approx(float(found.labelled.random.std()))


def test_wrong_input_is_met_by_a_sentence(tiny_model, as_user):
    tokens, label, where, _ = texts(0)
    units, site = torch.tensor([0, 1]), Site(1)

    def given(of=site, units=units, tokens=tokens, label=label, **options):
        return ablate(tiny_model, of, units, tokens, label, **options)

    with pytest.raises(TypeError, match=r"of a Site or of a Dictionary, got str"):
        given(of="1.resid_post")
    with pytest.raises(ValueError, match=r"1\.pattern has no units"):
        given(of=Site(1, "pattern"))
    for wrong in ([], [0, 0], [-1], [32]):
        with pytest.raises(ValueError, match=r"units are one or more of 0\.\.31, each once; got"):
            given(units=torch.tensor(wrong, dtype=torch.long))
    with pytest.raises(TypeError, match=r"units are whole numbers"):
        given(units=torch.tensor([0.5]))
    with pytest.raises(ValueError, match=r"there are 12 beside the 20 given; give fewer"):
        given(units=torch.arange(20))
    with pytest.raises(ValueError, match=r"label says True or False of each token, \(6, 14\); got \(6, 13\)"):
        given(label=label[:, 1:])
    with pytest.raises(ValueError, match=r"where says True or False of each token.*int64"):
        given(where=where.long())
    with pytest.raises(ValueError, match=r"with the label and without.*got 0 and 78"):
        given(label=torch.zeros_like(label))
    with pytest.raises(ValueError, match=r"two draws or more.*draws=1"):
        given(draws=1)
    with pytest.raises(ValueError, match=r"names no site"):
        given(of=TopK(32, 64, k=6))
    with pytest.raises(ValueError, match=r"trained on another model"):
        given(of=load_dictionary("tiny"))
