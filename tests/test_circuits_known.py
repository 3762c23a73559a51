"""Hand-wired models: each claim holds, the check of it can fail, and the models are ordinary ones."""

from dataclasses import replace

import pytest
import torch
from conftest import hooks_on

from workbench.circuits import known as room
from workbench.circuits.known import check
from workbench.circuits.known.check import by_paths
from workbench.circuits.known.known import Feature, Node
from workbench.dictionaries import Codes, splice
from workbench.models import Site, edited, generate, record, resume, tokenize

MAKERS = [room.induction, room.copy, room.gating, room.indirect_object, room.flow]


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__)
def known(request):
    known = request.param()
    yield known
    assert hooks_on(known.model) == []


def words(known, row) -> str:
    return known.model.tokenizer.decode(row, skip_special_tokens=True)


# The claims.


def test_all_that_is_claimed_holds(known):
    claims = check(known)
    assert claims["all answers are right"] == 1
    assert len(claims) > len(known.nodes) + len(known.edges)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_the_same_circuits_hold_where_attention_is_soft(make):
    check(make(sharpness=8))


def test_prompts_are_all_there_and_say_what_they_ask(known):
    rows = [*zip(known.prompts.tolist(), known.counterfactuals.tolist(), strict=True)]
    assert len({(*one, *other) for one, other in rows}) == len(rows) == len(known.answers)
    assert (known.answers != known.foils).all()
    assert {node.role for node in known.nodes} <= set(known.roles)


def test_prompts_are_counted_as_a_reader_would():
    sizes = {make.__name__: len(make().prompts) for make in MAKERS}
    assert sizes == {
        "induction": 6 * 5 * 4 * 2,  # three letters in order, and which of the first two is repeated
        "copy": 4 * 3 * 4 * 3 * 2,  # two colours, two words, and which comes first
        "gating": 2 * 2 * 2 * 6,  # filler, pair of items, pair of places, and six changes that change the answer
        "indirect_object": 5 * 4 * 2 * 2 * 2,  # IO and S, their order, place, gift
        "flow": 4 * 6,  # the first letter, and the six changes
    }


def test_a_prompt_reads_as_its_docstring_says():
    known = room.indirect_object()
    ann = next(
        i for i in range(160) if "then Bob and Ann met at sea . Bob gave tea to" in words(known, known.prompts[i])
    )
    assert words(known, known.answers[ann]) == "Ann"
    assert words(known, known.foils[ann]) == "Bob"
    role = {name: words(known, known.prompts[ann, at[ann]]) for name, at in known.roles.items()}
    assert role == {"IO": "Ann", "S1": "Bob", "S2": "Bob", "end": "to"}


def test_the_truth_is_a_graph_from_the_words_to_the_answer(known):
    embedding, readout = known.nodes[0].part, known.nodes[-1]
    reached = {node for node in known.nodes if node.part == embedding}
    for _ in known.nodes:
        reached |= {edge.target for edge in known.edges if edge.source in reached}
    assert reached == set(known.nodes)
    assert {edge.source for edge in known.edges} == set(known.nodes) - {readout}
    used = {node.part for node in known.nodes}
    assert used.isdisjoint(known.irrelevant)
    heads = known.model.cfg.n_layers * known.model.cfg.n_heads
    assert sum(part.site.stream == "z" for part in used | set(known.irrelevant)) == heads


# The model itself, without the second forward.


def ablated(known, node, value):
    """The last logits of the model with one node replaced, by edits of the model."""
    at = (torch.arange(known.prompts.shape[1]) == known.roles[node.role][:, None])[..., None]
    site, edit = node.part.site, lambda acts, context: torch.where(at, value, acts)
    if node.part.neuron is not None:  # what is before it is as it was, so that its own value is as recorded
        change = (value - activity(known, known.prompts, node)) * known.model.W_out[site.layer, node.part.neuron]
        edit = lambda acts, context: acts + at * change  # noqa: E731
    with edited(known.model, {site: edit}):
        return known.model(known.prompts)[:, -1]


def activity(known, prompts, node):
    site, neuron = node.part.site, node.part.neuron
    if neuron is None:
        return record(known.model, prompts, [site])[site]
    read = Site(site.layer, "mlp_in")
    x = record(known.model, prompts, [read])[read]
    return (x @ known.model.W_in[site.layer, :, neuron, None] + known.model.b_in[site.layer, neuron]).relu()


