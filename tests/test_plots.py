"""Figures say in words what their data say, and show once."""

import base64
from itertools import pairwise
from math import nan

import pytest
import torch
from matplotlib.colors import to_hex, to_rgb

from workbench.plots import (
    above,
    bars,
    dose_response,
    falls,
    heatmap,
    lines,
    next_tokens,
    ordered,
    peaks,
    rises,
    steady,
    token_bars,
    within,
)
from workbench.plots.axes import BLUE, INK, VERMILION

WORDS = [f"w{i}" for i in range(12)]


def distribution(*first: float) -> torch.Tensor:
    rest = (1 - sum(first)) / (len(WORDS) - len(first))
    return torch.tensor([*first] + [rest] * (len(WORDS) - len(first)))


def test_next_tokens_says_whether_the_model_is_right():
    same = next_tokens(WORDS, distribution(0.5, 0.3), distribution(0.5, 0.3), top=2)
    assert "likeliest next token is 'w0', the likeliest in truth; 2 of its 2 likeliest" in same.alt
    assert "largest error is below 0.01" in same.alt
    off = next_tokens(WORDS, distribution(0.5, 0.3), distribution(0.1, 0.6), top=2)
    assert "'w0', not the likeliest in truth" in off.alt
    assert "below 0.5, at 'w0'" in off.alt


def test_words_that_are_equally_likely_are_all_the_likeliest():
    exact = distribution(0.25, 0.25, 0.25)
    plot = next_tokens(WORDS, distribution(0.2, 0.3, 0.28), exact, top=3)
    assert "'w1', one of the 3 that are equally likely in truth; 3 of its 3" in plot.alt


def test_next_tokens_draws_both_series_of_the_union():
    model, exact = distribution(0.0, 0.4), distribution(0.6, 0.1)
    axes = next_tokens(WORDS, model, exact, top=2).figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["w0", "w1"]
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx([0.0, 0.4, 0.6, 0.1])


def test_token_bars_counts_signs_and_names_the_strongest():
    plot = token_bars(["a", "b", "c", "d"], torch.tensor([0.0, 1.0, -3.0, 2.0]), axis="score")
    assert plot.alt == "The score is above 0 at 2 and below 0 at 1 of 4 tokens; strongest at 'c' (token 2)."
    assert token_bars(["a"], torch.zeros(1)).alt == "The activation is 0 at all 1 tokens."


def test_dose_response_says_where_the_effect_leaves_the_band():
    strengths = torch.tensor([-1.0, 0.0, 1.0, 2.0])
    control = torch.tensor([[0.1, 0.1, 0.1, 0.1], [0.0, 0.2, 0.2, 0.2]])
    plot = dose_response(strengths, torch.tensor([0.05, 0.1, 0.4, 0.5]), control)
    assert plot.alt == (
        "The share of target words rises from the lowest strength to the highest and is highest at +2; "
        "it is above all 2 random directions at +1, +2."
    )
    flat = dose_response(strengths, torch.tensor([0.2, 0.1, 0.1, 0.1]), control)
    assert "does not rise" in flat.alt
    assert "directions at −1." in flat.alt
    none = dose_response(strengths, torch.zeros(4), control)
    assert "at no strength." in none.alt


@pytest.mark.usefixtures("as_user")
def test_bad_data_are_met_by_a_sentence():
    with pytest.raises(ValueError, match="got 12 words, 3 of the model and 12 exact ones"):
        next_tokens(WORDS, torch.ones(3), torch.ones(12))
    with pytest.raises(ValueError, match=r"top must lie in 1\.\.12"):
        next_tokens(WORDS, torch.ones(12), torch.ones(12), top=13)
    with pytest.raises(ValueError, match="1 to 64 tokens with one value each, got 2 tokens and 3 values"):
        token_bars(["a", "b"], torch.ones(3))
    with pytest.raises(ValueError, match="in rising order"):
        dose_response(torch.tensor([1.0, 0.0]), torch.ones(2), torch.ones(1, 2))


