"""Figures say in words what their data say, and show once."""

import base64

import pytest
import torch
from matplotlib.colors import to_rgb

from workbench import plots
from workbench.plots import dose_response, next_tokens, token_bars

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


def test_colours_stand_out_from_white_and_from_black():
    def luminance(colour):
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    for ground in ("#ffffff", "#111111"):
        for colour, least in [(plots.INK, 4.3), (plots.BLUE, 3.0), (plots.VERMILION, 3.0)]:
            pair = sorted([luminance(ground), luminance(colour)])
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= least


def test_drawing_leaves_no_figure_open():
    import matplotlib.pyplot

    before = matplotlib.pyplot.get_fignums()
    token_bars(["a"], torch.ones(1)).png()
    assert matplotlib.pyplot.get_fignums() == before


def test_next_tokens_of_a_model_whose_truth_nobody_knows():
    plot = next_tokens(["a", "b", "c"], torch.tensor([0.2, 0.7, 0.1]), top=2)
    assert plot.alt == "The model's likeliest next token is 'b'; then come 'a'."
    assert len(plot.figure.axes[0].patches) == 2