def test_edits_of_the_model_do_what_the_second_forward_does(known):
    *nodes, _ = known.nodes
    means = {part: acts.mean(0, keepdim=True) for part, acts in by_paths(known.model, known.counterfactuals)[0].items()}
    for node in nodes:
        logits = ablated(known, node, activity(known, known.counterfactuals, node).mean(0))
        at = (torch.arange(known.prompts.shape[1]) == known.roles[node.role][:, None])[:, None]
        paths = {(node.part, part, channel): at for part in parts(known) for channel in ("query", "key", "value", "in")}
        torch.testing.assert_close(logits, by_paths(known.model, known.prompts, means, paths)[1])
        others = logits.scatter(1, known.answers[:, None], -torch.inf).amax(1)
        lead = logits.gather(1, known.answers[:, None])[:, 0] - others
        assert (lead < 0.5).float().mean() >= 0.5, node


def parts(known):
    return {*known.irrelevant, *(node.part for node in known.nodes)}


def test_without_the_irrelevant_parts_the_logits_are_the_very_same(known):
    gone = {part.site: lambda acts, context: acts * 0 for part in known.irrelevant if part.neuron is None}
    clean = known.model(known.prompts)
    before = record(known.model, known.prompts, list(gone))
    assert all(acts.abs().max() > 0 for acts in before.values()), "a part that plays no part is busy all the same"
    with edited(known.model, gone):
        assert torch.equal(known.model(known.prompts)[:, -1], clean[:, -1])


def test_attention_is_all_or_nothing_unless_it_is_to_be_soft():
    sites = [Site(0, "pattern", 1), Site(1, "pattern", 2)]
    hard, soft = (record((known := room.induction(sharpness=s)).model, known.prompts, sites) for s in (256, 8))
    assert all(set(pattern.unique().tolist()) == {0.0, 1.0} for pattern in hard.values())
    assert all(0.5 < pattern.amax(-1).min() < 1 for pattern in soft.values())


def test_soft_attention_passes_a_gradient_to_its_keys():
    for sharpness, passes in ((256, False), (8, True)):
        known = room.induction(sharpness=sharpness)
        site = Site(0, "z", 1)
        acts = record(known.model, known.prompts, [site])[site].requires_grad_()
        logits = resume(known.model, site, acts, tokens=known.prompts)[:, -1]
        (gradient,) = torch.autograd.grad(logits.gather(1, known.answers[:, None]).sum(), acts)
        assert bool(gradient.abs().max() > 1e-3) == passes


# The check can fail.


def state(known, name):
    return known.model.state_dict()[name]


def forget_the_previous_token(known):
    state(known, "blocks.0.attn.o.weight")[:, 64:128] = 0


def let_a_distractor_answer(known):
    o = state(known, "blocks.1.attn.o.weight")
    o[:, 64:128] = o[:, 128:]


def answer_to_either(known):
    state(known, "blocks.1.mlp.in.bias")[2] = -3


def inhibit_nothing(known):
    state(known, "blocks.1.attn.o.weight")[:, :64] = 0


def forget_to_turn(known):
    state(known, "blocks.2.mlp.in.weight")[0] = 0


@pytest.mark.parametrize(
    ("make", "damage", "claims"),
    [
        (room.induction, forget_the_previous_token, ["all answers are right (0% right)"]),
        (
            room.induction,
            let_a_distractor_answer,
            [
                "without the irrelevant parts no logit changes",
                "without 1.z.1 → in of 1.resid_post the behaviour is kept",
            ],
        ),
        (room.gating, answer_to_either, ["all answers are right"]),
        (room.indirect_object, inhibit_nothing, ["all answers are right (0% right)"]),
        (room.flow, forget_to_turn, ["all answers are right (50% right)"]),
    ],
)
def test_one_damaged_weight_is_found_out(make, damage, claims):
    known = make()
    damage(known)
    with pytest.raises(AssertionError) as caught:
        check(known)
    failed = str(caught.value)
    assert failed.startswith(known.name)
    assert all(claim in failed for claim in claims)