def test_a_plot_shows_its_picture_and_its_line(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: shown.append(data))
    plot = token_bars(["<b>", "b"], torch.tensor([2.0, 1.0]))
    plot._ipython_display_()
    picture, line = shown
    assert base64.b64decode(picture["image/png"]).startswith(b"\x89PNG")
    assert picture["text/plain"] == line["text/plain"] == repr(plot) == plot.alt
    assert "&lt;b&gt;" in line["text/html"]


def contrast(*colours):
    def luminance(colour):
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    dark, light = sorted(map(luminance, colours))
    return (light + 0.05) / (dark + 0.05)


def test_colours_stand_out_from_white_and_from_black():
    for ground in ("#ffffff", "#111111"):
        for colour, least in [(INK, 4.3), (BLUE, 3.0), (VERMILION, 3.0)]:
            assert contrast(ground, colour) >= least


def test_drawing_leaves_no_figure_open():
    import matplotlib.pyplot

    before = matplotlib.pyplot.get_fignums()
    token_bars(["a"], torch.ones(1)).png()
    assert matplotlib.pyplot.get_fignums() == before


def test_next_tokens_of_a_model_whose_truth_nobody_knows():
    plot = next_tokens(["a", "b", "c"], torch.tensor([0.2, 0.7, 0.1]), top=2)
    assert plot.alt == "The model's likeliest next token is 'b'; then come 'a'."
    assert len(plot.figure.axes[0].patches) == 2


def test_bars_say_where_each_series_is_highest_and_lowest():
    plot = FIGURES["bars"]()
    assert plot.alt == "'variance explained' is highest at 'linear' and lowest at 'xor'; 'accuracy' hardly differs."
    tied = bars(list("abcd"), {"x": torch.tensor([0.5, 0.9, 0.8999, 0.1]), "y": torch.tensor([1.0, 1, 1, 0])}, axis="z")
    assert tied.alt == (
        "'x' is highest at 'b' and at 'c' and lowest at 'd'; 'y' is highest at 3 of 4 places and lowest at 'd'."
    )


def test_bars_tell_their_series_apart_and_name_them_where_there_are_several():
    three = {name: torch.rand(2) for name in ("one", "two", "three")}
    axes = bars(["a", "b"], three, axis="share", top=1.0).figure.axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(three)
    looks = [(group[0].get_facecolor(), group[0].get_edgecolor()) for group in axes.containers]
    assert [(face[3], to_rgb(edge)) for face, edge in looks] == [
        (1, to_rgb(BLUE)),
        (0, to_rgb(VERMILION)),
        (1, to_rgb(INK)),
    ]
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches)
    assert all(right < left for (_, right), (left, _) in pairwise(edges)), "bars overlap"
    assert axes.get_ylim() == (0, 1)
    alone = bars(["a"], {"x": torch.tensor([2.0])}, axis="share", top=1.0).figure.axes[0]
    assert alone.get_legend() is None
    assert alone.get_ylim()[1] == 2.0, "no bar is cut"


def test_names_are_slanted_where_they_are_many_or_long():
    for names, slanted in [(["a", "b"], False), (list("abcdefghi"), True), (["a" * 30] * 3, True)]:
        axes = bars(names, {"x": torch.ones(len(names))}, axis="share").figure.axes[0]
        assert [bool(label.get_rotation()) for label in axes.get_xticklabels()] == [slanted] * len(names)


