"""The dashboard of one feature: when it is active, on what, beside what, and to what effect.

What is shown is put in words here, one feature at a time, and drawn by the page. Examples are grouped by true
quantiles of the feature's activations or, where that is chosen, by equal steps of strength; each says which it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import ipywidgets
import pandas as pd
import traitlets
from typing_extensions import override

from workbench.features import Example, Feature, FeatureSet
from workbench.views.base import Panel, View, es_module, legible, rounded, style_sheet
from workbench.views.curves import blocks
from workbench.views.jobs import guarded
from workbench.views.tokens import static_tokens, visible


@dataclass(frozen=True)
class Fact:
    """One number in words."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Bars:
    """A distribution."""

    title: str
    heights: Sequence[float]
    """Shares of the tallest."""
    names: Sequence[str]
    """Each bar in words."""
    ends: Sequence[str]
    """What stands under the first and the last."""


@dataclass(frozen=True)
class Texts:
    """Examples under a heading."""

    title: str
    rows: Sequence[dict[str, Any]]
    """``title``, ``tokens``, ``values``, as in a ``TokenView``."""


@dataclass(frozen=True)
class Section:
    """One choice of examples."""

    name: str
    note: str
    """How they were chosen."""
    groups: Sequence[Texts]


@dataclass(frozen=True)
class Listing:
    """A short table."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    features: Sequence[int] = ()
    """The feature that each row opens, if they are features."""


@dataclass(frozen=True)
class Card:
    """All that the dashboard shows of one feature."""

    number: int
    title: str
    flags: Sequence[str]
    facts: Sequence[Fact]
    bars: Sequence[Bars]
    sections: Sequence[Section]
    listings: Sequence[Listing]
    scale: float
    """The activation that is shaded most."""


def feature_dashboard(features: FeatureSet, number: int = 0) -> "FeatureDashboard":
    """Return a widget that shows feature ``number``, and any other from there."""
    return FeatureDashboard(features, features[number].number)


class FeatureView(View):
    """One feature of a set; setting ``number`` shows another."""

    number = traitlets.Int().tag(sync=True)
    card = traitlets.Dict().tag(sync=True)
    section = traitlets.Int(0).tag(sync=True)
    """Which choice of examples is open."""

    _esm = es_module("grid.js", "feature.js")
    _css = style_sheet("grid.css", "feature.css")

    def __init__(self, features: FeatureSet, number: int) -> None:
        self.features = features
        super().__init__(number=number, card=asdict(card(features[number])))
        self.observe(self._on_number, names="number")

    @traitlets.validate("number")
    def _is_a_feature(self, proposal: dict[str, Any]) -> int:
        return numbered(proposal["value"], len(self.features))

    @traitlets.validate("section")
    def _is_a_section(self, proposal: dict[str, Any]) -> int:
        if proposal["value"] not in range(3):
            raise traitlets.TraitError(f"The examples are numbered 0 to 2, got {proposal['value']}.")
        return proposal["value"]

    @guarded
    def _on_number(self, change: Any) -> None:
        self.card = asdict(card(self.features[self.number]))

    @override
    def export_state(self) -> dict[str, Any]:
        return {**self.state(), "alone": True}  # nobody there to open another

    @override
    def describe(self) -> str:
        facts = [f"{one['label'].lower()} {one['value']} {one['note']}" for one in self.card["facts"]]
        return "; ".join([*self._heading(), *facts])

    def _heading(self) -> list[str]:
        return [self.card["title"], *self.card["flags"]]

    @override
    def static_html(self) -> str:
        facts = "".join(
            f"<div>{escape(one['label'])}: <b>{escape(one['value'])}</b> {escape(one['note'])}</div>"
            for one in self.card["facts"]
        )
        bars = "".join(map(_static_bars, self.card["bars"]))
        sections = self.card["sections"]
        rows = [row for group in sections[self.section]["groups"] for row in group["rows"]][:5] if sections else []
        examples = static_tokens(rows, self.card["scale"])
        listings = "".join(map(_static_listing, self.card["listings"]))
        return (
            f'{self.static_error()}<div style="font-weight:600">{escape(" · ".join(self._heading()))}</div>{facts}'
            f'{bars}<div style="margin:8px 0">{examples}</div>{listings}'
        )


class FeatureDashboard(Panel):
    """The widget that ``feature_dashboard`` returns."""

    def __init__(self, features: FeatureSet, number: int) -> None:
        self.view = FeatureView(features, number)
        last = len(features) - 1
        self.previous = ipywidgets.Button(description="Previous", tooltip="Show the feature before")
        self.next = ipywidgets.Button(description="Next", tooltip="Show the feature after")
        self.number = ipywidgets.BoundedIntText(description="Feature", min=0, max=last, value=number)
        super().__init__([ipywidgets.HBox([self.number, self.previous, self.next]), self.view], self.view)
        self.add_class("workbench-feature")
        traitlets.link((self.view, "number"), (self.number, "value"))
        traitlets.dlink((self.view, "number"), (self.previous, "disabled"), lambda n: n == 0)
        traitlets.dlink((self.view, "number"), (self.next, "disabled"), lambda n: n == last)
        self.previous.on_click(self._on_previous)
        self.next.on_click(self._on_next)

    @guarded
    def _on_previous(self, button: ipywidgets.Button) -> None:
        self.view.number = max(self.view.number - 1, 0)

    @guarded
    def _on_next(self, button: ipywidgets.Button) -> None:
        self.view.number = min(self.view.number + 1, self.number.max)

    @override
    def snapshot(self) -> dict[str, Any]:
        return rounded({"number": self.view.number, "card": self.view.card})


def card(feature: Feature) -> Card:
    """Return what the dashboard shows of ``feature``."""
    flags = [name for name, holds in (("dead", feature.dead), ("dense", feature.dense)) if holds]
    title = f"Feature {feature.number} of {len(feature.features)}"
    near = _others("Of like direction", feature, feature.near, "cosine")
    if feature.dead:
        never = Fact("Density", "0", f"never active on {feature.features.rows:,} tokens")
        return Card(feature.number, title, flags, [never], [], [], [near], 1.0)
    strongest = Section("Strongest", "Where it is most active", [Texts("", _rows(feature.top))])
    listings = [*_of_tokens(feature), *_of_labels(feature)]
    listings += [
        _others("In its company", feature, feature.company, "phi"),
        _others("Activations alike", feature, feature.alike, "pearson"),
        near,
    ]
    return Card(
        feature.number,
        title,
        flags,
        list(_facts(feature)),
        [_strengths(feature), _positions(feature)],
        [strongest, *_by_strength(feature)],
        [one for one in listings if one.rows],
        feature.max,
    )


def numbered(number: int, n: int) -> int:
    """Return the number of a feature, if it is one of ``n``."""
    if not 0 <= number < n:
        # This kind, because traitlets then takes the old value back.
        raise traitlets.TraitError(f"Features are numbered 0 to {n - 1}, got {number}.")
    return number


def often(density: float) -> str:
    """Return how often a share of tokens is, by a count that can be pictured."""
    if density > 0.4:
        return f"about {round(10 * density)} in 10"
    return f"about once in {round(1 / density):,}"


def _facts(feature: Feature) -> Iterator[Fact]:
    yield Fact("Density", _percent(feature.density), f"of tokens: {often(feature.density)}")
    yield Fact("Active on", f"{feature.count:,}", f"of {feature.features.rows:,} tokens")
    yield Fact("Activation", f"{feature.max:.3g}", f"at most, {feature.mean:.3g} on average where it is active")
    if "loss_effect" in feature.features.columns:
        loss = _signed(feature.loss_effect)
        yield Fact("Loss without it", f"{loss} nats", "on each token where it is active, to first order")
    for match in feature.matches[:1]:
        note = f"with F1 {match.f1:.2f}, precision {match.precision:.2f}, recall {match.recall:.2f}"
        yield Fact("Best label", legible(match.name, 120), note)


def _strengths(feature: Feature) -> Bars:
    shares = feature.histogram
    lows = [0.0, *shares.index[:-1]]
    names = [
        f"{low:.3g} to {high:.3g}: {_percent(share)}"
        for low, high, share in zip(lows, shares.index, shares, strict=True)
    ]
    return Bars("Activations where it is active", _heights(shares.tolist()), names, ["0", f"{feature.max:.3g}"])


def _positions(feature: Feature) -> Bars:
    places = feature.places
    spans = [
        f"{low}" if low == high else f"{low} to {high}" for low, high in zip(places["from"], places["to"], strict=True)
    ]
    names = [f"position {span}: active on {_percent(of)}" for span, of in zip(spans, places["of_place"], strict=True)]
    return Bars("Share of tokens by position", _heights(places["of_place"].tolist()), names, [spans[0], spans[-1]])


def _heights(values: Sequence[float]) -> list[float]:
    return [round(value / max(*values, 1e-12), 4) for value in values]


def _by_strength(feature: Feature) -> Iterator[Section]:
    notes = {
        "quantile": "Equal shares of its activations, drawn at random from each",
        "interval": "Equal steps of strength, drawn at random from each",
    }
    for by, note in notes.items():
        groups = []
        for group in feature.groups(by):  # type: ignore[arg-type]
            count = f"about {round(group.share * feature.count):,} tokens, {_percent(group.share)}"
            span = f"{group.low:.3g} to {group.high:.3g}"
            groups.append(Texts(f"{group.title} · {span} · {count}", _rows(group.examples)))
        yield Section(f"By {by}", note, groups)


def _rows(examples: Sequence[Example]) -> list[dict[str, Any]]:
    return [
        {
            "title": f"{one.value:.3g} on {visible(legible(one.words[one.at]))} · document {one.doc}, token {one.pos}",
            "tokens": [legible(word) for word in one.words],
            "values": [round(act, 4) for act in one.acts],
        }
        for one in examples
    ]


def _of_tokens(feature: Feature) -> Iterator[Listing]:
    tokens = feature.tokens
    rows = zip(tokens["token"], tokens["share"], tokens["of_token"], strict=True)
    yield Listing(
        "Tokens it is active on",
        ["token", "of its activations", "of the token"],
        [[legible(token), _percent(share), _percent(of)] for token, share, of in rows],
    )
    if "raised" in feature.features.columns:
        logits = feature.logits
        written = [[legible(token), _signed(by)] for token, by in zip(logits["token"], logits["by"], strict=True)]
        half = len(written) // 2
        yield Listing("Raises directly", ["token", "logit per unit"], written[:half])
        yield Listing("Lowers directly", ["token", "logit per unit"], written[half:][::-1])


def _of_labels(feature: Feature) -> Iterator[Listing]:
    rows = [
        [legible(match.name, 120), f"{match.f1:.2f}", f"{match.precision:.2f}", f"{match.recall:.2f}"]
        for match in feature.matches
    ]
    yield Listing("Labels it stands for", ["label", "F1", "precision", "recall"], rows)


def _others(title: str, feature: Feature, others: pd.DataFrame, by: str) -> Listing:
    table = feature.features.table
    kind = "label" if "label" in table else "token"
    numbers = [int(number) for number in others["feature"]]
    rows = [
        [f"{number}", legible(str(table[kind].iloc[number])), f"{score:.2f}".replace("-", "−")]
        for number, score in zip(numbers, others[by], strict=True)
    ]
    return Listing(title, ["feature", kind, by], rows, numbers)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.0995 else f"{100 * share:.0f} %"


def _signed(value: float) -> str:
    return f"{value:+.2g}".replace("-", "−")


def _static_bars(bars: dict[str, Any]) -> str:
    drawn = blocks([(i / len(bars["heights"]), height) for i, height in enumerate(bars["heights"])])
    low, high = map(escape, bars["ends"])
    curve = f'<span style="color:rgb(0,114,178);letter-spacing:-1px">{drawn}</span>'
    return f"<div>{escape(bars['title'])}: {low} {curve} {high}</div>"


def _static_listing(listing: dict[str, Any]) -> str:
    rows = escape(" · ".join(" ".join(row) for row in listing["rows"]))
    title = escape(f"{listing['title']} ({', '.join(listing['head'][1:])})")
    return f'<div style="overflow-wrap:anywhere">{title}: {rows}</div>'