def test_one_false_word_about_a_model_is_found_out():
    known = room.copy()
    first, *fewer = known.edges
    extra = replace(first, source=replace(first.source, role="other"), channel="key")
    for edges, message in (
        (
            (*known.edges, extra),
            "without 0.resid_pre at other → key of 0.z.1 at ask the behaviour is broken (100% right)",
        ),
        (fewer, "without all other connections the behaviour is kept (0% right)"),
    ):
        with pytest.raises(AssertionError) as caught:
            check(replace(known, edges=tuple(edges)))
        assert message in str(caught.value)
    idle = Node(known.irrelevant[0], "ask")
    with pytest.raises(AssertionError) as caught:
        check(replace(known, nodes=(idle, *known.nodes)))
    assert "1 of" in str(caught.value)
    assert "without 0.z.0 at ask the behaviour is broken (100% right)" in str(caught.value)
    with pytest.raises(AssertionError, match="without all other nodes the behaviour is kept"):
        check(replace(known, nodes=tuple(node for node in known.nodes if node.role != "marked")))


# Ordinary models.


def test_a_model_resumes_from_every_site(known):
    model, rows = known.model, known.prompts[:7]
    clean = model(rows)
    streams = ["resid_pre", "pattern", "z", "attn_out", "resid_post"]
    streams += [] if model.cfg.attn_only else ["resid_mid", "mlp_in", "mlp_out"]
    sites = [Site(layer, stream) for layer in range(model.cfg.n_layers) for stream in streams]
    acts = record(model, rows, sites)
    for site in sites:
        assert torch.equal(resume(model, site, acts[site], tokens=rows), clean), site
        with edited(model, {site: lambda acts, context: acts}):
            assert torch.equal(model(rows), clean)


def test_a_counterfactual_patched_in_whole_gives_its_logits(known):
    site = Site(0, "resid_pre")
    other = record(known.model, known.counterfactuals, [site])[site]
    logits = resume(known.model, site, other, tokens=known.prompts)
    assert torch.equal(logits, known.model(known.counterfactuals))


def test_a_model_generates_its_answers_and_reads_words(known):
    text = words(known, known.prompts[0])
    tokens = tokenize(known.model, text)
    assert torch.equal(tokens, known.prompts[:1])
    (token,) = generate(known.model, tokens, max_new_tokens=1, temperature=0)
    assert token.id == known.answers[0]
    assert token.text.strip() == words(known, known.answers[:1])


def test_induction_goes_on():
    model = room.induction().model
    text = "".join(token.text for token in generate(model, tokenize(model, "D A F D"), max_new_tokens=3, temperature=0))
    assert text.split() == ["A", "F", "D"]


def test_a_sharpness_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"sharpness must be more than 0 \(8 is soft, 256 exact\), got -1"):
        room.copy(sharpness=-1)


# Flow.


@pytest.fixture(scope="module")
def flow():
    return room.flow()


def test_dictionaries_rebuild_every_site_exactly(flow):
    assert set(flow.dictionaries) == {Site(0, "resid_pre")} | {
        Site(layer, stream) for layer in range(3) for stream in ("attn_out", "mlp_out", "resid_post")
    }
    acts = record(flow.model, flow.prompts, list(flow.dictionaries))
    clean = flow.model(flow.prompts)
    for site, dictionary in flow.dictionaries.items():
        codes = dictionary.encode(acts[site])
        assert torch.equal(dictionary.decode(codes), acts[site]), site
        assert torch.equal(codes.values, codes.values.round()), "codes are whole numbers"
        never = [i for i, name in enumerate(dictionary.provenance["features"]) if name.startswith("never")]
        assert len(never) == 2
        assert not codes.fired[never].any()
    spliced = {site: splice(dictionary, error="drop") for site, dictionary in flow.dictionaries.items()}
    with edited(flow.model, spliced):
        assert torch.equal(flow.model(flow.prompts), clean)


def test_no_direction_lies_along_an_axis_and_no_order_is_kept(flow):
    for dictionary in flow.dictionaries.values():
        assert dictionary.W_dec.abs().amax(1).max() < 0.5
        torch.testing.assert_close(dictionary.W_dec.norm(dim=1), torch.ones(dictionary.n_features))
    names = [flow.dictionaries[Site(layer)].provenance["features"] for layer in range(3)]
    shared = [name for name in names[0] if not name.startswith("never") and name in names[1]]
    assert [names[1].index(name) for name in shared] != [names[0].index(name) for name in shared]
    other = room.flow(seed=1).dictionaries[Site(0)].provenance["features"]
    assert sorted(other) == sorted(names[0])
    assert other != names[0]