@pytest.mark.parametrize("seed", range(4))
def test_a_heatmap_names_the_cell_that_was_planted_highest(seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(4, 4, generator=generator) - 0.5
    row, column = torch.randperm(4, generator=generator)[:2].tolist()
    values[row, column] = 0.7
    values.fill_diagonal_(1.0)
    names, others = list("abcd"), list("efgh")
    where = f"highest in row {names[row]!r} at {names[column]!r}."
    assert heatmap(values, names, names, axis="cosine").alt == f"Off the diagonal, the cosine is {where}"
    assert heatmap(values, names, others, axis="cosine").alt == "The cosine is highest at 4 of 16 places."
    assert heatmap(torch.eye(2), ["a", "b"], ["a", "b"], axis="cosine").alt.endswith("the cosine hardly differs.")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_every_cell_carries_its_number_in_an_ink_that_reads_on_its_colour(seed, low):
    values = low + (1 - low) * torch.rand(5, 7, generator=torch.Generator().manual_seed(seed))
    values[0, 0] = -0.001 if low else 0.0
    axes = heatmap(values, list("abcde"), list("ABCDEFG"), axis="overlap").figure.axes[0]
    (image,) = axes.images
    assert len(axes.texts) == values.numel()
    assert axes.texts[0].get_text() == "0.00"
    for text in axes.texts:
        column, row = text.get_position()
        number = float(text.get_text().replace("−", "-"))
        assert number == pytest.approx(float(values[row, column]), abs=0.0051)
        assert contrast(text.get_color(), image.cmap(image.norm(values[row, column].item()))[:3]) >= 4.5


def test_the_colours_of_a_heatmap_part_at_zero():
    def colours(values, **ends):
        (image,) = heatmap(torch.tensor([values]), ["a"], list("ABC"), axis="overlap", **ends).figure.axes[0].images
        return [to_hex(image.cmap(image.norm(value))) for value in values]

    assert colours([-0.5, 0.0, 1.0])[2] == BLUE
    assert colours([-2.0, 0.0, 1.0])[2] != BLUE, "equal colours for equal distances from 0"
    assert colours([-0.5, 0.0, 1.0])[1] == colours([0.0, 0.5, 1.0])[0] == colours([0.5, 0.7, 0.9], low=0.5)[0]
    assert colours([-2.0, 0.0, 0.0])[0] == colours([-9.0, 0.0, 1.0], low=-1.0, high=1.0)[0] == VERMILION
    assert len(set(colours([0.0, 0.0, 0.0]))) == 1


def test_lines_say_how_each_of_them_goes():
    bias = {"ReLU": torch.tensor([-0.1, 0.1, 0.2]), "linear": torch.tensor([0.015, 0.0, 0.01])}
    plot = lines(torch.tensor([0.5, 1.0, 4.0]), bias, across="amplitude", axis="bias", log=True)
    assert plot.alt == "With the amplitude, bias rises at every step in 'ReLU' and changes by below 0.02 in 'linear'."
    error = {
        "a": torch.tensor([0.9, 0.5, 0.1]),
        "b": torch.tensor([0.5, 0.105, 0.1]),
        "c": torch.tensor([0.9, 0.1, 0.2]),
        "d": torch.tensor([0.1, 0.4, 0.12]),
    }
    plot = lines(torch.tensor([-1.0, 0.0, 1.0]), error, across="step", axis="error")
    assert plot.alt == (
        "With the step, error falls at every step in 'a' and falls on the whole in 'b' and 'c' "
        "and changes by below 0.5 in 'd'."
    )


FIGURES = {
    "next_tokens": lambda: next_tokens(["a", "b"], torch.tensor([0.7, 0.3]), torch.tensor([0.6, 0.4]), top=2),
    "token_bars": lambda: token_bars(["a", "b", "c"], torch.tensor([1.0, -2.0, 3.0]), axis="score"),
    "dose_response": lambda: dose_response(torch.arange(3.0), torch.tensor([0.1, 0.4, 0.5]), torch.full((2, 3), 0.2)),
    "bars": lambda: bars(
        ["linear", "xor"],
        {"variance explained": torch.tensor([0.4, 0.1]), "accuracy": torch.tensor([1.0, 0.995])},
        axis="share",
        top=1.0,
    ),
    "alone": lambda: bars(["a"], {"x": torch.tensor([0.5])}, axis="share"),
    "heatmap": lambda: heatmap(
        torch.tensor([[0.9, 0.1, 0.2], [0.05, -0.8, 0.02]]), ["linear", "xor"], ["a", "b", "c"], axis="overlap"
    ),
    "lines": lambda: lines(
        torch.tensor([0.5, 1.0, 2.0]),
        {"ReLU": torch.tensor([-0.1, 0.1, 0.2]), "linear": torch.tensor([0.02, 0.01, 0.015])},
        across="amplitude",
        axis="bias",
        log=True,
    ),
}
TRUE = [
    ("next_tokens", peaks("model", "a")),
    ("next_tokens", above("model", "exact", by=0.05, at=["a"])),
    ("token_bars", peaks("score", "c")),
    ("token_bars", ordered("score", "c", "a", "b")),
    ("dose_response", rises("this direction")),
    ("dose_response", above("this direction", "highest random direction", at=["1", "2"])),
    ("bars", ordered("variance explained", "linear", "xor", times=3.0)),
    ("bars", within("accuracy", 0.99, 1.0)),
    ("bars", within("variance explained", high=0.2, at=["xor"])),
    ("bars", above("accuracy", "variance explained", by=0.5)),
    ("bars", falls("variance explained")),
    ("heatmap", peaks("linear", "a")),
    ("heatmap", within("xor", high=0.1)),
    ("heatmap", above("linear", "xor", by=0.04)),
    ("lines", rises("ReLU")),
    ("lines", steady("linear", within=0.02)),
]
each_true_claim = pytest.mark.parametrize(("figure", "claim"), TRUE, ids=lambda x: getattr(x, "text", x))


def corrupt(plot, change):
    """Change what the figure draws, and not the data it was made of."""
    axes = plot.figure.axes[0]
    for group in axes.containers:
        flat = group.orientation == "horizontal"
        sizes = change([bar.get_width() if flat else bar.get_height() for bar in group])
        for bar, size in zip(group, sizes, strict=True):
            bar.set_width(size) if flat else bar.set_height(size)
    for image in axes.images:
        image.set_data([change(row) for row in image.get_array().tolist()])
    for line in axes.get_lines():
        line.set_ydata(change(list(line.get_ydata())))


@each_true_claim
def test_a_claim_that_is_true_returns_the_same_plot(figure, claim):
    plot = FIGURES[figure]()
    assert plot.claims(claim) is plot


@each_true_claim
@pytest.mark.parametrize(
    "change",
    [
        lambda values: [2 - 3 * value for value in values],
        lambda values: [float("nan")] * len(values),
    ],
    ids=["turned round", "lost"],
)
def test_a_claim_fails_when_what_is_drawn_is_corrupted(figure, claim, change):
    plot = FIGURES[figure]()
    corrupt(plot, change)
    with pytest.raises(AssertionError) as failure:
        plot.claims(claim)
    assert str(failure.value).startswith(f"{plot.alt} But it does not hold that {claim.text}. Drawn are ")


@pytest.mark.parametrize(
    ("figure", "claim"),
    [
        ("next_tokens", peaks("exact", "b")),
        ("token_bars", ordered("score", "c", "a", times=4.0)),
        ("alone", steady("x", within=1.0)),
        ("alone", peaks("x", "a")),
        ("alone", rises("x")),
        ("alone", falls("x")),
        ("dose_response", above("this direction", "highest random direction")),
        ("bars", rises("accuracy")),
        ("bars", within("variance explained", low=0.2)),
        ("bars", within("variance explained", high=0.3, at=["linear"])),
        ("bars", within("variance explained", high=0.3)),
        ("heatmap", within("linear", high=0.1)),
        ("heatmap", peaks("xor", "c")),
        ("lines", falls("ReLU")),
        ("lines", steady("linear", within=0.005)),
    ],
    ids=lambda x: getattr(x, "text", x),
)
def test_a_claim_that_is_false_fails(figure, claim):
    with pytest.raises(AssertionError, match="does not hold"):
        FIGURES[figure]().claims(claim)


def test_for_another_model_the_measurement_is_printed_and_nothing_asserted(capsys):
    plot = FIGURES["bars"]()
    assert plot.claims(rises("variance explained"), asserted=False) is plot
    assert capsys.readouterr().out == (
        "not asserted, and does not hold here: 'variance explained' rises at every step. "
        "Drawn are variance explained: linear 0.4, xor 0.1.\n"
    )


def test_all_claims_of_one_call_are_asserted():
    plot = FIGURES["lines"]()
    with pytest.raises(AssertionError, match="'linear' rises"):
        plot.claims(rises("ReLU"), rises("linear"))


def test_what_is_drawn_can_be_read_with_its_places():
    assert FIGURES["next_tokens"]().drawn("exact").to_dict() == pytest.approx({"a": 0.6, "b": 0.4})
    assert FIGURES["dose_response"]().drawn("lowest random direction").index.tolist() == ["0", "1", "2"]
    assert FIGURES["lines"]().drawn("ReLU").to_dict() == pytest.approx({"0.5": -0.1, "1": 0.1, "2": 0.2})
    assert FIGURES["heatmap"]().drawn("xor").to_dict() == pytest.approx({"a": 0.05, "b": -0.8, "c": 0.02})
    shown = [text.get_text() for text in FIGURES["dose_response"]().figure.axes[0].get_legend().get_texts()]
    assert shown == ["random directions", "this direction"]


@pytest.mark.usefixtures("as_user")
def test_claims_and_data_that_make_no_sense_are_met_by_a_sentence():
    plot = FIGURES["bars"]()

    def over(x, log=False, **lengths):
        series = {name: torch.ones(length) for name, length in lengths.items()}
        return lines(torch.tensor(x), series, across="time", axis="y", log=log)

    for wrong, match in [
        (lambda: plot.claims(), "at least one claim"),
        (lambda: plot.claims(rises("shares")), "no series 'shares'; it draws 'variance explained', 'accuracy'"),
        (lambda: plot.claims(peaks("accuracy", "XOR")), "drawn at 'linear', 'xor': 0 times at 'XOR', and not once"),
        (lambda: within("accuracy"), r"within\('accuracy'\) holds of any numbers; give low, high or both"),
        (lambda: within("accuracy", 0.5, at=[]), r"1 or more places, in a list, or of all; got \[\]"),
        (lambda: above("accuracy", "variance explained", at=[]), r"1 or more places.*got \[\]"),
        (lambda: above("accuracy", "variance explained", at="xor"), r"1 or more places, in a list, .*got 'xor'"),
        (lambda: ordered("accuracy", "xor"), r"2 or more places.*got \('xor',\)"),
        (lambda: bars(["a"], {"x": torch.ones(2)}, axis="y"), "for each; got 1 labels, 2 of 'x'"),
        (lambda: bars(["a"], {}, axis="y"), "1 to 3 series with a number for each; got 1 labels"),
        (lambda: bars(["a"], dict.fromkeys("vwxy", torch.ones(1)), axis="y"), "1 to 3 series"),
        (lambda: bars([], {"x": torch.ones(0)}, axis="y"), "1 or more labels"),
        (lambda: bars(["a", "b"], {"x": torch.tensor([1.0, nan])}, axis="y"), "numbers of 'x' must be finite, and 1 "),
        (lambda: heatmap(torch.ones(1, 2), ["a"], ["b"], axis="y"), r"got values of \(1, 2\), 1 row names and 1 col"),
        (lambda: heatmap(torch.ones(1, 17), ["a"], ["b"] * 17, axis="y"), "1 to 16 rows and columns"),
        (lambda: heatmap(torch.ones(2, 1), ["a", "a"], ["b"], axis="y"), "rows need different names"),
        (lambda: heatmap(torch.tensor([[nan]]), ["a"], ["b"], axis="y"), "values must be finite, and 1 are not"),
        (lambda: heatmap(torch.ones(1, 1), ["a"], ["b"], axis="y", low=2), "low must be below high.*got 2 and 1"),
        (lambda: over([0.0, 1.0], a=2, log=True), "two or more rising numbers above 0, got time"),
        (lambda: over([1.0, 0.0], a=2), "two or more rising numbers, got time"),
        (lambda: over([1.0, 2.0], a=3), "1 to 4 lines have 2 numbers each, one for each place; got 3 of .a."),
        (lambda: over([1.0, 2.0]), "got none"),
    ]:
        with pytest.raises(ValueError, match=match):
            wrong()