def test_cosines_of_decoders_find_every_origin(flow):
    found = {"carried": (True, False, False), "attn": (False, True, False), "mlp": (False, False, True)}
    found |= {"processed": (True, False, True), "unexplained": (False, False, False)}
    assert {event.kind for event in flow.events} == {*found, "died"}
    for event in flow.events:
        layer, direction = event.feature.site.layer, flow.dictionaries[event.feature.site].W_dec[event.feature.id]
        if event.kind == "died":
            assert (flow.dictionaries[Site(layer + 1)].W_dec @ direction).abs().max() < 1e-6
            continue
        places = [Site(layer - 1) if layer else Site(0, "resid_pre"), Site(layer, "attn_out"), Site(layer, "mlp_out")]
        cosines = [flow.dictionaries[place].W_dec @ direction for place in places]
        best = [Feature(place, int(c.argmax())) for place, c in zip(places, cosines, strict=True)]
        near = tuple(bool(c.max() >= 0.5) for c in cosines)
        assert near == found[event.kind], event
        assert tuple(feature for feature, is_near in zip(best, near, strict=True) if is_near) == event.sources


def test_every_feature_of_the_stream_has_its_story(flow):
    for layer in range(3):
        told = [event for event in flow.events if event.feature.site == Site(layer) and event.kind != "died"]
        assert [e.feature.id for e in sorted(told, key=lambda e: e.feature.id)] == [
            *range(flow.dictionaries[Site(layer)].n_features)
        ]
        assert all(flow.dictionaries[Site(layer)].provenance["features"][e.feature.id] == e.name for e in told)
    died = {event.name for event in flow.events if event.kind == "died"}
    assert died == {f"{letter} before" for letter in "abcd"}


def false_stories(known) -> list[str]:
    """The features that are not the sum of their sources alone, or that stay when a source is switched off."""
    acts = record(known.model, known.prompts, list(known.dictionaries))
    codes = {site: dictionary.encode(acts[site]).dense() for site, dictionary in known.dictionaries.items()}
    false = []
    for event in known.events:
        died, (site, i) = event.kind == "died", event.feature
        block, direction, code = site.layer + died, known.dictionaries[site].W_dec[i], codes[site][..., i]
        came = Site(block - 1) if block else Site(0, "resid_pre")
        given = {
            Feature(place, j): codes[place][..., j] * (known.dictionaries[place].W_dec[j] @ direction)
            for place in (came, Site(block, "attn_out"), Site(block, "mlp_out"))
            for j in range(known.dictionaries[place].n_features)
        }
        own = {*event.sources, event.feature} & set(given)
        total = sum((given.pop(feature) for feature in own), start=torch.zeros_like(code))
        if not torch.equal(total, code * (not died)) or any(gift.abs().max() > 0 for gift in given.values()):
            false.append(f"{event.kind}: {event.name}")
        for source in event.sources:
            now = without(known, source, Site(block)) @ direction
            # A death undone leaves the feature; else the feature goes, or half of it where there are two sources.
            right = now == code if died else now <= code / len(event.sources)
            if not right[code > 0].all():
                false.append(f"{event.kind}: {event.name} without {source}")
    return false


def without(known, feature, site):
    """The activations at a site with a feature of another switched off."""

    def off(codes):
        return Codes(codes.values * (codes.indices != feature.id), codes.indices, codes.n_features)

    with edited(known.model, {feature.site: splice(known.dictionaries[feature.site], change=off)}):
        return record(known.model, known.prompts, [site])[site]


def test_every_feature_is_the_sum_of_its_sources_and_goes_with_them(flow):
    assert false_stories(flow) == []


def test_a_false_story_is_found_out():
    known = room.flow()
    state(known, "blocks.2.mlp.out.weight")[:, 1] /= 2  # erases half
    assert any(story.startswith("died: a before") for story in false_stories(known))
    known = room.flow()
    event = next(event for event in known.events if event.kind == "processed")
    false = replace(known, events=(replace(event, sources=event.sources[:1]),))
    assert false_stories(false) == ["processed: a b"]
